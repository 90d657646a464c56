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
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Upsample, Scale),
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

    Not those that add a whole body of blocks to what came before it, nor those that project what a block's shortcut
    hands on: without them all would be lost.
    """
    with evaluating(model):  # auxiliary heads are not deployed: nothing is gained by pruning them
        graph = _fx.graph(model)
    modules = dict(model.named_modules())
    projections = _projections(graph, modules)
    found = []
    for node in graph.nodes:
        conv = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(conv, nn.Conv2d) or not _is_eligible(conv) or len(_calls(graph, node)) > 1:
            continue
        if node in projections:
            continue
        last = _norm_after(node, modules) or node
        if last is not node and len(_calls(graph, last)) > 1:
            continue  # a norm that others share is not the convolution's own
        closes = _closes_branch(last, modules)
        branch, start = _only_feeding(node, modules) if closes else ([], node)
        if not (closes and start.target in _ADDS and len(start.users) == 1):
            found.append(Site(str(node.target), str(last.target) if last is not node else None, closes, tuple(branch)))
    return found


def _projections(graph: fx.Graph, modules: dict[str, nn.Module]) -> set[fx.Node]:
    """What stands on the way that a block's shortcut takes to its sum."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if _adds_two(node) and (branch := _branch(node, modules)):
            (shortcut,) = (side for side in node.all_input_nodes if side is not branch)
            found |= _upstream(shortcut) - _upstream(branch)
    return found


def _is_eligible(conv: nn.Conv2d) -> bool:
    alike = conv.in_channels == conv.out_channels and conv.groups in {1, conv.in_channels}
    return _is_padded(conv) and alike and conv.padding_mode == "zeros" and conv.stride == (1, 1)


def _is_padded(conv: nn.Conv2d) -> bool:
    """Whether, but for its stride, it keeps height and width."""
    if isinstance(conv.padding, str):
        return False
    sizes = zip(conv.kernel_size, conv.padding, conv.dilation, strict=True)
    return all(k % 2 == 1 and p == d * (k - 1) // 2 for k, p, d in sizes)


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
    return len(users) == 1 and _adds_two(users[0])


def _adds_two(node: fx.Node) -> bool:
    """Whether it adds what depends on the input to what does: no constant, no parameter."""
    return node.target in _ADDS and [n.op != "get_attr" for n in node.all_input_nodes] == [True, True]


def _is_scaling(node: fx.Node) -> bool:
    return node.target in _MULS and len(node.all_input_nodes) == 1


def _only_feeding(node: fx.Node, modules: dict[str, nn.Module]) -> tuple[list[str], fx.Node]:
    """Layers with weights upstream of ``node`` whose results go nowhere else, and where the search ends.

    Not beyond a layer that changes height and width otherwise than a padded convolution does: zeros must fit in.
    """
    names = []
    upstream = node.all_input_nodes[0]
    while len(upstream.users) == 1 and len(upstream.all_input_nodes) == 1 and _keeps_size(upstream, modules):
        if upstream.op == "call_module" and any(True for _ in modules[str(upstream.target)].parameters()):
            names.append(str(upstream.target))
        upstream = upstream.all_input_nodes[0]
    return names, upstream


def _keeps_size(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        module = modules[str(node.target)]
        if isinstance(module, nn.Conv2d):
            return _is_padded(module) and len(set(module.stride)) == 1
        return isinstance(module, (nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Identity, nn.Dropout))
    return node.target in {F.relu, F.relu6, F.leaky_relu, torch.relu, "relu"}


# --------------------------------------------------------------------------------------------------- without shortcuts


def without_shortcuts(model: nn.Module) -> fx.GraphModule:
    """The network whose residual sums are their branches alone; layers keep their names, projections go.

    A sum is residual where one side ends in a convolution or its norm, and the other is what the branch started from,
    as it is or projected (one convolution of 1x1). Sums that no convolution or linear layer reads stay: what a network
    adds to its input at its very end.
    """
    with evaluating(model):
        graph = _fx.graph(model)
    modules = dict(model.named_modules())
    for node in list(graph.nodes):
        if _adds_two(node) and _is_read(node, modules) and (branch := _branch(node, modules)):
            node.replace_all_uses_with(branch)
            graph.erase_node(node)
    return _rewritten(model, graph)


def _rewritten(model: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    plain = fx.GraphModule(model, graph, type(model).__name__)
    plain.graph.eliminate_dead_code()
    plain.delete_all_unused_submodules()
    plain.recompile()
    return plain


def _branch(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The side of a residual sum that is its branch, or None where it is none."""
    one, two = node.all_input_nodes
    for side, other in ((one, two), (two, one)):
        own = [n for n in _upstream(other) - _upstream(side) if _is_product(n, modules)]
        beside = [n for n in _upstream(side) - _upstream(other) if _is_product(n, modules)]
        if (
            len(beside) > len(own)
            and _ends_in_convolution(side, modules)
            and all(_is_projection(n, modules) for n in own)
        ):
            return side if len(own) < 2 else None
    return None


def _ends_in_convolution(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    while len(node.all_input_nodes) == 1 and (
        _is_scaling(node) or isinstance(modules.get(str(node.target)), nn.Identity)
    ):
        node = node.all_input_nodes[0]
    return isinstance(modules.get(str(node.target)), (nn.Conv2d, nn.BatchNorm2d))


def _is_projection(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    conv = modules[str(node.target)]
    return isinstance(conv, nn.Conv2d) and conv.kernel_size == (1, 1)


def without_zeros(model: nn.Module) -> nn.Module:
    """The network without the sums to which a removed branch adds nothing; the same one where it has none."""
    if not any(isinstance(module, Nothing) for module in model.modules()):
        return model
    graph = _fx.graph(model, Nothing)
    modules = dict(model.named_modules())
    for node in list(graph.nodes):
        if _adds_two(node):
            for side, other in (node.all_input_nodes, node.all_input_nodes[::-1]):
                if _is_zero(side, modules):
                    node.replace_all_uses_with(other)
                    graph.erase_node(node)
                    break
    return _rewritten(model, graph)


def _is_zero(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Zeros, as they are or through what leaves them so."""
    while len(node.all_input_nodes) == 1 and (_is_scaling(node) or _is_homogeneous(node, modules)):
        node = node.all_input_nodes[0]
    return isinstance(modules.get(str(node.target)), Nothing)


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

    A factor of at least 0 crosses ReLU, pooling and other factors; not ReLU6, norms, sums or gates.
    """
    stay: list[str] = []
    while names := [n for n, module in model.named_modules() if isinstance(module, Scale) and n not in stay]:
        with evaluating(model):
            graph = _fx.graph(model, Scale, Nothing)
        modules = dict(model.named_modules())
        for name in names:
            node = next((node for node in graph.nodes if node.target == name), None)
            if node and _fold_one(node, graph, modules):
                put(model, name, nn.Identity())
                modules[name] = model.get_submodule(name)
            else:
                stay.append(name)
    return stay


def _fold_one(node: fx.Node, graph: fx.Graph, modules: dict[str, nn.Module]) -> bool:
    scale = modules[str(node.target)]
    assert isinstance(scale, Scale)
    if any(_is_in_place(user) for user in node.users) and len(node.all_input_nodes[0].users) > 1:
        return False  # it would write over what others read
    readers, maker = list(_readers(node, modules)), _maker(node, modules)
    if readers and all(reader and len(_calls(graph, reader)) == 1 for reader in readers):
        _multiply([modules[str(reader.target)] for reader in readers if reader], scale.alpha.item(), biases=False)
        return True
    if maker and len(_calls(graph, maker)) == 1:
        _multiply([modules[str(maker.target)]], scale.alpha.item(), biases=True)
        return True
    return False


def _is_in_place(node: fx.Node) -> bool:
    method = node.op == "call_method" and str(node.target).endswith("_")
    return method or bool(node.kwargs.get("inplace")) or node.target in {operator.iadd, operator.imul}


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
    """The convolution or norm whose result, by way of homogeneous operators, only ``node`` reads."""
    upstream = node.all_input_nodes[0]
    while len(upstream.users) == 1:
        if isinstance(modules.get(str(upstream.target)), (*CONVOLUTIONS, nn.BatchNorm2d)):
            return upstream
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
