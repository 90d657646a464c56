"""DASS: cells that are searched for while their weights are sparse (Mousavi et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from slimbench.core import Card, UserError
from slimbench.methods.dass.genotypes import parse
from slimbench.methods.dass.scores import refuse

if TYPE_CHECKING:
    from torch import Tensor, nn

    from slimbench.core import Budget, Outputs, Step, Task, Trainer
    from slimbench.methods.dass.networks import CellNetwork


SECOND_ORDER = 3  # passes over a batch, besides the one over what is held out, that a look-ahead of alpha takes


@dataclass(frozen=True)
class DASS:
    """Searches cells on the task with sparse weights, and trains, prunes and fine-tunes a network made of them.

    The budget's share is of that network's own weights. All epochs, those that made the dense network too, are divided
    by the shares below; an epoch of the search is one over the part of train that weights learn from.

    Attributes:
        genotype: cells by name or as text, which are then not searched for; "": searched.
        channels, cells: width of the first cell's nodes, and number of cells, of the network.
        search_channels, search_cells: of the supernet.
        search_pretrain, search_prune, search_finetune: shares of the search's phases: 100 : 50 : 100.
        pretrain, prune, finetune: shares of the network's phases: 600 : 20 : 200.
        hold_out: share of train that only alpha learns from.
        search_lr: of the supernet's weights, as a share of the recipe's.
        search_batch_size: None: the recipe's.
        alpha_lr: of alpha's Adam for 78,125 steps a phase; where there are fewer, larger by as much, at most 30 times.
        unrolled: alpha looks one step of the weights ahead (second order); else at them as they are.
        prune_lr: of scores, as a share of the recipe's.
        ranking: the same share in every layer, or the largest scores of all.
        auxiliary: weight of an auxiliary head's loss; 0: none. For images of 32 pixels.
        drop_path: share of each operation's samples that is dropped at the end of pretraining, rising linearly.

    """

    genotype: str = ""
    channels: int = 16
    cells: int = 8
    search_channels: int = 8
    search_cells: int = 5
    search_pretrain: float = 2.0
    search_prune: float = 1.0
    search_finetune: float = 2.0
    pretrain: float = 6.0
    prune: float = 1.0
    finetune: float = 3.0
    hold_out: float = 0.5
    search_lr: float = 0.25
    search_batch_size: int | None = None
    alpha_lr: float = 3e-4
    unrolled: bool = False
    prune_lr: float = 1.0
    ranking: Literal["layer", "global"] = "layer"
    auxiliary: float = 0.0
    drop_path: float = 0.0

    name: ClassVar[str] = "dass"
    card: ClassVar[Card] = Card(
        title="DASS: differentiable architecture search for sparse neural networks",
        paper="Mousavi, Loni, Alibeigi, Daneshtalab, DASS, ACM TECS 22(5s), 2023 (arXiv: PR-DARTS, 2022)",
        link="https://arxiv.org/abs/2207.06968",
        section="the authors' code, read and written anew: sparse layers, supernet, three-phase search, genotypes",
        fidelity={
            "sparse layers": "authors' code",
            "search": "authors' code",
            "classification": "authors' code",
            "segmentation": "extension",
            "super resolution": "extension",
        },
        starts_from="scratch",
        granularity="weight",
        deviations=(
            "alpha learns on held-out samples alone; in the authors' code the weights' optimiser trains it as well",
            "alpha rests while scores are learned, as in what the authors' code runs by default",
            "first order by default; the authors' second order by a field (unrolled); its passes are counted",
            "the step that the second order looks ahead is without momentum, unlike the weights' own",
            "what is frozen in a phase is not in its optimiser; in the authors' it decays",
            "momentum and weight decay are the recipe's in the search as well; the authors' search has no momentum",
            "every phase's rate falls by its own cosine; the authors' prune phase stops half-way on a longer one",
            "alpha of short searches learns up to 30 times as fast",
            "gradients are clipped as the recipe says (clip_norm: not by default); the authors' at 5, on CIFAR",
            "auxiliary head and drop-path are off by default; the authors' code: 0.4 and 0.2",
            "rates of the search fall to 0; the authors' to 0.001",
            "the last epoch counts; the authors keep the best on test",
            "with an auxiliary head (auxiliary=) training is without the task's distillation",
            "segmentation: cells as encoder from half size on, one convolution and bilinear enlargement as decoder",
            "super resolution: no reduction cells, no batch norm; a pixel shuffle, and the bicubic image beside",
            "super resolution: held-out patches are of the images trained on, mostly the same pixels",
            "the budget is of the found network's own weights: MACs, size and speed stand beside the task's network",
        ),
    )

    def __post_init__(self) -> None:
        """Refuse what no search or network can be made of."""
        shares = {name: getattr(self, name) for name in ("pretrain", "prune", "finetune", "search_pretrain")}
        least = {n: getattr(self, n) for n in ("search_prune", "search_finetune", "search_lr", "alpha_lr", "prune_lr")}
        refuse(self.name, positive=shares, least=least | {"auxiliary": self.auxiliary})
        for name, smallest in (("channels", 2), ("search_channels", 2), ("cells", 3), ("search_cells", 3)):
            if getattr(self, name) < smallest:
                raise UserError(f"dass: {name}={getattr(self, name)} is impossible: give at least {smallest}.")
        if self.search_batch_size is not None and self.search_batch_size < 1:
            raise UserError("dass: search_batch_size must be at least 1.")
        if not 0 < self.hold_out < 1 or not 0 <= self.drop_path < 1:
            raise UserError("dass: hold_out must lie within (0, 1), drop_path within [0, 1).")
        if self.genotype:
            parse(self.genotype)

    def unsupported(self, task: Task, budget: Budget) -> str | None:
        """Budgets in MACs or params, which zeros do not change, and below one weight a layer."""
        from slimbench.methods.dass import networks, pruning

        families = networks.FAMILIES
        if task.family not in families:
            return f"cells are made into networks for {', '.join(families)}, not for {task.family}"
        size = task.size("train")
        if not self.genotype and not 0 < round(self.hold_out * size) < size:
            return f"hold_out={self.hold_out:g} of {size} training samples leaves nothing to alpha or weights"
        shape = networks.shape_of(task)
        if self.auxiliary and not networks.takes_auxiliary_head(shape):
            return "the auxiliary head is for classification of images of 32 pixels: set auxiliary=0"
        if not budget.epochs + task.recipe.epochs:
            return "networks are trained, and there are no epochs"
        found = networks.CellNetwork(shape, self.channels, self.cells, parse(self.genotype or "dass-99"))
        return pruning.why_not(found, task, budget)

    def compress(self, model: nn.Module, task: Task, budget: Budget, trainer: Trainer) -> nn.Module:
        """Search, make the network, pretrain, prune, fine-tune; of ``model`` only its shape is used."""
        from slimbench.methods.dass import networks, pruning, sparse
        from slimbench.methods.dass.search import Search

        shape = networks.shape_of(task)
        later = self.pretrain + (self.prune + self.finetune) * (budget.keep < 1)
        turns = 2 + SECOND_ORDER * self.unrolled  # of an epoch in which alpha learns: its passes are metered
        searched = turns * (self.search_pretrain + self.search_finetune) + self.search_prune
        unit = trainer.epochs_left / (later + searched * (1 - self.hold_out) * (not self.genotype))
        genotype = parse(self.genotype) if self.genotype else Search(self, task, shape).run(budget, trainer, unit)
        trainer.note("genotype", str(genotype))
        trainer.unpruned(networks.CellNetwork(shape, self.channels, self.cells, genotype))
        found = networks.CellNetwork(shape, self.channels, self.cells, genotype, auxiliary=self.auxiliary > 0)
        networks.draw(found, task)
        loss = self._loss(task)
        with_drops = self._dropping(found) if self.drop_path else None
        pretrain = unit * self.pretrain if budget.keep < 1 else trainer.epochs_left
        trainer.fit(found, pretrain, name="pretrain", before_step=with_drops, loss=loss)
        networks.drop_paths(found, 0.0)
        if budget.keep < 1:
            layers = sparse.sparsify(found)
            pruning.prune(found, layers, self, task=task, budget=budget, trainer=trainer, loss=loss)
        return networks.without_auxiliary_head(found)

    def _dropping(self, found: CellNetwork):  # type: ignore[no-untyped-def]
        from slimbench.methods.dass import networks

        def drop(step: Step) -> None:
            networks.drop_paths(found, self.drop_path * step.progress)

        return drop

    def _loss(self, task: Task):  # type: ignore[no-untyped-def]
        """None: the trainer's own; with an auxiliary head its loss besides."""
        from slimbench.train import full_precision

        if not self.auxiliary:
            return None

        def with_auxiliary(model: nn.Module, inputs: Tensor, targets: Tensor, outputs: Outputs) -> Tensor:
            main, beside = full_precision(outputs)
            return task.loss(main, targets) + self.auxiliary * task.loss(beside, targets)

        return with_auxiliary
