"""Tables of every kind are read as the same text; what cannot be read is refused in one clear line."""

import pandas as pd
import pytest

from cxr.datasets import tables
from cxr.errors import CxrError

ROWS = pd.DataFrame({"id": ["007", "8"], "n": [1.0, None], "word": [" PA ", "Köln"]})
TEXT = [["007", "1", "PA"], ["8", "", "Köln"]]


@pytest.mark.parametrize("name", ["t.csv", "t.CSV", "t.tsv", "semicolons.csv", "t.parquet", "t.xlsx"])
def test_all_kinds_of_tables_give_the_same_text(tmp_path, name):
    file = tmp_path / name
    if file.suffix == ".parquet":
        ROWS.to_parquet(file)
    elif file.suffix == ".xlsx":
        ROWS.to_excel(file, index=False)
    else:
        separator = "\t" if file.suffix == ".tsv" else ";" if "semicolons" in name else ","
        ROWS.to_csv(file, index=False, sep=separator, encoding="utf-8-sig")
    table = tables.read(file)
    assert list(table.columns) == ["id", "n", "word"] and table.to_numpy().tolist() == TEXT


@pytest.mark.parametrize(
    "name, content, words",
    [
        (
            "none.csv",
            None,
            r"none\.csv does not exist; give data\.labels as an absolute path or a URL, or as a path",
        ),
        ("t.sav", b"x", r"t\.sav: expected a file that ends in \.csv, \.tsv, \.parquet, \.xlsx"),
        ("t.csv", b"", r"t\.csv cannot be read \("),
        ("t.csv", b"a,b\n1,2,3\n4,5,6\n", r"t\.csv cannot be read \("),
        ("t.csv", b"a,b\n\xff\xfe\xe4,2\n", r"t\.csv cannot be read \(.*utf-8.*save it again as UTF-8"),
        ("t.csv", b"a,b\n", r"t\.csv has no rows below its header"),
        ("t.parquet", b"PAR1", r"t\.parquet cannot be read \("),
        ("t.xlsx", b"PK", r"t\.xlsx cannot be read \("),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CxrError, match=words):
        tables.read(tmp_path / name)


@pytest.mark.parametrize(
    "text, years",
    [("30", 30), ("058Y", 58), ("6M", 0.5), ("10 months", 0.833), ("3D", 0.008), ("2 w", 0.038), ("1.5", 1.5), ("0", 0)]
    + [(text, None) for text in ("", "unknown", "411Y", "-3", "3-5", "nan")],
)
def test_ages_are_years_or_missing(text, years):
    assert tables.age(text) == years


def test_sexes_have_one_name(tmp_path):
    words = ["M", "male", "F", "Female", "Unknown", "", "O"]
    assert [tables.sex(word) for word in words] == ["male", "male", "female", "female", "", "", "O"]
