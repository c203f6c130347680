"""Every format of MLflow's server gives the same cells; anything else is refused in one line that repeats nothing."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.errors import ImageError
from cxr.serving.body import CSV, JSON, parse

MANY = 64
PATIENT = "patient 4711"


@pytest.mark.parametrize(
    "table",
    [
        {"dataframe_records": [{"image": "a"}, {"image": "b"}]},
        {"dataframe_records": [{"age": 3, "image": "a"}, {"image": "b"}]},
        {"dataframe_split": {"columns": ["image"], "data": [["a"], ["b"]]}},
        {"dataframe_split": {"columns": ["age", "image"], "index": [7, 8], "data": [[3, "a"], [4, "b"]]}},
        {"inputs": ["a", "b"]},
        {"inputs": {"image": ["a", "b"]}},
        {"inputs": [{"image": "a"}, {"image": "b"}]},
        {"instances": ["a", "b"]},
        {"instances": [{"image": "a"}, {"image": "b"}]},
    ],
)
def test_all_formats_give_the_same_cells(table):
    assert parse(json.dumps(table).encode(), JSON, MANY) == (["a", "b"], {})
    params = {"operating_point": "youden", "heatmap": True, "strict": False}
    assert parse(json.dumps({**table, "params": params}).encode(), JSON, MANY) == (["a", "b"], params)


def test_csv():
    assert parse(b"image\na\nb\n", CSV, MANY) == (["a", "b"], {})
    assert parse(b'age,image\n1,"a\nb"\n2,\n', CSV, MANY) == (["a\nb", None], {})
    assert parse(b"image\n", CSV, MANY) == ([], {})
    assert len(parse(b"image\n" + b"a\n" * 1000, CSV, MANY)[0]) == MANY + 1  # enough to see that they are too many


def test_empty_tables_and_missing_cells_are_rows_like_others():
    for empty in ({"inputs": []}, {"dataframe_records": []}, {"dataframe_split": {"columns": ["image"], "data": []}}):
        assert parse(json.dumps(empty).encode(), JSON, MANY)[0] == []
    assert parse(b'{"dataframe_records": [{"image": "a"}, {}, {"image": null}]}', JSON, MANY)[0] == ["a", None, None]
    assert parse(b'{"inputs": {"image": "a"}}', JSON, MANY)[0] == ["a"]


NO_TABLE = "no table of images in application/json; send"
NO_COLUMN = "expected a column 'image' with images; send"


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (PATIENT, NO_TABLE),
        ([PATIENT], NO_TABLE),
        ({PATIENT: []}, NO_TABLE),
        ({"inputs": [], "instances": []}, NO_TABLE),
        ({"inputs": PATIENT}, NO_TABLE),
        ({"dataframe_split": [PATIENT]}, NO_TABLE),
        ({"dataframe_split": {"columns": ["image"], "data": [[PATIENT, 1]]}}, NO_TABLE),
        ({"dataframe_split": {"columns": ["image"], "data": [PATIENT]}}, NO_TABLE),
        ({"dataframe_split": {"columns": ["image", "image"], "data": [[1, 2]]}}, NO_COLUMN),
        ({"dataframe_split": {"columns": [PATIENT], "data": [[1]]}}, NO_COLUMN),
        ({"dataframe_records": [{PATIENT: 1}]}, NO_COLUMN),
        ({"inputs": {PATIENT: [1]}}, NO_COLUMN),
        ({"inputs": [], PATIENT: 1}, "expected inputs and params in a request, and nothing else"),
        ({"inputs": [], "parms": {}}, "expected inputs and params in a request, and nothing else"),
        ({"inputs": [], "params": PATIENT}, "params: expected operating_point, heatmap, strict and no others"),
        (
            {"inputs": [], "params": {"operating_pont": PATIENT}},
            "params: expected operating_point, heatmap, strict and",
        ),
        ({"inputs": [], "params": {"strict": PATIENT}}, "params: strict: expected true or false"),
        ({"inputs": [], "params": {"heatmap": 1}}, "params: heatmap: expected true or false"),
        ({"inputs": [], "params": {"operating_point": None}}, "params: operating_point: expected a name"),
    ],
)
def test_anything_else_is_refused_without_repeating_it(sent, words):
    with pytest.raises(ImageError) as caught:
        parse(json.dumps(sent).encode(), JSON, MANY)
    assert str(caught.value).startswith(words) and PATIENT not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe\x00", b"[" * 5_000, b'{"inputs": [NaN]}', b'{"inputs": [-Infinity]}', b"9" * 10_000,
     b'{"inputs": [' + b"9" * 10_000 + b"]}"],
)  # fmt: skip
def test_what_is_no_json_is_refused(data):
    with pytest.raises(ImageError, match="^no table of images in application/json; send"):
        parse(data, JSON, MANY)


@pytest.mark.parametrize(
    "data", [b"", b'image\n"a', b"image\n\xff\xfe", b"x," * 500_000, b"image\na,b\n", b"image\n" + b"x," * 9999]
)
def test_what_is_no_csv_is_refused(data):
    with pytest.raises(ImageError, match="^no table of images in text/csv; send"):
        parse(data, CSV, MANY)


KEYS = ["image", "data", "columns", "params", "strict", "inputs", "dataframe_split", "x"]
TOP = ["dataframe_records", "dataframe_split", "inputs", "instances", "params"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
)


def outcome(data: bytes, kind: str) -> tuple[list, dict] | str:
    """Cells and parameters, or the line of the refusal."""
    try:
        return parse(data, kind, MANY)
    except ImageError as error:
        return str(error)


def is_a_line(text: object) -> bool:
    return isinstance(text, str) and "\n" not in text and len(text) < 200


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(TOP), VALUES))
def test_any_json_gives_cells_or_one_line(sent):
    told = outcome(json.dumps(sent).encode(), JSON)
    assert is_a_line(told) or (isinstance(told[0], list) and set(told[1]) <= {"operating_point", "heatmap", "strict"})


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.text("image,\n\"'x\\ \0", max_size=100).map(str.encode))
def test_any_bytes_give_cells_or_one_line(data):
    assert is_a_line(outcome(data, JSON)) or isinstance(json.loads(data), dict)
    told = outcome(data, CSV)
    assert is_a_line(told) or all(cell is None or isinstance(cell, str) for cell in told[0])


@pytest.mark.parametrize("row", ["1.5", '""', "[]", "{}", "[[[]]]", '{"image": "a", "b": 1}'])
def test_a_large_table_is_not_even_parsed(row, monkeypatch):
    monkeypatch.setattr("json.loads", lambda *_, **__: pytest.fail("parsed"))
    told = outcome(f'{{"inputs": [{",".join([row] * 100_000)}]}}'.encode(), JSON)
    assert told.startswith("far more values than 64 images; send")


def test_as_many_rows_as_are_accepted_may_have_other_columns():
    rows = [{"image": "a" * 5000, **{f"column {number}": number for number in range(30)}}] * MANY
    assert len(parse(json.dumps({"dataframe_records": rows}).encode(), JSON, MANY)[0]) == MANY
