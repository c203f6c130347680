"""Hold the answers of a registered version in use against the reference that was made with it.

Reads what `predict` wrote, or the log of answers of a service (CXR_ANSWERS=FOLDER), and `reference.json` of the
version; writes `monitoring/` (report and figures), metrics by window, and a tag of the version. Fails where
`monitor.limits` are passed, after everything is logged.

    mlflow run . -e monitor -P input=preds.parquet -P since=2026-11-01
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="monitor",
    about="Hold the answers of a registered version in use against its reference.",
    flags={
        "input": "Parquet file that predict wrote, or a folder of such files, as CXR_ANSWERS names one",
        "since": "first day (2026-11-01, UTC) or time (2026-11-01T08:00Z) of answers; default: all",
        "until": "last day or end; default: all",
        "window": "day | week; default: day",
        "truth": "CSV table of true classes: label, and path or request_id (and row); patient, if known",
        "model_uri": "models:/NAME@ALIAS or models:/NAME/VERSION; default: the champion",
    },
)


if __name__ == "__main__":
    main(STEP)
