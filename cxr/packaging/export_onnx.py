"""The network of a bundle as ONNX, for serving without torch.

The graph takes the rasters that `InputSpec.to_raster` makes, `uint8` of shape (B, S, S), and gives `logits` (B, C),
`features` (B, F), what the head sees, and `maps` (B, C, h, w), the class activation maps where exact ones exist
(C = 0 where not). Normalisation is inside, so that a server handles nothing but bytes.
"""

import contextlib
import io
import logging
import warnings

import torch
from torch import Tensor, nn

from cxr.evaluation.cam import Activation
from cxr.evaluation.predictor import Predictor
from cxr.models.build import find_head
from cxr.models.bundle import Bundle
from cxr.serving.session import INPUT, OUTPUTS

OPSET = 18
_EXAMPLES = 2  # a batch of one would be taken for a constant


class Exported(nn.Module):
    """What the ONNX file computes."""

    def __init__(self, predictor: Predictor, heads: list[nn.Module], activation: Activation | None):
        super().__init__()
        self.module, self.heads, self.head = predictor.module, len(heads), activation and heads[0]
        scale, shift = predictor.spec.affine()
        self.register_buffer("scale", torch.from_numpy(scale)[:, None, None])
        self.register_buffer("shift", torch.from_numpy(shift)[:, None, None])
        self._seen: dict[int | str, Tensor] = {}
        for number, head in enumerate(heads):
            self._keep_input_of(head, number)
        if activation is not None:
            self._keep_input_of(activation.pool, "map")

    def _keep_input_of(self, module: nn.Module, key: int | str) -> None:
        module.register_forward_pre_hook(lambda _, inputs: self._seen.__setitem__(key, inputs[0]))

    def forward(self, rasters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`uint8` (B, S, S) to (B, C), (B, F), (B, C or 0, h, w)."""
        self._seen.clear()
        logits = self.module(rasters[:, None].float() * self.scale + self.shift)
        features = torch.cat([self._seen[number].flatten(1) for number in range(self.heads)], 1)
        if self.head is None:
            return logits, features, logits[:, :0, None, None]
        maps = torch.einsum("bkhw,ck->bchw", self._seen["map"], self.head.weight)
        return logits, features, maps + self.head.bias[:, None, None]


def to_onnx(bundle: Bundle) -> bytes:
    """The ONNX file for a bundle, of any batch size. Takes 5 to 20 seconds."""
    predictor, network = Predictor(bundle, "cpu"), bundle.network
    if network.members:
        heads = [one.get_submodule(find_head(network.name, one)) for one in predictor.module.members]
    else:
        heads = [predictor.module.get_submodule(network.head)]
    module = Exported(predictor, heads, Activation.of(predictor, network)).eval()
    example = torch.zeros((_EXAMPLES, predictor.spec.size, predictor.spec.size), dtype=torch.uint8)
    return _exported(module, example).model_proto.SerializeToString()


def _exported(module: nn.Module, example: Tensor) -> torch.onnx.ONNXProgram:
    """The exporter talks of its own progress on every channel there is; what it has to say of errors, it raises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                module, (example,), dynamo=True, opset_version=OPSET, external_data=False,
                input_names=[INPUT], output_names=list(OUTPUTS), dynamic_shapes=({0: torch.export.Dim("batch")},),
            )  # fmt: skip
    finally:
        logging.disable(before)
