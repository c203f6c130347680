"""Hardware of this machine, without importing torch."""

import os


def cores() -> int:
    """Return the number of CPU cores that this process may use: its part of them, where several train together."""
    present = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    together = os.environ.get("LOCAL_WORLD_SIZE", "1")  # as torchrun sets it
    return max(1, present // int(together)) if together.isdecimal() and int(together) else present
