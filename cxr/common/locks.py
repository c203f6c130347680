"""Locks between processes."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)
_SILENT_S = 2.0  # of waiting, before the log says why nothing happens


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold a lock that processes share: a file in a folder that exists.

    Where that folder cannot be written, there is nothing to guard and no lock is held.
    """
    if not os.access(lock.parent, os.W_OK):
        yield
        return
    held = FileLock(lock, mode=0o666)  # users can share a cache folder
    try:
        held.acquire(timeout=_SILENT_S)
    except Timeout:
        log.info("waiting for another process to finish (%s)", lock)
        held.acquire()
    try:
        yield
    finally:
        held.release()
