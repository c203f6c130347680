"""From the rows of an answer to the archive: which images get results, and a count of what became of each.

- `ok`: a report, and a heatmap if the network has maps.
- `refer`: a report that says that a person should look, and why. No heatmap: there is no answer to explain.
- `error`: nothing; such an image was not read.

The heatmap is stored before the report, so where a report is, nothing is missing.
"""

import io
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from pydicom import Dataset

from cxr.archive.capture import capture
from cxr.archive.identity import Model, ResultUIDs
from cxr.archive.report import report
from cxr.archive.source import HeaderError, Source
from cxr.common.files import make_folder, write_atomic
from cxr.errors import CxrError
from cxr.imaging.dicom import is_dicom
from cxr.serving.service import ERROR, OK

REPORTS, HEATMAPS, PRESENT = "reports", "heatmaps", "already there"
UNREAD, FOREIGN, FAILED = "without an answer", "not DICOM", "failed"
_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700


class NotStoredError(Exception):
    """A result that its archive refuses, and why; others may still be stored."""


class Archive(Protocol):
    """Where results go. Thread-safe."""

    def has(self, uids: ResultUIDs) -> bool:
        """Whether the report is there."""

    def store(self, result: Dataset, file: bytes) -> None:
        """Store a result, which is `file` in bytes.

        Raises:
            NotStoredError: it is refused.
            CxrError: no other could be stored either.
        """


class Folder:
    """An archive that is a folder: a folder for each study, and a file for each result.

    They hold names of patients. Folders and files are readable by their owner alone.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            make_folder(folder, _PRIVATE_FOLDER)
        except OSError as error:
            raise CxrError(f"dicom_out={folder}: cannot be made ({error.strerror}); give another folder") from None

    def is_empty(self) -> bool:
        """Whether the folder holds no result."""
        return next(self.folder.glob("*/*.dcm"), None) is None

    def has(self, uids: ResultUIDs) -> bool:
        """Whether the file of the report is there."""
        return self._path("SR", uids.study, uids.report).is_file()

    def store(self, result: Dataset, file: bytes) -> None:
        """Write a result; an earlier one is replaced."""
        kind = "SR" if result.Modality == "SR" else "SC"
        path = self._path(kind, result.StudyInstanceUID, result.SOPInstanceUID)
        try:
            make_folder(path.parent, _PRIVATE_FOLDER)
        except OSError as error:
            raise CxrError(
                f"{path.parent}: cannot be made ({error.strerror}); make room or use another folder"
            ) from None
        write_atomic(path, file, mode=_PRIVATE_FILE)

    def _path(self, kind: str, study: str, instance: str) -> Path:
        return self.folder / study / f"{kind}.{instance}.dcm"


class Delivery:
    """Makes the results of rows and stores them. Thread-safe.

    Attributes:
        counts: what became of the images, by the words at the top of this module.
        reasons: why results could not refer to an image, or were not stored, with their number.
    """

    def __init__(self, model: Model, archive: Archive):
        self.model, self.archive = model, archive
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, images: list[bytes | None], answers: pd.DataFrame) -> None:
        """Deliver the results of rows; `images` are the files that they answer for.

        Raises:
            CxrError: the archive takes nothing any more.
        """
        for data, answer in zip(images, answers.to_dict("records"), strict=True):
            became = self._delivered(data, answer)
            with self._lock:
                self.counts.update(became)

    def _delivered(self, data: bytes | None, answer: dict[str, Any]) -> list[str]:
        if data is None or answer["status"] == ERROR:
            return [UNREAD]
        if not is_dicom(data):
            return [FOREIGN]
        try:
            source = Source.of(data)
            uids = ResultUIDs.of(source.study, source.instance, self.model, str(answer["operating_point"]))
        except HeaderError as error:
            return self._failed(str(error))
        if self.archive.has(uids):
            return [PRESENT]
        explained = answer["status"] == OK and isinstance(answer["heatmap"], str)
        try:
            results: list[Dataset] = [capture(source, answer, self.model, uids)] if explained else []
            results.append(report(source, answer, self.model, uids))
            files = [_file_of(result) for result in results]
        except Exception as error:  # no header, however odd, may stop the batch; a message may hold words of it
            return self._failed(f"its results cannot be made ({type(error).__name__})")
        try:
            for result, file in zip(results, files, strict=True):
                self.archive.store(result, file)
        except NotStoredError as error:
            return self._failed(str(error))
        return [HEATMAPS, REPORTS] if explained else [REPORTS]

    def _failed(self, reason: str) -> list[str]:
        with self._lock:
            self.reasons[reason] += 1
        return [FAILED]


def _file_of(result: Dataset) -> bytes:
    buffer = io.BytesIO()
    result.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
