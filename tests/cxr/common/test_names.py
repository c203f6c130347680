"""Names that would act on a terminal are escaped, all others are shown as they are."""

import os

import pytest

from cxr.common.names import is_printable, printable


@pytest.mark.parametrize("name", ["IM-1.png", "Röntgen 胸部 写真.png", "a\u200db", 'say "a", b\\n', "\ufeff", "\xa0"])
def test_ordinary_names_are_unchanged(name):
    assert printable(name) == name and is_printable(name)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\rb\n", r"a\rb\n"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
        ("gpj\u202e.exe", r"gpj\u202e.exe"),
        ("\u2028\x85", r"\u2028\x85"),
    ],
)
def test_what_acts_on_a_terminal_is_escaped(name, shown):
    assert printable(name) == shown and not is_printable(name)
    shown.encode("ascii")
