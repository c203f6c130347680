"""The classes of a dataset: their names, and what all but the first of them have in common, the finding."""

import re

from cxr.common.names import PNEUMONIA

CLASS_NAMES = {2: ("normal", PNEUMONIA), 3: ("normal", "bacteria", "virus")}  # of the Kermany dataset
_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_LONGEST = 40  # characters; metrics and columns have names made of those of the classes
_MOST = 20
# Scores are called `recall_NAME`; these endings turn one into another number about it, as in `test_recall_NAME_low`.
_ENDINGS = ("_low", "_high", "_mean", "_sd", "_delong")
_SPLITS = ("train", "val", "test")  # folders above those of the classes
_COLUMNS = (  # of tables in which classes or the finding give columns their names
    *("path", "member", "label", "operating_point", "decision", "status", "reasons", "heatmap", "model_version"),
    "finding",  # the gate's `auc_finding` is the AUC of any finding
)
_EMPTY = ("nan", "none", "null")  # what libraries write for a missing value


def class_names(classes: int | list[str]) -> tuple[str, ...]:
    """The names that `data.classes` stands for, in the order of the logits; the first is the negative class."""
    return CLASS_NAMES[classes] if isinstance(classes, int) else tuple(classes)


def as_setting(names: tuple[str, ...], finding: str) -> int | list[str]:
    """The value of `data.classes` that stands for these names and their finding."""
    known = (number for number, those in CLASS_NAMES.items() if those == names and finding == PNEUMONIA)
    return next(known, list(names))


def check_classes(classes: object) -> None:
    """Raise `ValueError` unless `classes` is 2, 3 or a list of distinct names."""
    if type(classes) is int and classes in CLASS_NAMES:
        return
    if not isinstance(classes, list):
        raise ValueError("expected 2, 3 or a list of names, the negative class first: [healthy, tuberculosis]")
    if not 2 <= len(classes) <= _MOST:
        raise ValueError(f"expected 2 to {_MOST} classes, got {len(classes)}")
    for name in classes:
        check_name(name)
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        raise ValueError(f"{' and '.join(twice)} given twice; expected distinct names")


def check_name(name: object) -> None:
    """Raise `ValueError` unless `name` can stand in the names of folders, columns and metrics."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise ValueError(
            f"expected names of at most {_LONGEST} lower-case letters, digits, '_' and '-' that begin with a letter, "
            f"got {name!r}"
        )
    if name in (*_SPLITS, *_COLUMNS, *_EMPTY):
        raise ValueError(f"{name!r} has another meaning in folders or tables; choose another name")
    if name.endswith(_ENDINGS):
        raise ValueError(f"{name!r} ends like the name of an interval or a mean; choose a name without that ending")


def check_finding(finding: str, classes: int | list[str]) -> None:
    """Raise `ValueError` unless `finding` can stand for all `classes` but the first, and has columns of its own."""
    names = class_names(classes)
    if len(names) == 2 and finding != names[1]:
        raise ValueError(
            f"finding {finding!r} with the classes {', '.join(names)}: of two classes, the second is the finding; "
            f"set data.finding={names[1]}"
        )
    if len(names) > 2 and finding in names:
        raise ValueError(
            f"finding {finding!r} is also the name of a class, and both would be probability_{finding}; give the "
            "finding a name of its own, for what all classes but the first have in common"
        )
    if isinstance(classes, int) and finding != PNEUMONIA:
        raise ValueError(
            f"finding {finding!r}: classes {classes} are {', '.join(names)}, whose finding is {PNEUMONIA}; give your "
            "own classes as a list, the negative one first"
        )
