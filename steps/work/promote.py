"""Work of `promote`: move the alias `champion` by hand."""

from cxr.errors import CxrError
from steps.registry import registry
from steps.registry.lock import alone
from steps.runtime.context import Context


def run(context: Context) -> None:
    """Make the version that the command line names champion, and record why."""
    name, client = context.settings.registry.name, context.client
    version = context.flags.get("version")
    if version is None:
        raise CxrError("version is not given; add -P version=NUMBER, or -P version=previous")
    with alone(client, name):
        number = registry.wanted_version(client, name, version)
        previous = registry.champion_of(client, name)
        if previous is not None and str(previous.version) == str(number):
            context.log.info("%s version %s is already champion", name, number)
            return
        reason = f"by hand: {context.flags.get('reason', 'no reason given')}"
        registry.crown(client, name, number, reason)
        client.set_model_version_tag(name, number, "cxr.gate", f"champion: {reason}")
    previous_number = previous.version if previous is not None else "none"
    context.tag("cxr.model_version", number)
    context.tag("cxr.champion_before", previous_number)
    context.tag("cxr.reason", reason)
    context.log.info("%s version %s is now champion (before: %s), %s", name, number, previous_number, reason)
