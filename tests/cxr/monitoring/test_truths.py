"""Truths beside answers of two sources, and times at the end of the calendar."""

import pandas as pd
import pytest

from cxr.errors import CxrError
from cxr.monitoring import table, truths
from cxr.monitoring.reference import Reference


@pytest.fixture
def reference() -> Reference:
    return Reference.model_construct(classes=["normal", "pneumonia"], finding="pneumonia")


@pytest.mark.parametrize("key", ["path", "request_id"])
def test_answers_of_predict_and_of_a_service_in_one_folder(tmp_path, reference, key):
    predicted = pd.DataFrame({"path": ["a/1.png", "a/2.png"]})
    logged = pd.DataFrame({"request_id": ["r1", "r1"], "row": [0, 1]})
    rows = pd.concat([predicted, logged], ignore_index=True)
    (predicted if key == "path" else logged).assign(label="normal").to_csv(tmp_path / "truth.csv", index=False)
    matched, found = truths.attach(rows, tmp_path / "truth.csv", reference, 0)
    assert matched["truth_row"].tolist() == ([0, 1, -1, -1] if key == "path" else [-1, -1, 0, 1])
    assert found.unmatched == 0


def test_the_last_day_of_the_calendar_is_refused_in_one_line():
    with pytest.raises(CxrError, match="until=9999-12-31: expected a date"):
        table.moment("9999-12-31", "until", end=True)
