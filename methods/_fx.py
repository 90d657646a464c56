"""A network goes in; its operators, one a node, come out: torch.fx, with our own layers kept whole."""

from __future__ import annotations

from torch import fx, nn

from slimbench.tasks._networks.shortcut import PaddedShortcut


def graph(model: nn.Module, *whole: type[nn.Module]) -> fx.Graph:
    """The operators of a forward pass in the mode that ``model`` is in; layers of the types ``whole`` are one node.

    Raises: what torch.fx raises where the forward pass depends on values.
    """
    return _Tracer((PaddedShortcut, *whole)).trace(model)


class _Tracer(fx.Tracer):
    def __init__(self, whole: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self.whole = whole

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.whole) or super().is_leaf_module(m, module_qualified_name)
