"""From a manifest to batches on the device: rasters, augmentation, the disk cache and the feature cache.

Imports `datasets`, `models` (the feature cache runs the frozen prefix) and the rooms below them.
"""
