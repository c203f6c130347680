"""The MLflow model registry: registration, the gate a version must pass, the champion, the files of a version.

Imports `steps.runtime` and `cxr`.
"""
