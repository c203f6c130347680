"""The reference of a version and answers that are held against it."""

import numpy as np
import pandas as pd

from cxr.monitoring import reference as references
from cxr.monitoring.judge import Judge, alarms
from cxr.serving.reasons import KINDS
from tests.helpers import settings_with

CLASSES = ("normal", "pneumonia")


def test_the_answers_of_a_very_sure_network_are_those_of_its_reference():
    """Of probabilities next to 1, the reference keeps 1: the same images must not seem to have drifted."""
    rng, images = np.random.default_rng(0), 300
    positive = 1 / (1 + np.exp(-rng.normal(0, 5, images) - np.where(rng.random(images) < 0.7, 15, -15)))
    assert 0.1 < np.mean((positive > 1 - 5e-8) & (positive < 1)) < 0.9
    table = pd.DataFrame({"probability_normal": 1 - positive, "probability_pneumonia": positive})
    table["distance"], table["brightness"] = rng.gamma(8, 0.1, images), rng.normal(120, 15, images)
    table = table.assign(width=1000, height=900, status="ok", reasons="", operating_point="argmax")
    none = {kind: np.zeros(images, bool) for kind in KINDS}
    reference = references.of_answers(
        classes=CLASSES,
        finding="pneumonia",
        operating_points={"argmax": 0.5},
        labels=(positive > 0.5).astype(int),
        patients=np.arange(images),
        columns={name: table[name].to_numpy() for name in references.column_names(CLASSES, "pneumonia")},
        reasons={"argmax": none},
    )
    part = Judge(reference, settings_with({}).monitor, 0).whole(table)
    assert {column.psi.value for column in part.columns.values()} == {0} and alarms(part) == []
    assert {column.ks.value for column in part.columns.values()} == {0}
