"""A store, artifacts, caches, logs and temporary files in one folder, and the small workflow that runs there."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import psutil
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.utils.file_utils import local_file_uri_to_path

from cxr.common.files import sha256_of

ROOT = Path(__file__).resolve().parents[2]
MODEL = "cxr-pneumonia"
STEPS = ("prepare_split", "train", "finetune", "evaluate")
# The workflow of the profile `sample` with few phantoms, small images and few epochs.
SMALL = {
    "data.sample_images": "60",
    "model.input_size": "64",
    "train.epochs": "3",
    "finetune.epochs": "2",
    "precision": "float32",
    "evaluate.robustness": "false",
    "evaluate.map_images": "0",
    "evaluate.gallery": "0",
    "registry.gate.minimum.auc_finding": "null",
    "registry.gate.minimum.balanced_accuracy": "null",
}
FOLDERS = ("store", "artifacts", "cache", "logs", "tmp")


@dataclass
class Workspace:
    """Folders of one workflow; each part of the campaign gives every attempt its own."""

    folder: Path
    settings: dict[str, str] = field(default_factory=lambda: dict(SMALL))

    def __post_init__(self) -> None:
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    @property
    def uri(self) -> str:
        """Tracking URI of the store."""
        return f"sqlite:///{self.folder / 'store/mlflow.db'}"

    @property
    def client(self) -> mlflow.MlflowClient:
        """A client of the store."""
        return mlflow.MlflowClient(self.uri)

    def make_store(self) -> None:
        """Make the store with an experiment; as that takes seconds, a template is made once and copied."""
        template = self.folder.parent / "template.db"
        if not template.exists():
            mlflow.MlflowClient(f"sqlite:///{template}").create_experiment("faults")
        store = self.folder / "store/mlflow.db"
        store.write_bytes(template.read_bytes())
        # By hand: MLflow would keep the file open, and a disk with open files cannot be made read-only.
        with closing(sqlite3.connect(store)) as database, database:
            location = (self.folder / "artifacts").as_uri()
            database.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'faults'", (location,))

    def start(self, step: str = "main", **parameters: str) -> "Started":
        """Start a step in a session of its own, with everything that it writes in this workspace."""
        given = {"log_dir": str(self.folder / "logs"), "cache.dir": str(self.folder / "cache/arrays")}
        if step in ("main", "prepare_split", "clean"):  # it is the split's setting, and fixed for what follows
            given["data.cache_dir"] = str(self.folder / "cache/data")
        if step == "main":
            given |= self.settings
        elif step == "prepare_split":
            given |= {name: value for name, value in self.settings.items() if name.startswith("data.")}
        given |= parameters
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment |= {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_EXPERIMENT_NAME": "faults"}
        environment |= {"TMPDIR": str(self.folder / "tmp"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", f"steps.{step}"]
        command += [word for name, value in given.items() for word in (f"--{name}", value)]
        output = self.folder / f"output-{time.monotonic_ns()}.txt"
        with output.open("wb") as file:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
        return Started(process, output)

    def runs(self) -> list[Run]:
        """Every run of the store, newest first."""
        client = self.client
        experiment = client.get_experiment_by_name("faults")
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    def versions(self) -> list[ModelVersion]:
        """Every registered version."""
        return list(self.client.search_model_versions(f"name='{MODEL}'"))

    def processes(self) -> list[psutil.Process]:
        """Processes that work in this workspace."""
        return [p for p in psutil.process_iter(["cmdline"]) if str(self.folder) in " ".join(p.info["cmdline"] or [])]

    def results(self) -> dict[str, str]:
        """Digests of what a finished workflow has made: weights, scores, and every file of the caches."""
        found = {}
        made = {
            "train": ["bundle/model.pt"],
            "finetune": ["bundle/model.pt"],
            "evaluate": ["evaluation/scores.json", "evaluation/predictions.json"],
        }
        done = {r.data.tags.get("cxr.step"): r for r in reversed(self.runs()) if r.info.status == "FINISHED"}
        for step in made.keys() & done.keys():
            found |= {f"{step} {file}": sha256_of(self.artifact(done[step], file)) for file in made[step]}
        cache = self.folder / "cache"
        for path in sorted(cache.rglob("*")):
            if path.is_file() and path.suffix != ".lock":
                found[str(path.relative_to(cache))] = sha256_of(path)
        return found

    def artifact(self, run: Run, path: str) -> Path:
        """An artifact of a run."""
        return Path(local_file_uri_to_path(run.info.artifact_uri)) / path

    def leftovers(self) -> list[str]:
        """Files that a process was still writing when it ended, under their temporary names."""
        hidden = [path for name in FOLDERS for path in (self.folder / name).rglob(".*") if path.suffix != ".lock"]
        journals = list((self.folder / "store").glob("mlflow.db-*"))
        # PyTorch keeps what it compiles, for all later processes.
        kept = (".lock", "torchinductor_")
        scratch = [path for path in (self.folder / "tmp").iterdir() if not any(word in path.name for word in kept)]
        return sorted({str(path.relative_to(self.folder)) for path in (*hidden, *journals, *scratch)})


@dataclass
class Started:
    """A step that was started, and the file with what it prints."""

    process: subprocess.Popen
    output: Path

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.output.read_text(errors="replace")

    def wait(self, seconds: float = 600) -> int:
        """Its exit status; a step that takes longer is killed with all it started."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise

    def steps(self) -> list[psutil.Process]:
        """The processes of the steps that it has started."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in children if any(word.startswith("steps.") for word in child.cmdline())]
        except psutil.NoSuchProcess:
            return []
