"""On real X-rays: undisturbed images raise no alarm, a tenth of negatives, turned or foreign pictures does."""

import numpy as np
import pandas as pd
import pytest

from bench.strangers import strangers
from cxr.imaging import decode
from cxr.monitoring import reference as references
from cxr.monitoring.judge import ANY, Judge, alarms
from cxr.monitoring.reference import Reference
from cxr.serving.columns import TIME
from cxr.serving.reasons import KINDS, kinds
from cxr.serving.service import Service
from tests.helpers import CLASSES, settings_with

SETTINGS = settings_with({}).monitor
FRESH, FOREIGN = 300, 30
pytestmark = pytest.mark.xdist_group("real_bundle")
MONDAY = pd.Timestamp("2026-11-02T08:00Z")


@pytest.fixture(scope="module")
def service(real_service) -> Service:
    return Service(real_service, threads=2, version="1")


@pytest.fixture(scope="module")
def reference(real_service) -> Reference:
    """That of the version, as packaging writes it."""
    return references.load(real_service, "version 1")


def answered(service: Service, files: list[bytes]) -> pd.DataFrame:
    parts = [service.answer(files[start : start + 60], measured=True) for start in range(0, len(files), 60)]
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def known(service, real_manifest) -> pd.DataFrame:
    """Answers to the validation images, with label and patient."""
    val = real_manifest.split("val")
    table = answered(service, [file.read_bytes() for file in val.files()])
    return table.assign(truth=val.labels(), patient=val.rows["patient"].to_numpy())


@pytest.fixture(scope="module")
def fresh(service, real_manifest, real_data) -> pd.DataFrame:
    """Answers to images of patients that the model has not seen, with the classes of validation."""
    seen = set(real_manifest.rows["path"].str.split("/").str[-1])
    files = sorted(file for file in (real_data / "test").rglob("*.jpeg") if file.name not in seen)
    order = np.random.default_rng(0).permutation(len(files))[:FRESH]
    return answered(service, [files[i].read_bytes() for i in order])


def of(known: pd.DataFrame) -> Reference:
    """The reference that packaging would have made of these answers."""
    found = [set(kinds(text)) for text in known["reasons"]]
    masks = {kind: np.array([kind in kinds_ for kinds_ in found]) for kind in KINDS}
    return references.of_answers(
        classes=CLASSES,
        finding="pneumonia",
        operating_points={"argmax": 0.5},
        labels=known["truth"].to_numpy(),
        patients=known["patient"].to_numpy(),
        columns={name: known[name].to_numpy(float) for name in references.column_names(CLASSES, "pneumonia")},
        reasons={"argmax": masks},
    )


def raised(reference: Reference, rows: pd.DataFrame, days: int = 1) -> list[str]:
    """Alarms of all rows and of each of so many days."""
    rows = rows.reset_index(drop=True)
    rows = rows.assign(**{TIME: MONDAY + pd.to_timedelta(np.arange(len(rows)) % days, "D")})
    judge = Judge(reference, SETTINGS, 0)
    found = alarms(judge.whole(rows))
    return found + [line for window in judge.windows(rows, "day") if window.part for line in alarms(window.part)]


@pytest.mark.slow
def test_the_reference_of_packaging_is_that_of_the_answers(reference, known):
    again = of(known)
    assert reference.images == len(known) and reference.confusion == again.confusion
    assert reference.referred["argmax"] == again.referred["argmax"]
    for name, column in reference.columns.items():
        np.testing.assert_allclose(column.quantiles, again.columns[name].quantiles, atol=2e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "days", "together"), [(150, 1, False), (150, 3, True), (40, 1, True)], ids=["images", "days", "few"]
)
@pytest.mark.parametrize("draws", [20, pytest.param(100, marks=pytest.mark.long)])
def test_an_undisturbed_half_against_the_other_raises_no_alarm_in_95_of_100_draws(known, images, days, together, draws):
    """Halves of the images, or of the patients with all their images."""
    rng, wrong = np.random.default_rng([images, days, together]), 0
    for _ in range(draws):
        units = known["patient"].to_numpy() if together else np.arange(len(known))
        order = rng.permutation(np.unique(units))
        first = np.isin(units, order[: len(order) // 2])
        rows = known[~first].sample(min(images, (~first).sum()), random_state=int(rng.integers(2**31)))
        wrong += bool(raised(of(known[first]), rows, days))
    assert wrong <= draws * 0.05


@pytest.mark.slow
@pytest.mark.parametrize("days", [1, 3])
def test_images_of_new_patients_raise_none(reference, fresh, days):
    assert raised(reference, fresh, days) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["inverted", "rotated 90", "rotated 180", "rotated 270", "photograph", "text"])
def test_a_tenth_of_others_raises_one(service, real_manifest, reference, fresh, kind):
    xrays = [decode.decode_grey(file.read_bytes()) for file in real_manifest.split("test").files()[:FOREIGN]]
    others = answered(service, strangers(kind, FOREIGN, xrays))
    assert any(line.startswith("referred") for line in raised(reference, pd.concat([fresh[FOREIGN:], others])))
    assert ANY in Judge(reference, SETTINGS, 0).whole(fresh.assign(**{TIME: MONDAY})).referred
