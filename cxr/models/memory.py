"""Memory of tensors on the CPU: kept by the process, and in large pages.

The C library gives large blocks back to the kernel as soon as they are free. Every tensor of a training step is then
mapped, filled with zeros and unmapped again: 7 to 20 % of the CPU time of a step of EfficientNet-Lite0
(`python -m bench.memory`). Kept blocks are used again by the next step, which needs as many.
"""

import ctypes
import mmap
import sys
from functools import cache

# As in malloc.h: the parameters of mallopt.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER = -1
_RESERVED = 4 << 30  # bytes of address space that the heap begins with; memory is taken only when it is written to
_STEP = 64 << 20  # bytes by which it grows beyond that


@cache
def keep_freed() -> None:
    """Let this process keep what it frees, and use large pages where the kernel has them; for glibc, else nothing."""
    if sys.platform != "linux" or not _is_glibc():
        return
    library = ctypes.CDLL(None)
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    library.mallopt(_TOP_PAD, _STEP)
    library.sbrk.restype = library.malloc.restype = ctypes.c_void_p
    library.sbrk.argtypes, library.malloc.argtypes = [ctypes.c_ssize_t], [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    start = library.sbrk(0)
    library.free(library.malloc(_RESERVED))
    length = library.sbrk(0) - start
    if length > 0:
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        library.madvise(first, length - (first - start), mmap.MADV_HUGEPAGE)


def _is_glibc() -> bool:
    return hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
