"""Where a bundle comes from: the tags of its version, and what it has seen of a split that is not its own."""

from typing import TYPE_CHECKING

from cxr.datasets import overlap
from cxr.datasets.manifest import Manifest
from cxr.errors import CxrError
from cxr.evaluation.facts import SeenImages, TrainingFacts
from steps.registry import seen
from steps.runtime import runs
from steps.runtime.context import Context

if TYPE_CHECKING:
    import pandas as pd

_SCORED = {"test": "test", "val": "validation"}


def version_tags(context: Context, facts: TrainingFacts, manifest: Manifest, digest: str) -> dict[str, str]:
    """Tags of a registered version that lead back to its runs, data and bundle."""
    if facts.val_metric is None or facts.manifest_digest is None or facts.metric is None:
        raise CxrError("the bundle does not state its validation metric; only bundles of a training can be registered")
    return runs.lineage(context.client.get_run(context.run_id).data.tags) | {
        "cxr.evaluate_run_id": context.run_id,
        "cxr.manifest_digest": facts.manifest_digest,
        "cxr.bundle_digest": digest,
        "cxr.val_metric": str(facts.val_metric),
        "cxr.val_metric_name": facts.metric,
        "cxr.synthetic": str(bool(manifest.source.get("synthetic"))).lower(),
    }


def seen_of(context: Context, facts: TrainingFacts, manifest: Manifest, split_run_id: str) -> SeenImages | None:
    """What a bundle has seen of the split that it is evaluated on; None if that is its own, or if it does not say.

    A bundle of another split is scored and not registered, since neither its training nor the gate kept to this one.
    """
    if facts.manifest_digest in (None, manifest.digest):
        return None
    try:
        found = _found(context, facts, manifest, split_run_id)
    except CxrError as error:
        result = SeenImages(words=f"whether it has seen images of this one cannot be found out: {error}")
    else:
        result = _counted(found, manifest)
        context.metrics({"seen_images": len(found), "seen_patients": found["patient"].nunique()})
    context.log.warning("the bundle is of another split, so nothing is registered; %s", result.words)
    context.tag("cxr.another_split", result.words)
    return result


def _found(context: Context, facts: TrainingFacts, manifest: Manifest, split_run_id: str) -> "pd.DataFrame":
    """The validation and test images that the bundle has seen, as `steps.registry.seen` lists them."""
    training = runs.known(context.client, facts.run_id or "")
    if training is None:
        raise CxrError(f"its training, run {facts.run_id}, is not in the store")
    learned_run_id = training.data.tags.get("cxr.split_run_id")
    if learned_run_id is None:
        raise CxrError(f"its training, run {facts.run_id}, does not name its split")
    found = seen.seen(context, split_run_id, learned_run_id)
    return found[found["split"].isin(_SCORED)]


def _counted(found: "pd.DataFrame", manifest: Manifest) -> SeenImages:
    here = {split: len(manifest.split(split)) for split in _SCORED}
    images = {split: int((found["split"] == split).sum()) for split in _SCORED}
    reasons = {reason: int((found["reason"] == reason).sum()) for reason in overlap.REASONS}
    parts = [f"{images[split]} of {here[split]} {word} images" for split, word in _SCORED.items() if here[split]]
    patients = found["patient"].nunique()
    why = ", ".join(f"{reason} {number}" for reason, number in reasons.items())
    words = (
        f"{' and '.join(parts)}, of {patients} patients, stand in its own training or validation images ({why}), and "
        "their scores flatter it"
    )
    if not len(found):
        words = f"{' and '.join(parts)} stand in its own training or validation images"
    return SeenImages(words=words, images=images, reasons=reasons, patients=patients)
