"""A DICOMweb server as the source of images and the archive of their results (DICOM PS3.18: QIDO, WADO and STOW)."""

import email.message
import threading
from collections.abc import Iterator
from typing import Any

from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset

from cxr.archive import connection
from cxr.archive.connection import AnswerError, asked
from cxr.archive.delivery import NotStoredError
from cxr.archive.identity import ResultUIDs
from cxr.archive.query import searches_of
from cxr.archive.source import HeaderError, identifiers, is_uid
from cxr.errors import CxrError
from cxr.imaging.dicom import is_dicom

PAGE = 500  # instances that one answer to a search may list
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"  # tags, as DICOM JSON writes them
_WANTED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_ACCEPT = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
_AROUND = 65536  # bytes of an answer that are not the instance in it
_WHOLE = 10**9  # bytes; dicomweb-client sends longer bodies in parts, and an empty one when it tries again
_MISSING = (204, 404, 410)
_BROKEN = "give the address of a DICOMweb service, such as http://127.0.0.1:8042/dicom-web"


class Server:
    """The DICOMweb service at `url`. Thread-safe.

    Attributes:
        url: its address, without a slash at the end and without credentials.
    """

    def __init__(self, url: str):
        self.url = connection.check_address(url)
        connection.session(self.url)  # refuses credentials that cannot be used, and warns once
        self._local = threading.local()
        self._lock = threading.Lock()
        self._reports: dict[tuple[str, str], set[str]] = {}

    def instances(self, query: dict[str, list[str]]) -> list[str]:
        """Paths of all instances that match (see `cxr.archive.query`), in order of their identifiers.

        Raises:
            CxrError: the server cannot be reached, or does not answer searches.
        """
        found: set[tuple[str, str, str]] = set()
        try:
            for filters in searches_of(query):
                found.update(self._search(filters))
        except AnswerError as error:
            raise CxrError(f"{self.url}: a search failed ({error}); {_BROKEN}") from None
        return [self.path(*identity) for identity in sorted(found)]

    def path(self, study: str, series: str, instance: str) -> str:
        """The address of an instance."""
        return f"{self.url}/studies/{study}/series/{series}/instances/{instance}"

    def read(self, path: str, max_bytes: int) -> tuple[bytes | None, str]:
        """The file of an instance, or why the server does not give it. Never holds more than `max_bytes` of it.

        Raises:
            CxrError: the server cannot be reached, or lets nobody in.
        """
        try:
            data = asked(self.url, lambda: self._retrieve(path, max_bytes))
            if identifiers(data) != parts_of(path):
                raise AnswerError("the server's answer is another instance")
            return data, ""
        except (AnswerError, HeaderError) as error:
            return None, str(error)

    def has(self, uids: ResultUIDs) -> bool:
        """Whether the report is there; asks once for each series."""
        key = (uids.study, uids.report_series)
        with self._lock:
            known = self._reports.get(key)
        if known is None:
            known = self._stored(*key)
            with self._lock:
                self._reports[key] = known
        return uids.report in known

    def store(self, result: Dataset, file: bytes) -> None:
        """Store a result and make sure that it is there.

        Raises:
            NotStoredError: the server refuses it, or says nothing of it, and does not have it.
            CxrError: the server cannot be reached, or lets nobody in.
        """
        study, series, instance = (str(result[name].value) for name in _WANTED)
        try:
            why_not = asked(self.url, lambda: self._refusal(result, instance))
        except AnswerError as error:
            why_not = f"not stored: {error}"
        # A server may refuse what it has stored already, for example if its answer was lost. The identifier is a digest
        # of image, model and operating point, so that what is there under it is this result.
        if why_not is not None and instance not in self._stored(study, series):
            raise NotStoredError(why_not)
        with self._lock:
            if (study, series) in self._reports:
                self._reports[study, series].add(instance)

    def _client(self) -> DICOMwebClient:
        """The client of this thread, as sessions of requests are not meant to be shared."""
        if not hasattr(self._local, "client"):
            session = connection.session(self.url)
            client = DICOMwebClient(
                self.url, session=session, chunk_size=_WHOLE, permissive_uid=True, timeout=connection.TIMEOUT_S
            )
            client.set_http_retry_params(retry=False)  # `asked` does that, and not where it is in vain
            self._local.client, self._local.session = client, session
        return self._local.client

    def _refusal(self, result: Dataset, instance: str) -> str | None:
        """Send a result; None if the server confirms it, otherwise what to say of one that is not there."""
        answer = self._client().store_instances([result])
        if instance in _listed(answer, "ReferencedSOPSequence"):
            return None
        code = _listed(answer, "FailedSOPSequence").get(instance)
        return "the server does not keep them" + (f", failure reason {code}" if code else "")

    def _stored(self, study: str, series: str) -> set[str]:
        """Identifiers of the instances in a series; none if there is no such series."""
        try:
            return {instance for _, _, instance in self._search({}, study, series)}
        except AnswerError as error:
            if error.status in _MISSING:
                return set()
            raise CxrError(f"{self.url}: a search for earlier results failed ({error}); {_BROKEN}") from None

    def _search(
        self, filters: dict[str, str], study: str | None = None, series: str | None = None
    ) -> Iterator[tuple[str, str, str]]:
        """Study, series and instance of all matches, page by page."""
        offset, seen = 0, set[tuple[str, str, str]]()
        while True:
            page = asked(self.url, lambda at=offset: self._page(filters, study, series, at))  # type: ignore[misc]
            new = {_identity(item, study, series) for item in page} - seen
            if not new:  # the end, or a server that does not know pages and lists all again
                return
            yield from new
            seen |= new
            offset += len(page)

    def _page(self, filters: dict[str, str], study: str | None, series: str | None, offset: int) -> list[Any]:
        page = self._client().search_for_instances(
            study_instance_uid=study,
            series_instance_uid=series,
            search_filters=filters,
            fields=_WANTED,
            limit=PAGE,
            offset=offset,
        )
        if not isinstance(page, list):
            raise AnswerError("the server's answer is not a list")
        return page

    def _retrieve(self, path: str, max_bytes: int) -> bytes:
        """The file of an instance as it is stored. Not by dicomweb-client, which knows no bounds and parses it."""
        self._client()
        response = self._local.session.get(path, headers=_ACCEPT, timeout=connection.TIMEOUT_S, stream=True)
        response.raise_for_status()
        kind = response.headers.get("Content-Type", "")
        data = _instance_in(connection.read(response, max_bytes + _AROUND), kind)
        if len(data) > max_bytes:
            raise AnswerError(f"more than {max_bytes:,} bytes")
        return data


def parts_of(path: str) -> tuple[str, str, str]:
    """Study, series and instance of an address from `Server.path`."""
    study, series, instance = path.rsplit("/", 5)[1::2]
    return study, series, instance


def _identity(item: Any, study: str | None, series: str | None) -> tuple[str, str, str]:
    """Identifiers in an entry of a search; within a study or series, servers may leave those out."""
    known = {_STUDY: study, _SERIES: series, _INSTANCE: None}
    try:
        found = tuple(known[tag] or item[tag]["Value"][0] for tag in known)
    except (TypeError, KeyError, IndexError):
        raise AnswerError("the server's answer to a search lacks identifiers") from None
    if not all(map(is_uid, found)):
        raise AnswerError("the server's answer to a search holds identifiers that are none")
    return found[0], found[1], found[2]


def _instance_in(body: bytes, content_type: str) -> bytes:
    """The DICOM file in the body of an answer: its first part, or all of it."""
    message = email.message.Message()
    message["Content-Type"] = content_type
    data = body
    if message.get_content_type() == "multipart/related":
        boundary = b"--" + str(message.get_boundary() or "").encode()
        start = body.find(b"\r\n\r\n", body.find(boundary)) + 4
        end = body.find(b"\r\n" + boundary, start)
        if boundary == b"--" or start < 4 or end < 0:
            raise AnswerError("the server's answer is not complete")
        data = body[start:end]
    if not is_dicom(data):
        raise AnswerError("the server's answer is not a DICOM file")
    return data


def _listed(answer: Dataset, sequence: str) -> dict[str, str]:
    """Instances that a sequence of a server's answer lists, each with the reason of its failure in hex, if any."""
    items = answer.get(sequence) or []
    return {
        str(item.get("ReferencedSOPInstanceUID", "")): f"{reason:04X}" if (reason := item.get("FailureReason")) else ""
        for item in items
    }
