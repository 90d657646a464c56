r"""A method's name goes in; the formula at its heart comes out, in LaTeX and in words, and LaTeX as MathML.

They say what the code of ``methods/`` computes, in the notation of each card's source.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree


@dataclass(frozen=True)
class Formula:
    """LaTeX of one or more lines, and what its letters are."""

    lines: tuple[str, ...]
    words: str


_L1 = Formula(
    (r"s_k = \frac{1}{n} \sum_{i=1}^{n} \left| w_{k,i} \right|",),
    "Score of channel k: the mean absolute weight of the filters that make it. The lowest go.",
)
_RESCONV = Formula(
    (
        r"y = s \cdot \mathrm{BN}(W * x) + \alpha x",
        r"\min_{\theta, s, \alpha} \; \mathcal{L}(\theta, s, \alpha) + \rho \sum_{l} \left| s_l \right|",
    ),
    "A convolution W with its batch norm gets a scale s and a shortcut of weight alpha (form A). An L1 penalty draws "
    "the scales to zero; layers of the smallest |s| go, and what is left fuses into plain convolutions.",
)
FORMULAS = {
    "dcss": Formula(
        (
            r"p = \mathrm{softmax}\left( \frac{\alpha + g}{\tau} \right)",
            r"m_k = \sum_{j : c_j \geq k} p_j",
            r"\min_{w, \alpha} \; \mathcal{L}(w, \alpha) + \lambda \log E_p[\mathrm{cost}]",
        ),
        "A gate is a distribution p over prefixes of a width's channels, with c of them each; channel k counts by the "
        "share m of the prefixes that reach it. g is Gumbel noise, tau the temperature; weights and gates take turns.",
    ),
    "gpp": Formula(
        (
            r"d_j = \frac{\sigma_b^2(j)}{\sigma_w^2(j)}",
            (
                r"\mathcal{L} = \mathrm{CE} - \frac{l_1}{K} \sum_{j \in \mathrm{top} K} \log(1 + d_j)"
                r" + l_2 \left( \mathrm{off}(S_w) + 0.1 \, \mathrm{off}(S_b) \right)"
                r" + l_3 \, \frac{\lVert d \rVert_1 / \lVert d \rVert_2 - 1}{\sqrt{M} - 1}"
            ),
            r"\mathrm{off}(S) = \frac{\lVert S - \mathrm{diag} \, S \rVert_F^2}{\lVert \mathrm{diag} \, S \rVert_F^2}",
        ),
        "The utility d of each of M pre-decision neurons is its variance between classes over that within (S_b and S_w "
        "are the scatter matrices). The push gathers it in K neurons; the others go, and so does what feeds only them.",
    ),
    "resconv": _RESCONV,
    "resconv_scratch": _RESCONV,
    "dass": Formula(
        (
            r"y = (w \odot m) * x, \quad m = \left[ \, |s| \text{ among the largest } \, \right]",
            (
                r"\frac{\partial \mathcal{L}}{\partial s} = \frac{\partial \mathcal{L}}{\partial (w \odot m)}"
                r" \odot w \odot \mathrm{sign}(s)"
            ),
        ),
        "Every operation of a searched cell computes with a mask m of its weights w; scores s learn by a "
        "straight-through gradient, so that the search sees operations as they are when they are sparse.",
    ),
    "etpf": Formula(
        (r"s_k = \sum_{c} f\left( P_{k,c}, \, Q_{k,c}, \, X_k, \, W_k, \ldots \right)",),
        "Score of channel k: the sum over classes c of an evolved function f of its maps on the class (P), on the "
        "others (Q), on all (X), and of its filter. Which f a record took stands on its page.",
    ),
    "l1_channels": _L1,
    "magnitude_weights": Formula(
        (r"s_i = \left| w_i \right|",), "Score of a single weight: its absolute value. The smallest become zeros."
    ),
    "random_channels": Formula((r"s_k \sim U(0, 1)",), "Channels are drawn: what a criterion has to beat."),
    "uniform_width": Formula(
        (r"n_l = \mathrm{round}(r \, N_l)",),
        "Every width N becomes the same share r of itself, and the slim network trains from fresh weights.",
    ),
}


FORMULAS |= {"gpp_grown": FORMULAS["gpp"], "sparse_scores": FORMULAS["dass"]}  # the same step, of other networks

_LAID_OUT = ("mfrac", "msqrt", "mroot", "msub", "msup", "msubsup", "mover", "munder", "munderover")
_TAGS = frozenset(("math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mstyle", *_LAID_OUT))
_ATTRIBUTES = frozenset(
    ("display", "stretchy", "mathvariant", "width", "fence", "form", "displaystyle", "accent", "movablelimits")
)


def mathml(latex: str) -> str:
    """MathML, which browsers draw without a script; empty where latex2mathml is not installed, or cannot read it.

    LaTeX may be a stranger's: what is more than a formula (links, styles) is not let through.
    """
    try:
        from latex2mathml import converter
    except ImportError:
        return ""
    try:
        made = str(converter.convert(latex, display="block"))
        parts = list(ElementTree.fromstring(made).iter())  # noqa: S314  the converter escapes what it is given
    except Exception:  # noqa: BLE001  it has a dozen errors of its own for what it cannot read
        return ""
    is_plain = all(p.tag.rpartition("}")[2] in _TAGS and p.attrib.keys() <= _ATTRIBUTES for p in parts)
    return made if is_plain else ""
