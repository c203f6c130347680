"""Chest X-ray classification: images, splits, models, training and evaluation, without any tracking."""
