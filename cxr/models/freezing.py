"""Where a network is cut: a prefix that stays frozen and a suffix that is trained.

The cut is made in the graph that torch.fx traces, so that any architecture can be cut whose blocks form a chain. Both
halves call the very modules of the network: training one trains the network.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cxr.errors import CxrError
from cxr.models.build import Network

# A child that holds this share of the backbone is no block but what the blocks stand in.
_CONTAINER_SHARE = 0.8
# A frozen prefix sees whole chunks of so many images, the last one filled up: kernels may round odd batches otherwise,
# and the features of an image would depend on its neighbours. On a CPU small chunks stay in its caches (measured: 8 is
# 1.2 to 1.8 times as quick as 64); a GPU wants its batch whole.
CHUNK = 8


def blocks(network: Network) -> list[str]:
    """Names of the backbone's blocks, from the input to the head: `features.0` to `features.8`, say."""
    found = [name for name, child in network.module.named_children() if _size(child) and not _holds(name, network.head)]
    while True:
        largest = max(found, key=lambda name: _size(network.module.get_submodule(name)))
        total = sum(_size(network.module.get_submodule(name)) for name in found)
        child = network.module.get_submodule(largest)
        inner = [f"{largest}.{name}" for name, part in child.named_children() if _size(part)]
        if len(inner) < 2 or _size(child) < _CONTAINER_SHARE * total:
            return found
        place = found.index(largest)
        found[place : place + 1] = inner


def split_at(network: Network, unfreeze: int | str) -> tuple[nn.Module, nn.Module]:
    """Cut `network.module` into (prefix, suffix), with `suffix(prefix(x)) == module(x)`.

    `unfreeze` counts blocks from the head; 0 leaves the suffix the head alone (with the dropout before it), "all"
    gives the suffix everything. The prefix is meant for eval mode without gradients. Names in the suffix's state
    dict are those of the network's. Raises `CxrError` where there are not so many blocks, or the graph has no single
    place to cut.
    """
    if unfreeze == "all":
        return nn.Identity(), network.module
    names = blocks(network)
    if unfreeze > len(names):
        raise CxrError(f"unfreeze={unfreeze}: {network.name} has {len(names)} blocks; allowed: 0 to {len(names)}, all")
    graph = _Tracer(names).trace(network.module)
    nodes = list(graph.nodes)
    first = _head_start(nodes, network) if unfreeze == 0 else _block_start(nodes, names[-unfreeze:])
    cut = nodes.index(first)
    crossing = {arg for node in nodes[cut:] for arg in node.all_input_nodes if nodes.index(arg) < cut}
    tensors = [node for node in crossing if node.op != "get_attr"]
    if len(tensors) != 1:
        raise CxrError(f"unfreeze={unfreeze}: {network.name} cannot be cut there; try another number, or all")
    boundary = tensors[0]
    return _prefix(network.module, graph, boundary), _suffix(network.module, nodes[cut:], boundary)


def frozen(prefix: nn.Module, x: Tensor) -> Tensor:
    """`prefix(x)` without gradients; what an image gives does not depend on the batch it is in."""
    if isinstance(prefix, nn.Identity):
        return x
    with torch.no_grad():
        lacking = -len(x) % CHUNK
        filled = torch.cat([x, x[:1].expand(lacking, *x.shape[1:])]) if lacking else x
        filled = filled.contiguous(memory_format=torch.channels_last)
        chunks = filled.split(CHUNK) if x.device.type == "cpu" else [filled]
        return torch.cat([prefix(chunk) for chunk in chunks])[: len(x)]


def folded(prefix: nn.Module) -> nn.Module:
    """A copy for inference alone: batch norms that follow a convolution are folded into its weights."""
    copied = copy.deepcopy(prefix).eval().requires_grad_(False)
    for module in [m for m in copied.modules() if isinstance(m, nn.Sequential)]:
        children = list(module.named_children())
        for (name, conv), (after, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, after, nn.Identity())
    return copied


class _Tracer(fx.Tracer):
    """Sees whole modules, not their insides, but for the containers that blocks stand in."""

    def __init__(self, block_names: list[str]):
        super().__init__()
        self.containers = {name.rpartition(".")[0] for name in block_names} - {""}
        self.containers |= {outer for name in self.containers for outer in _outer(name)}

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return name not in self.containers and not isinstance(module, nn.Sequential)


def _outer(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _prefix(module: nn.Module, graph: fx.Graph, boundary: fx.Node) -> nn.Module:
    part, copies = fx.Graph(), {}
    for node in graph.nodes:
        copies[node] = part.node_copy(node, copies.__getitem__)
        if node is boundary:
            break
    part.output(copies[boundary])
    return _module(module, part)


def _suffix(module: nn.Module, nodes: list[fx.Node], boundary: fx.Node) -> nn.Module:
    part = fx.Graph()
    copies = {boundary: part.placeholder("features")}

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:  # a parameter of the module itself that was read before the cut
            copies[node] = part.node_copy(node)
        return copies[node]

    for node in nodes:
        copies[node] = part.node_copy(node, copied)
    return _module(module, part)


def _module(module: nn.Module, graph: fx.Graph) -> nn.Module:
    half = fx.GraphModule(module, graph)
    half.graph.eliminate_dead_code()
    half.delete_all_unused_submodules()
    half.recompile()
    return half


def _block_start(nodes: list[fx.Node], unfrozen: list[str]) -> fx.Node:
    return next(n for n in nodes if n.op == "call_module" and any(_holds(block, n.target) for block in unfrozen))


def _head_start(nodes: list[fx.Node], network: Network) -> fx.Node:
    node = next(n for n in nodes if n.op == "call_module" and n.target == network.head)
    before = node.all_input_nodes[0]
    dropped = before.op == "call_module" and isinstance(network.module.get_submodule(before.target), nn.Dropout)
    return before if dropped else node


def _holds(outer: str, name: str) -> bool:
    return name == outer or name.startswith(outer + ".")


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
