"""A stored program goes in; a module with batch norm folded into its convolutions, ready to time, comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from slimbench import artifact

if TYPE_CHECKING:
    from pathlib import Path

_TRANSPOSED = torch.ops.aten.conv_transpose2d.input
_GROUPS = 6  # its argument
_CONVS = (torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding, _TRANSPOSED)
_NORM = torch.ops.aten.batch_norm.default


def load_folded(folder: Path) -> nn.Module:
    """The network stored in ``folder``, folded. Raises: UserError where it is damaged."""
    return fold(artifact.load(folder).module(check_guards=False))


def fold(module: fx.GraphModule) -> fx.GraphModule:
    """Fold each batch norm that alone reads a convolution into that convolution, in place; exact up to rounding."""
    graph = module.graph
    for node in list(graph.nodes):
        conv = node.args[0] if node.target is _NORM else None
        if not isinstance(conv, fx.Node) or conv.target not in _CONVS or len(conv.users) != 1:
            continue
        is_transposed = conv.target is _TRANSPOSED
        if is_transposed and len(conv.args) > _GROUPS and conv.args[_GROUPS] != 1:
            continue  # a group's channels share their place in the weights
        weight, bias = (_tensor(module, arg) for arg in (*conv.args, None)[1:3])
        gamma, beta, mean, var = (_tensor(module, arg) for arg in node.args[1:5])
        assert weight is not None
        assert mean is not None
        assert var is not None
        fused = fuse_conv_bn_weights(weight, bias, mean, var, node.args[7], gamma, beta, is_transposed)
        names = [f"_folded_{node.name}_{part}" for part in ("weight", "bias")]
        for name, value in zip(names, fused, strict=True):
            module.register_buffer(name, value.detach().clone())
        with graph.inserting_before(conv):
            new = [graph.get_attr(name) for name in names]
        conv.args = (conv.args[0], *new, *conv.args[3:])
        node.replace_all_uses_with(conv)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    _forget_unused(module)
    module.recompile()
    return module


def _forget_unused(module: fx.GraphModule) -> None:
    """Delete the tensors that folding replaced: they would count as memory of the network."""
    used = {str(node.target) for node in module.graph.nodes if node.op == "get_attr"}
    for name in [n for n, _ in (*module.named_parameters(), *module.named_buffers()) if n not in used]:
        parent, _, last = name.rpartition(".")
        delattr(module.get_submodule(parent), last)


def _tensor(module: fx.GraphModule, arg: object) -> Tensor | None:
    if not isinstance(arg, fx.Node):
        return None
    value = module
    for name in str(arg.target).split("."):
        value = getattr(value, name)
    assert isinstance(value, Tensor)
    return value.detach()
