"""A network goes in; it is trained with gates on its widths, and what they leave of each width comes out (DCSS)."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from slimbench.cost import NORMS, evaluating, layers
from slimbench.methods import _gates, _surgery
from slimbench.train import full_precision

if TYPE_CHECKING:
    from torch import Tensor, nn

    from slimbench.core import Budget, Step, Task, Trainer
    from slimbench.methods.dcss import DCSS

_HOT, _COLD = 10.0, 0.1  # temperatures at the first and the last step of the search
_PAPER_STEPS = 26_400  # of gates with learning rate 0.01: 150 epochs of 45,000 images in batches of 256
_FASTEST = 30.0  # times that learning rate: beyond, single steps would decide
_LOOKED_AT = 4  # images that memory is measured with
_SHOWN = 50  # points of the series that are kept in the record


class Search:
    """A gated network, and what happens around each step of its training.

    Attributes:
        network: the gated network.
        target: of the budget's resource.
        series: expected over target at each step of the search.
        way: expected share of each width's channels, now and then.
        task_pull: mean norm of the task's gradient so far. The controller's is measured by it: gates that have grown
            sure have small gradients, and would not come back to the budget.

    """

    def __init__(self, method: DCSS, task: Task, model: nn.Module, budget: Budget) -> None:
        """Attach gates to a copy of ``model`` with fresh weights."""
        model = copy.deepcopy(model).train()
        task.initialise(model)
        for module in model.modules():
            if isinstance(module, NORMS):
                module.momentum = method.norm_momentum
        self.method, self.task, self.budget = method, task, budget
        self.every = _surgery.widths(model, task.example())
        rows = layers(model, task.example())
        self.target = budget.keep * sum(row.of(budget.resource) for row in rows.values())
        self.gates = _gates.Gates(self.every, method.candidates)
        places = _gates.channels(model, self.every)
        self.expectation = _gates.Expectation(rows, places, budget.resource)
        self.masks = _gates.Masks(places)
        self._hold(self.gates.probabilities(1.0))
        self.network = _gates.gated(model, task.example(), places, self.masks)
        self.adam = torch.optim.Adam(self.gates.parameters(), lr=method.gate_lr)
        self.recipe = replace(task.recipe, lr=method.search_lr * task.recipe.lr)
        self.series: list[float] = []
        self.way: list[list[float]] = []
        self.task_pull = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Gates, their optimiser and the series: what a checkpoint needs."""
        held = {"series": list(self.series), "way": list(self.way), "task_pull": self.task_pull}
        return {"gates": self.gates.state_dict(), "adam": self.adam.state_dict(), **held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what ``state_dict`` gave."""
        self.gates.load_state_dict(state["gates"])
        self.adam.load_state_dict(state["adam"])
        self.series, self.way, self.task_pull = list(state["series"]), list(state.get("way", [])), state["task_pull"]

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor, outputs: Tensor) -> Tensor:
        """The task's, without distillation."""
        return self.task.loss(full_precision(outputs), targets)

    def leave_gates_open(self, step: Step) -> None:
        """Warm-up: every prefix is as likely."""
        self._hold(self.gates.probabilities(1.0), step.inputs.device)

    def draw_gates(self, step: Step) -> None:
        """Before the weights' step: gates with Gumbel noise, which get no gradient."""
        fixed = self.method.weight_temperature
        temperature = _temperature(step) if fixed is None else fixed
        self._hold(self.gates.probabilities(temperature, noise=True), step.inputs.device)

    def _hold(self, p: Tensor, device: torch.device | None = None) -> None:
        """Masks by ``p`` that pass no gradient on to the gates."""
        self.masks.fill(self.gates.masks(p).detach(), device)

    def turn_gates(self, step: Step) -> None:
        """After the weights' step: one step of the gates on held-out samples, in eval mode, without noise."""
        alpha = self.gates.alpha
        inputs, targets = step.held_out()
        p = self.gates.probabilities(_temperature(step))
        masks = self.gates.masks(p)
        self.masks.fill(masks, inputs.device)
        with evaluating(self.network):
            loss = self.loss(self.network, inputs, targets, self.network(inputs))
        cost = self.expectation(masks)
        (pull,) = torch.autograd.grad(cost.log(), alpha, retain_graph=True)
        (task,) = torch.autograd.grad(loss, alpha)
        self.series.append(float(cost.detach()) / self.target)
        if (step.index + 1) % max(1, step.total // _SHOWN) == 0:
            self.way.append(self._left(self.gates.expected(p.detach())))
        self.task_pull += (float(task.norm()) - self.task_pull) / len(self.series)
        alpha.grad = task + self._penalty(task, pull) * pull
        faster = min(max(1.0, _PAPER_STEPS / step.total), _FASTEST)
        for group in self.adam.param_groups:
            group["lr"] = self.method.gate_lr * faster * 0.1 ** int(3 * step.progress)
        self.adam.step()

    def _penalty(self, task: Tensor, cost: Tensor) -> float:
        """Lambda: fixed, or the multiplier that holds the expected cost, and beyond the tolerance a pull to the target.

        Along ``-(task + lambda * cost)`` the cost stays at lambda = -(task . cost) / |cost|^2.
        """
        if self.method.penalty is not None:
            return self.method.penalty
        size = float(cost.norm())
        if not size:
            return 0.0
        over = self.series[-1] - 1
        beyond = math.copysign(1.0, over) if abs(over) > self.budget.tolerance else 0.0
        return -float((task * cost).sum()) / size**2 + beyond * self.method.pull * self.task_pull / size

    def shares(self) -> dict[str, float]:
        """What the cold gates leave, as a share of a layer's channels: of every layer that makes a width's."""
        p = self.gates.probabilities(_COLD).detach()
        left = self.gates.expected(p)
        if self.method.discretise == "argmax":
            left = self.gates.widths.gather(1, p.argmax(1, keepdim=True)).squeeze(1)
        pairs = zip(self.every, self._left(left), strict=True)
        return {m.layer: share for width, share in pairs for m in width.makers}

    def _left(self, channels: Tensor) -> list[float]:
        """Channels of each width, (widths,), as shares of all that it has."""
        return (channels / torch.tensor([width.channels for width in self.every])).tolist()  # type: ignore[no-any-return]

    def report(self, trainer: Trainer) -> None:
        """Keep the gates and the way to them in the record."""
        p = self.gates.probabilities(_COLD).detach()
        trainer.note(
            "gates", {w.name: [round(x, 4) for x in row.tolist()] for w, row in zip(self.every, p, strict=True)}
        )
        points = range(len(self.series) - 1, -1, -max(1, len(self.series) // _SHOWN))
        trainer.note("expected over target", [round(self.series[point], 4) for point in reversed(points)])
        ways = zip(self.every, zip(*self.way, strict=True), strict=False)
        trainer.note("expected widths", {width.name: [round(share, 4) for share in way] for width, way in ways})

    def kept_bytes(self, plain: nn.Module, trainer: Trainer) -> dict[str, int]:
        """Bytes that autograd keeps for one more image: in plain training, a step of the weights, one of the gates."""
        inputs, _ = next(iter(trainer.batches("train", size=2 * _LOOKED_AT, limit=2 * _LOOKED_AT)))
        plain, network = (copy.deepcopy(m).to(inputs.device).train() for m in (plain, self.network))

        def an_image(model: nn.Module, masks: Tensor) -> int:
            self.masks.fill(masks, inputs.device)
            more, fewer = (_gates.held_bytes(model, part) for part in (inputs, inputs[:_LOOKED_AT]))
            return (more - fewer) // (len(inputs) - _LOOKED_AT)

        masks = self.gates.masks(self.gates.probabilities(1.0))
        found = {"plain": an_image(plain, masks), "weights": an_image(network, masks.detach())}
        return found | {"gates": an_image(network.eval(), masks)}


def _temperature(step: Step) -> float:
    """tau(t) = 10^(1 - 2 t / (T - 1)): from 10 to 0.1."""
    return float(_HOT * (_COLD / _HOT) ** (step.index / max(1, step.total - 1)))
