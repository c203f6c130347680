"""The network of a bundle as a classifier of rasters: `float32`, in eval mode, independent of the batch on a CPU."""

import sys

import numpy as np
import torch
from numpy import ndarray
from torch import nn
from tqdm import tqdm

from cxr.errors import CxrError
from cxr.loading.rasters import RasterDataset, in_order, read_batches
from cxr.models.bundle import Bundle
from cxr.models.freezing import CHUNK, fold_batch_norms
from cxr.models.normalise import Normalise
from cxr.models.views import Views
from cxr.serving.session import RasterClassifier


class Predictor:
    """The network of `bundle` on `device`; thread-safe. A `RasterClassifier`, like the ONNX session that is served.

    The answer to an image is the mean of the logits of the views of the bundle.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu"):
        self.spec = bundle.network.spec
        self.device = torch.device(device)
        self.module: nn.Module = fold_batch_norms(bundle.network.module.float()).to(self.device)
        self.module.to(memory_format=torch.channels_last)
        self.normalise = Normalise(self.spec).to(self.device)
        self.views = Views(bundle.network.views, self.spec.size)

    def logits(self, rasters: ndarray) -> ndarray:
        """`uint8` rasters of shape (B, S, S) to logits `float64` of shape (B, C), before any temperature."""
        return self._logits(rasters, self.views)

    def logits_of_images(self, rasters: ndarray) -> ndarray:
        """As `logits`, of the images alone without their other views."""
        return self._logits(rasters, Views(1, self.spec.size))

    def _logits(self, rasters: ndarray, views: Views) -> ndarray:
        with torch.inference_mode():
            grey = torch.from_numpy(np.ascontiguousarray(rasters)).to(self.device)
            chunks = grey.split(max(1, CHUNK // views.count)) if self.device.type == "cpu" else [grey]
            logits = [views.mean(self.module(self.normalise(views(chunk)))) for chunk in chunks]
            return torch.cat(logits).cpu().double().numpy()  # on the CPU: Apple's GPUs have no float64


def predict_logits(classifier: RasterClassifier, dataset: RasterDataset, batch_size: int) -> ndarray:
    """Logits `float64` of shape (n, C) of all images of a dataset, which are read ahead of use.

    Raises:
        CxrError: a logit is not finite, or an image cannot be read.
    """
    batches = in_order(len(dataset), batch_size)
    rasters = tqdm(
        read_batches(dataset.rasters, batches),
        total=len(batches),
        desc="evaluating",
        unit="batch",
        leave=False,
        disable=not sys.stderr.isatty(),
    )
    logits = np.concatenate([classifier.logits(batch) for batch in rasters])
    if not np.isfinite(logits).all():
        raise CxrError("the logits of the network are not finite; train again with precision=float32")
    return logits
