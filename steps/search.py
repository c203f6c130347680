"""Search for better settings: many trainings on one split, judged on validation, the best of them as a settings file.

Reads params.yaml, whose section `search` has the space; runs `prepare_split`, and `train` and `finetune` for each trial
(`train` once, unless the space has settings of it). Writes `search/best.yaml`, which `-P params=` takes, a table of the
trials and a picture. The test split is never read. Started again, or on another machine of the same store, it goes on
with the study of the same name.

    mlflow run . -e search -P data_path=FOLDER -P profile=cpu -P trials=30 -P hours=8
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="search",
    about="Search for better settings by trial and error, judged on validation.",
    short={
        "data_path": "data.path",
        "study": "search.study",
        "trials": "search.trials",
        "hours": "search.hours",
        "workers": "search.workers",
    },
)


if __name__ == "__main__":
    main(STEP)
