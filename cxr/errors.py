"""Exceptions for errors that a user can cause and correct."""


class CxrError(Exception):
    """An error in settings, data or files that the user can correct.

    The message is one line: what was seen, what is allowed and what to do. A step prints it without a traceback, marks
    its run FAILED and exits with status 1. Any other exception is a bug.
    """

    def __init__(self, message: str):
        # Words of a foreign file may hold characters that move the cursor of a terminal.
        line = " ".join(str(message).split())
        super().__init__("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line))


class ImageError(CxrError):
    """An image that cannot be read, or cannot be read as a grey X-ray without guessing."""


class LostError(CxrError):
    """Another process of the same training has ended; `known` if it said why, which is then the message."""

    def __init__(self, message: str, *, known: bool = False):
        super().__init__(message)
        self.known = known


class BusyError(CxrError):
    """There is no capacity at the moment; the same request may succeed later.

    `status` is the HTTP status of a server that answers with it.
    """

    status = 503


class OverloadedError(BusyError):
    """More is asked at once than is worked on at once; the same request may succeed later."""

    status = 429


def in_short(error: BaseException) -> str:
    """Shorten another library's error message to one line of at most 120 characters."""
    return " ".join(str(error).split())[:120] or type(error).__name__
