"""The entry points of the MLflow Project, one module each.

An entry point declares its parameters; what it does is in `steps.work`, under the same name, and is imported only when
it runs, so that `--help` answers at once.
"""
