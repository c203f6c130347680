"""Classes of a model mapped to those of a labelled set, so that one can be scored on the other."""

from dataclasses import dataclass

from numpy import ndarray, stack

from cxr.common.names import PNEUMONIA
from cxr.errors import CxrError
from cxr.serving.probabilities import NEGATIVE, finding_probability
from cxr.settings.classes import as_setting


@dataclass(frozen=True)
class ClassMapping:
    """Which class of a labelled set each class of a model counts as.

    Attributes:
        model: class names of the model, the negative one first.
        labels: class names of the set, the negative one first.
        index: for each class of the model, the index of its class of the set.
    """

    model: tuple[str, ...]
    labels: tuple[str, ...]
    index: tuple[int, ...]

    @classmethod
    def of(cls, model: tuple[str, ...], labels: tuple[str, ...]) -> "ClassMapping":
        """Class by class where the names are the same; or everything but the first class as the finding.

        Raises:
            CxrError: the set has neither the classes of the model nor two. More than two are never mapped by their
                order: `viral` and `bacterial` would be taken for bacteria and virus.
        """
        if set(model) == set(labels) and model[NEGATIVE] == labels[NEGATIVE]:
            return cls(model, labels, tuple(labels.index(name) for name in model))
        if len(labels) == 2:
            return cls(model, labels, tuple(int(index != NEGATIVE) for index in range(len(model))))
        raise CxrError(
            f"the set has the classes {', '.join(labels)}, the model {', '.join(model)}; expected the same classes, or "
            f"two: set data.classes=2 or {_setting(model)}"
        )

    @property
    def same_names(self) -> bool:
        """Whether every class of the model is called as its class of the set."""
        return all(name == self.labels[index] for name, index in zip(self.model, self.index, strict=True))

    def pairs(self) -> dict[str, str]:
        """Class of the set by class of the model."""
        return {name: self.labels[index] for name, index in zip(self.model, self.index, strict=True)}

    def probabilities(self, served: ndarray) -> ndarray:
        """Probabilities (n, C) of the model's classes as those of the set's classes, of shape (n, D)."""
        if len(self.labels) < len(self.model):
            # As the service computes it, so that decisions at a threshold are the same to the last bit.
            return stack([served[:, NEGATIVE], finding_probability(served)], axis=1)
        return served[:, [self.index.index(label) for label in range(len(self.labels))]]

    def label(self, name: str) -> int:
        """Index of the class of the set that a class of the model, by name, counts as."""
        return self.index[self.model.index(name)]


def _setting(classes: tuple[str, ...]) -> str:
    """The setting that stands for these classes."""
    value = as_setting(classes, PNEUMONIA)
    return f"data.classes={value if isinstance(value, int) else '[' + ', '.join(value) + ']'}"
