"""Progressive learning: a training in stages of growing image size and augmentation.

M. Tan and Q. V. Le, "EfficientNetV2: Smaller Models and Faster Training", 2021, section 4.
"""

from collections.abc import Iterator
from itertools import accumulate

from torch import Tensor, nn

from cxr.loading.batches import Loader
from cxr.settings.augment import StageSettings


def last_epochs(stages: list[StageSettings], epochs: int) -> list[int]:
    """The last epoch of each stage; every stage has at least one."""
    ends = [round(epochs * share) for share in accumulate(stage.share for stage in stages)]
    for i in range(len(ends)):
        ends[i] = max(ends[i], i + 1)
    ends[-1] = epochs
    for i in reversed(range(len(ends) - 1)):
        ends[i] = min(ends[i], ends[i + 1] - 1)
    return ends


class StagedLoader:
    """Yields the batches of the stage that an epoch belongs to, and sets the dropout of that stage.

    Args:
        loaders: one for each stage, of the same images in batches of the same size.
        ends: the last epoch of each stage.
        strengths: shares of the full dropout, one for each stage.
    """

    def __init__(self, loaders: list[Loader], ends: list[int], strengths: list[float]):
        self.loaders, self.ends, self.strengths = loaders, ends, strengths
        self._dropouts: list[tuple[nn.Dropout, float]] = []

    def control(self, dropouts: list[nn.Dropout]) -> None:
        """Set the rates of `dropouts` at the start of every epoch; their present rates are those of full strength."""
        self._dropouts = [(layer, layer.p) for layer in dropouts]

    @property
    def images(self) -> int:
        """Images of an epoch."""
        return self.loaders[0].images

    def __len__(self) -> int:
        return len(self.loaders[0])

    def sizes(self) -> list[int]:
        """Images of each whole batch of an epoch."""
        return self.loaders[0].sizes()

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch."""
        stage = self._stage(epoch)
        for layer, rate in self._dropouts:
            layer.p = self.strengths[stage] * rate
        yield from self.loaders[stage].epoch(epoch)

    def _stage(self, epoch: int) -> int:
        return next((i for i, end in enumerate(self.ends) if epoch <= end), len(self.ends) - 1)
