"""Runtime of the steps: command line, MLflow run, settings, logs, signals, and reuse of earlier runs.

Independent of X-rays: it imports only `errors`, `common` and `settings` of `cxr`, and never torch.
"""
