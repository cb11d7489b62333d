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
# # The last token as a point that descends
#
# A reading of the forward pass: the last token's vector $h$ moves through depth so as to raise the
# probability of the next token $y$ under $\mathrm{softmax}(E h)$. Two exact facts stand behind the reading
# (they are derived here, and are not a theorem of the paper). Along gradient flow on $-\log p_y$ the
# velocity is $e_y - \sum_v p_v e_v$, so $\frac{d}{dt}\lVert h\rVert^2 = 2\,(z_y - \sum_v p_v z_v)$, $z =
# Eh$: the norm grows exactly while the target's logit exceeds the mean logit. And if some direction
# separates $e_y$ from all others, with margin $\gamma = \max_{\lVert u\rVert = 1} \min_{v \ne y} (e_y -
# e_v)\cdot u$, the norm grows as $(\log t)/\gamma$. Whether trained networks do the like is asked in
# `tasks/attention_masks/first_symbol.py`.


# %%
from __future__ import annotations

import math

import numpy as np
import torch
from scipy import integrate, optimize
from torch import Tensor

from lab import Evidence, Task, control
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.attention_masks._shared import SLUG, WIDTH, largest, outputs, prompt

PROOFS = Task(SLUG, paper=SLUG)
VOCABULARY = 5
BOTH = "rounding of both computations"


def unembedding(separable: bool = True) -> Tensor:
    """Rows e_v of a random read-out [vocabulary, width]; if not separable, e_0 is the mean of the others."""
    rows = torch.from_numpy(stream(0, "unembedding").rng().standard_normal((VOCABULARY, WIDTH)))
    if not separable:
        rows[0] = rows[1:].mean(0)
    return rows


@PROOFS.cases(claimed={}, uniform={"uniform": True})
def norm_growth(config: object, *, uniform: bool = False) -> LabelledArrays:
    """Difference between the growth of the squared norm by automatic differentiation and by formula, for every target, and
    the ``scale`` |e| |h| of what is added; ``uniform`` weighs the logits in the formula equally."""
    rows, state = unembedding(), prompt(1, "state")[0].clone().requires_grad_()
    logits = rows @ state
    differences = []
    for target in range(VOCABULARY):
        (gradient,) = torch.autograd.grad(-logits.log_softmax(0)[target], state, retain_graph=True)
        weights = torch.full_like(logits, 1 / VOCABULARY) if uniform else logits.softmax(0)
        formula = 2 * (logits[target] - weights @ logits)
        differences.append(abs(float((-2 * gradient @ state - formula).detach())))
    scale = float((rows.norm(dim=-1).max() * state.norm()).detach())
    return {"difference": labelled(differences, target=range(VOCABULARY)), "scale": scale}


@PROOFS.claim(
    "attention-masks/meta.T1",
    where="derived, in the reading of Wu and Varshney 2024",
    paper="wu-2024-meta-learning",
    kind="identity",
    statement=r"Along gradient flow of a vector $h$ on $-\log \mathrm{softmax}(Eh)_y$: $\frac{d}{dt}\lVert "
    r"h\rVert^2 = 2\,(z_y - \sum_v p_v z_v)$ with $z = Eh$ (by automatic differentiation, all five "
    "targets).",
    controls=[control("the mean logit weighed uniformly instead of by probability", case="uniform")],
)
def norm_grows_with_the_logit_gap(results: Results, case: str = "claimed") -> Evidence:
    measured = results[norm_growth].sel(case=case)
    # Products of D terms, a softmax over V and a sum over V, twice; no term exceeds |e| |h|, and errors of the
    # exponents multiply by the logits.
    operations, scale = 2 * (2 * WIDTH + 3 * VOCABULARY + 10), float(measured["scale"])
    bound = rounding_bound(operations, 4 * scale * (1 + scale))
    return Evidence.exact(float(measured["difference"].max()), "<=", bound, BOTH)


def largest_margin(rows: Tensor) -> float:
    r"""$\max_{|u| = 1} \min_{v \ne 0} (e_0 - e_v) \cdot u$: 1 / |w| for the shortest w with all products at least 1.

    That w is -r / r_last for the residual r of the non-negative least squares problem $[A^\top; 1^\top] x \approx (0, \dots, 0, 1)$
    (Lawson and Hanson, least distance programming).
    """
    differences = (rows[0] - rows[1:]).numpy()
    system = np.vstack((differences.T, np.ones(len(differences))))
    goal = np.append(np.zeros(differences.shape[1]), 1.0)
    residual = system @ optimize.nnls(system, goal)[0] - goal
    return float(1 / np.linalg.norm(residual[:-1] / residual[-1]))


LOG_END = math.log(1e12)


@PROOFS.cases(claimed={}, inseparable={"separable": False})
def late_growth(config: object, *, separable: bool = True) -> LabelledArrays:
    """Margin times the growth of the norm in log t at the end of gradient flow; 1 in the limit."""
    rows = unembedding(separable).numpy()
    differences = rows[0] - rows[1:]
    margin = largest_margin(unembedding())

    def velocity(log_time: float, state: np.ndarray) -> np.ndarray:
        weights = np.exp(-np.logaddexp.reduce(np.append(-differences @ state, 0.0)) - differences @ state)
        moved: np.ndarray = np.exp(log_time) * (weights @ differences)
        return moved

    path = integrate.solve_ivp(velocity, (-5.0, LOG_END), np.zeros(WIDTH), method="LSODA", rtol=1e-8, atol=1e-8)
    state = path.y[:, -1]
    growth = float(state @ velocity(LOG_END, state) / max(np.linalg.norm(state), 1e-300))
    return {"growth": margin * growth}


@PROOFS.claim(
    "attention-masks/meta.T1.rate",
    where="derived",
    kind="rate",
    statement=r"If some direction separates $e_y$ from all other $e_v$ with margin $\gamma$, then $\lVert h \rVert$ "
    r"grows as $(\log t)/\gamma$ along gradient flow: $\gamma\, d\lVert h\rVert / d\log t = 1$ up to "
    r"$1/\log t$ at $t = 10^{12}$.",
    controls=[control("the target's vector is the mean of the others: nothing separates it", case="inseparable")],
)
def norm_grows_as_the_logarithm_of_time(results: Results, case: str = "claimed") -> Evidence:
    growth = float(results[late_growth]["growth"].sel(case=case))
    return Evidence.exact(abs(growth - 1), "<=", 1 / LOG_END, "1 / log t, the order of the next term of the expansion")


@PROOFS.cases(claimed={}, others={"own_pair": False})
def updated_matrix(config: object, *, own_pair: bool = True) -> LabelledArrays:
    """Difference between the last output of linear attention and that of the updated matrix, and its ``rounding``; without
    ``own_pair`` the last token's pair is left out."""
    model = Transformer(
        Architecture(width=WIDTH, layers=1, attention="linear", mlp_ratio=0.0, norm="none", bias=False),
        [5],
        torch.float64,
    )
    inputs = prompt(8)
    query, key, value, read = (
        model.get_parameter(f"layers.0.attention.{name}.weight")[0].detach()
        for name in ("query", "key", "value", "output")
    )
    context = inputs if own_pair else inputs[:-1]
    updated = (context @ value).T @ (context @ key)
    expected = inputs[-1] + (inputs[-1] @ query) @ updated.T @ read
    longest = float(inputs.norm(dim=-1).max())
    sizes = [longest * float(torch.linalg.matrix_norm(matrix)) for matrix in (query, key, value)]
    scale = len(inputs) * math.prod(sizes) * float(torch.linalg.matrix_norm(read))
    return {
        "difference": largest(outputs(model, inputs, masks.causal(8))[-1] - expected),
        "rounding": rounding_bound(2 * (4 * WIDTH + len(inputs) + 1), scale),
    }


@PROOFS.claim(
    "attention-masks/meta.T1.dual",
    where="derived; the dual form of linear attention",
    kind="identity",
    statement="Linear attention is a weight matrix updated by outer products: the last output is $x + W_0 q$ with "
    r"$W_0 = \sum_j v_j k_j^\top$ over the tokens it sees (one head, no norm, no biases).",
    controls=[control("the last token's own pair left out of the sum", case="others")],
)
def linear_attention_updates_a_matrix(results: Results, case: str = "claimed") -> Evidence:
    measured = results[updated_matrix].sel(case=case)
    return Evidence.exact(float(measured["difference"]), "<=", float(measured["rounding"]), BOTH)


# %%
PROOFS.show(norm_grows_with_the_logit_gap)
PROOFS.show(norm_grows_as_the_logarithm_of_time)
PROOFS.show(linear_attention_updates_a_matrix)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
