"""Chest X-ray classification as a library, without any experiment tracking.

Imports run one way: a room imports only rooms to its left in errors, common, settings, imaging, serving, datasets,
models, loading, training, evaluation, packaging, report, demo. `tests/test_architecture.py` enforces it.
"""
