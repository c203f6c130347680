"""Classes are 2, 3 or the user's own names; names that would clash in folders, columns or metrics are refused."""

import pytest

from cxr.errors import CxrError
from cxr.settings import load
from cxr.settings.classes import as_setting
from tests.helpers import settings_with


@pytest.mark.parametrize(
    ("classes", "finding", "names"),
    [
        ("3", "pneumonia", ("normal", "bacteria", "virus")),
        ("2", "pneumonia", ("normal", "pneumonia")),
        ("[healthy, tuberculosis]", "tuberculosis", ("healthy", "tuberculosis")),
        ("[no-finding, mass_1, effusion, edema]", "opacity", ("no-finding", "mass_1", "effusion", "edema")),
    ],
)
def test_the_names_of_the_classes(classes, finding, names):
    settings = settings_with({"data.classes": classes, "data.finding": finding})
    assert settings.data.class_names == names and settings.data.finding == finding
    assert load.resolve(settings.to_dict()).data == settings.data
    assert as_setting(names, finding) == settings.data.classes


@pytest.mark.parametrize(
    ("classes", "finding", "words"),
    [
        ("4", "pneumonia", "expected 2, 3 or a list of names"),
        ("true", "pneumonia", "expected 2, 3 or a list of names"),
        ("healthy", "pneumonia", "expected 2, 3 or a list of names"),
        ("[healthy]", "pneumonia", "expected 2 to 20 classes, got 1"),
        (str([f"c{n}" for n in range(21)]), "pneumonia", "expected 2 to 20 classes, got 21"),
        ("[a, b, a]", "pneumonia", "a given twice"),
        ("[no, yes]", "pneumonia", "got False"),
        ("[a, 1]", "pneumonia", "got 1"),
        ("[a, Mass]", "pneumonia", "lower-case letters, digits, '_' and '-' that begin with a letter, got 'Mass'"),
        ("[a, lung mass]", "pneumonia", "got 'lung mass'"),
        ("[a, 'b/../c']", "pneumonia", "got 'b/../c'"),
        (f"[a, {'b' * 41}]", "pneumonia", "at most 40"),
        ("[a, test, b]", "pneumonia", "'test' has another meaning in folders or tables"),
        ("[a, member, b]", "pneumonia", "'member' has another meaning"),
        ("[a, decision, b]", "pneumonia", "'decision' has another meaning"),
        ("[a, nan, b]", "pneumonia", "'nan' has another meaning"),
        ("[a, b, b_low]", "pneumonia", "'b_low' ends like the name of an interval"),
        ("[a, b, b_delong]", "pneumonia", "'b_delong' ends like"),
        ("3", "Tb", "setting data.finding = 'Tb'"),
        ("3", "null", "setting data.finding"),
        ("3", "finding", "'finding' has another meaning"),
        ("3", "virus", "'virus' is also the name of a class"),
        ("[a, b, c]", "a", "'a' is also the name of a class, and both would be probability_a"),
        ("[a, pneumonia, c]", "pneumonia", "both would be probability_pneumonia"),
        ("[healthy, tuberculosis]", "pneumonia", "set data.finding=tuberculosis"),
        ("[healthy, tuberculosis]", "healthy", "set data.finding=tuberculosis"),
        ("2", "tuberculosis", "set data.finding=pneumonia"),
        ("3", "tuberculosis", "whose finding is pneumonia; give your own classes as a list"),
    ],
)
def test_names_that_would_clash_are_refused_in_one_line(classes, finding, words):
    with pytest.raises(CxrError) as error:
        settings_with({"data.classes": classes, "data.finding": finding})
    assert words in str(error.value)
    assert "\n" not in str(error.value) and str(error.value).count("setting ") == 1


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("registry.gate.minimum.auc_pneumonia", "0.8", "was renamed; use 'registry.gate.minimum.auc_finding'"),
        ("registry.gate.metric", "auc_pneumonia", "auc_pneumonia was renamed; use auc_finding"),
    ],
)
def test_the_old_name_of_the_score_of_the_gate_is_refused_with_the_new_one(key, value, words):
    with pytest.raises(CxrError, match=words):
        settings_with({key: value})
