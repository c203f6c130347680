"""The variants of `bench.recipe` are different trainings; its table compares each with the first on the folds that both
have."""

import numpy as np
import pytest

from bench.recipe import digest
from bench.recipe_table import table
from bench.recipe_variants import VARIANTS
from cxr.evaluation.scores import Sample

CHANGES, IMAGES = 3, 60
CLASSES = ("normal", "bacteria", "virus")


def sample(seed: int) -> Sample:
    labels = np.random.default_rng(seed).permutation(np.arange(IMAGES) % 3)
    return Sample.from_labels(labels, np.array([f"patient {i}" for i in range(IMAGES)]), CLASSES, seed)


SAMPLES = [sample(0), sample(1), sample(2)]


def answers(fold: int, wrong: int, sure: float = 4.0) -> dict[str, np.ndarray]:
    """Logits that are wrong about the first images."""
    given = SAMPLES[fold].labels.copy()
    given[:wrong] = (given[:wrong] + 1) % 3
    logits = np.tile(sure * np.eye(3)[given], (CHANGES, 1, 1))
    return {"logits": logits.astype(np.float16), "minutes": np.array(2.0 + fold)}


@pytest.fixture(scope="module")
def rows():
    answered = {
        "recipe": {0: answers(0, 6), 1: answers(1, 12), 2: answers(2, 9)},
        "alike": {0: answers(0, 6), 1: answers(1, 12)},
        "worse": {1: answers(1, 30)},
    }
    return table(answered, SAMPLES).set_index("variant")


def test_every_variant_has_settings_that_load_and_that_no_other_has():
    assert len({digest(name) for name in VARIANTS}) == len(VARIANTS)


def test_a_row_is_the_mean_over_its_folds(rows):
    assert rows["folds"].tolist() == [3, 2, 1, 2]
    assert rows.loc["alike", "minutes"] == 2.5 and rows.loc["worse", "minutes"] == 3.0
    assert rows.loc["alike", "macro_f1"] == pytest.approx((0.9 + 0.8) / 2, abs=0.01)
    assert rows.loc["worse", "macro_f1"] == pytest.approx(0.5, abs=0.02)


def test_differences_are_over_the_folds_that_both_have(rows):
    assert rows.loc["recipe", "change of macro_f1"] == ""
    assert rows.loc["alike", "change of macro_f1"] == "+0.0000 (+0.0000 to +0.0000)"
    value, low, _, high = rows.loc["worse", "change of macro_f1"].replace("(", "").replace(")", "").split()
    assert float(value) == pytest.approx(0.5 - 0.8, abs=0.02)  # and not 0.5 - 0.85
    assert float(low) < float(value) < float(high) < -0.1


def test_the_networks_of_a_fold_answer_together(rows):
    """Of fold 1 two of three networks are right about the images that the third alone has wrong; fold 2 has one
    network."""
    assert rows.loc["all networks of a fold together", "macro_f1"] == pytest.approx(rows.loc["alike", "macro_f1"])


def test_networks_that_share_no_fold_have_no_answer_together():
    found = table({"recipe": {0: answers(0, 6)}, "other": {1: answers(1, 6)}}, SAMPLES)
    assert found["variant"].tolist() == ["recipe", "other"] and found["change of loss"].tolist() == ["", ""]


def test_the_loss_is_that_of_calibrated_answers():
    answered = {"recipe": {0: answers(0, 6)}, "overconfident": {0: answers(0, 6, sure=16.0)}}
    found = table(answered, SAMPLES).set_index("variant")["loss"]
    assert found["overconfident"] == pytest.approx(found["recipe"], abs=1e-3)
    # One in ten is wrong, and no temperature gives the two other classes different probabilities.
    assert found["recipe"] == pytest.approx(-0.9 * np.log(0.9) - 0.1 * np.log(0.05), abs=1e-3)
