"""The entry points of the MLflow Project, one module each, and what they have in common."""
