"""The log of answers of a server, in its place: every answer that goes out is in it, under the ID of its request."""

import gc

import pandas as pd

from cxr.serving import answers
from tests.cxr.serving.application import JPEG, Told


class Whole(Told):
    """With sides that are whole numbers, as a service has them."""

    def records(self, values, **options):
        sides = {"width": 640, "height": 480} if options.get("measured") else {}
        return [answer | sides for answer in super().records(values, **options)]


def test_answers_of_requests_are_kept_if_the_environment_says_so(make, monkeypatch, tmp_path):
    monkeypatch.setenv(answers.VARIABLE, str(tmp_path / "answers"))
    app = make(Whole()).start()
    answer = app.ask(data=JPEG, kind="image/jpeg", **{"X-Request-ID": "mine.1"})
    assert answer.status == 200 and "distance" not in answer.text
    for log in [found for found in gc.get_objects() if isinstance(found, answers.AnswerLog)]:
        log.close()
    [file] = (tmp_path / "answers").rglob("*.parquet")
    table = pd.read_parquet(file)
    assert list(table["request_id"]) == ["mine.1"] and list(table["row"]) == [0] and list(table["width"]) == [640]
    assert b"patient 4711" not in file.read_bytes()


def test_without_it_nothing_is_measured_or_kept(make, monkeypatch):
    monkeypatch.delenv(answers.VARIABLE, raising=False)
    service = Whole()
    assert make(service).start().ask(data=JPEG, kind="image/jpeg").status == 200
    assert not any(options.get("measured") for _, options in service.seen)
