"""Robustness: scores under blur, contrast changes, compression, rotation and masks; and whether shortcuts are taken.

A shortcut is what tells the classes apart without being a sign of disease: markers, tubes, collimation, the hospital's
way of cropping. R. Geirhos et al., "Shortcut learning in deep neural networks", Nature Machine Intelligence 2 (2020).
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy import ndarray

from cxr.datasets.manifest import Manifest
from cxr.evaluation import scores
from cxr.evaluation.cam import ClassActivationMap, share_inside
from cxr.evaluation.predictor import Predictor
from cxr.evaluation.probes import Robustness, RobustnessRow, ShortcutTest
from cxr.evaluation.scores import Sample
from cxr.evaluation.statistics import Estimate, Scores
from cxr.loading.changes import BORDER_MASKED, CHANGES, UNCHANGED, Change, border_alone, lungs_blurred, whole_patients
from cxr.loading.rasters import RasterDataset
from cxr.serving.probabilities import softmax

# What guessing reaches without looking: an AUC of 0.5, and a macro-F1 of at most 1 / C. A class of share p that is
# guessed with chance q has an expected F1 of 2 p q / (p + q), whose mean over the classes is largest, 1 / C, at q = p.
_CHANCE_AUC = 0.5
_UNIMPORTANT = 0.02  # a loss of less than this counts as none, however certain it is


def robustness(
    predictor: Predictor,
    activation: ClassActivationMap | None,
    split: Manifest,
    dataset: RasterDataset,
    *,
    temperature: float,
    seed: int,
    most: int | None,
    batch_size: int,
) -> Robustness:
    """Scores under every change, on at most `most` images of whole patients, drawn by `seed`.

    `dataset` has the rasters of `split`; logits are divided by `temperature`.
    """
    rows = whole_patients(split, seed, most)
    rasters = dataset.rasters(rows)
    sample = Sample.of(split, seed).subset(rows)

    def probabilities(batches: list[ndarray]) -> ndarray:
        return softmax(np.concatenate([predictor.logits(batch) for batch in batches]) / temperature)

    def batches(change: Change) -> list[ndarray]:
        changed = np.stack([change(raster) for raster in rasters])
        return [changed[i : i + batch_size] for i in range(0, len(changed), batch_size)]

    table, inside, predicted, resampled = [], None, {}, {}
    for name, change in CHANGES.items():
        images = batches(change)
        answers = probabilities(images)
        predicted[name], resampled[name] = answers.argmax(1), scores.resampled(sample, answers)
        if name == UNCHANGED and activation is not None:
            inside = _inside(activation, images, predicted[name])
        changed = float((predicted[name] != predicted[UNCHANGED]).mean())
        table.append(RobustnessRow(change=name, changed=changed, scores=_summary(resampled[name], sample)))
    alone, blurred = (scores.resampled(sample, probabilities(batches(c))) for c in (border_alone, lungs_blurred))
    shortcuts = _shortcuts(sample, resampled[UNCHANGED], alone, blurred, resampled[BORDER_MASKED])
    return Robustness(images=len(rows), table=table, shortcuts=shortcuts, inside=inside)


def shortcuts(probabilities: Callable[[ndarray], ndarray], rasters: ndarray, sample: Sample) -> list[ShortcutTest]:
    """The tests of shortcuts of any classifier, such as a served one.

    Args:
        probabilities: gives those of the classes of `sample`, of shape (n, C), for rasters (n, S, S).
        rasters: the images, `uint8` of shape (n, S, S).
        sample: their true classes and patients.
    """
    changes = CHANGES[UNCHANGED], border_alone, lungs_blurred, CHANGES[BORDER_MASKED]
    changed = (np.stack([change(raster) for raster in rasters]) for change in changes)
    return _shortcuts(sample, *(scores.resampled(sample, probabilities(images)) for images in changed))


def _shortcuts(
    sample: Sample,
    unchanged: dict[str, ndarray],
    alone: dict[str, ndarray],
    blurred: dict[str, ndarray],
    masked: dict[str, ndarray],
) -> list[ShortcutTest]:
    return [
        near_chance("the border alone, all inside it black", unchanged, alone, sample),
        near_chance("the border, and shades of what is inside it (heavy blur)", unchanged, blurred, sample),
        near_unchanged("all but the border, which is black", unchanged, masked, sample),
    ]


def near_chance(
    images: str, unchanged: dict[str, ndarray], resampled: dict[str, ndarray], sample: Sample
) -> ShortcutTest:
    """Whether scores are those of guessing, a macro-F1 of at most 1 / C and an AUC of 0.5.

    They are not if the interval of the macro-F1 lies above chance, or that of the AUC above or below 0.5: a border that
    speaks against the truth tells of it as well. `unchanged` and `resampled` are scores of unchanged and of changed
    images, as `scores.resampled` gives them.
    """
    found, differences = _summary(resampled, sample), _differences(unchanged, resampled, sample)
    auc, f1 = found[scores.named("auc_finding", sample.finding)], found["macro_f1"]
    if auc.low is None or auc.high is None or f1.low is None:
        return _verdict(images, "near chance", found, differences, None)
    seen, chance = [], 1 / len(np.unique(sample.labels))
    if not auc.low <= _CHANCE_AUC <= auc.high:
        seen.append(f"the interval of the AUC, {auc.low:.3f} to {auc.high:.3f}, excludes {_CHANCE_AUC}")
    if f1.low > chance:
        seen.append(f"the interval of macro-F1 lies above that of guessing, {chance:.2f}")
    return _verdict(images, "near chance", found, differences, seen, "the intervals include guessing")


def near_unchanged(
    images: str, unchanged: dict[str, ndarray], resampled: dict[str, ndarray], sample: Sample
) -> ShortcutTest:
    """Whether no score is lost: a loss counts if it exceeds 0.02 and its paired interval excludes zero."""
    found, differences = _summary(resampled, sample), _differences(unchanged, resampled, sample)
    auc = scores.named("auc_finding", sample.finding)
    if differences[auc].value is None:
        return _verdict(images, "near unchanged", found, differences, None)
    lost = [
        f"{word} falls by {-loss.value:.3f}"
        for name, word in ((auc, "the AUC"), ("macro_f1", "macro-F1"))
        if _is_loss(loss := differences[name]) and loss.value is not None
    ]
    return _verdict(images, "near unchanged", found, differences, lost, "no score falls by more than chance explains")


def _is_loss(difference: Estimate) -> bool:
    if difference.value is None or difference.high is None:
        return False
    return difference.value < -_UNIMPORTANT and difference.high < 0


def _verdict(
    images: str,
    expected: Literal["near chance", "near unchanged"],
    found: Scores,
    differences: Scores,
    faults: list[str] | None,
    good: str = "",
) -> ShortcutTest:
    """The test with what is not as expected, or else with `good`; None as `faults`: the scores are undefined."""
    if faults is None:
        good = "undefined: these images are all of one class"
    return ShortcutTest(
        images=images,
        expected=expected,
        scores=found,
        differences=differences,
        as_expected=None if faults is None else not faults,
        words=" and ".join(faults or []) or good,
    )


def _summary(resampled: dict[str, ndarray], sample: Sample) -> Scores:
    return scores.summarised(sample, {name: resampled[name] for name in _names(sample)})


def _differences(unchanged: dict[str, ndarray], resampled: dict[str, ndarray], sample: Sample) -> Scores:
    return {name: scores.estimate(resampled[name] - unchanged[name]) for name in _names(sample)}


def _names(sample: Sample) -> list[str]:
    return [scores.named(score, sample.finding) for score in scores.SUMMARY]


def _inside(activation: ClassActivationMap, batches: list[ndarray], predicted: ndarray) -> float:
    maps = np.concatenate([activation.maps(batch) for batch in batches])
    return float(np.mean([share_inside(maps_of[c]) for maps_of, c in zip(maps, predicted, strict=True)]))
