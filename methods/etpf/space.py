"""Text goes in; an expression comes out, and back again: ETPF's search space of nine operands and twenty-one operators.

An expression is an operand's name, or a tuple of an operator's name and its arguments: hashable, comparable, plain
data. It is read from formulas as they are printed, ``(g_mean(P) - g_mean(Q))**2 / (var(P) + var(Q) + 0.05)``, and from
DEAP's prefix notation, ``div(pow2(sub(...)), ...)``: both are Python expressions, of which nothing is executed.
"""

from __future__ import annotations

import ast
import textwrap
from typing import Final

from slimbench.core import UserError
from slimbench.discover import suggestion

Expression = str | tuple[str, "Expression"] | tuple[str, "Expression", "Expression"]

# For one channel and one class: its maps of the class (n, D) and of the rest (N - n, D), the number of the class, all
# maps (N, D), the mean maps (D,) of all three, the filter that makes the channel, and all filters of its layer.
OPERANDS: Final = ("P", "Q", "N", "X", "mX", "mP", "mQ", "WI", "W")
ARITY: Final = {
    **dict.fromkeys(("add", "sub", "mul", "div", "mmul", "out_dot"), 2),
    **dict.fromkeys(("abs", "pow2", "sqrt", "rho1", "rho5", "m_trace", "m_inv", "tran"), 1),
    **dict.fromkeys(("g_mean", "mean", "sum", "std", "var", "num", "geo_median"), 1),
}
DEEPEST: Final = 90  # operators in a row; DEAP's own trees go no deeper
RHO: Final = {"rho1": 1e-4, "rho5": 5e-2}  # x + rho: the only constants
_SIGNS: Final = {"add": "+", "sub": "-", "mul": "*", "div": "/", "mmul": "@"}
_INFIX: Final = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.MatMult: "mmul"}


def parse(text: str) -> Expression:
    """The expression that ``text`` writes. Raises: UserError where it is none."""
    short = textwrap.shorten(text, 80, placeholder="...") if len(text) > 80 else text
    try:
        expression = _read(ast.parse(text.strip(), mode="eval").body, short)
        deep = depth(expression) > DEEPEST
    except RecursionError:
        deep = True
    except (SyntaxError, MemoryError) as error:
        raise UserError(f"Cannot read the formula {short!r}: write e.g. g_mean(P) - g_mean(Q).") from error
    if deep:
        raise UserError(f"The formula {short!r} is nested too deeply: use at most {DEEPEST} operators in a row.")
    return expression


def _read(node: ast.expr, text: str) -> Expression:
    match node:
        case ast.Name(name) if name in OPERANDS:
            return name
        case ast.Call(ast.Name(name), arguments, []) if ARITY.get(name) == len(arguments):
            return (name, *(_read(argument, text) for argument in arguments))  # type: ignore[return-value]
        case ast.BinOp(left, ast.Add(), ast.Constant(value)) if value in RHO.values():
            return next(name for name, rho in RHO.items() if rho == value), _read(left, text)
        case ast.BinOp(left, ast.Pow(), ast.Constant(2)):
            return "pow2", _read(left, text)
        case ast.BinOp(left, sign, right) if type(sign) in _INFIX:
            return _INFIX[type(sign)], _read(left, text), _read(right, text)
        case ast.Name(name) | ast.Call(ast.Name(name)):
            wrong = f"{name!r}{suggestion(name, (*OPERANDS, *ARITY))} with as many arguments"
        case _:
            wrong = f"{ast.unparse(node)!r}"
    known = f"operands are {', '.join(OPERANDS)}; operators {', '.join(ARITY)}; constants + 0.0001 and + 0.05"
    raise UserError(f"The formula {text!r} has {wrong}, which is not in the search space: {known}.")


def formula(expression: Expression) -> str:
    """As people write it; ``parse`` reads it back."""
    return _infix(expression)[0]


def _infix(expression: Expression) -> tuple[str, int]:
    """Text, and how strongly it binds: 1 sums, 2 products, 3 powers, 4 names and calls."""
    if isinstance(expression, str):
        return expression, 4
    name, *arguments = expression
    if name in RHO:
        return f"{_bracketed(arguments[0], 1)} + {RHO[name]:g}", 1
    if name == "pow2":
        return f"{_bracketed(arguments[0], 4)}**2", 3
    if name in _SIGNS:
        binds = 1 if name in {"add", "sub"} else 2
        return f"{_bracketed(arguments[0], binds)} {_SIGNS[name]} {_bracketed(arguments[1], binds + 1)}", binds
    return f"{name}({', '.join(formula(argument) for argument in arguments)})", 4


def _bracketed(expression: Expression, least: int) -> str:
    text, binds = _infix(expression)
    return text if binds >= least else f"({text})"


def prefix(expression: Expression) -> str:
    """As DEAP writes it: calls alone."""
    if isinstance(expression, str):
        return expression
    name, *arguments = expression
    return f"{name}({', '.join(prefix(argument) for argument in arguments)})"


_LATEX_OPERANDS: Final = {
    "P": r"\mathbf{P}",
    "Q": r"\mathbf{Q}",
    "N": "n",
    "X": r"\mathbf{X}",
    "mX": r"\bar{\mathbf{x}}",
    "mP": r"\bar{\mathbf{p}}",
    "mQ": r"\bar{\mathbf{q}}",
    "WI": r"\mathbf{w}",
    "W": r"\mathbf{W}",
}
_LATEX: Final = {
    "sqrt": r"\sqrt{%s}",
    "abs": r"\left| %s \right|",
    "m_trace": r"\operatorname{tr}\left( %s \right)",
    "m_inv": r"\left( %s \right)^{-1}",
    "tran": r"\left( %s \right)^{\top}",
    "g_mean": r"\operatorname{mean}\left( %s \right)",
    "mean": r"\operatorname{mean}_{1}\left( %s \right)",
    "geo_median": r"\operatorname{geomedian}\left( %s \right)",
    "num": r"\left\| %s \right\|_{\#}",
    "pow2": r"\left( %s \right)^{2}",
    "div": r"\frac{%s}{%s}",
    "add": r"%s + %s",
    "sub": r"%s - %s",
    "mul": r"%s \odot %s",
    "mmul": r"%s \, %s",
    "out_dot": r"%s \otimes %s",
}


def latex(expression: Expression) -> str:
    """As a paper sets it."""
    if isinstance(expression, str):
        return _LATEX_OPERANDS[expression]
    name, *arguments = expression
    if name in RHO:
        return f"{latex(arguments[0])} + {RHO[name]:g}"
    products = name in {"mul", "mmul", "out_dot"}
    texts = [
        _bracketed_sum(argument) if products or (name == "sub" and place) else latex(argument)
        for place, argument in enumerate(arguments)
    ]
    pattern = _LATEX.get(name, rf"\operatorname{{{name}}}\left( %s \right)")
    return pattern % tuple(texts)


def _bracketed_sum(expression: Expression) -> str:
    is_sum = isinstance(expression, tuple) and (expression[0] in {"add", "sub"} or expression[0] in RHO)
    return rf"\left( {latex(expression)} \right)" if is_sum else latex(expression)


def canonical(expression: Expression) -> Expression:
    """One of all expressions that differ in the order of sums alone: what scores are kept by."""
    if isinstance(expression, str):
        return expression
    name, *arguments = expression
    ordered = [canonical(argument) for argument in arguments]
    if name == "add":
        ordered.sort(key=prefix)
    return (name, *ordered)  # type: ignore[return-value]


def operands(expression: Expression) -> set[str]:
    """The operands that occur."""
    return {expression} if isinstance(expression, str) else set().union(*map(operands, expression[1:]))


def depth(expression: Expression) -> int:
    """Operators on the longest way down; 0 for an operand."""
    return 0 if isinstance(expression, str) else 1 + max(map(depth, expression[1:]))


def size(expression: Expression) -> int:
    """Operators and operands."""
    return 1 if isinstance(expression, str) else 1 + sum(map(size, expression[1:]))
