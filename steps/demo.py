"""Serve a local web page that classifies X-rays with a registered model, until Ctrl-C.

Reads the registered model; writes nothing.

    mlflow run . -e demo
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="demo",
    about="Serve a local web page: drop an X-ray on it to see the answer of a registered model.",
    flags={
        "model_uri": "models:/NAME@ALIAS or models:/NAME/VERSION; default: the champion",
        "port": "port on 127.0.0.1; 0 takes any free one; default: 7860",
        "open": "true | false: open the page in the browser; default: true",
    },
)


if __name__ == "__main__":
    main(STEP)
