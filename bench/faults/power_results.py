"""Results in a folder of an archive: a case of `bench.faults.power`."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from bench.faults.power_recorder import Recorder
from cxr.archive.delivery import Folder
from cxr.archive.identity import ResultUIDs

_UIDS = ResultUIDs("1.2.3", "1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4", "1.2.3.5")


def case(kind: Callable[..., Any], prepare: Callable[[Path], object], check: Callable[[object, str], None]) -> Any:
    """The case, as a `Written` of `bench.faults.power_cases`."""
    return kind("results in a folder of an archive", prepare, write, read(check), finished=("both",))


def write(folder: Path, recorder: Recorder) -> None:
    """Store a heatmap, then its report."""
    archive = Folder(folder / "results")
    for modality, series, instance in (
        ("OT", _UIDS.heatmap_series, _UIDS.heatmap),
        ("SR", _UIDS.report_series, _UIDS.report),
    ):
        archive.store(*_result(modality, series, instance))
        recorder.promise += 1


def read(check: Callable[[object, str], None]) -> Callable[[Path, int], str]:
    """Function that reads them again: where the report is, both are whole; without it, both are written anew."""

    def reading(folder: Path, promise: int) -> str:
        archive, there = Folder(folder / "results"), Folder(folder / "results").has(_UIDS)
        check(there or promise < 2, "the report was stored, and is lost")
        if not there:
            write(folder, Recorder(folder))
        files = sorted((folder / "results" / _UIDS.study).glob("[!.]*"))
        check(archive.has(_UIDS) and len(files) == 2, f"{len(files)} files")
        for file in files:
            check(pydicom.dcmread(file).get("ImageComments") == "whole" * 1000, f"{file.name} is half")
        return "both" if there else "written again"

    return reading


def _result(modality: str, series: str, instance: str) -> tuple[pydicom.Dataset, bytes]:
    result = pydicom.Dataset()
    result.SOPClassUID = ComprehensiveSRStorage if modality == "SR" else SecondaryCaptureImageStorage
    result.StudyInstanceUID, result.SeriesInstanceUID, result.SOPInstanceUID = _UIDS.study, series, instance
    result.Modality, result.ImageComments = modality, "whole" * 1000
    result.file_meta = pydicom.dataset.FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    result.save_as(buffer, enforce_file_format=True)
    return result, buffer.getvalue()
