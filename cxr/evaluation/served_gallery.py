"""Gallery of the mistakes of a served model, with its own class activation maps."""

import numpy as np
from numpy import ndarray

from cxr.common.storage import Place
from cxr.evaluation import gallery
from cxr.evaluation.class_mapping import ClassMapping
from cxr.evaluation.gallery import Tile
from cxr.imaging.heatmap import overlay
from cxr.serving.service import Service


def mistakes(
    service: Service,
    mapping: ClassMapping,
    files: list[Place],
    paths: list[str],
    labels: ndarray,
    probabilities: ndarray,
    most: int,
) -> tuple[list[Tile], bool]:
    """At most `most` misclassified images, the most confident first, and whether their tiles show maps.

    Args:
        service: the served model, which reads the images and has the maps.
        mapping: its classes and those of the labels.
        files: n images.
        paths: their paths below the root of the set.
        labels: true classes of the set, of shape (n,).
        probabilities: of the set's classes, of shape (n, D).
        most: largest number of tiles.
    """
    predicted = probabilities.argmax(1)
    tiles, has_maps = [], False
    for i in gallery.most_confident(labels, probabilities, most):
        image = service.read(files[i].read_bytes()).image
        if image is None:  # it has been scored, so it was read before
            continue
        logits, _, maps = service.session.run(image.raster[None])
        has_maps = bool(maps.shape[1])
        picture = np.repeat(image.raster[..., None], 3, axis=2)
        if has_maps:
            spoke_for = [k for k in range(len(mapping.model)) if mapping.index[k] == predicted[i]]
            likeliest = max(spoke_for, key=lambda k: logits[0, k])
            picture = overlay(image.raster, maps[0, likeliest])
        tiles.append(Tile(gallery.mistake(paths[i], mapping.labels, labels[i], probabilities[i]), picture))
    return tiles, has_maps
