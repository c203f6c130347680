"""What a careful statistician asks of a model: scores with intervals, calibration, thresholds, where it fails.

Imports `loading`, `models`, `serving` (for probabilities) and the rooms below them. Chooses on validation only.
"""
