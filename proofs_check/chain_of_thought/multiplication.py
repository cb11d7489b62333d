# ---
# jupyter:
#   jupytext:
#     comment_magics: false
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Four hidden units multiply
#
# The step of a derivation has to combine two numbers, and an MLP does not multiply. But $G(x) + G(-x)$ with $G(x) =
# x\Phi(x)$ is even and starts with $\sqrt{2/\pi}\,x^2$, and a difference of squares is a product:
# $$f_\ell(a, b) = \frac{\sqrt{2\pi}\,\ell^2}{8}\Bigl[G\bigl(\tfrac{a+b}{\ell}\bigr) + G\bigl(-\tfrac{a+b}{\ell}\bigr)
# - G\bigl(\tfrac{a-b}{\ell}\bigr) - G\bigl(-\tfrac{a-b}{\ell}\bigr)\Bigr] = ab - \frac{ab(a^2+b^2)}{3\ell^2} + \dots$$
# The error is at most $2M^4/(3\ell^2)$ for $|a|, |b| \le M$, at *every* $\ell$ (the derivation stands in
# `lab/domains/derivations/gelu_product.py`): precision $\varepsilon$ costs weights $\ell^2 = 2M^4/(3\varepsilon)$,
# polynomial as the theorem wants them. In floating point there is an end to it: rounding is multiplied by $\ell^2$, and
# the error turns into a V. In float32 the best scale lies near 300. A kinked activation has no second derivative to
# use: with ReLU the four units give $|a+b| - |a-b|$ at every scale.

# %%
from __future__ import annotations

import torch
from torch import Tensor

from lab import Task, control
from lab.domains.derivations.gelu_product import CONSTANTS, error_bound, multiply, rounding
from lab.figures import Sheet
from lab.labels import LabelledArrays, deviations, labelled
from lab.results import Results
from proofs_check.chain_of_thought._shared import PAPER, SLUG

PROOFS = Task(SLUG, paper=PAPER)


def pairs(size: float, least: float = 0.0) -> tuple[Tensor, Tensor]:
    """All pairs of a grid of numbers between -M and M, of absolute value at least ``least``."""
    grid = torch.linspace(-size, size, 33, dtype=torch.float64)
    grid = grid[grid.abs() >= least]
    a, b = torch.cartesian_prod(grid, grid).unbind(1)
    return a, b


@PROOFS.identity(
    "chain-of-thought/I1",
    where="appendix, lemma on multiplication by an MLP with GELU",
    statement=r"Four GELU units, in the lab's own transformer, multiply: $|f_\ell(a,b) - ab| \le 2M^4/(3\ell^2)$ "
    r"for $|a|, |b| \le M$ ($M = 1, 4$; "
    r"$\ell = 1, 3, 10, 10^2, 10^3, 10^4$).",
    origin=r"$2 M^4 / (3 \ell^2)$ (derived for every l) and the rounding of 20 operations, amplified by l^2",
    controls=[control("ReLU for GELU, at its best factor", activation="relu")],
)
def four_units_multiply(config: object, *, activation: str = "gelu") -> LabelledArrays:
    checks = []
    for size in (1.0, 4.0):
        a, b = pairs(size)
        for scale in (1.0, 3.0, 10.0, 1e2, 1e3, 1e4):
            error = (multiply(a, b, scale, activation=activation) - a * b).abs().max()
            checks.append((float(error), error_bound(size, scale) + rounding(size, scale)))
    return deviations(checks)


@PROOFS.identity(
    "chain-of-thought/I1.leading",
    where="derived",
    kind="rate",
    statement=r"The error is $-c\,ab(a^2+b^2)/\ell^2$ up to a share of order $1/\ell^2$, with $c = 1/3$ for GELU "
    r"and $c = 2(c_0^2/3 - 0.044715) = 0.33498$, "
    r"$c_0^2 = 2/\pi$, for its approximation by tanh, the activation of the paper's code.",
    origin=r"the next term of both series, at most $0.205\,M^2$ of $\ell^{-2}$, taken as 1/4; and rounding",
    controls=[control("the two constants exchanged", exchanged=True)],
)
def leading_error(config: object, *, exchanged: bool = False) -> LabelledArrays:
    a, b = pairs(1.0, least=0.5)
    checks = []
    for activation, other in (("gelu", "gelu_tanh"), ("gelu_tanh", "gelu")):
        for scale in (10.0, 30.0, 100.0):
            error = multiply(a, b, scale, activation=activation) - a * b
            constant = -error * scale**2 / (a * b * (a.square() + b.square()))
            wanted = CONSTANTS[other if exchanged else activation]
            bound = 0.25 / scale**2 + rounding(1.0, scale) * scale**2 / (0.25 * 0.5)
            checks.append((float((constant - wanted).abs().max()), bound))
    return deviations(checks)


SCALES = tuple(10 ** (step / 3) for step in range(19))
KINDS = {
    "GELU, float64": ("gelu", torch.float64),
    "GELU, float32": ("gelu", torch.float32),
    "ReLU": ("relu", torch.float64),
}


@PROOFS.cases(all={})
def errors_by_scale(config: object) -> LabelledArrays:
    """Largest error on [-1, 1]^2 by activation, precision and scale."""
    a, b = pairs(1.0)
    errors = [
        [
            float(
                (multiply(a.to(dtype), b.to(dtype), scale, activation=name, dtype=dtype).double() - a * b).abs().max()
            )
            for scale in SCALES
        ]
        for name, dtype in KINDS.values()
    ]
    return {"error": labelled(errors, units=list(KINDS), scale=SCALES)}


@PROOFS.figure
def product_error(results: Results) -> Sheet:
    """Largest error of the product of two numbers in [-1, 1] by four hidden units, against their scale.

    Down to where rounding takes over, the error follows its bound.
    """
    error = results[errors_by_scale]["error"].sel(case="all")
    sheet = Sheet(columns=1, width=6.5)
    panel = sheet.panel(
        "the error falls as the square of the scale, until rounding takes over",
        x=r"scale $\ell$",
        y="largest error",
        scale=("log", "log"),
    )
    for name in KINDS:
        panel.line(SCALES, error.sel(units=name).values, name=name, of="exact")
    panel.theory(SCALES, [error_bound(1.0, scale) for scale in SCALES], name=r"$2 M^4 / (3 \ell^2)$")
    return sheet


# %%
PROOFS.show(product_error)
PROOFS.show(four_units_multiply)
PROOFS.show(leading_error)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
