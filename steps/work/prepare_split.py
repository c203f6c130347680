"""The work of `prepare_split`: from a source to a manifest, a leak report and pictures."""

import warnings
from typing import TYPE_CHECKING

from cxr.datasets import inspection, layouts, leakage, sources, split
from cxr.datasets.manifest import COLUMNS, Manifest
from cxr.settings.schema import CLASS_NAMES
from steps.runtime import process, step_key
from steps.runtime.context import Context

if TYPE_CHECKING:
    import pandas as pd


def prepare(context: Context) -> None:
    """Make the split that the settings ask for, and log it."""
    settings, log = context.settings, context.log
    data = settings.data
    step_key.tag(context, step_key.components("prepare_split", settings, [step_key.data_fingerprint(data)]))
    source = sources.fetch(data, settings.seed)
    log.info("source: %s (%s)", source.description["address"], source.root)
    if source.description["synthetic"]:
        log.warning("SYNTHETIC DATA: these are drawn phantoms; nothing learnt from them says anything about X-rays")
    found = layouts.scan(source.root, data.classes)
    table, unreadable = inspection.survey(
        source.root, found, workers=data.workers, max_unreadable=data.max_unreadable
    )  # fmt: skip
    log.info("decoded %d images, %d unreadable", len(table), len(unreadable))
    context.metrics({"decoded": len(table), "unreadable": len(unreadable)})
    table = split.assign(
        table, classes=data.classes, val_size=data.val_size, test_size=data.test_size,
        subset_size=data.subset_size, seed=settings.seed,
    )  # fmt: skip
    table, report = leakage.resolve(table, data.near_duplicate_bits)
    log.info(
        "duplicates: %d exact groups, %d near pairs; %d images dropped; patients in two splits: %d",
        report["exact"]["groups"], report["near"]["groups"], len(report["dropped"]),
        len(report["patients_in_two_splits"]),
    )  # fmt: skip
    manifest = Manifest(table[COLUMNS], source.root, CLASS_NAMES[data.classes], source.description)
    _keep(context, manifest, table, report, unreadable)
    log.info("%r", manifest)


def _keep(
    context: Context, manifest: Manifest, table: "pd.DataFrame", report: dict, unreadable: list[tuple[str, str]]
) -> None:
    """Log everything; the digest that later steps start from comes last."""
    import pandas as pd

    from cxr.datasets.figures import figures

    folder = context.folder / "split"
    manifest.save(folder)
    manifest.counts().to_csv(folder / "counts.csv")
    pd.DataFrame(unreadable, columns=["path", "reason"]).to_csv(folder / "unreadable.csv", index=False)
    context.put(folder, "split")
    context.put_json(report, "split/leaks.json")
    for name, figure in figures(manifest, table, context.settings.seed).items():
        context.put_figure(figure, f"split/figures/{name}")
    counts = manifest.counts()
    context.metrics(
        {f"{what}_{part}_{label}": n for (part, label), row in counts.iterrows() for what, n in row.items()}
        | {"dropped_duplicates": len(report["dropped"])}
    )
    _log_dataset(context, manifest)
    context.tag("cxr.synthetic", str(bool(manifest.source.get("synthetic"))).lower())
    context.tag("cxr.data_root", manifest.root)
    context.tag("cxr.manifest_digest", manifest.digest)
    context.tag("cxr.output_digest", manifest.digest)


def _log_dataset(context: Context, manifest: Manifest) -> None:
    """The manifest as MLflow's dataset input, with a digest that sees every row (36 characters is what fits)."""
    import mlflow

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hints on integer columns, meant for model signatures
        dataset = mlflow.data.from_pandas(
            manifest.rows, source=str(manifest.root), name="manifest", digest=manifest.digest[:36], targets="label"
        )
        with process.unbroken():
            mlflow.log_input(dataset, context="split")
