"""Entry points of the MLflow Project, one module each.

An entry point declares its parameters. Its work is in the module of the same name in `steps.work`, which is imported
only when the step runs, so that `--help` answers at once.
"""
