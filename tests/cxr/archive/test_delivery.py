"""Each image that got an answer gets its results, once; no odd image stops the others."""

import os
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from cxr.archive.delivery import (
    FAILED,
    FOREIGN,
    HEATMAPS,
    PRESENT,
    REPORTS,
    UNREAD,
    Delivery,
    Folder,
    NotStoredError,
)
from cxr.archive.identity import Model, ResultUIDs
from cxr.errors import CxrError
from cxr.serving import batch
from cxr.serving.batch import Transfer
from cxr.serving.service import Service
from tests.cxr.archive.made import MODEL, SERIES, STUDY, answer, radiograph, referral, rows
from tests.helpers import png


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_report_and_a_heatmap_for_an_answer_and_a_report_for_a_referral(tmp_path):
    deliver = Delivery(MODEL, Folder(tmp_path / "out"))
    deliver([radiograph(1), radiograph(2)], rows(answer(), referral()))
    assert deliver.counts == {REPORTS: 2, HEATMAPS: 1} and not deliver.reasons
    names = [file.relative_to(tmp_path / "out").as_posix() for file in files(tmp_path / "out")]
    uids = [ResultUIDs.of(STUDY, f"{SERIES}.{n}", MODEL, "argmax") for n in (1, 2)]
    expected = [f"{STUDY}/SC.{uids[0].heatmap}.dcm", *(f"{STUDY}/SR.{one.report}.dcm" for one in uids)]
    assert names == sorted(expected)
    assert {pydicom.dcmread(file).StudyInstanceUID for file in files(tmp_path / "out")} == {STUDY}
    series = {(d.Modality, d.SeriesInstanceUID) for d in map(pydicom.dcmread, files(tmp_path / "out"))}
    assert series == {("SR", uids[0].report_series), ("OT", uids[0].heatmap_series)}


def test_only_the_owner_can_read_them(tmp_path):
    before = os.umask(0)
    try:
        Delivery(MODEL, Folder(tmp_path / "out"))([radiograph()], rows(answer()))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files(tmp_path / "out")} == {0o600}
    folders = [tmp_path / "out", tmp_path / "out" / STUDY]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_a_second_run_writes_nothing_and_another_folder_gets_the_same_objects(tmp_path):
    deliver = Delivery(MODEL, Folder(tmp_path / "out"))
    deliver([radiograph()], rows(answer()))
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files(tmp_path / "out")}
    deliver([radiograph()], rows(answer()))
    assert deliver.counts[PRESENT] == 1
    assert before == {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files(tmp_path / "out")}
    Delivery(MODEL, Folder(tmp_path / "again"))([radiograph()], rows(answer()))
    for one, other in zip(files(tmp_path / "out"), files(tmp_path / "again"), strict=True):
        assert one.name == other.name
        assert without_times(pydicom.dcmread(one)) == without_times(pydicom.dcmread(other))


def without_times(result: pydicom.Dataset) -> pydicom.Dataset:
    """A result without the elements that say when it was made."""
    moments = ("InstanceCreation", "Content", "Contribution", "OfSecondaryCapture")

    def leave_out(dataset, element):
        if any(word in element.keyword for word in moments) and element.VR in ("DA", "TM", "DT"):
            del dataset[element.tag]

    result.walk(leave_out)
    return result


def test_what_makes_results_new(tmp_path):
    def uids(model=MODEL, point="argmax", instance="1.2.3"):
        return ResultUIDs.of(STUDY, instance, model, point)

    others = [
        uids(Model(**{**MODEL.__dict__, "version": "4"})),
        uids(Model(**{**MODEL.__dict__, "name": "other"})),
        uids(Model(**{**MODEL.__dict__, "digest": "6a" * 32})),  # the same name and version in another store
        uids(point="sensitive"),
        uids(instance="1.2.4"),
    ]
    everything = [identifier for one in (uids(), *others) for identifier in (one.report, one.heatmap)]
    assert len(set(everything)) == len(everything) and uids() == uids()
    assert uids(instance="1.2.4").report_series == uids().report_series
    assert len({one.report_series for one in (uids(), *others[:4])}) == 5
    assert all(len(identifier) <= 64 for identifier in everything)


def test_what_gets_no_results_is_counted_and_stops_nothing(tmp_path):
    deliver = Delivery(MODEL, Folder(tmp_path / "out"))
    images = [None, b"x", png(np.zeros((64, 64), np.uint8)), radiograph(1, StudyInstanceUID=None)]
    images += [radiograph(2)[:300], radiograph(3, SOPClassUID="1.2.3.4"), radiograph(4), radiograph(5)]
    table = rows(*[answer(status="error", label=None)] * 2, *[answer()] * 4, answer(heatmap="no PNG"), answer())
    deliver(images, table)
    assert deliver.counts == {UNREAD: 2, FOREIGN: 1, FAILED: 4, REPORTS: 1, HEATMAPS: 1}
    assert deliver.reasons == {
        "no StudyInstanceUID": 2,  # without it, and cut before it
        "its SOP class is none of DICOM's": 1,
        "its results cannot be made (ValueError)": 1,
    }


def test_a_network_without_maps_gets_reports_alone(tmp_path):
    deliver = Delivery(MODEL, Folder(tmp_path / "out"))
    deliver([radiograph()], rows(answer(heatmap=None)))
    assert deliver.counts == {REPORTS: 1}


def test_the_heatmap_is_stored_before_the_report(tmp_path):
    """A report means that nothing is missing, also after a kill between the two."""

    class Failing(Folder):
        def store(self, result, file):
            if result.Modality == "SR":
                raise CxrError("killed here")
            super().store(result, file)

    with pytest.raises(CxrError):
        Delivery(MODEL, Failing(tmp_path / "out"))([radiograph()], rows(answer()))
    assert [file.name[:2] for file in files(tmp_path / "out")] == ["SC"]
    deliver = Delivery(MODEL, Folder(tmp_path / "out"))
    deliver([radiograph()], rows(answer()))
    assert deliver.counts == {REPORTS: 1, HEATMAPS: 1} and len(files(tmp_path / "out")) == 2


def test_an_archive_that_refuses_one_may_take_the_next():
    class Choosy:
        def has(self, uids):
            return False

        def store(self, result, file):
            if result.InstanceNumber == 1:
                raise NotStoredError("the server does not keep them")

    deliver = Delivery(MODEL, Choosy())
    deliver([radiograph(1), radiograph(2)], rows(answer(), answer()))
    assert deliver.counts == {FAILED: 1, REPORTS: 1, HEATMAPS: 1}
    assert deliver.reasons == {"the server does not keep them": 1}


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CxrError, match="dicom_out=.*cannot be made"):
        Folder(tmp_path / "file" / "out")


def test_a_killed_batch_resumes_and_every_image_has_its_results(served, tmp_path, monkeypatch):
    """With the service itself: shards that are whole were delivered, and the table has no heatmaps."""
    monkeypatch.setattr(batch, "SHARD_ROWS", 4)
    service = Service(served.folder, threads=2, version="3")
    paths = []
    for number in range(1, 11):
        file = tmp_path / f"{number:02d}.dcm"
        file.write_bytes(radiograph(number))
        paths.append(str(file))
    model = Model.of(service, "small")
    deliver = Delivery(model, Folder(tmp_path / "out"))
    calls = []

    def dying(images, answers):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        deliver(images, answers)

    options, output = {"point": "argmax", "with_heatmap": True}, tmp_path / "preds.parquet"
    with pytest.raises(KeyboardInterrupt):
        batch.score(service, paths, output, options, "m", Transfer(deliver=dying))
    assert deliver.counts[REPORTS] == 4
    batch.score(service, paths, output, options, "m", Transfer(deliver=deliver))
    table = pd.read_parquet(output)
    assert list(table["path"]) == paths and table["heatmap"].isna().all()
    reports = [file for file in files(tmp_path / "out") if file.name.startswith("SR")]
    assert len(reports) == 10 == deliver.counts[REPORTS] and deliver.counts[PRESENT] == 0
