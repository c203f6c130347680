"""The page shows probability, threshold and band on one scale, and says why the model decided or referred."""

import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from cxr.demo.app import application
from cxr.serving.decision import explained_class
from tests.helpers import CLASSES

CHROMIUM = shutil.which("chromium")
POINTS = {"argmax": 0.5, "youden": 0.6, "sensitive": 0.02}
BANDS = {"argmax": (0.4, 0.6), "youden": (0.6, 0.6), "sensitive": (0.01, 0.04)}
SCRIPT = """
const told = [];
for (const row of CASES) {
  showAnswer({ row, picture: "" });
  const place = name => Number(document.querySelector(name).getAttribute("x1"));
  const tip = Number(document.querySelector("path").getAttribute("d").match(/L([\\d.]+) 35/)[1]);
  const boxes = [...document.querySelectorAll("rect")].map(box => Number(box.getAttribute("x")));
  told.push({ verdict: document.querySelector(".verdict b").textContent,
    label: document.querySelector("svg").getAttribute("aria-label"),
    why: [...document.querySelectorAll(".rule p:not(.soft)")].map(p => p.textContent), low: boxes[1], high: boxes[2],
    shown: document.querySelector(".seen label span").textContent, tip, threshold: place("line[stroke-width='2']") });
}
document.body.replaceChildren(element("pre", JSON.stringify(told)));
"""


def row(probabilities: list[float], point: str, decision: str | None, reasons: str = "") -> dict:
    """An answer as the service gives it."""
    values = dict(zip(CLASSES, probabilities, strict=True))
    return {
        "label": max(values, key=values.get),
        **{f"probability_{name}": p for name, p in values.items()},
        "probability_pneumonia": 1 - probabilities[0],
        **{"operating_point": point, "decision": decision, "status": "ok" if decision else "refer"},
        **{"reasons": reasons, "heatmap": "x", "model_version": "3"},
    }


CASES = [
    row([0.38, 0.32, 0.30], "argmax", "pneumonia"),
    row([0.52, 0.30, 0.18], "argmax", None, "undecided (probability of pneumonia 0.48, between 0.4 and 0.6)"),
    row([0.97, 0.01, 0.02], "sensitive", None, "undecided (probability of pneumonia 0.03, between 0.01 and 0.04)"),
    row([0.70, 0.10, 0.20], "sensitive", "pneumonia"),
    row([0.45, 0.50, 0.05], "youden", "normal"),
    row([0.10, 0.10, 0.80], "argmax", None, "a colour image"),
    row([1.0, 0.0, 0.0], "argmax", "normal"),
]


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> list[dict]:
    """What the page shows for each of `CASES`."""
    if not CHROMIUM:
        pytest.skip("needs chromium")
    service = SimpleNamespace(
        version="3", classes=CLASSES, finding="pneumonia", operating_points=POINTS, operating_point="argmax",
        bands=BANDS, limits=SimpleNamespace(max_bytes=1000),
    )  # fmt: skip
    app = application(service, "cxr-pneumonia")
    start = next(route.endpoint for route in app.routes if getattr(route, "path", "") == "/")
    page, folder = start().body.decode(), tmp_path_factory.mktemp("page")
    script = f"<script>const CASES = {json.dumps(CASES)};{SCRIPT}</script></body>"
    (folder / "page.html").write_text(page.replace("</body>", script), encoding="utf-8")
    words = ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--dump-dom")
    done = subprocess.run(
        [CHROMIUM, *words, (folder / "page.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(re.search("<pre>(.*?)</pre>", done.stdout)[1].replace("&lt;", "<").replace("&gt;", ">"))


def test_probability_threshold_and_band_lie_on_one_scale_in_the_order_of_their_values(told):
    for case, shown in zip(CASES, told, strict=True):
        p, point = case["probability_pneumonia"], case["operating_point"]
        low, high = BANDS[point]
        for value, at in ((low, shown["low"]), (POINTS[point], shown["threshold"]), (high, shown["high"])):
            assert (p < value) == (shown["tip"] < at - 1e-6), (case, shown)
        assert shown["low"] <= shown["threshold"] <= shown["high"]
        assert shown["threshold"] - shown["low"] == pytest.approx(shown["high"] - shown["threshold"], rel=0.02)


def test_the_page_says_why_the_model_decided_or_referred(told):
    assert [shown["why"] for shown in told] == [
        [
            "At or above the threshold of 50.0 % and outside its band: the decision is pneumonia.",
            "The likeliest single class is normal; the decision follows the probability of pneumonia.",
        ],
        ["Within the band around the threshold of 50.0 %: too near to decide."],
        ["Within the band around the threshold of 2.0 %: too near to decide."],
        [
            "At or above the threshold of 2.0 % and outside its band: the decision is pneumonia.",
            "The likeliest single class is normal; the decision follows the probability of pneumonia.",
        ],
        [
            "Below the threshold of 60.0 %: the decision is normal.",
            "The likeliest single class is bacteria; the decision follows the probability of pneumonia.",
        ],
        ["At or above the threshold of 50.0 %, but referred for another reason."],
        ["Below the threshold of 50.0 % and outside its band: the decision is normal."],
    ]
    assert "threshold 2.0 %; referred to a person from 1.0 % to 4.0 %" in told[2]["label"]
    assert "threshold 60.0 %; no band of referral" in told[4]["label"]
    assert [shown["verdict"] for shown in told[:2]] == ["Pneumonia", "For a person to decide"]


def test_the_map_is_named_as_the_service_draws_it(told):
    for case, shown in zip(CASES, told, strict=True):
        probabilities = np.array([case[f"probability_{name}"] for name in CLASSES])
        decided = {None: None, "normal": False, "pneumonia": True}[case["decision"]]
        assert shown["shown"] == f"evidence for {CLASSES[explained_class(probabilities, decided)]}"
