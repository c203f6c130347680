"""The network of a bundle as ONNX, for serving without torch.

The graph maps the raster of one image, `uint8` of shape (1, S, S), to `logits` (1, C), `features` (1, F), the input of
the head, and `maps` (1, C, h, w), the class activation maps if exact ones exist (else C is 0). Normalisation and the
views of the bundle are part of the graph, so that a server handles nothing but bytes. With several views the logits are
their mean, and features and maps those of the image itself: the detector and the heatmap are about the image that was
sent.
"""

import contextlib
import io
import logging
import warnings

import torch
from torch import Tensor, nn

from cxr.errors import CxrError
from cxr.evaluation.cam import ClassActivationMap
from cxr.evaluation.predictor import Predictor
from cxr.models.build import find_head
from cxr.models.bundle import Bundle
from cxr.serving.session import INPUT, OUTPUTS

log = logging.getLogger(__name__)

OPSET = 18


class Exported(nn.Module):
    """What the ONNX file computes; see the module."""

    def __init__(self, predictor: Predictor, heads: list[nn.Module], cams: ClassActivationMap | None):
        super().__init__()
        self.views, self.normalise, self.module = predictor.views, predictor.normalise, predictor.module
        self.heads = len(heads)
        self.cams = cams
        self._seen: dict[int | str, Tensor] = {}
        for number, head in enumerate(heads):
            self._keep_input_of(head, number)
        if cams is not None:
            self._keep_input_of(cams.pool, "map")

    def _keep_input_of(self, module: nn.Module, key: int | str) -> None:
        module.register_forward_pre_hook(lambda _, inputs: self._seen.__setitem__(key, inputs[0]))

    def forward(self, rasters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`uint8` (1, S, S) to (1, C), (1, F), (1, C or 0, h, w)."""
        self._seen.clear()
        logits = self.views.mean(self.module(self.normalise(self.views(rasters))))
        seen = {key: self.views.of_images(values) for key, values in self._seen.items()}
        features = torch.cat([seen[number].flatten(1) for number in range(self.heads)], 1)
        maps = self.cams.of_features(seen["map"]) if self.cams is not None else logits[:, :0, None, None]
        return logits, features, maps


def to_onnx(bundle: Bundle) -> bytes:
    """The bytes of the ONNX file for a bundle. Takes seconds; for any number of images at once, twice as many."""
    predictor, network = Predictor(bundle, "cpu"), bundle.network
    if network.members:
        members = list(predictor.module.get_submodule("members").children())
        # The thresholds of the out-of-distribution detector need images that the features were not trained on: for an
        # ensemble of folds, those are validation images of one member.
        members = members[:1] if bundle.folds else members
        heads = [member.get_submodule(find_head(network.name, member)) for member in members]
    else:
        heads = [predictor.module.get_submodule(network.head)]
    cams = ClassActivationMap.of(predictor, network)
    if cams is None:
        log.info("%s has no exact class activation maps: it is served without heatmaps", network.name)
    module = Exported(predictor, heads, cams).eval()
    example = torch.zeros((1, predictor.spec.size, predictor.spec.size), dtype=torch.uint8)
    program = _exported(module, example)
    _forget_the_export(program)
    return program.model_proto.SerializeToString()


def _exported(module: nn.Module, example: Tensor) -> torch.onnx.ONNXProgram:
    """Export quietly: the exporter reports progress on every channel there is, and raises its errors."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                external_data=False,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
            )
    finally:
        logging.disable(before)
    if program is None:
        raise CxrError("the ONNX exporter returned nothing; evaluate with registry.register=false")
    return program


def _forget_the_export(program: torch.onnx.ONNXProgram) -> None:
    """Drop what the exporter notes of each operation: source lines, with paths of this machine.

    The same network would give another file for every folder that the project lies in, and for every line that moves.
    """
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
