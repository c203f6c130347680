"""The loop that everybody writes, to measure ours against: every image decoded by PIL and sent through the whole
network in float32 in every epoch, no workers, the backbone's parameters frozen but its batch norms as they come."""

import time
from dataclasses import dataclass

import torch
from PIL import Image
from sklearn.metrics import f1_score
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bench.common import synchronise
from cxr.datasets.manifest import Manifest
from cxr.loading.batches import class_weights
from cxr.models.build import Network

_FILTERS = {"bilinear": transforms.InterpolationMode.BILINEAR, "bicubic": transforms.InterpolationMode.BICUBIC}


class Pictures(Dataset):
    """Pictures behind torchvision's transforms."""

    def __init__(self, part: Manifest, network: Network):
        spec = network.spec
        self.files, self.labels = part.files(), part.labels()
        self.transform = transforms.Compose([
            transforms.Resize(spec.resize, _FILTERS[spec.interpolation]),
            transforms.CenterCrop(spec.size),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        return self.transform(Image.open(self.files[index]).convert("RGB")), self.labels[index]


@dataclass(frozen=True)
class Outcome:
    """Seconds of each epoch, validation included, and the best validation macro-F1."""

    seconds: list[float]
    score: float


def train(
    network: Network, manifest: Manifest, trained: list[nn.Module], *, epochs: int, batch_size: int, lr: float,
    device: torch.device, frozen_statistics: bool,
) -> Outcome:  # fmt: skip
    """Train the modules in `trained` for some epochs; `frozen_statistics` puts the other batch norms in eval mode."""
    module = network.module.to(device)
    module.requires_grad_(False)
    parameters = []
    for part in trained:
        part.requires_grad_(True)
        parameters += list(part.parameters())
    optimizer = torch.optim.Adam(parameters, lr=lr)
    train_part, val_part = manifest.split("train"), manifest.split("val")
    loss = nn.CrossEntropyLoss(weight=class_weights(train_part).to(device))
    torch.manual_seed(0)
    batches = DataLoader(Pictures(train_part, network), batch_size, shuffle=True)
    held = DataLoader(Pictures(val_part, network), batch_size)
    seconds, best = [], 0.0
    for _ in range(epochs):
        started = time.perf_counter()
        module.train(not frozen_statistics)
        if frozen_statistics:
            for part in trained:
                part.train()
        for x, y in batches:
            optimizer.zero_grad()
            loss(module(x.to(device)), y.to(device)).backward()
            optimizer.step()
        best = max(best, score(module, held, device))
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    return Outcome(seconds, best)


@torch.no_grad()
def score(module: nn.Module, held: DataLoader, device: torch.device) -> float:
    """Macro-F1."""
    module.eval()
    found = [(module(x.to(device)).argmax(1).cpu(), y) for x, y in held]
    predicted, labels = (torch.cat(part) for part in zip(*found, strict=True))
    return float(f1_score(labels, predicted, average="macro", zero_division=0))
