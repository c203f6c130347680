"""A repackaged version leads back to the one it was made from, and takes its place only with the same answers."""

from collections import Counter
from datetime import date
from types import SimpleNamespace

import pytest

from cxr.errors import CxrError
from steps.registry import repackaged
from steps.registry.alike import Outcome
from steps.registry.repackaged import Compared

TAGS = {
    "cxr.bundle_digest": "b",
    "cxr.split_run_id": "s",
    "cxr.finetune_run_id": "f",
    "cxr.evaluate_run_id": "e",
    "cxr.manifest_digest": "m",
    "cxr.synthetic": "false",
    "cxr.val_metric": "0.5",
    "cxr.gate": "champion: it was better",
    "cxr.validated_on": "[]",
    "cxr.serving_code": "old",
}
CARD = "# efficientnet_lite0: a / b\n\n**Gate:** champion: it was better\n\n## Scores on 3 test images\n"
SAME = Outcome(images=Counter(validation=5, test=3), answers=8, largest=2e-7)
OTHER = Outcome(
    images=Counter(validation=5),
    answers=5,
    differing=2,
    by_column=Counter(status=2),
    largest=0.25,
    first=["1.png (status): ok -> refer", "2.png (status): ok -> refer"],
)


def version(number, **more):
    return SimpleNamespace(version=number, name="model", tags=TAGS | more, description=CARD)


@pytest.mark.parametrize(
    ("outcome", "champion", "alias", "words"),
    [
        (
            SAME,
            3,
            "champion",
            "champion: same answers to 5 validation and 3 test images; the largest",
        ),
        (OTHER, 3, "challenger", "2 of 5 answers to 5 validation images differ (status 2)"),
        (
            None,
            3,
            "challenger",
            "not compared (against version 3, with today's code to serve it); `mlflow run",
        ),
        (SAME, 4, "", "no alias: version 3, which it was made from, is not champion; same answers to 5"),
        (OTHER, 4, "", "no alias: version 3"),
        (None, None, "", "no alias: version 3"),
    ],
)
def test_who_becomes_champion(outcome, champion, alias, words):
    present = version(champion) if champion is not None else None
    verdict = repackaged.judge(version(3), Compared(outcome, []), present)
    assert verdict.alias == alias and words in str(verdict)
    assert verdict.checks[0].passed == (outcome is SAME)


def test_tags_lead_back_to_the_version_and_to_its_runs():
    found = repackaged.tags(version(3, **{"cxr.repackage_run_id": "earlier"}), "now")
    assert found == {
        "cxr.bundle_digest": "b",
        "cxr.split_run_id": "s",
        "cxr.finetune_run_id": "f",
        "cxr.evaluate_run_id": "e",
        "cxr.repackage_run_id": "now",
        "cxr.manifest_digest": "m",
        "cxr.synthetic": "false",
        "cxr.val_metric": "0.5",
        "cxr.repackaged_from": "3",
    }


def test_what_differs_is_told_in_tags_that_the_registry_has_room_for():
    told = Compared(OTHER, ["numpy ==1.0 (here: 2.0)"]).tags()
    assert told["cxr.compared"].startswith("2 of 5 answers") and "numpy ==1.0 (here: 2.0)" in told["cxr.compared"]
    assert told["cxr.compared_first"].splitlines() == OTHER.first
    assert "cxr.compared_first" not in Compared(SAME, []).tags()
    assert Compared(None, []).tags() == {"cxr.compared": "not compared"}
    long = Outcome(first=["x" * 4000] * 5, differing=5)
    assert all(len(value) <= 5000 for value in Compared(long, ["p" * 900] * 9).tags().values())


def test_the_description_says_where_the_scores_come_from():
    source, compared = version(3), Compared(SAME, [])
    day = date(2026, 11, 28)
    text = repackaged.description(source, compared, str(repackaged.judge(source, compared, version(3))), day)
    lines = text.splitlines()
    assert lines[0] == CARD.splitlines()[0] and "run e" in lines[2]
    assert lines[2].startswith("**Repackaged** from version 3 on 2026-11-28: the same weights")
    assert "same answers to 5 validation" in lines[2]
    assert "**Gate:** champion: same answers" in text and "it was better" not in text
    assert "## Scores on 3 test images" in lines
    second = SimpleNamespace(**vars(version(4)) | {"description": text})
    again = repackaged.description(second, compared, str(repackaged.judge(version(4), compared, None)), day)
    assert again.count("**Repackaged**") == 1 and "from version 4" in again and len(again) <= 5000
    bare = SimpleNamespace(**vars(source) | {"description": None})
    assert repackaged.description(bare, compared, "no alias", day).startswith("# model\n")


@pytest.mark.parametrize("missing", ["cxr.bundle_digest", "cxr.evaluate_run_id", "cxr.split_run_id"])
def test_a_version_of_another_project_is_refused(missing):
    repackaged.check(version(3))
    other = SimpleNamespace(version=3, name="model", tags={k: v for k, v in TAGS.items() if k != missing})
    with pytest.raises(CxrError, match=f"version 3 of model was not registered by .* lacks the tag {missing}"):
        repackaged.check(other)


@pytest.mark.parametrize(("made", "expected"), [({}, True), ({"cxr.compared": "same answers to 5"}, False),
                                                ({"cxr.repackaged_from": "2"}, False)])  # fmt: skip
def test_what_was_made_from_a_version_without_comparing_is_known(made, expected):
    tags = {"cxr.repackaged_from": "3", "cxr.compared": "not compared"} | made
    assert repackaged.not_compared(SimpleNamespace(tags=tags), version(3)) == expected
    assert not repackaged.not_compared(version(4), version(3))
