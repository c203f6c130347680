"""The label audit finds flipped labels, ranks them, and says what leaving them out does."""

import numpy as np
import pytest

from cxr.evaluation import label_audit
from cxr.evaluation.scores import Sample
from cxr.serving.probabilities import softmax
from tests.helpers import small_set

N, FLIPPED = 600, 30


@pytest.fixture
def answers():
    """True classes of 600 images in unequal shares, and probabilities of a model that knows them well."""
    rng = np.random.default_rng(0)
    truth = rng.choice(3, N, p=[0.25, 0.5, 0.25])
    return truth, softmax(rng.normal(size=(N, 3)) + 4 * np.eye(3)[truth])


def test_flipped_labels_are_found_and_ranked_first(answers):
    truth, probabilities = answers
    flipped = np.random.default_rng(1).choice(N, FLIPPED, replace=False)
    labels = truth.copy()
    labels[flipped] = (labels[flipped] + 1) % 3
    found = label_audit.doubtful(labels, probabilities)
    assert len(set(found) & set(flipped)) > 0.8 * FLIPPED
    assert len(set(found[:20]) & set(flipped)) >= 19
    assert len(found) < 2 * FLIPPED
    margins = probabilities[found, labels[found]] - probabilities[found].max(1)
    assert (np.diff(margins) >= 0).all() and (margins < 0).all()


def test_a_label_is_doubtful_only_against_a_class_that_is_confident():
    """Each class is measured by its own images: 0.6 is much for a class whose images get 0.55, little for 0.95."""
    labels = np.array([0, 0, 0, 1, 1, 1])
    sure_of_one = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.05, 0.95], [0.05, 0.95], [0.05, 0.95]])
    assert len(label_audit.doubtful(labels, sure_of_one)) == 0
    unsure_of_one = sure_of_one.copy()
    unsure_of_one[3:] = [0.45, 0.55]
    assert list(label_audit.doubtful(labels, unsure_of_one)) == [2]


def test_a_label_that_the_model_agrees_with_is_never_doubtful(answers):
    _, probabilities = answers
    assert len(label_audit.doubtful(probabilities.argmax(1), probabilities)) == 0


def test_the_audit_has_scores_with_and_without_and_a_table_of_all(tmp_path):
    manifest = small_set(tmp_path, side=8)
    logits = 3 * np.eye(3)[manifest.labels()]
    logits[[5, 20]] *= 1.3
    logits[30] = [1.0, 0.5, 0.8]  # a mistake, but not a confident one
    probabilities = softmax(logits)
    flipped = manifest.rows.index[[5, 20]]
    manifest.rows.loc[flipped, "label"] = ["virus", "normal"]
    sample = Sample.of(manifest, 0)
    rows = label_audit.doubtful(sample.labels, probabilities)
    assert set(flipped) == set(rows)
    audit = label_audit.audit(manifest, sample, probabilities, rows, 1)
    assert audit.images == len(manifest) and sum(audit.doubtful.values()) == len(rows) and len(audit.listed) == 1
    right = probabilities.argmax(1) == sample.labels
    assert audit.with_all["accuracy"].value == pytest.approx(right.mean())
    assert audit.without["accuracy"].value == pytest.approx(np.delete(right, rows).mean())
    table = label_audit.table(manifest, probabilities, rows)
    assert list(table["path"]) == list(manifest.rows["path"].iloc[rows]) and table["rank"].iat[0] == 1
    np.testing.assert_allclose(table["self_confidence"], probabilities[rows, sample.labels[rows]])
    assert table["given"].iat[0] == audit.listed[0].given != audit.listed[0].prediction


def test_nothing_doubtful_is_a_result_too(tmp_path):
    manifest = small_set(tmp_path, side=8)
    sample, probabilities = Sample.of(manifest, 0), 0.8 * np.eye(3)[manifest.labels()] + 0.2 / 3
    audit = label_audit.audit(manifest, sample, probabilities, label_audit.doubtful(sample.labels, probabilities), 12)
    assert audit.doubtful == {"normal": 0, "bacteria": 0, "virus": 0}
    assert audit.listed == [] and audit.with_all == audit.without
