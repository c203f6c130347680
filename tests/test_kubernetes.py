"""What stands under `deploy/kubernetes`: manifests that Kubernetes accepts, an image with all that the steps need."""

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from steps.main import STEP
from steps.runtime.cli import parse

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy/kubernetes"
OBJECTS = {
    f"{file.name}: {one['kind']}": one
    for file in sorted(FOLDER.glob("*.yaml"))
    for one in yaml.safe_load_all(file.read_text())
}
JOB, SERVE, SERVICE = (OBJECTS[name] for name in ("main.yaml: Job", "serve.yaml: Deployment", "serve.yaml: Service"))
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
VERSION = "1.34"


def pod(of: dict) -> dict:
    return of["spec"]["template"]["spec"]


def container(of: dict) -> dict:
    [one] = pod(of)["containers"]
    return one


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("name", OBJECTS)
def test_kubernetes_accepts_each_object(name):
    kubernetes_validate.validate(OBJECTS[name], VERSION, strict=True)


def test_an_unknown_key_would_be_refused():
    wrong = {**JOB, "spec": {**JOB["spec"], "backofLimit": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@pytest.mark.parametrize("of", [JOB, SERVE], ids=["Job", "Deployment"])
def test_pods_run_without_rights_on_a_file_system_that_cannot_be_written(of):
    assert pod(of)["securityContext"]["runAsNonRoot"] and pod(of)["securityContext"]["runAsUser"] == 10001
    own = container(of)["securityContext"]
    assert (
        own["readOnlyRootFilesystem"]
        and not own["allowPrivilegeEscalation"]
        and own["capabilities"] == {"drop": ["ALL"]}
    )
    assert not pod(of)["automountServiceAccountToken"]
    volumes = {volume["name"] for volume in pod(of)["volumes"]}
    assert {mount["name"] for mount in container(of)["volumeMounts"]} == volumes
    assert "/tmp" in {mount["mountPath"] for mount in container(of)["volumeMounts"]}  # noqa: S108
    assert {"requests", "limits"} <= container(of)["resources"].keys()


def test_the_job_runs_main_with_parameters_that_it_has():
    words = container(JOB)["command"] + container(JOB)["args"]
    [entrypoint] = instructions("ENTRYPOINT")
    assert container(JOB)["command"] == yaml.safe_load(entrypoint)
    assert words[words.index("-e") + 1] == "main"
    given = dict(words[place + 1].split("=", 1) for place, word in enumerate(words) if word == "-P")
    arguments = parse(STEP, [word for name, value in given.items() for word in (f"--{name}", value)])
    mounts = {mount["mountPath"]: mount for mount in container(JOB)["volumeMounts"]}
    assert mounts[arguments.overrides["data.path"]]["readOnly"]
    assert str(Path(arguments.overrides["log_dir"]).parent) in mounts
    assert arguments.flags["profile"] in yaml.safe_load((ROOT / "params.yaml").read_text())["profiles"]
    assert {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"} in container(JOB)["env"]


def test_a_new_pod_of_the_job_recognises_what_the_last_one_left():
    """`steps.runtime.process` tells processes of this host from others by its name."""
    assert pod(JOB)["hostname"] == JOB["metadata"]["name"]
    assert JOB["spec"]["podReplacementPolicy"] == "Failed"
    assert JOB["spec"].get("parallelism", 1) == 1 and pod(JOB)["restartPolicy"] == "Never"


def test_probes_and_service_reach_what_nginx_serves():
    conf = (ROOT / "deploy/container/nginx.conf").read_text()
    [port] = container(SERVE)["ports"]
    assert f"listen {port['containerPort']};" in conf
    paths = {}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container(SERVE)[probe]["httpGet"]
        assert asked["port"] == port["name"] and f"location = {asked['path']} " in conf
        paths[probe] = asked["path"]
    assert paths == {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/ping"}
    [offered] = SERVICE["spec"]["ports"]
    assert offered["targetPort"] == port["name"]
    assert SERVICE["spec"]["selector"] == SERVE["spec"]["selector"]["matchLabels"]
    assert SERVICE["spec"]["selector"] == SERVE["spec"]["template"]["metadata"]["labels"]


def test_a_pod_of_the_service_has_time_to_finish_what_it_has_begun():
    waits = int(re.search(r"worker_shutdown_timeout (\d+)s", (ROOT / "deploy/container/nginx.conf").read_text())[1])
    sleeps = int(container(SERVE)["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod(SERVE)["terminationGracePeriodSeconds"] > waits + sleeps


def test_the_image_has_the_python_of_the_project_and_packages_with_hashes():
    python = yaml.safe_load((ROOT / "python_env.yaml").read_text())["python"]
    assert instructions("FROM")[0].startswith(f"python:{python}-")
    installs = [run for run in instructions("RUN") if "pip install" in run]
    assert len(installs) == 1 and "--require-hashes --requirement requirements.txt" in installs[0]
    assert instructions("STOPSIGNAL") == ["SIGINT"] and instructions("USER") == ["10001:10001"]
