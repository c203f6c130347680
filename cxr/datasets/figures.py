"""Figures of a prepare_split run: example images, classes, sizes, patients and grey levels of the splits."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cxr.common import plotting
from cxr.common.storage import Place
from cxr.datasets.manifest import SPLITS, Manifest
from cxr.imaging import decode
from cxr.imaging.preprocess import InputSpec

_TILE = 160  # pixels; side of an image on the contact sheet
_PER_CLASS = 4  # images of each class and split on the contact sheet
_POINTS = 20_000  # images that a scatter plot shows; more take minutes to draw and hide each other


def figures(manifest: Manifest, table: pd.DataFrame, seed: int) -> dict[str, Figure]:
    """Draw all figures, by file name; `table` is the result of `inspection.survey` for the images of `manifest`."""
    return {
        "contact_sheet.png": contact_sheet(manifest, seed),
        "classes.png": classes(manifest),
        "sizes.png": sizes(table, manifest.classes),
        "patients.png": patients(manifest),
        "grey_levels.png": grey_levels(table, manifest.classes),
    }


def contact_sheet(manifest: Manifest, seed: int) -> Figure:
    """Show random images of each class (rows) and split (columns), padded to squares."""
    splits = [name for name in SPLITS if len(manifest.split(name))]
    width = 3.1 * len(splits) + 0.5
    height = 1.75 * len(manifest.classes)
    fig, grid = plotting.figure(width, height, len(manifest.classes), len(splits), squeeze=False)
    rng = np.random.default_rng(seed)
    for row, label in enumerate(manifest.classes):
        for column, split in enumerate(splits):
            rows = manifest.rows.query("label == @label and split == @split")
            chosen = rows.iloc[rng.permutation(len(rows))[:_PER_CLASS]]
            tiles = [_tile(manifest.root / path) for path in chosen["path"]]
            tiles += [np.full((_TILE + 4, _TILE + 4), 255, np.uint8)] * (_PER_CLASS - len(tiles))
            axes = grid[row][column]
            axes.imshow(np.hstack(tiles), cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(split)
            if column == 0:
                axes.set_ylabel(label)
    return fig


def _tile(file: Place) -> np.ndarray:
    spec = InputSpec(size=_TILE, resize=_TILE, resize_mode="pad")
    return np.pad(spec.to_raster(decode.decode_grey(file.read_bytes())), 2, constant_values=255)


def classes(manifest: Manifest) -> Figure:
    """Count images and patients of each class and split."""
    counts = manifest.counts()
    fig, axes = plotting.figure(9, 3.4, 1, 2)
    for panel, unit in zip(axes, ("images", "patients"), strict=True):
        bar_width = 0.8 / len(SPLITS)
        for position, split in enumerate(SPLITS):
            values = counts.loc[split, unit].reindex(manifest.classes)
            x = np.arange(len(values)) + (position - 1) * bar_width
            bars = panel.bar(x, values, bar_width * 0.95, color=plotting.SPLIT_COLOURS[split], label=split)
            panel.bar_label(bars, fontsize=8, padding=1)
        total = len(manifest) if unit == "images" else manifest.rows["patient"].nunique()
        panel.set(title=f"{total:,} {unit}", xticks=range(len(manifest.classes)), ylabel=unit)
        panel.set_xticklabels(manifest.classes)
        panel.grid(axis="x", visible=False)
        panel.legend()
    return fig


def sizes(table: pd.DataFrame, names: tuple[str, ...]) -> Figure:
    """Plot width against height of every image, of many only of some, and the distribution of aspect ratios."""
    fig, (scatter, ratios) = plotting.figure(9, 3.4, 1, 2)
    aspect = table["width"] / table["height"]
    bins = np.histogram_bin_edges(aspect, bins=min(40, max(8, len(aspect) // 10)))
    size = 4 if len(table) > 1000 else 16  # of a marker, points squared
    shown = table.sample(_POINTS, random_state=0) if len(table) > _POINTS else table
    title = f"Sizes of {len(table):,} images" + (f" ({_POINTS:,} shown)" if len(table) > _POINTS else "")
    for label, colour in plotting.class_colours(names).items():
        rows = shown[shown["label"] == label]
        scatter.scatter(rows["width"], rows["height"], s=size, alpha=0.4, color=colour, label=label, lw=0)
        ratios.hist(aspect[table["label"] == label], bins=bins, histtype="step", lw=1.5, color=colour, label=label)
    scatter.set(title=title, xlabel="width (pixels)", ylabel="height (pixels)")
    ratios.set(title="Aspect ratio", xlabel="width / height", ylabel="images")
    scatter.legend(loc="upper left", markerscale=2)  # few X-rays are far higher than wide
    ratios.legend()
    return fig


def patients(manifest: Manifest) -> Figure:
    """Plot the number of images per patient, for each class."""
    fig, axes = plotting.figure(6, 3.4)
    counts = manifest.rows.groupby(["label", "patient"]).size()
    most = int(min(counts.max(), 12))
    bar_width = 0.8 / len(manifest.classes)
    for position, (label, colour) in enumerate(plotting.class_colours(manifest.classes).items()):
        values = counts.loc[label].clip(upper=most).value_counts().reindex(range(1, most + 1), fill_value=0)
        x = np.arange(1, most + 1) + (position - (len(manifest.classes) - 1) / 2) * bar_width
        axes.bar(x, values, bar_width, color=colour, label=f"{label} ({len(counts.loc[label]):,})")
    xlabel = f"images per patient ({most}: {most} or more)" if counts.max() > most else "images per patient"
    axes.set(title=f"{manifest.rows['patient'].nunique():,} patients", xlabel=xlabel, ylabel="patients")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return fig


def grey_levels(table: pd.DataFrame, names: tuple[str, ...]) -> Figure:
    """Plot the mean grey level of images by class and split; networks exploit differences between classes."""
    fig, panels = plotting.figure(9, 3.0, 1, len(SPLITS), sharex=True)
    bins = np.linspace(0, 255, 52 if len(table) > 1000 else 27)
    for panel, split in zip(panels, SPLITS, strict=True):
        for label, colour in plotting.class_colours(names).items():
            levels = table["mean_grey"][(table["label"] == label) & (table["split"] == split)]
            if len(levels):
                panel.hist(levels, bins=bins, density=True, histtype="step", lw=1.5, color=colour, label=label)
        panel.set(title=f"{split} (n = {(table['split'] == split).sum():,})", xlabel="mean grey level (0 to 255)")
        panel.set_yticks([])
    panels[0].set_ylabel("share of images")
    panels[0].legend()
    return fig
