"""A page on this machine that shows what a registered model says of a picture, until Ctrl-C.

Reads the registered model; leaves nothing.

    mlflow run . -e demo
"""

from steps.runtime.cli import Step
from steps.runtime.context import Context
from steps.runtime.runner import main

STEP = Step(
    name="demo",
    about="Open a page on this machine: drop an X-ray, see what a registered model says of it.",
    flags={
        "model_uri": "models:/NAME@ALIAS or models:/NAME/VERSION; default: the champion",
        "port": "of the page on 127.0.0.1; default: 7860",
        "open": "true | false: open it in the browser; default: true",
    },
)


def work(context: Context) -> None:
    from steps.work.demo import show  # here, not above: --help needs none of it

    show(context)


if __name__ == "__main__":
    main(STEP, work)
