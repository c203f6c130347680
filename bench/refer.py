"""Does a registered model know what it does not know? Whom it refers of its own validation and test images, and of
pictures that are no upright chest X-rays: `python -m bench.refer --model-uri models:/NAME/1`."""

import os
import tempfile
from pathlib import Path

import mlflow

from bench.common import parser, quiet, report
from bench.strangers import KINDS, strangers
from cxr.common.hardware import cores
from cxr.datasets.manifest import Manifest
from cxr.imaging import decode
from cxr.serving.service import REFER, Service
from steps.registry.model_files import pinned, service_folder


def share(service: Service, files: list[bytes]) -> float:
    """Share of pictures that are referred."""
    most, referred = service.limits.max_images, 0
    for start in range(0, len(files), most):
        referred += int((service.answer(files[start : start + most])["status"] == REFER).sum())
    return referred / len(files)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--model-uri", default="models:/cxr-pneumonia@champion")
    made.add_argument("--count", type=int, default=300, help="pictures of each kind")
    given = made.parse_args()
    quiet()
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    client = mlflow.MlflowClient()
    uri, version = pinned(client, given.model_uri)
    split_run = client.get_model_version(uri.split("/")[1], version).tags["cxr.split_run_id"]
    with tempfile.TemporaryDirectory(prefix="cxr-bench-") as folder:
        service = Service(service_folder(uri, Path(folder) / "model"), threads=cores(), version=version)
        split = Manifest.load(mlflow.artifacts.download_artifacts(run_id=split_run, artifact_path="split"))
        found = {}
        for part in ("val", "test"):
            files = [file.read_bytes() for file in split.split(part).files()]
            found[part] = share(service, files)
        xrays = [decode.decode_grey(data) for data in files]
        for kind in KINDS:
            found[kind] = share(service, strangers(kind, given.count, xrays))
    words = {"val": "validation images", "test": "test images"}
    rows = [(f"referred: {words.get(name, name)}", f"{value:.1%}") for name, value in found.items()]
    report(given, "What a registered model refers", [("model", f"{uri}"), *rows], {"referred": found})


if __name__ == "__main__":
    main()
