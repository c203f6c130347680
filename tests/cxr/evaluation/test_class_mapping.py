"""Classes of a model are mapped to those of a set by name or number, or all but the first are the finding."""

import numpy as np
import pytest

from cxr.errors import CxrError
from cxr.evaluation.class_mapping import ClassMapping
from cxr.serving.probabilities import finding_probability

THREE = ("normal", "bacteria", "virus")
SERVED = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])


def test_all_but_the_first_class_are_the_finding_of_a_binary_set():
    mapping = ClassMapping.of(THREE, ("normal", "pneumonia"))
    assert mapping.pairs() == {"normal": "normal", "bacteria": "pneumonia", "virus": "pneumonia"}
    mapped = mapping.probabilities(SERVED)
    np.testing.assert_allclose(mapped, [[0.7, 0.3], [0.1, 0.9]])
    # To the last bit: a decision at a threshold may hang on it.
    assert (finding_probability(mapped) == finding_probability(SERVED)).all()
    assert [mapping.label(name) for name in THREE] == [0, 1, 1]


def test_the_same_classes_in_another_order_are_mapped_by_name():
    mapping = ClassMapping.of(THREE, ("normal", "virus", "bacteria"))
    np.testing.assert_array_equal(mapping.probabilities(SERVED), SERVED[:, [0, 2, 1]])
    assert mapping.label("bacteria") == 2 and mapping.same_names


def test_other_names_of_two_classes_are_mapped_class_by_class():
    mapping = ClassMapping.of(("normal", "pneumonia"), ("healthy", "opacity"))
    assert mapping.pairs() == {"normal": "healthy", "pneumonia": "opacity"} and not mapping.same_names
    np.testing.assert_array_equal(mapping.probabilities(SERVED[:, :2]), SERVED[:, :2])


@pytest.mark.parametrize(
    "model, labels, setting",
    [
        (("normal", "pneumonia"), THREE, "2"),
        (THREE, ("normal", "viral", "bacterial"), "3"),
        (("healthy", "a", "b"), ("healthy", "a", "b", "c"), r"\[healthy, a, b\]"),
    ],
    ids=["more classes", "other names", "own classes"],
)
def test_anything_else_is_refused(model, labels, setting):
    with pytest.raises(
        CxrError, match=rf"expected the same classes, or two: set data\.classes=2 or data\.classes={setting}$"
    ):
        ClassMapping.of(model, labels)
