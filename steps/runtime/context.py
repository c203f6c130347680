"""An open run and what a step may ask of it: parents, files of other runs, artifacts, tags, metrics."""

import json
import logging
import re
import shutil
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.common.files import write_atomic
from cxr.errors import CxrError
from cxr.settings.schema import Settings
from steps.runtime import process
from steps.runtime.cli import Step

if TYPE_CHECKING:  # mlflow takes seconds to import, and `--help` needs none of it
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass(kw_only=True)
class Context:
    """An open run and all that a step may ask of it."""

    step: Step
    flags: dict[str, str]
    overrides: dict[str, str]
    run_id: str
    experiment_id: str
    client: "MlflowClient"
    folder: Path
    log: logging.Logger
    settings: Settings = None  # resolved right after the run is open
    _parents: dict[str, "Run"] = field(default_factory=dict)

    def parent(self, parameter: str) -> "Run":
        """The finished run that `parameter` names, or the newest there is of its kinds."""
        from steps.runtime import runs

        if parameter not in self._parents:
            kinds, given = self.step.parents[parameter], self.flags.get(parameter, "")
            self._parents[parameter] = run = runs.find(self.client, self.experiment_id, kinds, given, parameter)
            line = {key: value for key, value in run.data.tags.items() if re.fullmatch(r"cxr\.\w+_run_id", key)}
            line[f"cxr.{run.data.tags['cxr.step'].removeprefix('prepare_')}_run_id"] = run.info.run_id
            for key, value in line.items():
                self.tag(key, value)
        return self._parents[parameter]

    def yes(self, flag: str, default: bool) -> bool:
        """Whether a flag is `true`; anything but `true` and `false` is a `CxrError`."""
        wish = self.flags.get(flag, str(default)).lower()
        if wish not in ("true", "false"):
            raise CxrError(f"{flag}={wish}; allowed: true or false")
        return wish == "true"

    def fetch(self, run_id: str, artifact_path: str) -> Path:
        """Download a file or folder that a run has logged; an absent one is a `CxrError`."""
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            got = mlflow.artifacts.download_artifacts(
                run_id=run_id, artifact_path=artifact_path, dst_path=str(self.folder / "fetched" / run_id)
            )
        except (MlflowException, OSError) as error:
            line = str(error).splitlines()[0]
            raise CxrError(f"run {run_id} has no {artifact_path} to fetch ({line}); run that step again") from None
        return Path(got)

    def put(self, local: Path, folder: str | None = None) -> None:
        """Log a file, or the contents of a folder, under the artifact folder `folder`.

        On a local store every file appears whole or not at all; object stores do that by themselves.
        """
        local = Path(local)
        root = self._local_root()
        if root is None:
            (self.client.log_artifacts if local.is_dir() else self.client.log_artifact)(self.run_id, str(local), folder)
            return
        files = [local] if local.is_file() else sorted(f for f in local.rglob("*") if f.is_file())
        base = local.parent if local.is_file() else local
        for file in files:
            target = root / (folder or "") / file.relative_to(base)
            with file.open("rb") as source:
                write_atomic(target, partial(shutil.copyfileobj, source))

    def put_text(self, text: str, path: str) -> None:
        """Log `text` as the artifact `path`."""
        file = self.folder / "texts" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        self.put(file, str(Path(path).parent) if "/" in path else None)

    def put_json(self, values: Any, path: str) -> None:
        """Log plain values as the JSON artifact `path`; NaN and infinity are refused."""
        self.put_text(json.dumps(values, indent=2, allow_nan=False) + "\n", path)

    def put_figure(self, figure: "Figure", path: str) -> None:
        """Log a figure as the picture `path` (by its suffix)."""
        file = self.folder / "figures" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file)
        self.put(file, str(Path(path).parent))

    def tag(self, key: str, value: object) -> None:
        self.client.set_tag(self.run_id, key, str(value))

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        """Log several metrics at once."""
        import mlflow

        with process.unbroken():
            mlflow.log_metrics({k: float(v) for k, v in values.items()}, step=step, run_id=self.run_id)

    def continue_run(self, run: "Run") -> None:
        """Do the work in an earlier run instead: everything is logged there from now on."""
        self.tag("cxr.resumes", run.info.run_id)
        self.client.delete_tag(self.run_id, "cxr.step")
        self.client.set_tag(self.run_id, "mlflow.runName", f"resumes {run.info.run_name}")
        self.run_id = run.info.run_id
        self.client.update_run(self.run_id, status="RUNNING")
        self.tag("cxr.process", process.identity())

    def _local_root(self) -> Path | None:
        from mlflow.utils.file_utils import local_file_uri_to_path
        from mlflow.utils.uri import is_local_uri

        uri = self.client.get_run(self.run_id).info.artifact_uri
        return Path(local_file_uri_to_path(uri)) if is_local_uri(uri) else None
