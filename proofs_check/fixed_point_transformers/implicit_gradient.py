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
# # The gradient at a fixed point, without the way there
#
# At a fixed point $u = f(u, \theta)$ the chain rule is a linear equation: with $J = \partial f / \partial u$ and the
# loss's gradient g in u,
#
# $$ \frac{dL}{d\theta} = \lambda^\top \frac{\partial f}{\partial \theta}, \qquad (I - J^\top) \lambda = g . $$
#
# No step of the iteration need be kept. The Neumann series $\lambda = \sum_t (J^\top)^t g$ solves it where the spectral radius
# $\rho(J) < 1$, with an error that falls as $\rho^t$; its first term alone is the "phantom" gradient. All of it is
# true *at a fixed point that
# attracts*. Where the iteration does not settle there is no u to speak of, and the formula gives a number all the same.


# %%
from __future__ import annotations

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.fixed_point_laws import implicit_gradient, spectral_radius
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.mixers.fixed_point import FixedPointAttention
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream

PROOFS = Task("fixed-point-transformers", paper="mathur-2025-fixed-point")
TOKENS, WIDTH, STEPS = 5, 4, 150
TERMS = (0, 1, 2, 5, 10, 20, 40)


def problem(scale: float) -> tuple[list[Tensor], Tensor, Tensor]:
    """Weights of one head, a prompt, and the gradient of a linear loss."""
    rng = stream(0, "implicit").rng()
    weights = [torch.from_numpy(scale * rng.standard_normal((1, 1, WIDTH, WIDTH))) for _ in range(4)]
    tokens = torch.from_numpy(rng.standard_normal((1, 1, 1, TOKENS, WIDTH)))
    return weights, tokens, torch.from_numpy(rng.standard_normal(TOKENS * WIDTH))


@PROOFS.cases(
    causal={},
    full={"pattern": "full"},
    prefix={"pattern": "prefix"},
    large={"scale": 1.0},
    large_full={"scale": 1.0, "pattern": "full"},
)
def gradients(config: object, *, scale: float = 0.45, pattern: str = "causal") -> LabelledArrays:
    """Relative error of the implicit gradient in W_Q, exact and by series, against back-propagation through 150 steps."""
    weights, tokens, upstream = problem(scale)
    allowed = {"full": masks.full(TOKENS), "causal": masks.causal(TOKENS), "prefix": masks.prefix_lm(TOKENS, 2)}[
        pattern
    ]

    def step(flat: Tensor, query: Tensor) -> Tensor:
        layer = FixedPointAttention(query, *weights[1:])
        return layer.step(flat.view(tokens.shape), tokens, allowed).flatten()

    query = weights[0].clone().requires_grad_()
    state = tokens.flatten()
    for _ in range(STEPS):
        state = step(state, query)
    (unrolled,) = torch.autograd.grad(state @ upstream, query)
    rest = state.detach()

    def of(terms: int | None) -> float:
        adjoint = implicit_gradient(lambda u: step(u, weights[0]), rest, upstream, terms)
        query_weight = weights[0].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(step(rest, query_weight) @ adjoint, query_weight)
        return float((gradient - unrolled).norm() / unrolled.norm())

    jacobian = torch.autograd.functional.jacobian(lambda u: step(u, weights[0]), rest)
    radius = spectral_radius(lambda u: step(u, weights[0]), rest)
    condition = float(torch.linalg.cond(torch.eye(len(rest), dtype=rest.dtype) - jacobian))
    return {
        "exact": of(None),
        "series": labelled([of(terms) for terms in TERMS], terms=TERMS),
        "radius": radius,
        "norm": float(torch.linalg.matrix_norm(jacobian, ord=2)),
        "condition": condition,
        "movement": float((step(rest, weights[0]) - rest).abs().max()),
    }


ATTRACTING = ("causal", "full", "prefix")


@PROOFS.claim(
    "fixed-point-transformers/I2",
    where="the layer's implicit gradient, after its open re-implementation",
    kind="identity",
    statement=r"At an attracting fixed point $g^\top (I - J)^{-1} \partial f / \partial W_Q$ is the gradient that "
    r"back-propagation through 150 steps gives, to rounding "
    "(five tokens of width 4; causal, full and prefix masks).",
    controls=[
        control("weights with which the iteration does not settle, causal", cases=("large",)),
        control("the same under the full mask", cases=("large_full",)),
        control("the first term of the series alone", terms=0),
    ],
)
def gradients_need_no_way(results: Results, cases: tuple[str, ...] = ATTRACTING, terms: int | None = None) -> Evidence:
    parts = []
    for case in cases:
        measured = results[gradients].sel(case=case)
        error = measured["exact"] if terms is None else measured["series"].sel(terms=terms)
        bound = rounding_bound(STEPS * (4 * WIDTH + 2 * TOKENS + 10) * float(measured["condition"]))
        parts.append(Evidence.exact(measured["movement"].item(), "<=", 1e-12, f"{case}: movement of the last step"))
        parts.append(
            Evidence.exact(error.item(), "<=", bound, f"{case}: rounding of 150 steps, times the condition of I - J")
        )
    return Evidence.all(*parts)


@PROOFS.claim(
    "fixed-point-transformers/I2.series",
    where="the layer's Neumann series, after its open re-implementation",
    kind="rate",
    statement=r"The Neumann series converges to it where $\rho(J) < 1$: with 40 terms beyond the first it is right to $10^{-6}$, "
    r"with the first alone it errs by more than $1\,\%$.",
    controls=[
        control("weights with which the iteration does not settle", cases=("large",)),
        control("three terms", terms=2),
    ],
)
def series_converge(results: Results, cases: tuple[str, ...] = ATTRACTING, terms: int = 40) -> Evidence:
    measured = results[gradients].sel(case=list(cases))
    return Evidence.all(
        Evidence.exact(measured["radius"].max().item(), "<", 1, "spectral radius"),
        Evidence.exact(measured["series"].sel(terms=terms).max().item(), "<=", 1e-6, "rho^40, with room"),
        Evidence.exact(measured["series"].sel(terms=0).min().item(), ">", 0.01, "error of the first term alone"),
    )


@PROOFS.figure
def series_errors(results: Results) -> Sheet:
    """Relative error of the gradient by terms of the Neumann series, for weights that attract and weights that do not."""
    sheet = Sheet(width=5.8, height=4.0, foot="errors beyond 1e12 and below 1e-16 are drawn there")
    panel = sheet.panel(
        "a series for fixed points that attract",
        x="terms beyond the first",
        y="relative error of the gradient",
        scale=("linear", "log"),
        ylim=(1e-17, 1e24),
        yticks={10.0**power: f"$10^{{{power}}}$" for power in range(-16, 17, 8)},
        legend="upper left",
    )
    for case, name, arm in (
        ("causal", "causal, small weights", "causal"),
        ("prefix", "prefix, small weights", "prefix"),
        ("large", "causal, weights that do not settle", None),
    ):
        measured = results[gradients].sel(case=case)
        shown = f"{name}, $\\rho$ = {float(measured['radius']):.2f}"
        panel.line(TERMS, measured["series"].values.clip(1e-16, 1e12), name=shown, arm=arm, of="exact")
    return sheet


# %%
PROOFS.show(gradients_need_no_way)
PROOFS.show(series_errors)
PROOFS.show(series_converge)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
