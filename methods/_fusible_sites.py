"""A network goes in; where residual convolutions may stand comes out, and where what they leave behind can be folded.

sites(model)              every convolution that can have a shortcut of its own
without_shortcuts(model)  the network whose blocks have none any more (variant R1)
fold(model)               scalar multiplications that removed layers left, into their neighbours
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from slimbench.cost import CONVOLUTIONS, PRODUCTS, evaluating
from slimbench.methods import _fx
from slimbench.methods._fusible import Nothing, Scale
from slimbench.methods._surgery import put

if TYPE_CHECKING:
    from collections.abc import Iterator

_ADDS = (operator.add, operator.iadd, torch.add)
_MULS = (operator.mul, operator.imul, torch.mul)
# f(a x) = a f(x) for a >= 0
_HOMOGENEOUS_MODULES = (
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity, nn.Flatten, nn.PixelShuffle, nn.Dropout, nn.Dropout2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Upsample),
)
_HOMOGENEOUS = (
    *(F.relu, torch.relu, F.leaky_relu, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.interpolate),
    *(F.dropout, torch.flatten, "relu", "relu_", "flatten", "mean", "view", "reshape"),
)


@dataclass(frozen=True)
class Site:
    """One convolution, with the batch norm that follows it, if one does.

    Attributes:
        closes_branch: its output goes straight into a block's sum.
        branch: the layers that feed nothing but this one; they go with it when the branch goes.

    """

    conv: str
    norm: str | None
    closes_branch: bool
    branch: tuple[str, ...] = ()


def sites(model: nn.Module) -> list[Site]:
    """Every eligible convolution: stride 1, as many channels out as in, odd kernel, same padding, not grouped.

    Not those that add a whole body of blocks to what came before it: without them all would be lost.
    """
    with evaluating(model):  # auxiliary heads are not deployed: nothing is gained by pruning them
        graph = _fx.graph(model)
    modules = dict(model.named_modules())
    found = []
    for node in graph.nodes:
        conv = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d) or not _is_eligible(conv) or len(_calls(graph, node)) > 1:
            continue
        last = _norm_after(node, modules) or node
        closes = _closes_branch(last, modules)
        branch, start = _only_feeding(node, modules) if closes else ([], node)
        if not (closes and start.target in _ADDS and len(start.users) == 1):
            found.append(Site(str(node.target), str(last.target) if last is not node else None, closes, tuple(branch)))
    return found


def _is_eligible(conv: nn.Conv2d) -> bool:
    same = all(
        k % 2 == 1 and p == d * (k - 1) // 2
        for k, p, d in zip(conv.kernel_size, conv.padding, conv.dilation, strict=True)
        if isinstance(p, int)
    )
    alike = conv.in_channels == conv.out_channels and conv.groups in {1, conv.in_channels}
    plain = not isinstance(conv.padding, str) and conv.padding_mode == "zeros"
    return same and alike and plain and conv.stride == (1, 1)


def _calls(graph: fx.Graph, node: fx.Node) -> list[fx.Node]:
    return [other for other in graph.nodes if other.op == "call_module" and other.target == node.target]


def _norm_after(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    user = next(iter(node.users), None)
    is_norm = user is not None and user.op == "call_module" and isinstance(modules[str(user.target)], nn.BatchNorm2d)
    return user if is_norm and len(node.users) == 1 else None


def _closes_branch(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a sum is all that reads ``node``, as it is or times a number."""
    users = list(node.users)
    while len(users) == 1 and (_is_homogeneous(users[0], modules) or _is_scaling(users[0])):
        if isinstance(modules.get(str(users[0].target)), (nn.ReLU, nn.LeakyReLU)) or users[0].target in {
            F.relu,
            "relu",
        }:
            return False
        users = list(users[0].users)
    return len(users) == 1 and users[0].target in _ADDS


def _is_scaling(node: fx.Node) -> bool:
    return node.target in _MULS and len(node.all_input_nodes) == 1


def _only_feeding(node: fx.Node, modules: dict[str, nn.Module]) -> tuple[list[str], fx.Node]:
    """Layers with weights upstream of ``node`` whose results go nowhere else, and where the search ends."""
    names = []
    upstream = node.all_input_nodes[0]
    while len(upstream.users) == 1 and upstream.op != "placeholder" and len(upstream.all_input_nodes) == 1:
        if upstream.op == "call_module" and any(True for _ in modules[str(upstream.target)].parameters()):
            names.append(str(upstream.target))
        upstream = upstream.all_input_nodes[0]
    return names, upstream


# --------------------------------------------------------------------------------------------------- without shortcuts


def without_shortcuts(model: nn.Module) -> fx.GraphModule:
    """The network whose residual sums are their branches alone, with the same layers and names.

    Sums that no convolution or linear layer reads stay: what a network adds to its input at its very end.
    """
    with evaluating(model):
        graph = _fx.graph(model)
    modules = dict(model.named_modules())
    for node in list(graph.nodes):
        if node.target in _ADDS and len(node.all_input_nodes) == 2 and _is_read(node, modules):
            one, two = ({n for n in _upstream(x) if _is_product(n, modules)} for x in node.all_input_nodes)
            if len(one - two) != len(two - one):
                branch = node.all_input_nodes[len(one - two) < len(two - one)]
                node.replace_all_uses_with(branch)
                graph.erase_node(node)
    plain = fx.GraphModule(model, graph, type(model).__name__)
    plain.graph.eliminate_dead_code()
    plain.delete_all_unused_submodules()
    plain.recompile()
    return plain


def _upstream(node: fx.Node) -> set[fx.Node]:
    found, left = set(), [node]
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left += one.all_input_nodes
    return found


def _is_read(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    found, left = set(), list(node.users)
    while left:
        one = left.pop()
        if _is_product(one, modules):
            return True
        if one not in found:
            found.add(one)
            left += one.users
    return False


def _is_product(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(modules.get(str(node.target)), PRODUCTS)


# --------------------------------------------------------------------------------------------------------- folding


def fold(model: nn.Module) -> list[str]:
    """Fold each ``Scale`` into the layers that read it, else into the one before it; names of those that stay.

    A factor of at least 0 crosses ReLU and pooling; not ReLU6, norms, sums or gates.
    """
    stay = []
    for name in [name for name, module in model.named_modules() if isinstance(module, Scale)]:
        with evaluating(model):
            graph = _fx.graph(model, Scale, Nothing)
        modules = dict(model.named_modules())
        scale, node = modules[name], next((node for node in graph.nodes if node.target == name), None)
        assert isinstance(scale, Scale)
        readers = list(_readers(node, modules)) if node else [None]
        maker = _maker(node, modules) if node else None
        layers = [modules[str(reader.target)] for reader in readers if reader and len(_calls(graph, reader)) == 1]
        if layers and len(layers) == len(readers):
            _multiply(layers, scale.alpha.item(), biases=False)
        elif maker and len(_calls(graph, maker)) == 1:
            _multiply([modules[str(maker.target)]], scale.alpha.item(), biases=True)
        else:
            stay.append(name)
            continue
        put(model, name, nn.Identity())
    return stay


@torch.no_grad()
def _multiply(layers: list[nn.Module], factor: float, *, biases: bool) -> None:
    for layer in layers:
        layer.get_parameter("weight").mul_(factor)
        if biases and layer.bias is not None:
            layer.get_parameter("bias").mul_(factor)


def _readers(node: fx.Node, modules: dict[str, nn.Module]) -> Iterator[fx.Node | None]:
    """Convolutions and linear layers that read what homogeneous operators hand on; None for anything else."""
    for user in node.users:
        if _is_product(user, modules):
            yield user
        elif _is_homogeneous(user, modules):
            yield from _readers(user, modules)
        else:
            yield None


def _maker(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The convolution whose result, by way of homogeneous operators, only ``node`` reads."""
    upstream = node.all_input_nodes[0]
    while len(upstream.users) == 1:
        if _is_product(upstream, modules):
            return upstream if isinstance(modules[str(upstream.target)], CONVOLUTIONS) else None
        if not _is_homogeneous(upstream, modules):
            return None
        upstream = upstream.all_input_nodes[0]
    return None


def _is_homogeneous(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if len(node.all_input_nodes) != 1:
        return False
    target: Any = node.target
    if node.op == "call_module":
        return isinstance(modules[str(target)], _HOMOGENEOUS_MODULES)
    return node.op in {"call_function", "call_method"} and target in _HOMOGENEOUS
