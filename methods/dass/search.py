"""A task goes in; a supernet is trained dense, pruned and trained sparse; the genotype that it prefers comes out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.func import functional_call

from slimbench.methods.dass import networks, pruning, sparse
from slimbench.methods.dass.genotypes import NODES, OPERATIONS, Genotype
from slimbench.methods.dass.method import SECOND_ORDER
from slimbench.train import full_precision

if TYPE_CHECKING:
    from torch import Tensor, nn

    from slimbench.core import Budget, Step, Task, Trainer
    from slimbench.methods.dass.genotypes import Cell
    from slimbench.methods.dass.method import DASS

_PAPER_STEPS = 78_125  # of alpha in each of its two phases: 100 epochs of 25,000 images in batches of 32
_FASTEST = 30.0  # times the paper's learning rate, in short searches
_REACH = 1e-2  # of the finite difference in weights, over the norm of its direction


class Search:
    """A supernet, and the steps of its alpha."""

    def __init__(self, method: DASS, task: Task, shape: networks.Shape) -> None:
        """Fresh weights; alpha is frozen but for its own steps, so that no fit trains it on what weights learn from."""
        self.method, self.task = method, task
        network = networks.CellNetwork(shape, method.search_channels, method.search_cells, None)
        self.network = networks.draw(network, task)
        self.layers = sparse.sparsify(self.network)
        self.alpha = self.network.alpha.requires_grad_(False)
        self.adam = torch.optim.Adam([self.alpha], lr=method.alpha_lr, betas=(0.5, 0.999), weight_decay=1e-3)
        batch = method.search_batch_size or task.recipe.batch_size
        self.recipe = replace(task.recipe, lr=method.search_lr * task.recipe.lr, batch_size=batch)

    def state_dict(self) -> dict[str, Any]:
        """The optimiser of alpha; alpha itself is the network's."""
        return {"adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
        self.adam.load_state_dict(state["adam"])

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor, outputs: Tensor) -> Tensor:
        """The task's, without distillation."""
        return self.task.loss(full_precision(outputs), targets)

    def run(self, budget: Budget, trainer: Trainer, unit: float) -> Genotype:
        """Pretrain, prune, fine-tune, each for its share of epochs; alpha learns in the first and the last."""
        how, net = self.method, self.network
        common: dict[str, Any] = {"phase": "search", "hold_out": how.hold_out, "loss": self.loss, "state": (self,)}
        with pruning.learning(net, "weights"):
            epochs = unit * how.search_pretrain
            trainer.fit(net, epochs, name="search: pretrain", recipe=self.recipe, before_step=self.turn_alpha, **common)
        dense = genotype(self.alpha)
        masking = pruning.Masking(self.layers, budget.keep, how.ranking)
        sparse.score_by_magnitude(self.layers)
        faster = replace(self.recipe, lr=how.prune_lr * self.task.recipe.lr)
        with pruning.learning(net, "scores"):
            epochs = unit * how.search_prune
            trainer.fit(net, epochs, name="search: prune", recipe=faster, before_step=masking.follow, **common)
        masking.follow()
        with pruning.learning(net, "weights"):
            epochs = unit * how.search_finetune
            trainer.fit(net, epochs, name="search: tune", recipe=self.recipe, before_step=self.turn_alpha, **common)
        found = genotype(self.alpha)
        trainer.note("genotype before pruning", str(dense))
        shares = self.alpha.detach().softmax(-1).mean(1)[: 1 + net.shape.reduces].tolist()
        kinds = ("normal", "reduce")[: len(shares)]
        table = {kind: dict(zip(OPERATIONS, row, strict=True)) for kind, row in zip(kinds, shares, strict=True)}
        trainer.note("share of each operation", table)
        return found

    def turn_alpha(self, step: Step) -> None:
        """Before the weights' step: one step of alpha on held-out samples, with the masks as they are."""
        held = step.held_out()
        self.alpha.requires_grad_(True)
        if self.method.unrolled:
            step.again(SECOND_ORDER)
            self.alpha.grad = self._unrolled(step, held)
        else:
            self.alpha.grad = self._first_order(held)
        faster = min(max(1.0, _PAPER_STEPS / step.total), _FASTEST)
        for group in self.adam.param_groups:
            group["lr"] = self.method.alpha_lr * faster
        self.adam.step()
        self.alpha.grad = None
        self.alpha.requires_grad_(False)

    def _first_order(self, held: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = held
        loss = self.loss(self.network, inputs, targets, self.network(inputs))
        return torch.autograd.grad(loss, self.alpha)[0]

    def _unrolled(self, step: Step, held: tuple[Tensor, Tensor]) -> Tensor:
        """d L_val(w - xi * (dL_train/dw + decay * w), alpha) / d alpha, with the Hessian by a finite difference.

        In float32 whatever the precision: the difference of two gradients is small beside them.
        """
        weights: dict[str, Tensor] = {
            n: p for n, p in self.network.named_parameters() if p.requires_grad and p is not self.alpha
        }
        names, values = list(weights), list(weights.values())
        rate, decay = step.lr, self.recipe.weight_decay

        def loss(batch: tuple[Tensor, Tensor], at: list[Tensor]) -> Tensor:
            outputs = functional_call(self.network, dict(zip(names, at, strict=True)), (batch[0],))
            return self.loss(self.network, *batch, outputs)

        with torch.autocast(step.inputs.device.type, enabled=False):
            train = (step.inputs, step.targets)
            slope = torch.autograd.grad(loss(train, values), values)
            ahead = [(w - rate * (g + decay * w)).detach().requires_grad_() for w, g in zip(values, slope, strict=True)]
            direct, *v = torch.autograd.grad(loss(held, ahead), [self.alpha, *ahead])
            length = torch.stack([part.norm() for part in v]).norm()
            reach = float(_REACH / length.clamp(min=1e-12))
            sides = []
            for sign in (1, -1):
                moved = [(w + sign * reach * part).detach() for w, part in zip(values, v, strict=True)]
                sides.append(torch.autograd.grad(loss(train, moved), self.alpha)[0])
            return direct - rate * (sides[0] - sides[1]) / (2 * reach)


def genotype(alpha: Tensor) -> Genotype:
    """DARTS' rule on alpha (2, 14, 8): each node's two best inputs, each by its best operation, "none" aside."""
    normal, reduce = (_cell(part) for part in alpha.detach().softmax(-1))
    return Genotype(normal, reduce)


def _cell(weights: Tensor) -> Cell:
    nodes: list[Any] = []
    start = 0
    for node in range(NODES):
        best, operation = weights[start : start + 2 + node, 1:].max(1)  # the first is "none"
        chosen = sorted(best.argsort(descending=True, stable=True)[:2].tolist())
        nodes.append(tuple((OPERATIONS[1 + int(operation[source])], source) for source in chosen))
        start += 2 + node
    return tuple(nodes)
