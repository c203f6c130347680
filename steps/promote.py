"""Make a version of the registered model champion by hand, or go back to the champion before.

Reads the registry; moves the alias `champion`, and notes why in the model's history and in the run of this step.

    mlflow run . -e promote -P version=3 -P reason="checked by hand"
    mlflow run . -e promote -P version=previous
"""

from steps.runtime.cli import Step
from steps.runtime.context import Context
from steps.runtime.runner import main

STEP = Step(
    name="promote",
    about="Move the alias champion to a version by hand.",
    flags={"version": "number of the version, or `previous`: the champion before the present one",
           "reason": "why, in your words; kept with the run and the model"},
)  # fmt: skip


def work(context: Context) -> None:
    from cxr.errors import CxrError
    from steps.registry import registry

    name, client = context.settings.registry.name, context.client
    wish = context.flags.get("version")
    if wish is None:
        raise CxrError("version is not given; give a number, or -P version=previous")
    with registry.alone(name):
        number = registry.wanted_version(client, name, wish)
        before = registry.champion_of(client, name)
        if before is not None and str(before.version) == str(number):
            context.log.info("%s version %s is champion already", name, number)
            return
        why = f"by hand: {context.flags.get('reason', 'no reason given')}"
        registry.crown(client, name, number, why)
        client.set_model_version_tag(name, number, "cxr.gate", f"champion: {why}")
    context.tag("cxr.model_version", number)
    context.tag("cxr.champion_before", before.version if before is not None else "none")
    context.tag("cxr.reason", why)
    context.log.info(
        "%s version %s is champion now (before: %s), %s", name, number, before.version if before else "none", why
    )


if __name__ == "__main__":
    main(STEP, work)
