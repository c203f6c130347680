"""Open run of a step, with access to parent runs, artifacts, tags and metrics."""

import json
import logging
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.common.files import write_atomic
from cxr.errors import CxrError
from cxr.settings.schema import Settings
from steps.runtime import disks, process
from steps.runtime.cli import Step

if TYPE_CHECKING:  # mlflow takes seconds to import, and `--help` does without it
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass(kw_only=True)
class Context:
    """Open run of a step, passed to its `run` function.

    Attributes:
        step: declaration of the step.
        flags: declared parameters that were given.
        overrides: settings that were given, by full name.
        run_id: ID of the MLflow run that everything is logged to.
        experiment_id: ID of its experiment.
        client: MLflow client whose calls signals do not interrupt, and which waits for a store that is away.
        folder: scratch folder, removed at the end of the step.
        log: logger of the step.
        settings: resolved settings; the runner sets them once the run is open.
    """

    step: Step
    flags: dict[str, str]
    overrides: dict[str, str]
    run_id: str
    experiment_id: str
    client: "MlflowClient"
    folder: Path
    log: logging.Logger
    settings: Settings = field(init=False, repr=False)
    _parents: dict[str, "Run"] = field(default_factory=dict)

    def parent(self, parameter: str) -> "Run":
        """The finished run that `parameter` names, or the newest one of its kinds.

        Tags this run with the parent and with the runs that the parent came from.
        """
        from steps.runtime import runs

        if parameter not in self._parents:
            kinds, run_id = self.step.parents[parameter], self.flags.get(parameter, "")
            self._parents[parameter] = run = runs.find(self.client, self.experiment_id, kinds, run_id, parameter)
            lineage = {key: value for key, value in run.data.tags.items() if re.fullmatch(r"cxr\.\w+_run_id", key)}
            lineage[f"cxr.{run.data.tags['cxr.step'].removeprefix('prepare_')}_run_id"] = run.info.run_id
            for key, value in lineage.items():
                self.tag(key, value)
        return self._parents[parameter]

    def boolean(self, flag: str, default: bool) -> bool:
        """Value of a flag that is `true` or `false`; any other text raises `CxrError`."""
        text = self.flags.get(flag, str(default)).lower()
        if text not in ("true", "false"):
            raise CxrError(f"{flag}: expected true or false, got {text!r}")
        return text == "true"

    def fetch(self, run_id: str, artifact_path: str) -> Path:
        """Download a file or folder that a run has logged.

        Raises:
            UnreachableError: the store or a disk could not be read or written.
            CxrError: it is missing.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        from steps.runtime import outage

        try:
            # Not by `run_id=`: MLflow then takes every error for a missing artifact.
            uri = f"{self.client.get_run(run_id).info.artifact_uri}/{artifact_path}"
            path = mlflow.artifacts.download_artifacts(uri, dst_path=str(self.folder / "fetched" / run_id))
        except (MlflowException, OSError) as error:
            if (other := outage.unreachable(error, self.places())) is not None:
                raise other from None
            reason = str(error).splitlines()[0]
            raise CxrError(f"run {run_id} has no artifact {artifact_path} ({reason}); run that step again") from None
        return Path(path)

    def put(self, local: Path, folder: str | None = None) -> None:
        """Log a file, or the contents of a folder, under the artifact folder `folder`.

        On a local store each file is replaced atomically; object stores do that by themselves.
        """
        local = Path(local)
        root = self._local_root()
        if root is None:
            log = self.client.log_artifacts if local.is_dir() else self.client.log_artifact
            log(self.run_id, str(local), folder)
            return
        files = [local] if local.is_file() else sorted(file for file in local.rglob("*") if file.is_file())
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
        """Log plain values as the JSON artifact `path`; NaN and infinity raise `ValueError`."""
        self.put_text(json.dumps(values, indent=2, allow_nan=False) + "\n", path)

    def put_figure(self, figure: "Figure", path: str) -> None:
        """Log a figure as the image `path`, in the format of its suffix."""
        file = self.folder / "figures" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file)
        self.put(file, str(Path(path).parent))

    def tag(self, key: str, value: object) -> None:
        """Set a tag of the run."""
        self.client.set_tag(self.run_id, key, str(value))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log several metrics at once, under one time, so that a call that is tried again stores nothing twice."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.run_id, [Metric(name, float(value), now, step) for name, value in values.items()])

    def continue_run(self, run: "Run") -> None:
        """Continue an earlier run: from now on, everything is logged there.

        It comes from the runs that this command names, whose results are those that it began with.
        """
        from steps.runtime import runs

        if "cxr.error" in run.data.tags:  # of its last end
            self.client.delete_tag(run.info.run_id, "cxr.error")
        lineage = runs.lineage(self.client.get_run(self.run_id).data.tags)
        self.tag("cxr.resumes", run.info.run_id)
        self.client.delete_tag(self.run_id, "cxr.step")
        self.client.set_tag(self.run_id, "mlflow.runName", f"resumes {run.info.run_name}")
        self.run_id = run.info.run_id
        self.client.update_run(self.run_id, status="RUNNING")
        for key, value in {**lineage, "cxr.process": process.identity()}.items():
            self.tag(key, value)

    def places(self) -> list[disks.Place]:
        """Folders that the step writes to."""
        from mlflow.exceptions import MlflowException

        places = [disks.temporary()]
        with suppress(CxrError, MlflowException):  # the store may be what failed
            if (root := self._local_root()) is not None:
                places.append(disks.Place("the artifact folder", root.parents[1], "make room there"))
        if hasattr(self, "settings"):
            places.append(disks.log_dir(Path(self.settings.log_dir)))
        return places

    def _local_root(self) -> Path | None:
        """Artifact folder of the run, if it is on this machine."""
        from steps.runtime import runs

        return runs.artifact_folder(self.client, self.run_id)
