"""Split a folder, a zip or a URL of X-rays into train, val and test: manifest, leak report and figures.

Reads `data_path`, and the table with its labels if `data.labels` or `data.recipe` names one; writes `split/`
(manifest.csv, split.json, leaks.json, unreadable.csv, counts.csv, figures/). No patient is in two splits, and no test
image has a duplicate in training. With `data.folds`, the validation split is one fold, and what was found in the images
is kept as `survey/` for the other folds.

    mlflow run . -e prepare_split -P data_path=FOLDER
    mlflow run . -e prepare_split -P data_path=FOLDER -P data.recipe=nih_chestxray14
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="prepare_split",
    about="Read X-rays, split them by patient, and check the splits for leaks.",
    short={"data_path": "data.path", "engine": "data.engine"},
    flags={"survey_run_id": "with data.folds: ID of the run of another fold, whose decoding is used again"},
)


if __name__ == "__main__":
    main(STEP)
