"""Alarms on numbers alone: how rarely undisturbed answers raise one, and what raises one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.errors import CxrError
from cxr.monitoring import drift
from cxr.monitoring import reference as references
from cxr.monitoring.judge import ANY, UNREADABLE, Judge, alarms
from cxr.monitoring.reference import Reference
from cxr.serving.reasons import KINDS, kinds
from cxr.settings import load
from cxr.settings.monitoring import MonitorSettings

ROOT = Path(__file__).resolve().parents[3]
CLASSES = ("normal", "bacteria", "virus")
SHARES = (0.27, 0.47, 0.26)
MONDAY = pd.Timestamp("2026-11-02T08:00Z")


@pytest.fixture(scope="module")
def settings() -> MonitorSettings:
    return load.load_settings(ROOT / "params.yaml").monitor


def answers(rng: np.random.Generator, images: int, shares: tuple[float, ...] = SHARES) -> pd.DataFrame:
    """Answers of a good model: two in a hundred are undecided, one is far."""
    truth = rng.choice(3, images, p=shares)
    logits = rng.normal(size=(images, 3)) + 3 * np.eye(3)[truth]
    odds = np.exp(logits)
    table = pd.DataFrame(odds / odds.sum(1, keepdims=True), columns=[f"probability_{name}" for name in CLASSES])
    table["probability_pneumonia"] = 1 - table["probability_normal"]
    table["distance"] = rng.gamma(8, 0.12, images)
    table["brightness"], table["width"], table["height"] = rng.normal(120, 15, (3, images))
    chance = rng.random(images)
    far, undecided = "unlike the training images (distance 3.00, at most 2.00)", "undecided (probability 0.5)"
    table["reasons"] = np.where(chance < 0.01, far, np.where(chance < 0.03, undecided, ""))
    table["status"] = np.where(table["reasons"] != "", "refer", "ok")
    return table.assign(operating_point="argmax", time=MONDAY, truth=truth)


def of(known: pd.DataFrame, **more: pd.DataFrame) -> Reference:
    """The reference of a version with these answers at `argmax`, and `more` at other operating points."""
    masks = {}
    for point, table in {"argmax": known, **more}.items():
        found = [set(kinds(text)) for text in table["reasons"]]
        masks[point] = {kind: np.array([kind in kinds_ for kinds_ in found]) for kind in KINDS}
    return references.of_answers(
        classes=CLASSES,
        finding="pneumonia",
        operating_points={"argmax": 0.5},
        labels=known["truth"].to_numpy(),
        patients=np.arange(len(known)),
        columns={name: known[name].to_numpy() for name in references.column_names(CLASSES, "pneumonia")},
        reasons=masks,
    )


def failing(rows: pd.DataFrame, images: int) -> pd.DataFrame:
    """The same answers, had the first so many images been unreadable."""
    rows, failed = rows.reset_index(drop=True), np.arange(len(rows)) < images
    rows.loc[failed, ["status", "reasons"]] = ["error", "the file is empty (0 bytes)"]
    rows.loc[failed, references.column_names(CLASSES, "pneumonia")] = np.nan
    return rows


def raised(judge: Judge, rows: pd.DataFrame, days: int = 1) -> list[str]:
    rows = rows.reset_index(drop=True)
    rows = rows.assign(time=MONDAY + pd.to_timedelta(np.arange(len(rows)) % days, "D"))
    parts = [judge.whole(rows), *(window.part for window in judge.windows(rows, "day") if window.part)]
    return [line for part in parts for line in alarms(part)]


@pytest.mark.parametrize("draws", [20, pytest.param(100, marks=pytest.mark.long)])
@pytest.mark.parametrize(("known", "images", "days"), [(300, 300, 4), (300, 40, 1), (60, 60, 1)])
def test_undisturbed_answers_raise_no_alarm_in_95_of_100_draws(settings, known, images, days, draws):
    rng = np.random.default_rng([known, images])
    found = [raised(Judge(of(answers(rng, known)), settings, 0), answers(rng, images), days) for _ in range(draws)]
    assert sum(map(bool, found)) <= draws * 0.05, found


def test_without_regard_to_chance_small_samples_would_raise_alarms_all_the_time(settings):
    """What the limits alone would do: the index of forty undisturbed images is often above 0.2."""
    rng = np.random.default_rng(0)
    judge, over = Judge(of(answers(rng, 300)), settings, 0), []
    for _ in range(20):
        part = judge.whole(answers(rng, 40))
        over.append(any(column.psi.value > settings.limits.psi for column in part.columns.values()))
    assert np.mean(over) > 0.8


@pytest.mark.parametrize("images", [100, 600])
def test_a_tenth_that_is_referred_raises_one(settings, images):
    rng = np.random.default_rng(1)
    rows = answers(rng, images)
    tenth = rows.index < images // 10
    rows.loc[tenth, ["status", "reasons"]] = ["refer", "black and white seem exchanged (inverted polarity)"]
    found = raised(Judge(of(answers(rng, 300)), settings, 0), rows)
    assert any(line.startswith("referred as inverted: ") for line in found)


def test_a_tenth_far_from_training_raises_one_by_its_distances_alone(settings):
    rng = np.random.default_rng(2)
    rows = answers(rng, 600)
    rows.loc[rows.index < 60, "distance"] = 9.0
    assert any(line.startswith("distance: PSI") for line in raised(Judge(of(answers(rng, 300)), settings, 0), rows))


def test_other_classes_are_seen_in_the_estimated_shares(settings):
    rng = np.random.default_rng(3)
    judge = Judge(of(answers(rng, 400)), settings, 0)
    rows = answers(rng, 400, (0.7, 0.2, 0.1))
    shares = judge.whole(rows).label_shift.classes
    assert shares["normal"].share.low < (rows["truth"] == 0).mean() < shares["normal"].share.high
    assert any(line.startswith("estimated share of normal: ") for line in raised(judge, rows))


def test_referral_is_expected_at_the_operating_points_that_answered(settings):
    """A point that refers a third of validation may do so; mixed with another, its share of that."""
    rng = np.random.default_rng(4)
    known, other = answers(rng, 300), answers(rng, 300)
    third = other.index % 3 == 0
    other.loc[third, ["status", "reasons"]] = ["refer", "undecided (probability 0.3)"]
    judge = Judge(of(known, sensitive=other), settings, 0)
    rows = other.assign(operating_point="sensitive")
    assert not raised(judge, rows)
    assert any(line.startswith("referred: ") for line in raised(judge, rows.assign(operating_point="argmax")))
    mixed = judge.whole(pd.concat([rows, known]))
    assert mixed.referred[ANY].expected == pytest.approx(mixed.referred[ANY].share)


def test_images_that_cannot_be_read_count_for_themselves(settings):
    rng = np.random.default_rng(5)
    rows, judge = answers(rng, 300), Judge(of(answers(rng, 300)), settings, 0)
    part = judge.whole(pd.concat([rows, failing(rows.head(40), 40)]))
    assert part.images == 300 and part.referred[UNREADABLE].images == 40
    assert alarms(part) == [f"unreadable: {40 / 340:.1%}, at most 5.0%"]


def test_a_day_of_which_nearly_nothing_can_be_read_raises_an_alarm(settings):
    """Too few images for drift are left, but a day on which reading fails must not be the one that nobody judges."""
    rng = np.random.default_rng(8)
    judge = Judge(of(answers(rng, 300)), settings, 0)
    outage = failing(answers(rng, 1000), 980).assign(time=MONDAY + pd.Timedelta("1D"))
    before, day = (window.part for window in judge.windows(pd.concat([answers(rng, 300), outage]), "day"))
    assert alarms(before) == [] and alarms(day) == ["unreadable: 98.0%, at most 5.0%"]
    assert day.images == 20 and list(day.referred) == [UNREADABLE] and day.columns == {} and day.label_psi is None
    assert day.label_shift.why_not == "fewer than 30 images could be read"
    # It is one comparison more, no less and not all of them.
    shared = settings.false_alarms / 2 / (judge.comparisons(300) + 1)
    assert day.referred[UNREADABLE].rise.chance == drift.share_by_chance(0, 300, 1000, shared)
    assert before.columns["distance"].ks.chance == pytest.approx(drift.ks_by_chance(300, 300, shared))
    for whole in (judge.whole(outage), judge.whole(failing(answers(rng, 40), 40))):
        assert [line.partition(":")[0] for line in alarms(whole)] == ["unreadable"]


def test_without_a_limit_on_referrals_a_day_of_unreadable_images_is_no_comparison(settings):
    rng, limits = np.random.default_rng(9), settings.limits.model_copy(update={"referred": None})
    judge = Judge(of(answers(rng, 300)), settings.model_copy(update={"limits": limits}), 0)
    assert judge.comparisons(0) == 0 and alarms(judge.whole(failing(answers(rng, 40), 40))) == []


def test_small_windows_are_gaps_and_small_inputs_are_refused(settings):
    rng = np.random.default_rng(6)
    judge = Judge(of(answers(rng, 300)), settings, 0)
    rows = pd.concat([answers(rng, 50), answers(rng, 3).assign(time=MONDAY + pd.Timedelta("8D"))])
    windows = judge.windows(rows, "week")
    assert [(f"{window.begin:%m-%d}", window.images, window.part is None) for window in windows] == [
        ("11-02", 50, False), ("11-09", 3, True)
    ]  # fmt: skip
    with pytest.raises(CxrError, match="3 images were answered in this time; fewer than monitor.window_images=30"):
        judge.whole(rows.tail(3))


def test_kinds_are_those_of_the_texts():
    texts = "unlike the training images (distance 2.10, at most 1.90); blank; a colour image; undecided (at 0.5)"
    assert kinds(texts) == ["unlike training", "implausible", "undecided"] and kinds("") == []
    assert kinds("black and white seem exchanged (inverted polarity)") == ["inverted"]


def test_a_reference_is_small_however_many_images_there_are(settings):
    rng = np.random.default_rng(7)
    small, large = answers(rng, 900), answers(rng, 9000)
    assert len(of(large).to_json()) < 1.3 * len(of(small).to_json()) < 120_000
    part = Judge(of(large), settings, 0).whole(large)
    assert max(column.psi.value for column in part.columns.values()) < 1e-4
    assert max(column.ks.value for column in part.columns.values()) < 2e-3
