"""Monitoring of a version in use: its answers against its reference, the answers to its validation images.

Imports `evaluation` (for scores with intervals), `serving` and the rooms below them; no torch. `reference` is the file
of a version, `table` reads answers, `judge` compares them, `results` holds the types of what is found.
"""
