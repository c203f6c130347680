"""Results on a DICOMweb server: each of them once, also if the server refuses copies or does not say what it has."""

import pytest

from cxr.archive.delivery import FAILED, HEATMAPS, PRESENT, REPORTS, Delivery
from cxr.archive.dicomweb import Server
from cxr.archive.identity import ResultUIDs
from cxr.errors import CxrError
from tests.cxr.archive.fake_server import hang_up, read, status, times
from tests.cxr.archive.made import MODEL, SERIES, STUDY, answer, radiograph, rows


def test_results_are_stored_once(fake):
    deliver = Delivery(MODEL, Server(fake.url))
    deliver([radiograph(1), radiograph(2)], rows(answer(), answer()))
    assert deliver.counts == {REPORTS: 2, HEATMAPS: 2} and fake.modalities() == ["DX"] * 5 + ["OT", "OT", "SR", "SR"]
    again = Delivery(MODEL, Server(fake.url))
    again([radiograph(1), radiograph(2)], rows(answer(), answer()))
    assert again.counts == {PRESENT: 2} and len(fake.archive) == 9
    uids = ResultUIDs.of(STUDY, f"{SERIES}.1", MODEL, "argmax")
    assert Server(fake.url).has(uids) and uids.report in fake.archive


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda h: (h.json({"00081198": failed(h, 272)}, 200), True)[1], "does not keep them, failure reason 0110"),
        (lambda h: (h.json({}), True)[1], "the server does not keep them"),
        (lambda h: (h.answer(200, b"thanks", "text/html"), True)[1], "the server does not keep them"),
        (status(409), "not stored: the server answered with status 409"),
        (lambda h: (h.answer(200, b"{", "application/dicom+json"), True)[1], "not stored: the server's answer is not"),
        (lambda h: (h.json({"00081199": {"vr": "UI", "Value": ["1.2"]}}), True)[1], "cannot be read (AttributeError)"),
        (lambda h: (h.json({"00081198": failed(h, "x", "LO")}), True)[1], "cannot be read (ValueError)"),
    ],
)
def test_what_is_not_stored_is_counted_and_stops_nothing(fake, fault, reason):
    server = Server(fake.url)
    fake.faults = [first_post(fault)]
    deliver = Delivery(MODEL, server)
    deliver([radiograph(1), radiograph(2)], rows(answer(), answer()))
    assert deliver.counts == {FAILED: 1, REPORTS: 1, HEATMAPS: 1}
    assert [text for text in deliver.reasons if reason in text]


def failed(handler, code: object, kind: str = "US") -> dict:
    """An entry of the failures for every result that was sent."""
    return {"vr": "SQ", "Value": handler.references(**{"00081197": {"vr": kind, "Value": [code]}})}


def first_post(fault):
    """A fault of the first result that is sent."""
    one = times(1, fault)
    return lambda handler: handler.command == "POST" and one(handler)


def test_a_server_that_stores_without_saying_so_is_asked(fake):
    """Its answer has a content type that dicomweb-client does not read; the results are there all the same."""

    def silent(handler):
        vars(handler).pop("json", None)
        if handler.command == "POST":
            handler.json = lambda _: handler.answer(200, b"{}", "application/dicom+json; charset=utf-8")
        return False

    fake.faults = [silent]
    deliver = Delivery(MODEL, Server(fake.url))
    deliver([radiograph()], rows(answer()))
    assert deliver.counts == {REPORTS: 1, HEATMAPS: 1}


def reports_failure(handler) -> bool:
    handler.json({"00081198": failed(handler, 0x0111)}, 200)
    return True


@pytest.mark.parametrize("refuse", [status(409), reports_failure])
def test_a_result_whose_answer_was_lost_counts_as_stored(fake, refuse):
    """The server stores it and the connection breaks; sent again, it is a copy, which this server refuses."""

    def without_copies(handler):
        if handler.command != "POST":
            return False
        if any(str(read(data).SOPInstanceUID) in fake.archive for data in handler.sent):
            return refuse(handler)
        fake.put(*handler.sent)
        return hang_up(handler)

    fake.faults = [without_copies]
    deliver = Delivery(MODEL, Server(fake.url))
    deliver([radiograph()], rows(answer()))
    assert deliver.counts == {REPORTS: 1, HEATMAPS: 1} and fake.modalities() == ["DX"] * 5 + ["OT", "SR"]


def test_a_heatmap_from_an_interrupted_run_does_not_keep_the_report_away(fake):
    """Only the report is asked for in advance, so the heatmap is sent again."""
    fake.faults = [lambda handler: handler.command == "POST" and "OT" in fake.modalities() and status(401)(handler)]
    with pytest.raises(CxrError, match="access denied"):
        Delivery(MODEL, Server(fake.url))([radiograph()], rows(answer()))
    assert fake.modalities() == ["DX"] * 5 + ["OT"]
    fake.faults = [first_post(status(409))]
    deliver = Delivery(MODEL, Server(fake.url))
    deliver([radiograph()], rows(answer()))
    assert deliver.counts == {REPORTS: 1, HEATMAPS: 1} and fake.modalities() == ["DX"] * 5 + ["OT", "SR"]
