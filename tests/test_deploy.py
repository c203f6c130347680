"""What stands under `deploy/`: rules and dashboard name what is exported, and nginx passes what it should."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

from cxr.serving.metrics import INVOCATIONS
from tests.cxr.serving.application import JPEG, Told, applications
from tests.cxr.serving.servers import BREAKABLE, save
from tests.helpers import free_port, wait_for

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
RULES, DASHBOARD = DEPLOY / "prometheus/cxr.rules.yml", DEPLOY / "grafana/cxr.json"
NAME = re.compile(r"\bcxr_[a-z_]+\b")
LABELS = re.compile(r'(\w+) *(?:=~|!~|!=|=) *"')


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if not found:
        pytest.skip(f"{name} is not installed (Debian: apt install {'prometheus' if name == 'promtool' else name})")
    return found


def expressions() -> list[str]:
    """Every expression of the rules and of the dashboard."""
    board = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    found += [note["expr"] for note in board["annotations"]["list"]]
    found += [one["definition"] for one in board["templating"]["list"] if "definition" in one]
    return found + re.split(r"\n +- alert: ", RULES.read_text())[1:]


@pytest.fixture
def exported(monkeypatch) -> dict[str, set[str]]:
    """Names of all series that a server exports, with the names of their labels."""
    with applications(monkeypatch) as make:
        app = make(Told()).start()
        app.ask(data=JPEG, kind="image/jpeg")
        found: dict[str, set[str]] = {}
        for line in app.ask("/metrics", method="GET").text.splitlines():
            if not line.startswith("#"):
                name, labels = re.fullmatch(r"(\w+)(?:\{(.*)\})? \S+", line).groups()
                found.setdefault(name, set()).update(LABELS.findall(labels or ""))
        return found


def test_rules_and_dashboard_name_only_what_is_exported(exported):
    own = {"job", "instance"}  # of Prometheus
    named = set()
    for text in expressions():
        for match in NAME.finditer(text):
            name, rest = match.group(), text[match.end() :]
            if name == "cxr_referrals_total" and rest.startswith(" says"):  # in a sentence
                continue
            assert name in exported, f"{name} is not exported"
            named.add(name)
            if rest.startswith("{"):
                assert set(LABELS.findall(rest[: rest.index("}")])) <= exported[name] | own, text
    counted = {re.sub("_(total|bucket|sum|count)$", "", name) for name in exported}
    assert {re.sub("_(total|bucket|sum|count)$", "", name) for name in named} == counted, "shown nowhere"


def test_rules_select_values_that_exist(exported):
    for path in re.findall(r'path="([^"]*)"', "".join(expressions())):
        assert path == INVOCATIONS


def test_the_dashboard_is_whole():
    board = json.loads(DASHBOARD.read_text())
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) >= 12 and board["uid"] and board["title"]
    assert all(panel["datasource"]["uid"] == "${datasource}" and panel["title"] for panel in panels)
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels]
    assert len(set(places)) == len(places) and all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in panels)


def test_promtool_accepts_rules_and_configuration():
    promtool = tool("promtool")
    for words in (["check", "rules", RULES], ["check", "config", DEPLOY / "prometheus/prometheus.yml"]):
        told = subprocess.run([promtool, *words], capture_output=True, text=True, check=False)
        assert told.returncode == 0, told.stdout + told.stderr


def test_every_rule_alarms_when_it_should_and_only_then():
    promtool, file = tool("promtool"), DEPLOY / "prometheus/cxr.rules.test.yml"
    told = subprocess.run(
        [promtool, "test", "rules", file.name], cwd=file.parent, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    raised = set(re.findall(r"alertname: (\w+)\n +exp_alerts", file.read_text()))
    assert raised == alerts


def test_nginx_accepts_its_configuration():
    words = [tool("nginx"), "-t", "-c", str(DEPLOY / "container/nginx.conf")]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    if "Permission denied" in told.stderr:
        pytest.skip("nginx may not be started by this user")
    assert told.returncode == 0, told.stderr


@pytest.mark.filterwarnings("ignore:.*input example")
def test_a_container_passes_metrics_and_finishes_what_it_has_begun(served, tmp_path):
    """The entry point of the container, with other ports: nginx, the server behind it, and an orderly end of both."""
    nginx = tool("nginx")
    model = save(served, tmp_path)
    ports = [str(free_port()), str(free_port())]
    conf = (DEPLOY / "container/nginx.conf").read_text()
    for name, port in zip(("8080", "8000"), ports, strict=True):
        assert name in conf
        conf = conf.replace(name, port)
    (tmp_path / "nginx.conf").write_text(conf.replace("/tmp/nginx", str(tmp_path / "nginx")))  # noqa: S108
    script = (DEPLOY / "container/serve.sh").read_text()
    assert "--port 8000" in script and "mlflow.pyfunc.scoring_server.app:app" in script
    script = script.replace("--port 8000", f"--port {ports[1]}").replace(
        "mlflow.pyfunc.scoring_server.app:app", BREAKABLE
    )
    (tmp_path / "serve.sh").write_text(script)
    environment = {
        **os.environ,
        "MODEL": str(model),
        "NGINX": str(tmp_path / "nginx.conf"),
        "MLFLOW_MODELS_WORKERS": "1",
    }
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}:{Path(nginx).parent}"
    root, log, answers = f"http://127.0.0.1:{ports[0]}", tmp_path / "log", []
    picture = served.manifest.split("val").files()[0].read_bytes()

    def ask() -> None:
        head = {"Content-Type": "image/png", "X-Request-ID": "mine"}
        answers.append(requests.post(f"{root}/invocations?strict=true", data=picture, headers=head, timeout=60))

    with log.open("w") as out:
        process = subprocess.Popen(["bash", "serve.sh"], cwd=tmp_path, env=environment, stdout=out, stderr=out)
    try:
        wait_for(lambda: "Uvicorn running on" in log.read_text() or process.poll() is not None, 240)
        assert process.poll() is None, log.read_text()
        assert requests.get(f"{root}/ready", timeout=60).status_code == 200
        assert requests.get(f"{root}/ping", timeout=60).status_code == 200
        assert "cxr_workers 1.0" in requests.get(f"{root}/metrics", timeout=60).text
        assert requests.get(f"{root}/version", timeout=60).status_code == 404
        (tmp_path / "running").unlink(missing_ok=True)
        (tmp_path / "slow").touch()
        asking = threading.Thread(target=ask)
        asking.start()
        wait_for((tmp_path / "running").exists)
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{root}/ping", timeout=5)
        assert process.poll() is None and not answers
        (tmp_path / "slow").unlink()
        asking.join(60)
        assert answers[0].status_code == 200 and answers[0].headers["X-Request-ID"] == "mine"
        assert process.wait(60) == 0
    finally:
        (tmp_path / "slow").unlink(missing_ok=True)
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    assert "strict=true" not in log.read_text()
