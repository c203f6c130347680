"""Work of `prepare_split`: from a dataset to a manifest, a leak report and figures."""

from pathlib import Path
from typing import Any

import pandas as pd

from cxr.datasets import inspection, labelled, leakage, overlap, sources, split
from cxr.datasets.figures import figures
from cxr.datasets.manifest import COLUMNS, EXTRAS, Manifest
from cxr.errors import CxrError
from cxr.settings import load
from cxr.settings.schema import DataSettings
from steps.runtime import runs, step_key
from steps.runtime.context import Context
from steps.work import dataset_input

SURVEY = "survey/survey.parquet"
# Description of the source, what was found in its images, and (path, reason) of each unreadable one.
Survey = tuple[dict[str, Any], pd.DataFrame, list[tuple[str, str]]]


def run(context: Context) -> None:
    """Split the dataset as the settings say, and log the result."""
    settings, log = context.settings, context.log
    data = settings.data
    step_key.tag(context, step_key.components("prepare_split", settings, [step_key.data_fingerprint(data)]))
    source = sources.fetch(data, settings.seed)
    log.info("source: %s (%s)", source.description["address"], source.root)
    if source.description["synthetic"]:
        log.warning("SYNTHETIC DATA: these are phantoms; a model trained on them says nothing about X-rays")
    described, table, unreadable = _surveyed(context) if "survey_run_id" in context.flags else _survey(context, source)
    log.info("decoded %d images, %d unreadable", len(table), len(unreadable))
    context.metrics({"decoded": len(table), "unreadable": len(unreadable)})
    if data.folds is not None:
        _keep_survey(context, table)
    table = split.assign(
        table,
        names=data.class_names,
        val_size=data.val_size,
        test_size=data.test_size,
        subset_size=data.subset_size,
        seed=settings.seed,
        folds=data.folds,
        fold=data.fold,
        near_duplicate_bits=data.near_duplicate_bits,
    )
    table, report = leakage.resolve(table, data.near_duplicate_bits)
    log.info(
        "duplicates: %d exact groups, %d near pairs; %d images dropped; patients in two splits: %d",
        report["exact"]["groups"],
        report["near"]["groups"],
        len(report["dropped"]),
        len(report["patients_in_two_splits"]),
    )
    columns = [*COLUMNS, *(name for name in EXTRAS if name in table)]
    manifest = Manifest(table[columns], source.root, data.class_names, described, data.finding)
    _log_split(context, manifest, table, report, unreadable)
    log.info("%r", manifest)


def _survey(context: Context, source: sources.Source) -> Survey:
    """Decode every image."""
    data = context.settings.data
    listing = labelled.listing(source.root, data)
    described = {**source.description, **listing.description}
    found = inspection.survey(
        source.root,
        listing.images,
        workers=data.workers,
        max_unreadable=data.max_unreadable,
        engine=data.engine,
    )
    return described, *found


def _surveyed(context: Context) -> Survey:
    """What another fold of the same cross-validation has decoded."""
    run_id = context.flags["survey_run_id"]
    other = runs.find(context.client, context.experiment_id, ("prepare_split",), run_id, "survey_run_id")
    theirs = load.resolve(load.read_file(context.fetch(run_id, "settings.yaml")))
    ours = context.client.get_run(context.run_id).data.tags
    same_files = other.data.tags.get("cxr.key.inputs") == ours["cxr.key.inputs"]
    same_settings = _apart_from_fold(theirs.data) == _apart_from_fold(context.settings.data)
    if not (same_files and same_settings and theirs.seed == context.settings.seed):
        raise CxrError(
            f"survey_run_id={run_id}: expected a run on the same files with the same seed and settings of data apart "
            "from data.fold; leave survey_run_id out"
        )
    unreadable = pd.read_csv(context.fetch(run_id, "split/unreadable.csv"), keep_default_na=False, dtype=str)
    table = pd.read_parquet(context.fetch(run_id, SURVEY))
    context.log.info("the images were decoded by run %s", run_id)
    described = Manifest.load(context.fetch(run_id, "split")).source
    return described, table, list(unreadable.itertuples(index=False, name=None))


def _keep_survey(context: Context, table: pd.DataFrame) -> None:
    """Log what was found in the images, for the other folds."""
    file = context.folder / SURVEY
    file.parent.mkdir(parents=True)
    table.to_parquet(file, index=False)
    context.put(file, str(Path(SURVEY).parent))


def _apart_from_fold(data: DataSettings) -> DataSettings:
    return data.model_copy(update={"fold": 0, "workers": 0, "engine": "", "cache_dir": None, "recipe": None})


def _log_split(
    context: Context,
    manifest: Manifest,
    table: pd.DataFrame,
    report: dict[str, Any],
    unreadable: list[tuple[str, str]],
) -> None:
    """Log everything; the digest that later steps start from comes last."""
    folder = context.folder / "split"
    digest = manifest.save(folder)
    overlap.save(overlap.fingerprints(table), folder)
    manifest.counts().to_csv(folder / "counts.csv")
    pd.DataFrame(unreadable, columns=["path", "reason"]).to_csv(folder / "unreadable.csv", index=False)
    context.put(folder, "split")
    context.put_json(report, "split/leaks.json")
    for name, figure in figures(manifest, table, context.settings.seed).items():
        context.put_figure(figure, f"split/figures/{name}")
    counts = {
        f"{unit}_{split_name}_{label}": number
        for (split_name, label), row in manifest.counts().iterrows()
        for unit, number in row.items()
    }
    context.metrics(counts | {"dropped_duplicates": len(report["dropped"])})
    dataset_input.log(manifest, "split")
    context.tag("cxr.synthetic", str(bool(manifest.source.get("synthetic"))).lower())
    context.tag("cxr.data_root", manifest.root)
    context.tag("cxr.manifest_digest", digest)
    context.tag("cxr.output_digest", digest)
