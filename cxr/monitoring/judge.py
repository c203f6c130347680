"""Holds answers against the reference of their version: distances, what chance makes of them, and alarms.

With many columns and windows, chance alone raises alarms. The chance of any false alarm, `monitor.false_alarms`, is
therefore shared out: one half over the comparisons of all answers together, the other over those of all windows
(Bonferroni).

Where too few images could be read to say anything about drift, the share of unreadable ones is still judged: when
nothing can be read any more, nothing else is left to raise an alarm.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy import ndarray

from cxr.errors import CxrError
from cxr.monitoring import drift, label_shift
from cxr.monitoring.reference import Reference, column_names, rounded
from cxr.monitoring.results import (
    ClassShare,
    ColumnDrift,
    Judged,
    LabelShift,
    Part,
    ReferralShare,
    Window,
)
from cxr.monitoring.truths import Truths
from cxr.serving.columns import TIME
from cxr.serving.reasons import KINDS, kinds
from cxr.serving.service import ERROR, REFER
from cxr.settings.monitoring import MonitorSettings

ANY, UNREADABLE = "any", "unreadable"
UNITS = {"day": "D", "week": "W-SUN"}  # a week that ends with Sunday


@dataclass(frozen=True)
class Judge:
    """Judges answers of one version.

    Attributes:
        reference: of the version.
        settings: limits, and the chance of a false alarm.
        seed: of the intervals of estimated shares.
        truths: true classes of some of the images, if they are known.
    """

    reference: Reference
    settings: MonitorSettings
    seed: int
    truths: Truths | None = None

    def comparisons(self, read: int) -> int:
        """Number of comparisons that can raise an alarm, of a part of which so many images were read."""
        limits, classes = self.settings.limits, self.reference.classes
        if read < self.settings.window_images:
            return int(limits.referred is not None)
        columns = len(column_names(tuple(classes), self.reference.finding))
        numbers = {"psi": columns + 1, "ks": columns, "referred": len(KINDS) + 2, "class_share": len(classes)}
        return sum(number for name, number in numbers.items() if getattr(limits, name) is not None)

    def whole(self, rows: pd.DataFrame) -> Part:
        """All answers together."""
        if not self._enough(rows):
            raise CxrError(
                f"{len(rows)} images were answered in this time; fewer than monitor.window_images="
                f"{self.settings.window_images} say nothing about drift"
            )
        return self._part(rows, self.settings.false_alarms / 2 / max(1, self.comparisons(_read(rows))))

    def windows(self, rows: pd.DataFrame, unit: str) -> list[Window]:
        """The answers of each day or week that has any."""
        periods = rows[TIME].dt.tz_localize(None).dt.to_period(UNITS[unit])
        groups = dict(iter(rows.groupby(periods.dt.start_time, sort=True)))
        comparisons = sum(self.comparisons(_read(group)) for group in groups.values() if self._enough(group))
        chance = self.settings.false_alarms / 2 / max(1, comparisons)
        return [
            Window(
                begin=pd.Timestamp(begin).tz_localize("UTC").to_pydatetime(),
                images=len(group),
                part=self._part(group, chance) if self._enough(group) else None,
            )
            for begin, group in groups.items()
        ]

    def _enough(self, rows: pd.DataFrame) -> bool:
        return len(rows) >= self.settings.window_images

    def _part(self, rows: pd.DataFrame, chance: float) -> Part:
        read, names = rows[rows["status"] != ERROR], self.reference.classes
        scores = None if self.truths is None else self.truths.scores(rows, self.settings)
        unreadable = {UNREADABLE: self._share(len(rows) - len(read), len(rows), 0, chance)}
        if len(read) < self.settings.window_images:
            why_not = f"fewer than {self.settings.window_images} images could be read"
            shares = LabelShift(classes={}, why_not=why_not)
            return Part(images=len(read), referred=unreadable, label_shift=shares, scores=scores)
        predicted = read[[f"probability_{name}" for name in names]].to_numpy(np.float64).argmax(1)
        calls = np.bincount(predicted, minlength=len(names))
        columns = column_names(tuple(names), self.reference.finding)
        return Part(
            images=len(read),
            columns={name: self._column(name, read[name].to_numpy(np.float64), chance) for name in columns},
            labels=dict(zip(names, calls.tolist(), strict=True)),
            label_psi=self._label_psi(calls, chance),
            referred=self._referred(read, chance) | unreadable,
            label_shift=self._label_shift(calls, chance),
            scores=scores,
        )

    def _column(self, name: str, values: ndarray, chance: float) -> ColumnDrift:
        column, images = self.reference.columns[name], self.reference.images
        effect, limits = column.design_effect, self.settings.limits
        ends, expected = column.bins(images)
        values = rounded(values)
        low, median, high = np.quantile(values, (0.05, 0.5, 0.95))
        return ColumnDrift(
            psi=Judged(
                value=drift.psi(expected, drift.counts(values, ends)),
                limit=limits.psi,
                chance=drift.psi_by_chance(expected / effect, len(values) / effect, chance),
            ),
            ks=Judged(
                value=drift.ks(np.array(column.quantiles), np.sort(values)),
                limit=limits.ks,
                chance=drift.ks_by_chance(images / effect, len(values) / effect, chance),
            ),
            low=float(low),
            median=float(median),
            high=float(high),
        )

    def _label_psi(self, calls: ndarray, chance: float) -> Judged:
        expected, effect = self.reference.counts.sum(0), self.reference.label_effect
        by_chance = drift.psi_by_chance(expected / effect, calls.sum() / effect, chance)
        return Judged(value=drift.psi(expected, calls), limit=self.settings.limits.psi, chance=by_chance)

    def _referred(self, read: pd.DataFrame, chance: float) -> dict[str, ReferralShare]:
        """Shares of the images that were read by kind of reason, beside those expected at their operating points."""
        points = read["operating_point"].value_counts(normalize=True)
        found = [set(kinds(text)) for text in read.loc[read["status"] == REFER, "reasons"]]
        counts = {ANY: len(found)} | {kind: sum(kind in kinds_ for kinds_ in found) for kind in KINDS}
        shares = {}
        for kind, count in counts.items():
            of_point = {
                point: made.images if kind == ANY else made.reasons.get(kind, 0)
                for point, made in self.reference.referred.items()
            }
            expected = sum(of_point.get(point, 0) * share for point, share in points.items())
            shares[kind] = self._share(count, len(read), expected, chance)
        return shares

    def _share(self, count: int, images: int, expected: float, chance: float) -> ReferralShare:
        total, effect = self.reference.images, self.reference.referral_effect
        usual = expected / total
        by_chance = drift.share_by_chance(expected / effect, total / effect, images / effect, chance)
        rise = Judged(
            value=count / images - usual, limit=self.settings.limits.referred, chance=max(0.0, by_chance - usual)
        )
        return ReferralShare(images=count, share=count / images, expected=usual, rise=rise)

    def _label_shift(self, calls: ndarray, chance: float) -> LabelShift:
        reference, limit = self.reference, self.settings.limits.class_share
        shares = label_shift.estimate(reference.counts, calls, reference.label_effect, self.seed)
        if not shares.values:
            return LabelShift(classes={}, why_not=shares.why_not)
        usual = reference.counts.sum(1) / reference.images
        most = label_shift.change_by_chance(reference.counts, calls.sum(), reference.label_effect, chance)
        classes = {
            name: ClassShare(
                share=value,
                expected=float(usual[i]),
                change=Judged(
                    value=abs((value.value or 0.0) - float(usual[i])),
                    limit=limit,
                    chance=float(most[i]),
                ),
            )
            for i, (name, value) in enumerate(zip(reference.classes, shares.values, strict=True))
        }
        return LabelShift(classes=classes)


def _read(rows: pd.DataFrame) -> int:
    """Number of images that were read."""
    return int((rows["status"] != ERROR).sum())


def alarms(part: Part) -> list[str]:
    """One line for each limit that the answers of a part pass."""
    found = []
    for name, column in part.columns.items():
        for what, judged in (("PSI", column.psi), ("KS", column.ks)):
            found += [f"{name}: {what} {judged.value:.3f}, at most {judged.most:.3f}"] if judged.alarm else []
    if part.label_psi is not None and part.label_psi.alarm:
        found.append(f"label: PSI {part.label_psi.value:.3f}, at most {part.label_psi.most:.3f}")
    for kind, referral in part.referred.items():
        if referral.rise.alarm:
            words = {ANY: "referred", UNREADABLE: "unreadable"}.get(kind, f"referred as {kind}")
            found.append(f"{words}: {referral.share:.1%}, at most {referral.expected + referral.rise.most:.1%}")
    for name, share in part.label_shift.classes.items():
        if share.change.alarm:
            found.append(f"estimated share of {name}: {share.share.value:.2f}, expected {share.expected:.2f}")
    return found + (part.scores.alarms if part.scores is not None else [])
