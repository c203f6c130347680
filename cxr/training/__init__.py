"""The training loop, what it is set up from, and the checkpoint it resumes from.

Imports `loading`, `models` and the rooms below them; MLflow stays outside and is reached through callbacks.
"""
