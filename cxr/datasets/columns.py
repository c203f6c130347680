"""What the cells of a table of labels mean, row by row, as the settings `data.columns` to `data.filters` say.

All functions take the whole table, as `tables.read` returns it, with the columns `ROW` and `GIVEN`, and `file` for what
they have to say about it.
"""

import logging
import re
from collections import Counter

import pandas as pd

from cxr.common.names import printable
from cxr.datasets import tables
from cxr.datasets.manifest import EXTRAS
from cxr.datasets.patients import pseudonym
from cxr.datasets.tables import examples
from cxr.errors import CxrError
from cxr.settings.schema import DataSettings

log = logging.getLogger(__name__)

ROW = "\0row"  # columns that no table has: where a row stands,
GIVEN = "\0split"  # and the split that its whole table is of
# Names of splits in tables -> official split. `val` counts as training: the validation split is chosen from both.
_SPLITS = {"train": "train", "training": "train", "val": "train", "valid": "train", "validation": "train"}
_SPLITS |= {"dev": "train", "test": "test", "testing": "test"}
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


def named(data: DataSettings) -> list[tuple[str, str]]:
    """(setting, column) of every column that the settings name."""
    pairs = []
    for key, value in data.columns.model_dump().items():
        names = value if isinstance(value, list) else [value] if value is not None else []
        if key == "path" and value is not None and _PLACEHOLDER.search(value):
            names = _PLACEHOLDER.findall(value)
        pairs += [(f"data.columns.{key}", name) for name in names]
    return pairs


def filtered(table: pd.DataFrame, data: DataSettings, file: str, left_out: dict[str, int]) -> pd.DataFrame:
    """The rows that pass all filters."""
    ours = {key: name for key, name in data.columns.model_dump().items() if isinstance(name, str) and key != "path"}
    for key, wanted in data.filters.items():
        name = key if key in table else ours.get(key, key)
        values = tables.column(table, name, f"data.filters.{key}", file)
        numbers = values.map(tables.age) if name == data.columns.age else pd.to_numeric(values, errors="coerce")
        if isinstance(wanted, dict):
            passes = numbers.ge(wanted.get("min", -float("inf"))) & numbers.le(wanted.get("max", float("inf")))
        else:
            allowed = wanted if isinstance(wanted, list) else [wanted]
            words = [value for value in allowed if isinstance(value, str)]
            passes = values.isin(words) | numbers.isin([value for value in allowed if not isinstance(value, str)])
        left_out[f"filter {key}"] = int((~passes).sum())
        table = table[passes]
    return table.reset_index(drop=True)


def labels(
    table: pd.DataFrame, data: DataSettings, classes: tuple[str, ...], file: str, left_out: dict[str, int]
) -> list[str | None]:
    """The class of each row; None where it has none, or several."""
    meaning = data.mapping if data.mapping is not None else {name: name for name in classes}
    names = data.columns.label
    if isinstance(names, list):
        present = {name: _is_one(table[name]).tolist() for name in names}
        findings = [[name for name in names if present[name][row]] for row in range(len(table))]
    else:
        cells = [cell.split(data.separator) if data.separator else [cell] for cell in table[names]]
        findings = [[part.strip() for part in cell if part.strip()] for cell in cells]
    unknown = Counter(finding for row in findings for finding in row if finding not in meaning)
    if unknown and data.mapping is None:
        raise CxrError(
            f"{file}: {unknown.total():,} labels are no classes: {most(unknown)}; expected {', '.join(classes)}, or "
            "data.mapping={THEIRS: OURS}"
        )
    result: list[str | None] = []
    counts: Counter[str] = Counter()
    for row in findings:
        ours = {meaning[finding] for finding in row if meaning.get(finding) is not None}
        counts["no label" if not ours else "several classes" if len(ours) > 1 else ""] += 1
        result.append(ours.pop() if len(ours) == 1 else None)
    left_out |= {reason: counts[reason] for reason in ("no label", "several classes")}
    unmapped = unknown + Counter(f for row in findings for f in row if f in meaning and meaning[f] is None)
    if unmapped:
        log.info("%s: %d labels stand for no class: %s", file, unmapped.total(), most(unmapped))
    return result


def _is_one(values: pd.Series) -> pd.Series:
    """Whether each cell is 1, or true as Parquet and Excel files have it."""
    return pd.to_numeric(values, errors="coerce").eq(1) | values.str.lower().eq("true")


def paths(table: pd.DataFrame, data: DataSettings) -> pd.Series:
    """The path of each row's image, as the table has it."""
    template = str(data.columns.path)
    if not _PLACEHOLDER.search(template):
        return table[template]
    words = _PLACEHOLDER.split(template)  # text and names of columns in turn
    result = pd.Series(words[0], index=table.index, dtype=object)
    for name, text in zip(words[1::2], words[2::2], strict=True):
        result += table[name] + text
    return result


def patients(table: pd.DataFrame, data: DataSettings, file: str) -> pd.Series:
    """Pseudonyms, the same as of DICOM files with this patient ID and no issuer; empty where there is none."""
    if data.columns.patient is None:
        return pd.Series("", index=table.index, dtype=object)
    values = table[data.columns.patient]
    if data.patient_pattern is not None:
        matches = values.map(re.compile(data.patient_pattern).search)
        if matches.isna().any():
            raise CxrError(
                f"{file}: data.patient_pattern={data.patient_pattern} matches nothing in {matches.isna().sum():,} of "
                f"{len(table):,} rows: {examples(table.loc[matches.isna(), ROW])}; correct the pattern"
            )
        values = matches.map(lambda match: match[0])
    return values.map(lambda value: pseudonym(f"\0{value}") if value else "")


def splits(table: pd.DataFrame, data: DataSettings, file: str) -> pd.Series:
    """The official split of each row; empty where there is none."""
    given = table[GIVEN if data.columns.split is None else data.columns.split].str.lower()
    unknown = Counter(given[~given.isin([*_SPLITS, ""])])
    if unknown:
        raise CxrError(
            f"{file}: {unknown.total():,} rows are in an unknown split: {most(unknown)}; expected train, val or test "
            f"in {data.columns.split}"
        )
    return given.map({**_SPLITS, "": ""})


def extras(table: pd.DataFrame, data: DataSettings, file: str) -> dict[str, pd.Series]:
    """The columns of `EXTRAS` that the table has. The number of a study can lead to a person, as that of a patient."""
    found = {key: table[name] for key, name in data.columns.model_dump(include=set(EXTRAS)).items() if name is not None}
    if "age" in found:
        years = found["age"].map(tables.age).astype(float)
        missing = int(years.isna().sum())
        if missing:
            log.info("%s: %d of %d rows have no age that can be read", file, missing, len(years))
        found["age"] = years
    if "sex" in found:
        found["sex"] = found["sex"].map(tables.sex).map(printable)
    for name in ("view", "site", "scanner"):
        if name in found:
            found[name] = found[name].map(printable)
    if "study" in found:
        found["study"] = found["study"].map(lambda value: pseudonym(f"\0{value}") if value else "")
    return found


def most(counts: Counter[str]) -> str:
    """The five most frequent words with their counts, and how many more there are."""
    return examples(f"{count:,} {name or '(empty)'}" for name, count in counts.most_common())
