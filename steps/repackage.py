"""Make a new version from the bundle of a registered one, with today's serving code, packages and settings.

Reads the version, the bundle that it was made of, and its split; writes a version of the registered model and
`repackage/` (the comparison, and a table of the answers that differ). Nothing is trained, and nothing is scored anew.

    mlflow run . -e repackage
    mlflow run . -e repackage -P version=3 -P serving.max_images=16
"""

from steps.runtime.cli import Step
from steps.runtime.runner import main

STEP = Step(
    name="repackage",
    about="Make a new version from the bundle of a registered one, with today's serving code and packages.",
    flags={
        "version": "version number, `champion`, or `previous` for the champion before it; default: champion",
        "compare": "true | false: compare the answers of both versions, image by image; default: true",
    },
)


if __name__ == "__main__":
    main(STEP)
