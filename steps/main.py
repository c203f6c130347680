"""Run the whole workflow: prepare_split, train, finetune and evaluate, each as a child run.

Reads params.yaml and the overrides; writes only `summary.txt` and the IDs of the four runs. A step whose key (see
`steps.runtime.step_key`) has not changed is reused, an interrupted training is resumed.

With `seeds`, train and finetune are repeated from further seeds; with `folds`, prepare_split too, so that every image
outside the test split is a validation image once. The summary then has mean and spread.

    mlflow run . -e main -P data_path=FOLDER -P profile=cpu
"""

from steps.runtime.cli import PROCESSES, Step
from steps.runtime.runner import main

STEP = Step(
    name="main",
    about="Split, train, fine-tune, evaluate and register, reusing what has not changed.",
    short={
        "data_path": "data.path",
        "folds": "data.folds",
        "epochs": "train.epochs finetune.epochs",
        "lr": "train.optimizer.lr",
    },
    flags={
        "reuse": "true | false: false runs every step from scratch; default: true",
        "seeds": "number of seeds to train and fine-tune from; the summary gives mean and spread; default: 1",
        "ensemble": "true | false: with seeds or folds, register their ensemble, not the first; default: false",
        "processes": PROCESSES,
    },
)


if __name__ == "__main__":
    main(STEP)
