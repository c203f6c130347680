"""Names: of files as other people give them, of what most models look for, and of what runs their networks."""

import re

# What a split, a bundle or a served model is about if its file names no finding.
PNEUMONIA = "pneumonia"

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"  # engines, see `cxr.serving.engines`

# Control characters, line separators, characters that turn the direction of text, and bytes that are not UTF-8 (which
# Python holds as surrogates).
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(name: object) -> str:
    """A name for logs, errors and reports: what would act on a terminal or break a line is escaped, as `repr` does."""
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], str(name))


def is_printable(name: object) -> bool:
    r"""Whether a name is shown as it is: no control characters, such as `\r` or the escape of a terminal, and UTF-8."""
    return _UNSAFE.search(str(name)) is None
