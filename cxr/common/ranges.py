"""A file of which any part can be asked for, as a file that is open."""

import io
from collections.abc import Callable
from typing import Any


class Ranges(io.RawIOBase):
    """A file of `size` bytes; `part` gives those from a start to an end, and is called for each read."""

    def __init__(self, part: Callable[[int, int], bytes], size: int):
        self._part, self._size, self._at = part, size, 0

    def readable(self) -> bool:
        """True: it is there to be read."""
        return True

    def seekable(self) -> bool:
        """True: any part can be asked for."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; returns it."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        """The place."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Ask for what fits into `buffer`; returns the number of bytes."""
        end = min(self._at + len(buffer), self._size)
        data = self._part(self._at, end) if end > self._at else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
