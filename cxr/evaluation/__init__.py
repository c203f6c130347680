"""Evaluation of a model: scores with intervals, calibration, operating points, subgroups, robustness, mistakes.

Imports `loading`, `models`, `serving` (for probabilities), `settings` and the rooms below them. Whatever is chosen is
chosen on the validation split. `results` holds the types of all results.
"""
