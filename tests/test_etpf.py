"""ETPF: formulas are read and printed; scores of all channels at once are those of the authors' loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import naive
from slimbench.core import UserError
from slimbench.methods.etpf import algebra, functions, scoring, space
from slimbench.methods.etpf.algebra import InvalidExpressionError
from slimbench.methods.etpf.space import parse

EVERY = pytest.mark.parametrize("name", functions.NAMED)


def data(channels=5, samples=60, pixels=4, classes=3, seed=0):
    """Maps that are not negative, as behind a ReLU, their classes, and the filters that made them."""
    rng = np.random.default_rng(seed)
    maps = np.maximum(rng.normal(0.3, 1, (samples, channels, pixels)), 0).astype(np.float32).astype(np.float64)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, samples - classes)])
    return maps, labels, rng.normal(size=(3, 3, 2, channels))


def layer(maps, labels, filters, *, kept=True, batch=17):
    """What is gathered of the same data, batch by batch."""
    maps, labels = torch.from_numpy(maps), torch.from_numpy(labels)
    moments = scoring.Moments.none(maps.shape[1], maps.shape[2], by_class=True)
    for part, theirs in zip(maps.split(batch), labels.split(batch), strict=True):
        moments.add(part, theirs)
    weight = torch.from_numpy(filters)
    weight = weight.permute(3, 2, 0, 1) if weight.ndim == 4 else weight.T
    return scoring.Layer(weight, moments, scoring.Maps.of(maps, labels) if kept else None)


# ---------------------------------------------------------------------------------------------------------- formulas


@EVERY
def test_formulas_read_back(name):
    """As printed for people, as printed for DEAP: the same expression."""
    expression = functions.function(name)
    assert parse(space.formula(expression)) == expression
    assert parse(space.prefix(expression)) == expression
    assert functions.function(space.formula(expression)) == expression


def test_brackets_stand_where_they_must():
    """Sums in products, products to the right, sums to the right of a difference."""
    for text in (
        "P - (Q - X)",
        "P / (Q / X)",
        "(P + Q) * X",
        "P * (Q + X)",
        "(P * Q)**2",
        "P @ (Q @ X)",
        "tran(P) @ Q",
    ):
        assert space.formula(parse(text)) == text
    assert parse("P - Q - X") == ("sub", ("sub", "P", "Q"), "X")
    assert parse("N + 0.0001 + 0.05") == ("rho5", ("rho1", "N"))


def test_latex_is_set():
    """FDR, as one would write it."""
    fdr = space.latex(functions.function("FDR"))
    assert fdr.startswith(r"\frac{\left( \operatorname{mean}\left( \mathbf{P} \right) - ")
    assert fdr.count("{") == fdr.count("}")
    assert space.latex(parse("P * (Q + X)")) == r"\mathbf{P} \odot \left( \mathbf{Q} + \mathbf{X} \right)"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("g_men(P)", "did you mean 'g_mean'"),
        ("P + 3", "'P \\+ 3'"),
        ("add(P)", "'add'"),
        ("__import__('os')", "'__import__'"),
        ("P +", "Cannot read"),
        ("P.mean()", "'P.mean\\(\\)'"),
        ("GA_Func9", "did you mean 'GA_Func"),
        ("sum(" * 91 + "P" + ")" * 91, "nested too deeply"),
        ("sum(" + " + ".join(["P"] * 700) + ")", "nested too deeply"),
        ("-" * 5000 + "P", "nested too deeply|Cannot read"),
    ],
)
def test_what_is_no_formula_is_refused(text, says):
    """In one sentence, and nothing is executed."""
    with pytest.raises(UserError, match=says):
        functions.function(text)


def test_the_search_space_is_the_official_one():
    """Nine operands, twenty-one operators, seven seeds."""
    assert (len(space.OPERANDS), len(space.ARITY), len(functions.SEEDS)) == (9, 21, 7)
    assert set(space.ARITY) == set(naive.OPERATORS)


def test_the_order_of_sums_does_not_matter():
    """One canonical expression; products keep their order, since they cut their operands."""
    assert space.canonical(parse("Q + (X + P)")) == space.canonical(parse("(P + X) + Q"))
    assert space.canonical(parse("P * Q")) != space.canonical(parse("Q * P"))
    assert (space.depth(parse("P + Q * X")), space.size(parse("P + Q * X"))) == (2, 5)


# ------------------------------------------------------------------------------------------------------------ scores


@EVERY
@pytest.mark.parametrize("pixels", [1, 4])
def test_named_functions_equal_the_naive_loop(name, pixels):
    """From moments alone, gathered batch by batch: every seed and every evolved function."""
    expression = functions.function(name)
    maps, labels, filters = data(pixels=pixels)
    assert not scoring.needs_maps(expression)
    found = scoring.score(expression, layer(maps, labels, filters, kept=False))
    np.testing.assert_allclose(found, naive.scores(expression, maps, labels, filters), rtol=1e-9)


def by_hand(maps, labels, term):
    """A sum over classes of ``term(P, Q, fbar, n+, n-)``, for each channel."""
    return [
        sum(
            term(x[labels == c], x[labels != c], x.mean(0), (labels == c).sum(), (labels != c).sum())
            for c in np.unique(labels)
        )
        for x in maps.transpose(1, 0, 2)
    ]


def q(a, b, fbar):
    return np.sum((a + b * fbar) ** 2)


TERMS = {
    "AbsSNR": lambda P, Q, f, n, m: abs(P.mean() - Q.mean()) / (P.std() + Q.std() + 1e-4),
    "FDR": lambda P, Q, f, n, m: (P.mean() - Q.mean()) ** 2 / (P.var() + Q.var() + 1e-4),
    "SymDiv": lambda P, Q, f, n, m: (
        P.var() / (Q.var() + 0.05)
        + Q.var() / (P.var() + 0.05)
        + (P.mean() - Q.mean()) ** 2 / (P.var() + Q.var() + 0.05)
    ),
    "Tstats": lambda P, Q, f, n, m: abs(P.mean() - Q.mean()) / np.sqrt(P.var() / n + Q.var() / m + 1e-4),
    "GA_Func1": lambda P, Q, f, n, m: f.size * P.var() + q(-Q.var(), 1, f) / (P.var() + Q.var() + 0.05),
    "GA_Func2": lambda P, Q, f, n, m: (
        f.size * (P.var() / (Q.var() + 0.05) + Q.var() / (P.var() + 0.05))
        + q(P.var() - Q.mean(), f.std() * Q.var(), f) / (P.var() + Q.var() + 0.05)
    ),
    "GA_Func3": lambda P, Q, f, n, m: q(-Q.var(), 1, f) / np.sqrt(P.var() / n + Q.var() / m + 1e-4),
    "GA_Func4": lambda P, Q, f, n, m: (
        f.size * (P.var() / (Q.var() / m + 0.05) + abs(P.mean() - Q.mean()) + 0.05) + Q.mean(0).sum()
    ),
    "GA_inspired_1": lambda P, Q, f, n, m: (
        P.std() / (Q.std() + 0.2)
        + Q.std() / (P.std() + 0.2)
        + (np.sum((f - P.mean(0)) ** 2) + np.sum((f - Q.mean(0)) ** 2)) / (P.std() + Q.std() + 0.2)
    ),
    "GA_inspired_2": lambda P, Q, f, n, m: np.sum((f - Q.mean(0)) ** 2) / (P.var() + Q.var() + 0.05),
}


@pytest.mark.parametrize("name", TERMS)
def test_named_functions_equal_their_formulas(name):
    """Written out with numpy from the tables of the seeds and of what was evolved."""
    maps, labels, filters = data()
    found = scoring.score(functions.function(name), layer(maps, labels, filters, kept=False))
    np.testing.assert_allclose(found, by_hand(maps, labels, TERMS[name]), rtol=1e-9)


def test_functions_of_filters_equal_their_formulas():
    """|W|, sqrt of W^2, and the distance to the filter that is nearest to all; each summed over three classes."""
    maps, labels, filters = data()
    flat = filters.reshape(-1, 5)
    distance = np.linalg.norm(flat[:, :, None] - flat[:, None], axis=0)
    middle = flat[:, distance.sum(1).argmin()][:, None]
    for name, expected in (
        ("WL1", np.abs(flat).sum(0)),
        ("WL2", np.sqrt((flat**2).sum(0))),
        ("GeoMedian", np.sqrt(((flat - middle) ** 2).sum(0))),
    ):
        found = scoring.score(functions.function(name), layer(maps, labels, filters, kept=False))
        np.testing.assert_allclose(found, 3 * expected, rtol=1e-9)


def random_expression(rng, deepest):
    if deepest == 0 or rng.random() < 0.2:
        return str(rng.choice(space.OPERANDS))
    name = str(rng.choice(list(space.ARITY)))
    return (name, *(random_expression(rng, deepest - 1) for _ in range(space.ARITY[name])))


@pytest.mark.parametrize("linear", [False, True])
def test_any_expression_equals_the_naive_loop(linear, monkeypatch):
    """Hundreds at random: valid for both or for neither, and the same numbers."""
    monkeypatch.setattr(algebra, "LARGEST_BYTES", 2**16)
    monkeypatch.setattr(naive, "LARGEST_BYTES", 2**16)
    rng = np.random.default_rng(5 + linear)
    maps, labels, filters = data(channels=4, samples=23, pixels=3, seed=2)
    filters = filters[0, 0] if linear else filters
    known = layer(maps, labels, filters)
    valid = 0
    for _ in range(800):
        expression = random_expression(rng, 4)
        try:
            with np.errstate(all="ignore"):
                expected = naive.scores(expression, maps, labels, filters)
            is_number = expected.dtype != object and expected.ndim == 1 and bool(np.isfinite(expected).all())
        except (ValueError, TypeError, IndexError, AttributeError, np.linalg.LinAlgError):
            is_number = False
        try:
            found = scoring.score(expression, known)
        except InvalidExpressionError:
            assert not is_number, space.formula(expression)
            continue
        assert is_number, space.formula(expression)
        scale = 1e-6 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=scale, err_msg=space.formula(expression))
        valid += 1
    assert valid > 100


def test_pieces_of_channels_give_the_same(monkeypatch):
    """However few fit into memory."""
    maps, labels, filters = data(channels=7)
    expression = parse("sum(abs(P - mX)) / sum(pow2(Q))")
    whole = scoring.score(expression, layer(maps, labels, filters))
    monkeypatch.setattr(scoring, "PIECE_BYTES", 8 * 60 * 4 * 2)
    torch.testing.assert_close(scoring.score(expression, layer(maps, labels, filters)), whole)


def test_what_is_too_large_is_invalid(monkeypatch):
    """A result beyond 64 MB, before it is made."""
    maps, labels, filters = data(samples=600, pixels=16)
    known = layer(maps, labels, filters)
    with pytest.raises(InvalidExpressionError, match="larger than 64 MB"):
        scoring.score(parse("sum(out_dot(X, X))"), known)
    assert scoring.score(parse("sum(out_dot(mX, mX))"), known).shape == (5,)
    monkeypatch.setattr(algebra, "LARGEST_BYTES", 100)
    with pytest.raises(InvalidExpressionError, match="larger"):
        scoring.score(parse("sum(tran(P) @ P)"), known)


@pytest.mark.parametrize("text", ["P", "mX", "sqrt(num(P) - num(X))", "mean(mX)", "num(N)"])
def test_what_gives_no_finite_number_is_invalid(text):
    """Arrays, roots of negative numbers, operators that their operands do not fit."""
    with pytest.raises(InvalidExpressionError):
        scoring.score(parse(text), layer(*data()))


@pytest.mark.parametrize("text", ["GA_Func2", "sum(abs(P - mX))"])
def test_one_class_alone_cannot_be_compared(text):
    """Rather than scores of 0 that rank by index; functions of filters, or of all samples, do not mind."""
    maps, labels, filters = data()
    one = layer(maps, np.zeros_like(labels), filters)
    with pytest.raises(algebra.OneClassError, match="one class"):
        scoring.score(functions.function(text), one)
    for other in ("WL1", "sum(X) / num(X)"):
        assert scoring.score(functions.function(other), one).unique().numel() == 5


def test_large_inverses_are_invalid():
    """They take the cube of their rows, and nothing else bounds their time."""
    maps, labels, filters = data(samples=5, pixels=600)
    with pytest.raises(InvalidExpressionError, match="an inverse of 600 rows"):
        scoring.score(parse("g_mean(m_inv(tran(P) @ P))"), layer(maps, labels, filters))


def test_channels_in_another_order_have_their_scores_in_that_order():
    """And labels may be permuted among themselves."""
    maps, labels, filters = data()
    order = [3, 1, 4, 0, 2]
    for name in ("GA_Func2", "GeoMedian", "sum(abs(P - mX))"):
        expression = functions.function(name)
        found = scoring.score(expression, layer(maps, labels, filters))
        other = scoring.score(expression, layer(maps[:, order], 2 - labels, filters[..., order]))
        torch.testing.assert_close(other, found[order])


def test_samples_without_a_class_are_left_out():
    """Windows of which nothing is labelled."""
    maps, labels, filters = data()
    extra = np.concatenate([maps, maps[:9] + 5]), np.concatenate([labels, np.full(9, -1)])
    for text in ("GA_Func2", "sum(abs(P - mX))"):
        expression = functions.function(text)
        found = scoring.score(expression, layer(*extra, filters))
        torch.testing.assert_close(found, scoring.score(expression, layer(maps, labels, filters)))
