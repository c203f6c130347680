"""From a folder, a zip or an address of X-rays to a split: manifest, leak report and pictures.

Reads `data_path`; writes `split/` (manifest.csv, split.json, leaks.json, unreadable.csv, counts.csv, figures/). No
patient is in two splits, and nothing of the test part stands in training.

    mlflow run . -e prepare_split -P data_path=FOLDER
"""

from steps.runtime.cli import Step
from steps.runtime.context import Context
from steps.runtime.runner import main

STEP = Step(
    name="prepare_split",
    about="Read X-rays, split them by patient, and look for leaks.",
    short={"data_path": "data.path"},
)


def work(context: Context) -> None:
    from steps.work.prepare_split import (
        prepare,  # here, not above: its imports take a second, and --help needs none of them
    )

    prepare(context)


if __name__ == "__main__":
    main(STEP, work)
