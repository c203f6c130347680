"""Around the work of a step: command line, MLflow run, settings, logs, signals, reuse of earlier runs.

Knows nothing of X-rays: of `cxr` it imports `errors`, `common` and `settings`; never torch.
"""
