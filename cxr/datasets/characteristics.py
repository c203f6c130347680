"""What a table says of the images of each split: ages, sexes, views, sites and scanners, each in a few words."""

import pandas as pd

from cxr.datasets.manifest import SPLITS, Manifest

SHOWN = ("age", "sex", "view", "site", "scanner")
UNKNOWN = "unknown"
_MOST = 4  # values of a property that are named; the others are counted


def describe(manifest: Manifest) -> list[dict[str, str]]:
    """`name`, `split` and `text` of every property that is known of some image, for the splits that have images.

    Every image counts, not every patient: of patients, one can have several ages, views and scanners.
    """
    described = []
    for name in SHOWN:
        if name in manifest.rows and not _unknown(manifest.rows[name]).all():
            for split in SPLITS:
                values = manifest.split(split).rows[name]
                if len(values):
                    text = _ages(values) if name == "age" else _shares(values)
                    described.append({"name": name, "split": split, "text": text})
    return described


def _unknown(values: pd.Series) -> pd.Series:
    return values.isna() | (values == "")


def _ages(years: pd.Series) -> str:
    low, median, high = years.quantile([0.25, 0.5, 0.75])
    known = f"median {median:.3g} years, quartiles {low:.3g} and {high:.3g}" if years.notna().any() else ""
    missing = f"{years.isna().mean():.0%} {UNKNOWN}" if years.isna().any() else ""
    return ", ".join(part for part in (known, missing) if part)


def _shares(values: pd.Series) -> str:
    shares = values.mask(_unknown(values), UNKNOWN).value_counts(normalize=True)
    words = [f"{value} {share:.0%}" for value, share in shares.iloc[:_MOST].items()]
    rest = len(shares) - _MOST
    return ", ".join([*words, f"{rest} others {shares.iloc[_MOST:].sum():.0%}"] if rest > 0 else words)
