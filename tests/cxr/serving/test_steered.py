"""The answer to given outputs of the network: label, decision, referral, heatmap."""

from types import SimpleNamespace

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.serving import service as module
from cxr.serving.decision import bands_around
from cxr.serving.service import Row, Service
from tests.helpers import CLASSES

LOGITS = [[np.log(p), *rest] for p in np.linspace(0.01, 0.99, 99) for rest in ([np.log(1 - p) - 0.1, np.log(1 - p)],)]


@pytest.fixture
def steered(served, monkeypatch):
    """A service whose network answers as it is told, and pictures that nothing else speaks against."""
    steered = Service(served.folder, threads=1)
    steered.bands = {name: tuple(bands_around(at, np.log(1.5))) for name, at in steered.operating_points.items()}
    steered.temperature, found = 1.0, iter(LOGITS)

    def run(rasters):
        logits = np.array([next(found) for _ in rasters])
        return logits, np.zeros((len(rasters), 1)), np.zeros((len(rasters), 0, 1, 1))

    monkeypatch.setattr(steered.session, "run", run)
    near = SimpleNamespace(
        distances=lambda features: features[:, 0], reasons=lambda features, _: [[] for _ in features]
    )
    monkeypatch.setattr(steered, "detector", near)
    image = SimpleNamespace(raster=np.zeros((64, 64), np.uint8), implausible=[])
    return steered, [Row(image) for _ in LOGITS]


@pytest.mark.parametrize("point", ["argmax", "youden", "sensitive"])
def test_the_model_refers_around_the_threshold_in_use_and_decides_everywhere_else(steered, point):
    service, rows = steered
    table = service.table(service.records_of(rows, point)).sort_values("probability_pneumonia")
    told = table["decision"].fillna("refer").tolist()
    below, within, above = (told.count(word) for word in ("normal", "refer", "pneumonia"))
    assert told == ["normal"] * below + ["refer"] * within + ["pneumonia"] * above
    assert 10 <= within <= 25 and below >= 10 and above >= 10
    undecided = table["probability_pneumonia"][table["status"] == "refer"]
    assert undecided.min() < service.operating_points[point] < undecided.max()
    assert table["reasons"][table["status"] == "refer"].str.startswith("undecided (probability of pneumonia").all()
    likeliest = table[[f"probability_{name}" for name in CLASSES]].to_numpy().argmax(1)
    assert table["label"].tolist() == [CLASSES[i] for i in likeliest]


@pytest.mark.parametrize(
    ("probabilities", "point", "label", "told", "explained"),
    [
        ([0.38, 0.32, 0.30], "argmax", "normal", "pneumonia", 1),  # the finding is at 0.62, in two kinds
        ([0.53, 0.20, 0.27], "sensitive", "normal", "pneumonia", 2),  # the threshold is 0.3
        ([0.55, 0.40, 0.05], "youden", "normal", "normal", 0),
        ([0.52, 0.44, 0.04], "youden", "normal", "normal", 0),
        ([0.70, 0.20, 0.10], "sensitive", "normal", None, 0),
        ([0.42, 0.52, 0.06], "youden", "bacteria", None, 1),
    ],
)
def test_label_and_heatmap_where_label_and_decision_differ(
    steered, monkeypatch, probabilities, point, label, told, explained
):
    """`label` is the likeliest class, `decision` follows the finding, the map explains the decision, or the label."""
    service, rows = steered
    maps = np.zeros((1, 3, 1, 1))
    maps[0, explained] = 1.0
    shown = []
    monkeypatch.setattr(module.heatmap, "overlay", lambda raster, one: shown.append(float(one.max())) or raster)
    logits = np.log([probabilities])
    monkeypatch.setattr(service.session, "run", lambda rasters: (logits, np.zeros((1, 1)), maps))
    row = service.records_of(rows[:1], point, with_heatmap=True)[0]
    assert (row["label"], row["decision"], shown) == (label, told, [1.0])


def test_a_network_that_answers_with_no_numbers_is_an_error(steered, monkeypatch):
    service, rows = steered
    nothing = np.full((1, 3), np.nan), np.zeros((1, 1)), np.zeros((1, 0, 1, 1))
    monkeypatch.setattr(service.session, "run", lambda rasters: nothing)
    with pytest.raises(CxrError, match="the probabilities are not finite; the network is damaged"):
        service.records_of(rows[:1], "argmax")
