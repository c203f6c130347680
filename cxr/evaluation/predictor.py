"""The one way from pictures to probabilities, for evaluation and for serving.

Always float32, in eval mode: the answer to a picture depends neither on the batch it comes in nor on who asks.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy import ndarray
from tqdm import tqdm

from cxr.common.hardware import cores
from cxr.imaging import decode
from cxr.models.bundle import Bundle
from cxr.models.freezing import CHUNK, folded
from cxr.serving.probabilities import softmax


class Predictor:
    """Answers for pictures: bytes in, probabilities out. Safe to call from several threads at once."""

    def __init__(self, bundle: Bundle, device: str = "cpu"):
        self.classes = bundle.network.classes
        self.spec = bundle.network.spec
        self.temperature = bundle.temperature
        self.device = torch.device(device)
        self.module = folded(bundle.network.module.float()).to(self.device, memory_format=torch.channels_last)

    def logits(self, rasters: ndarray) -> ndarray:
        """`uint8` rasters of shape (B, S, S) to logits `float64` of shape (B, C)."""
        x = torch.from_numpy(self.spec.normalise(rasters)).to(self.device, memory_format=torch.channels_last)
        with torch.inference_mode():
            chunks = x.split(CHUNK) if self.device.type == "cpu" else [x]
            return torch.cat([self.module(chunk) for chunk in chunks]).double().cpu().numpy()

    def probabilities(self, rasters: ndarray) -> ndarray:
        """`uint8` rasters of shape (B, S, S) to probabilities `float64` of shape (B, C); every row adds up to 1."""
        return softmax(self.logits(rasters) / self.temperature)

    def raster(self, data: bytes) -> ndarray:
        """Bytes of a picture to the raster that the network sees, `uint8` of shape (S, S); may raise `ImageError`."""
        return self.spec.to_raster(decode.decode_grey(data))

    def predict(self, read: Sequence[Callable[[], bytes]], batch_size: int) -> ndarray:
        """Probabilities of shape (n, C) for pictures that are read one by one, decoded in threads ahead of use."""
        return softmax(self.predict_logits(read, batch_size) / self.temperature)

    def predict_logits(self, read: Sequence[Callable[[], bytes]], batch_size: int) -> ndarray:
        """Logits of shape (n, C), before the temperature."""
        found = list(tqdm(self._batches(read, batch_size), total=-(-len(read) // batch_size), desc="evaluating",
                          unit="batch", leave=False, disable=not sys.stderr.isatty()))  # fmt: skip
        return np.concatenate(found) if found else np.empty((0, len(self.classes)))

    def _batches(self, read: Sequence[Callable[[], bytes]], batch_size: int) -> Iterator[ndarray]:
        with ThreadPoolExecutor(cores()) as pool:
            parts = [read[i : i + batch_size] for i in range(0, len(read), batch_size)]
            ahead = [self._submit(pool, part) for part in parts[:2]]
            for number in range(len(parts)):
                if number + 2 < len(parts):
                    ahead.append(self._submit(pool, parts[number + 2]))
                yield self.logits(np.stack([future.result() for future in ahead.pop(0)]))

    def _submit(self, pool: ThreadPoolExecutor, part: Sequence[Callable[[], bytes]]) -> list:
        return [pool.submit(lambda one=one: self.raster(one())) for one in part]
