"""What a process is given, for the tests of `preloaded`: `python -m tests.steps.preloaded_probe [wait] ...`."""

import os
import sys
import threading
from pathlib import Path

if __name__ == "__main__":
    print(os.getpid(), Path.cwd(), os.environ["GIVEN"], *sys.argv[1:], sys.stdin.readline().strip(), flush=True)
    print(threading.active_count(), "preloaded" in " ".join(sys.orig_argv), file=sys.stderr, flush=True)
    if "wait" in sys.argv:
        threading.Event().wait()
    sys.exit(7)
