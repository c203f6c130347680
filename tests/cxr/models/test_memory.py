"""Freed memory is used again instead of being asked of the kernel anew."""

import platform
import subprocess
import sys

import pytest

from cxr.common.code import PROJECT

# Page faults while 1 GB is written, in blocks above any limit from which the C library asks the kernel for each.
FAULTS = """
import ctypes, resource, sys, torch
from cxr.models import memory
if sys.argv[1] == "kept":
    memory.keep_freed()
    memory.keep_freed()
def write():
    for _ in range(20):
        torch.ones(50 * 2**20, dtype=torch.uint8)
write()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
write()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what it changes is of glibc")
def test_what_was_freed_is_used_again():
    assert faults("kept") < 100 < faults("as it is")
