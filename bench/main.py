"""The whole workflow on the real set: wall time and peak memory of each step, then with other settings of the head.

    python -m bench.main --profile cpu --json FILE

Environment and stores: the environment is there, the stores are cold at first. `--subset N` takes fewer images.
"""

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from bench.common import ROOT, parser, real_data, report

STEPS = ("prepare_split", "train", "finetune", "evaluate")


class Watch(threading.Thread):
    """Seconds and peak memory of every step's process below this one, while it runs."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen: dict[str, tuple[float, float, int]] = {}
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            for process in psutil.Process().children(recursive=True):
                try:
                    words, began = process.cmdline(), process.create_time()
                    peak = _peak(process.pid)
                except (psutil.Error, OSError):
                    continue
                for step in STEPS:
                    if words[-1:] and f"steps.{step}" in words and "python" in words[0]:
                        before = self.seen.get(step, (0, 0, 0))
                        self.seen[step] = (began, time.time() - began, max(peak, before[2]))


def _peak(pid: int) -> int:
    """Bytes of memory that a process held at most (Linux), or holds now."""
    status = Path(f"/proc/{pid}/status")
    if status.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) * 1024
    return psutil.Process(pid).memory_info().rss


def run_main(folder: str, *more: str) -> tuple[float, dict[str, tuple[float, float, int]], str]:
    """Wall seconds of one `main`, what was seen of its steps, and what it printed."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    words = [str(Path(sys.executable).parent / "mlflow"), "run", str(ROOT), "-e", "main", "--env-manager", "local"]
    for setting in (f"data_path={real_data()}", f"log_dir={folder}/logs", f"cache.dir={folder}/cache", *more):
        words += ["-P", setting]
    watch = Watch()
    watch.start()
    started = time.perf_counter()
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    watch.over.set()
    watch.join()
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return seconds, watch.seen, done.stdout


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--profile", default="cpu")
    made.add_argument("--subset", type=int, help="images in all; default: every one")
    made.add_argument("--once", action="store_true", help="leave out the runs with other and with the same settings")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting")
    given = made.parse_args()
    more = [f"profile={given.profile}", f"device={given.device}"]
    more += [f"data.subset_size={given.subset}"] if given.subset else []
    more += given.set
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as folder:
        cold, steps, printed = run_main(folder, *more)
        if not given.once:
            warm, _, _ = run_main(folder, *more, "train.optimizer.lr=0.0008")
            again, _, _ = run_main(folder, *more)
    scores = {name.strip(): float(value) for name, value in re.findall(r"^  ([\w ,-]+?)  +(\d\.\d+)$", printed, re.M)}
    rows = [("whole workflow, cache cold", f"{cold / 60:.1f} min")]
    rows += [(f"- {name}", f"{seconds:.0f} s, peak memory {peak / 1e9:.2f} GB")
             for name, (_, seconds, peak) in steps.items()]  # fmt: skip
    figures = {"seconds": cold, "scores": scores}
    figures["steps"] = {name: {"seconds": s, "peak_bytes": p} for name, (_, s, p) in steps.items()}
    if not given.once:
        rows += [("again with another learning rate of the head", f"{warm:.0f} s"),
                 ("again with nothing changed", f"{again:.0f} s")]  # fmt: skip
        figures |= {"other_head_seconds": warm, "unchanged_seconds": again}
    rows += [(f"test {name}", f"{value:.4f}") for name, value in scores.items()]
    report(given, f"The whole workflow on the real set, profile {given.profile}", rows, figures)


if __name__ == "__main__":
    main()
