"""What a split looks like: pictures for the prepare_split run."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr.common import plotting
from cxr.datasets.manifest import SPLITS, Manifest
from cxr.imaging import decode
from cxr.imaging.preprocess import InputSpec

_CELL = 160  # pixels of a picture on the contact sheet
_PER_CLASS = 4


def figures(manifest: Manifest, table: pd.DataFrame, seed: int) -> dict[str, Figure]:
    """All figures by file name; `table` has what the survey saw of the images in `manifest`."""
    return {
        "contact_sheet.png": contact_sheet(manifest, seed),
        "classes.png": classes(manifest),
        "sizes.png": sizes(table, manifest.classes),
        "patients.png": patients(manifest),
        "grey_levels.png": grey_levels(table, manifest.classes),
    }


def contact_sheet(manifest: Manifest, seed: int) -> Figure:
    """Random images of every class (rows) and split (columns), as they are before any preprocessing."""
    splits = [s for s in SPLITS if len(manifest.split(s))]
    width = 3.1 * len(splits) + 0.5
    drawn, grid = plotting.figure(
        width, 1.75 * len(manifest.classes), len(manifest.classes), len(splits), squeeze=False
    )
    rng = np.random.default_rng(seed)
    for row, label in enumerate(manifest.classes):
        for column, split in enumerate(splits):
            rows = manifest.rows.query("label == @label and split == @split")
            chosen = rows.iloc[rng.permutation(len(rows))[:_PER_CLASS]]
            tiles = [_tile(manifest.root / path) for path in chosen["path"]]
            tiles += [np.full((_CELL + 4, _CELL + 4), 255, np.uint8)] * (_PER_CLASS - len(tiles))
            axes = grid[row][column]
            axes.imshow(np.hstack(tiles), cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(split)
            if column == 0:
                axes.set_ylabel(label)
    return drawn


def _tile(path: Path) -> np.ndarray:
    spec = InputSpec(size=_CELL, resize=_CELL, resize_mode="pad")
    return np.pad(spec.to_raster(decode.read_grey(path)), 2, constant_values=255)


def classes(manifest: Manifest) -> Figure:
    """Images and patients of every class and split."""
    counts = manifest.counts()
    drawn, axes = plotting.figure(9, 3.4, 1, 2)
    for panel, what in zip(axes, ("images", "patients"), strict=True):
        wide = 0.8 / len(SPLITS)
        for place, split in enumerate(SPLITS):
            values = counts.loc[split, what].reindex(manifest.classes)
            at = np.arange(len(values)) + (place - 1) * wide
            bars = panel.bar(at, values, wide * 0.95, color=plotting.SPLIT_COLOURS[split], label=split)
            panel.bar_label(bars, fontsize=8, padding=1)
        total = len(manifest) if what == "images" else manifest.rows["patient"].nunique()
        panel.set(title=f"{total:,} {what}", xticks=range(len(manifest.classes)), ylabel=what)
        panel.set_xticklabels(manifest.classes)
        panel.grid(axis="x", visible=False)
        panel.legend()
    return drawn


def sizes(table: pd.DataFrame, names: tuple[str, ...]) -> Figure:
    """Width and height of every image, and how wide they are for their height."""
    drawn, (scatter, ratios) = plotting.figure(9, 3.4, 1, 2)
    aspect = table["width"] / table["height"]
    bins = np.histogram_bin_edges(aspect, bins=min(40, max(8, len(aspect) // 10)))
    size = 4 if len(table) > 1000 else 16  # points squared
    for label in names:
        own = table["label"] == label
        colour = plotting.CLASS_COLOURS[label]
        scatter.scatter(table["width"][own], table["height"][own], s=size, alpha=0.4, color=colour, label=label, lw=0)
        ratios.hist(aspect[own], bins=bins, histtype="step", lw=1.5, color=colour, label=label)
    scatter.set(title=f"Sizes of {len(table):,} images", xlabel="width (pixels)", ylabel="height (pixels)")
    ratios.set(title="Aspect", xlabel="width / height", ylabel="images")
    scatter.legend(markerscale=2)
    ratios.legend()
    return drawn


def patients(manifest: Manifest) -> Figure:
    """How many images the patients of each class have."""
    drawn, axes = plotting.figure(6, 3.4)
    counts = manifest.rows.groupby(["label", "patient"]).size()
    most = int(min(counts.max(), 12))
    wide = 0.8 / len(manifest.classes)
    for place, label in enumerate(manifest.classes):
        values = counts.loc[label].clip(upper=most).value_counts().reindex(range(1, most + 1), fill_value=0)
        at = np.arange(1, most + 1) + (place - (len(manifest.classes) - 1) / 2) * wide
        axes.bar(at, values, wide, color=plotting.CLASS_COLOURS[label], label=f"{label} ({len(counts.loc[label]):,})")
    last = f"images of a patient ({most}: {most} or more)" if counts.max() > most else "images of a patient"
    axes.set(title=f"{manifest.rows['patient'].nunique():,} patients", xlabel=last, ylabel="patients")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return drawn


def grey_levels(table: pd.DataFrame, names: tuple[str, ...]) -> Figure:
    """Mean grey level of the images of each class, by split: a shift here is a shortcut for a network."""
    drawn, panels = plotting.figure(9, 3.0, 1, len(SPLITS), sharex=True)
    bins = np.linspace(0, 255, 52 if len(table) > 1000 else 27)
    for panel, split in zip(panels, SPLITS, strict=True):
        for label in names:
            own = table["mean_grey"][(table["label"] == label) & (table["split"] == split)]
            if len(own):
                panel.hist(
                    own,
                    bins=bins,
                    density=True,
                    histtype="step",
                    lw=1.5,
                    color=plotting.CLASS_COLOURS[label],
                    label=label,
                )
        panel.set(title=f"{split} (n = {(table['split'] == split).sum():,})", xlabel="mean grey level (0 to 255)")
        panel.set_yticks([])
    panels[0].set_ylabel("share of images")
    panels[0].legend()
    return drawn
