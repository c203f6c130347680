"""Whether a network can be trained as the settings ask: known from its shapes, before weights or data are read."""

import torch
from torch import nn

from cxr.errors import CxrError
from cxr.models.build import Network, build, check_size
from cxr.models.dropout import before_head
from cxr.models.freezing import split_network
from cxr.settings.schema import FinetuneSettings, ModelSettings, TrainingSettings

_STEP = 32  # pixels between the sizes that are tried for a message; most networks halve their input five times


def check(model: ModelSettings, classes: tuple[str, ...], trainings: list[TrainingSettings]) -> None:
    """Check what `trainings` ask of the network.

    Raises:
        CxrError: it cannot take images of its input size or of a stage, has no dropout to set, or cannot be cut where
            the blocks begin that are to be trained.
    """
    network = _outline(model, classes)
    for settings in trainings:
        check_stages(network, settings)
        dropouts(network, settings)
        if isinstance(settings, FinetuneSettings):
            split_network(network, settings.unfreeze)


def dropouts(network: Network, settings: TrainingSettings) -> list[nn.Dropout]:
    """The dropout layers that `settings.dropout` is about; `CxrError` if it is given and there are none."""
    found = before_head(network)
    if settings.dropout is not None and not found:
        raise CxrError(
            f"{settings.section}.dropout={settings.dropout:g}: {network.name} has no dropout between its last block "
            "and its head; leave it at null"
        )
    return found


def check_stages(network: Network, settings: TrainingSettings) -> None:
    """Raise `CxrError`, with a size that is possible, unless the network takes images of every stage."""
    for stage in settings.stages:
        try:
            check_size(network, stage.size, f"{settings.section}.stages: size")
        except CxrError as error:
            raise CxrError(f"{error}; the nearest size that it takes is {_nearest(network, stage.size)}") from None


def _outline(model: ModelSettings, classes: tuple[str, ...]) -> Network:
    """The network without weights; on the device "meta", which has shapes and no numbers, if it can be built there."""
    try:
        with torch.device("meta"):
            return _built(model, classes)
    except Exception:  # some architectures read numbers, of which "meta" has none, with errors of any type
        return _built(model, classes)


def _built(model: ModelSettings, classes: tuple[str, ...]) -> Network:
    network = build(model, classes, seed=0, pretrained=False)
    check_size(network, network.spec.size, "model.input_size")
    return network


def _nearest(network: Network, size: int) -> int:
    """The size nearest to `size` that the network takes, of some between `size` and its own, which it takes."""
    own = network.spec.size
    between = {own, *range(_STEP, max(size, own), _STEP)} - set(range(min(size, own)))
    for candidate in sorted(between, key=lambda other: abs(other - size)):
        try:
            check_size(network, candidate, "size")
        except CxrError:
            continue
        return candidate
    return own
