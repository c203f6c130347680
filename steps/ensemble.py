"""Several bundles of one split as one: their calibrated probabilities, averaged.

Reads the bundles of finetune or train runs; writes `bundle/`, calibrated on validation, which `evaluate` scores and
registers like any other.

    mlflow run . -e ensemble -P run_ids=RUN,RUN,RUN
"""

from steps.runtime.cli import Step
from steps.runtime.context import Context
from steps.runtime.runner import main

STEP = Step(
    name="ensemble",
    about="Average the probabilities of several bundles of one split.",
    flags={"run_ids": "finetune or train runs, separated by commas"},
)


def work(context: Context) -> None:
    from cxr.errors import CxrError
    from cxr.evaluation.tuning import tune
    from cxr.models import bundle, device
    from cxr.models.ensemble import combine
    from steps.runtime import runs
    from steps.work.training import manifest_of, validated

    wanted = [run_id.strip() for run_id in context.flags.get("run_ids", "").split(",") if run_id.strip()]
    if len(set(wanted)) < 2:
        raise CxrError("run_ids needs the IDs of at least 2 runs, separated by commas: -P run_ids=RUN,RUN")
    found = [runs.find(context.client, context.experiment_id, ("finetune", "train"), i, "run_ids") for i in wanted]
    splits = {run.data.tags["cxr.split_run_id"] for run in found}
    if len(splits) > 1:
        raise CxrError(f"run_ids: their splits differ ({', '.join(sorted(splits))}); an ensemble needs a single one")
    manifest = manifest_of(context, splits.pop())
    made = combine([bundle.load(context.fetch(run.info.run_id, "bundle")) for run in found])
    bundle.check_classes(made, manifest.classes)
    where = device.pick(context.settings.device, "float32")
    device.prepare(context.settings.seed, context.settings.deterministic)
    tune(made, manifest, context.settings.calibration, str(where.device))
    made.facts = {"step": "ensemble", "run_id": context.run_id, "manifest_digest": manifest.digest, "members": wanted}
    made.facts |= validated(made, manifest, context.settings.finetune, str(where.device))
    context.metrics({"best_val_metric": made.facts["val_metric"], "best_val_loss": made.facts["val_loss"]})
    context.tag("cxr.split_run_id", found[0].data.tags["cxr.split_run_id"])
    context.tag("cxr.members", ",".join(wanted))
    context.tag("cxr.output_digest", bundle.save(made, context.folder / "bundle"))
    context.put(context.folder / "bundle", "bundle")
    context.log.info(
        "%d networks; %s %.4f on validation", len(wanted), made.facts["metric"], made.facts["val_metric"]
    )  # fmt: skip


if __name__ == "__main__":
    main(STEP, work)
