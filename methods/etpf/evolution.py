"""A population of functions and their fitness go in; the next one comes out: ETPF's genetic programming, by DEAP.

The best survive with their fitness; the others are replaced by children of the survivors. What a generation becomes
depends on the one before, its fitness, the settings and the seed alone: an evolution that is run again from its first
population, with the same fitness, is the same evolution.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import operator
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from deap import gp, tools

from slimbench.core import UserError
from slimbench.methods.etpf import functions, scoring, space
from slimbench.methods.etpf.algebra import InvalidExpressionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from slimbench.methods.etpf.space import Expression

REDRAWS = 200  # of a child that is not valid; then it is its parent again
DEEPEST_NEW = 4  # of the trees that mutation puts in
TOURNAMENT = 3


@dataclass(frozen=True)
class Settings:
    """How an evolution goes. Defaults are those of the authors' code.

    Attributes:
        survivors: that keep their fitness, and have the children.
        selection: of survivors: the best, or winners of tournaments of three.
        crossover, mutation: probability that a pair of children swaps subtrees, and that a child gets a new one.
        deepest: children of more operators in a row are drawn again; None: no limit.
        seed: of every draw.

    """

    population: int = 14
    generations: int = 10
    survivors: int = 6
    selection: Literal["best", "tournament"] = "best"
    crossover: float = 0.75
    mutation: float = 0.75
    deepest: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what nothing evolves by."""
        if not 1 <= self.survivors < self.population:
            raise UserError(f"{self.survivors} survivors of {self.population} are impossible: keep 1 to all but one.")
        for name in ("crossover", "mutation"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name}={getattr(self, name)} is impossible: it is a probability, in [0, 1].")
        if self.generations < 0:
            raise UserError(f"generations={self.generations} is impossible: give 0 or more.")


@dataclass
class Individual:
    """A function in a population.

    Attributes:
        number: of its birth, from 0; parents: theirs. born: its generation.
        changed: what made it differ from its first parent.
        scores: by task, and fitness, which is made of them: once they are known.

    """

    number: int
    expression: Expression
    born: int
    parents: tuple[int, ...] = ()
    changed: tuple[str, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    fitness: float | None = None


@dataclass
class Evolution:
    """A course of generations.

    Attributes:
        evaluate: gives every individual without fitness its own.
        everyone: by number. generations: numbers of the populations so far.

    """

    settings: Settings
    evaluate: Callable[[int, Sequence[Individual]], None]
    everyone: list[Individual] = field(default_factory=list)
    generations: list[list[int]] = field(default_factory=list)

    def run(self, first: Sequence[Expression]) -> Iterator[list[Individual]]:
        """Each population, evaluated, from ``first`` (repeated up to the population's size) on.

        Raises: UserError where the population cannot hold them.
        """
        if len(first) > self.settings.population:
            raise UserError(
                f"A population of {self.settings.population} cannot hold the {len(first)} functions to start from."
            )
        population = [self._born(first[k % len(first)], 0) for k in range(self.settings.population)]
        for generation in range(self.settings.generations + 1):
            if generation:
                with _drawing(self.settings.seed, generation):
                    population = self._next(population, generation)
            self.evaluate(generation, [one for one in population if one.fitness is None])
            self.generations.append([one.number for one in population])
            yield population

    def _born(self, expression: Expression, generation: int, **facts: Any) -> Individual:
        one = Individual(len(self.everyone), expression, generation, **facts)
        self.everyone.append(one)
        return one

    def _next(self, population: Sequence[Individual], generation: int) -> list[Individual]:
        """Survivors, and children of them: copies, shuffled, crossed in pairs, then mutated."""
        s = self.settings
        survivors = _selected(population, s)
        children = [_Child.of(random.choice(survivors)) for _ in range(s.population - s.survivors)]
        random.shuffle(children)
        for one, two in zip(children[::2], children[1::2], strict=False):
            if random.random() < s.crossover:
                _cross(one, two, s.deepest)
        for child in children:
            if random.random() < s.mutation:
                _mutate(child, s.deepest)
        born = [
            self._born(child.expression, generation, parents=child.parents, changed=child.changed) for child in children
        ]
        return [*survivors, *born]


@contextlib.contextmanager
def _drawing(seed: int, generation: int) -> Iterator[None]:
    """DEAP draws from Python's global generator: seeded inside, and afterwards as it was."""
    before = random.getstate()
    random.seed(f"{seed} {generation}")
    try:
        yield
    finally:
        random.setstate(before)


def _selected(population: Sequence[Individual], settings: Settings) -> list[Individual]:
    fitness = operator.attrgetter("fitness")
    assert all(fitness(one) is not None for one in population)
    if settings.selection == "best":
        return list(tools.selBest(population, settings.survivors))
    left, won = list(population), list[Individual]()
    while len(won) < settings.survivors:  # without replacement, as the authors draw
        winner = max(random.sample(left, min(TOURNAMENT, len(left))), key=fitness)
        left.remove(winner)
        won.append(winner)
    return won


# ---------------------------------------------------------------------------------------------------------- children


@functools.cache
def primitives() -> gp.PrimitiveSet:
    """The search space for DEAP; nothing in it can be executed: expressions are evaluated by ``scoring``."""
    known = gp.PrimitiveSet("etpf", 0)
    for name, arity in space.ARITY.items():
        known.addPrimitive(_never, arity, name)
    for name in space.OPERANDS:
        known.addTerminal(name, name)
    return known


def _never(*arguments: object) -> None:
    raise TypeError("expressions are evaluated by scoring")


@dataclass
class _Child:
    """A tree under change, where it comes from, and what has been done to it."""

    tree: gp.PrimitiveTree
    parents: tuple[int, ...]
    changed: tuple[str, ...] = ()

    @classmethod
    def of(cls, parent: Individual) -> _Child:
        return cls(gp.PrimitiveTree.from_string(space.prefix(parent.expression), primitives()), (parent.number,))

    @property
    def expression(self) -> Expression:
        return space.parse(str(self.tree))


def _cross(one: _Child, two: _Child, deepest: int | None) -> None:
    """Swap two subtrees, roots excluded; drawn again until both children are valid."""
    for _ in range(REDRAWS):
        trees = gp.cxOnePoint(copy.deepcopy(one.tree), copy.deepcopy(two.tree))
        if all(_is_fit(tree, deepest) for tree in trees):
            parents = one.parents, two.parents
            for child, tree, other in zip((one, two), trees, reversed(parents), strict=True):
                child.tree, child.changed = tree, (*child.changed, "crossover")
                child.parents = tuple(dict.fromkeys((*child.parents, *other)))
            return


def _mutate(child: _Child, deepest: int | None) -> None:
    """Put a random full tree in a subtree's place; drawn again until the child is valid."""
    fresh = functools.partial(gp.genFull, min_=0, max_=DEEPEST_NEW)
    for _ in range(REDRAWS):
        (tree,) = gp.mutUniform(copy.deepcopy(child.tree), fresh, primitives())
        if _is_fit(tree, deepest):
            child.tree, child.changed = tree, (*child.changed, "mutation")
            return


def _is_fit(tree: gp.PrimitiveTree, deepest: int | None) -> bool:
    limit = space.DEEPEST if deepest is None else min(deepest, space.DEEPEST)
    return tree.height <= limit and is_valid(space.parse(str(tree)))


@functools.lru_cache(maxsize=4096)
def is_valid(expression: Expression) -> bool:
    """Whether a function gives finite numbers on the test argument."""
    try:
        scoring.score(expression, _test_argument())
    except InvalidExpressionError:
        return False
    return True


@functools.cache
def _test_argument() -> scoring.Layer:
    """Seven filters and their maps: 3,300 samples of 10 pixels, so that a matrix of samples x samples is too large.

    The authors take pixels 100 to 109 of MNIST's 60,000 images and random filters of these sizes: sparse and positive,
    as behind a ReLU.
    """
    rng = torch.Generator().manual_seed(0)
    maps = torch.randn(3300, 7, 10, generator=rng).sub(0.5).relu()
    labels = torch.arange(3300) % 10
    maps += 0.1 * torch.nn.functional.one_hot(labels, 10)[:, None]
    moments = scoring.Moments.none(7, 10, by_class=True)
    moments.add(maps, labels)
    return scoring.Layer(torch.randn(7, 5, 3, 3, generator=rng), moments, scoring.Maps.of(maps, labels))


# ---------------------------------------------------------------------------------------------------------- the seeds


def first_population() -> list[Expression]:
    """The authors' seven functions."""
    return [functions.function(name) for name in functions.SEEDS]


def document(evolution: Evolution) -> dict[str, Any]:
    """An evolution as JSON values: formulas as text, and who comes from whom."""
    return {
        "settings": dataclasses.asdict(evolution.settings),
        "generations": evolution.generations,
        "individuals": [
            dataclasses.asdict(one) | {"expression": space.formula(one.expression)} for one in evolution.everyone
        ],
    }
