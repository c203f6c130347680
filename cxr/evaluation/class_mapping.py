"""Classes of a model mapped to those of a labelled set, so that one can be scored on the other."""

from dataclasses import dataclass

from numpy import ndarray, stack

from cxr.errors import CxrError
from cxr.serving.probabilities import NEGATIVE, finding_probability


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
        """Class by class, by name where the names are the same; or everything but the first class as the finding.

        Raises:
            CxrError: the set has neither the number of classes of the model nor two.
        """
        if set(model) == set(labels) and model[NEGATIVE] == labels[NEGATIVE]:
            return cls(model, labels, tuple(labels.index(name) for name in model))
        if len(model) == len(labels):
            return cls(model, labels, tuple(range(len(model))))
        if len(labels) == 2:
            return cls(model, labels, tuple(int(index != NEGATIVE) for index in range(len(model))))
        raise CxrError(
            f"the set has the classes {', '.join(labels)}, the model {', '.join(model)}; expected the same number of "
            "classes, or two: set data.classes=2"
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
