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
# # Three rungs: batch, online, preconditioned
#
# Read linear attention without feature map and normaliser as a learner. The examples are keys $k_t$ with labels $v_t$, the loss is
# $\ell_t(S) = \frac12 \|S k_t - v_t\|^2$, the query asks for $S q$. Three mixers differ in what they write, and each is an optimiser:
#
# | mixer | writes | is |
# | --- | --- | --- |
# | linear attention | $v_t k_t^\top$ | one *batch* gradient step from 0 on $\sum_t \ell_t$ |
# | delta rule | $b_t (v_t - S_{t-1} k_t)\, k_t^\top$ | *online* gradient descent, a step of size $b_t$ an example |
# | recursive least squares | $(v_t - S_{t-1} k_t)\, k_t^\top P_t$ | *preconditioned*: ridge regression on all of them |
#
# At a rate $b_t = 1 / |k_t|^2$ the second is Kaczmarz's method: the very limit that infinitely many layers of causal linear attention
# have. So a *single* layer of the delta rule does what a deep causal network tends to, and a single layer of recursive least squares
# what a deep prefix network tends to.


# %%
from __future__ import annotations

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.network_rounding import network_rounding_bound
from lab.domains.regression.gradient_descent import gradient_descent
from lab.domains.regression.kaczmarz import kaczmarz
from lab.domains.regression.least_squares import least_squares, ridge
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.mixers.fast_weights import DeltaRule, RecursiveLeastSquares
from lab.models.mixers.interface import Mixer
from lab.models.mixers.linear import LinearAttention
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.linear_attention._shared import PRESETS, ROUNDING, SLUG, Config, largest, within_rounding

PROOFS = Task(SLUG, paper=SLUG, presets=PRESETS, root=2032)
DIMENSION, QUERIES, PENALTY = 5, 3, 2.0
RUNGS = ("linear attention", "delta rule", "recursive least squares")
OPTIMISERS = ("one batch step", "one pass of Kaczmarz", "ridge regression", "least squares")


def problem(config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs, labels and queries of noisy linear regression, [draw, example, dimension] and so on."""
    rng = stream(0, "regression").rng()
    x, w, queries = (
        DIMENSION**-0.5 * torch.from_numpy(rng.standard_normal((config.draws, count, DIMENSION)))
        for count in (config.length, 1, QUERIES)  # inputs of length about 1
    )
    noise = torch.from_numpy(rng.standard_normal((config.draws, config.length)))
    return x, (x * w).sum(-1) + 0.3 * noise, queries


def mixer_streams(x: Tensor, y: Tensor, queries: Tensor, rate: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Examples as keys with their labels as values, then queries, which write nothing; and the mask of such a prompt."""
    keys = torch.cat((x, queries), dim=1)
    values = torch.cat((y, torch.zeros_like(queries[..., 0])), dim=1)
    rates = torch.cat((rate, torch.ones_like(queries[..., 0])), dim=1)
    token_streams = {"query": keys, "key": keys, "value": values[..., None], "rate": rates[..., None]}
    return {name: tensor[None, :, None] for name, tensor in token_streams.items()}, masks.in_context_causal(
        x.shape[1], queries.shape[1]
    )


def answers(
    mixer: Mixer, token_streams: dict[str, Tensor], mask: Tensor, form: str = "recurrent"
) -> tuple[Tensor, float]:
    """Answers [draw, query] of a mixer, and the bound on its rounding."""
    used_streams = {name: token_streams[name] for name in mixer.streams}
    return mixer.run(form, used_streams, mask)[0, :, 0, -QUERIES:, 0], mixer.rounding(used_streams, mask)


# %%
@PROOFS.cases(claimed={}, other_rate={"scale": 1.1}, other_penalty={"penalty": 2 * PENALTY})
def rungs_and_optimisers(config: Config, *, scale: float = 1.0, penalty: float = PENALTY) -> LabelledArrays:
    """Largest difference of each mixer's answers, run as a recurrence, from those of each optimiser, and rounding bounds.

    The delta rule has the rate ``scale`` / |x|^2, recursive least squares the penalty ``penalty``; linear attention is
    read at ``scale`` times its output.
    """
    x, y, queries = problem(config)
    token_streams, mask = mixer_streams(x, y, queries, scale / x.square().sum(-1))
    mixers = (LinearAttention("identity", normalised=False), DeltaRule(), RecursiveLeastSquares(penalty))
    answers_and_bounds = [answers(mixer, token_streams, mask) for mixer in mixers]
    optimisers = (gradient_descent(step=1.0, steps=1), kaczmarz(), ridge(PENALTY), least_squares())
    optimiser_answers = [optimiser(x, y, queries) for optimiser in optimisers]
    outputs = [scale * answers_and_bounds[0][0], answers_and_bounds[1][0], answers_and_bounds[2][0]]
    return {
        "distance": labelled(
            [[largest(a - b) for b in optimiser_answers] for a in outputs], mixer=RUNGS, optimiser=OPTIMISERS
        ),
        "rounding": labelled([bound for _, bound in answers_and_bounds], mixer=RUNGS),
    }


def on_its_rung(results: Results, case: str, mixer: str, optimiser: str) -> Evidence:
    """Evidence that a mixer answers as an optimiser does, to rounding."""
    measured = results[rungs_and_optimisers].sel(case=case, mixer=mixer)
    return Evidence.exact(
        float(measured["distance"].sel(optimiser=optimiser)), "<=", float(measured["rounding"]), ROUNDING
    )


@PROOFS.claim(
    "linear-attention/fw.T3",
    where="derived; fast weight programmers (Schlag et al. 2021), one-layer linear self-attention",
    kind="identity",
    statement="Linear attention without feature map and normaliser, run as a recurrence, answers a query as one batch "
    "gradient step of "
    r"size 1 on $\sum_t \frac12 \|S k_t - v_t\|^2$ from 0, to rounding.",
    controls=[
        control("a step of 1.1", case="other_rate"),
        control("one pass of Kaczmarz in its place", optimiser=OPTIMISERS[1]),
        control("the delta rule in its place", mixer=RUNGS[1]),
    ],
)
def linear_attention_is_a_batch_step(
    results: Results, case: str = "claimed", mixer: str = RUNGS[0], optimiser: str = OPTIMISERS[0]
) -> Evidence:
    return on_its_rung(results, case, mixer, optimiser)


@PROOFS.claim(
    "linear-attention/fw.T1.kaczmarz",
    where="derived",
    kind="identity",
    statement="The delta rule at the rate $1 / |k_t|^2$ answers as one pass of Kaczmarz, the limit of infinitely deep "
    "causal linear "
    "attention, to rounding.",
    controls=[
        control("1.1 times the rate", case="other_rate"),
        control("one batch step in its place", optimiser=OPTIMISERS[0]),
    ],
)
def delta_rule_is_kaczmarz(results: Results, case: str = "claimed", optimiser: str = OPTIMISERS[1]) -> Evidence:
    return on_its_rung(results, case, RUNGS[1], optimiser)


@PROOFS.claim(
    "linear-attention/fw.T4.ridge",
    where="derived",
    kind="identity",
    statement=r"Recursive least squares with $P_0 = I / \lambda$ answers as ridge regression of penalty $\lambda$, solved "
    "anew from the "
    "singular values of all inputs, to rounding.",
    controls=[
        control("twice the penalty", case="other_penalty"),
        control("least squares without penalty in its place", optimiser=OPTIMISERS[3]),
    ],
)
def recursion_is_ridge(results: Results, case: str = "claimed", optimiser: str = OPTIMISERS[2]) -> Evidence:
    return on_its_rung(results, case, RUNGS[2], optimiser)


@PROOFS.cases(claimed={}, uphill={"sign": -1.0}, swapped={"order": "keys by values"})
def gradient_of_one_example(config: Config, *, sign: float = 1.0, order: str = "values by keys") -> LabelledArrays:
    """Largest difference of what the delta rule writes from an SGD step by automatic differentiation, and its bound."""
    rng, size = stream(0, "one example").rng(), 6
    shape = (config.draws, 1, 1)
    memory = torch.from_numpy(rng.standard_normal((*shape, size, size)))
    key, value = (torch.from_numpy(rng.standard_normal((*shape, size))) for _ in range(2))
    rate = torch.from_numpy(1 - rng.random((*shape, 1)))
    token = {"key": key, "value": value, "rate": sign * rate}
    written = DeltaRule().write({"memory": memory}, token)["memory"]
    if order != "values by keys":
        written = memory + (written - memory).transpose(-1, -2)
    weights = memory.clone().requires_grad_()
    loss = 0.5 * ((weights @ key.unsqueeze(-1)).squeeze(-1) - value).square().sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    reached = memory - rate.unsqueeze(-1) * gradient
    wrong = (memory.abs() @ key.abs().unsqueeze(-1)).squeeze(-1) + value.abs()
    scale = memory.abs() + rate.unsqueeze(-1) * wrong.unsqueeze(-1) * key.abs().unsqueeze(-2)
    return {"difference": largest(written - reached), "rounding": 2 * rounding_bound(size + 5, largest(scale))}


@PROOFS.claim(
    "linear-attention/fw.T1",
    where="derived; Widrow and Hoff 1960, Schlag et al. 2021",
    kind="identity",
    statement=r"The delta rule $S_t = S_{t-1} (I - b_t k_t k_t^\top) + b_t v_t k_t^\top$ is one step of stochastic "
    "gradient descent of size "
    r"$b_t$ on $\frac12 \|S k_t - v_t\|^2$, to rounding.",
    controls=[
        control("the other sign", case="uphill"),
        control("keys by values in the place of values by keys", case="swapped"),
    ],
)
def delta_rule_is_online_descent(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[gradient_of_one_example].sel(case=case))


# %% [markdown]
# ## A mask makes no difference to the first step
#
# A query that stands last sees the same keys under a causal and under a full mask, so one layer gives it one and the same answer. The
# masks differ in what the *examples* have seen, and that reaches the query from the second layer on.


# %%
DEPTHS = (1, 2, 3)


@PROOFS.cases(linear={"attention": "linear"}, softmax={})
def masks_at_depth(config: Config, *, attention: str = "softmax") -> LabelledArrays:
    """Largest difference between the last token's outputs under a causal and under a full mask, by depth, and the bound."""
    length, width = config.length, 12
    prompt = torch.from_numpy(stream(0, "prompt").rng().standard_normal((length, width)))
    differences, bounds = [], []
    for depth in DEPTHS:
        network = Transformer(
            Architecture(width=width, layers=depth, heads=3, attention=attention, mlp_ratio=1), [5], torch.float64
        )
        compared_masks = (masks.causal(length), masks.full(length))
        with torch.no_grad():
            last_outputs = [network(prompt[None, None], mask)[0, 0, -1] for mask in compared_masks]
        differences.append(largest(last_outputs[0] - last_outputs[1]))
        bounds.append(max(network_rounding_bound(network, prompt, mask) for mask in compared_masks))
    return {"difference": labelled(differences, depth=DEPTHS), "rounding": labelled(bounds, depth=DEPTHS)}


@PROOFS.claim(
    "linear-attention/fw.T5",
    where="derived",
    kind="identity",
    statement="One layer of attention, linear or softmax, gives the last token the same output under a causal and under a full "
    "mask, to rounding (random networks of width 12).",
    controls=[control("two layers", depth=2), control("three layers", depth=3)],
)
def one_layer_cannot_tell_the_masks(results: Results, depth: int = 1) -> Evidence:
    return within_rounding(results[masks_at_depth].sel(depth=depth))


@PROOFS.figure
def distances_on_one_page(results: Results) -> Sheet:
    """Largest difference between the answers of each mixer, run as a recurrence, and each optimiser: "
    "rounding, or of order one."""
    distance = results[rungs_and_optimisers]["distance"].sel(case="claimed")
    sheet = Sheet(columns=1, width=6.4, height=3.6)
    panel = sheet.panel("batch, online, preconditioned", x="optimiser", y="mixer")
    panel.heat(
        torch.log10(torch.from_numpy(distance.values.copy()).clamp_min(1e-17)).numpy(),
        rows=list(RUNGS),
        columns=["one batch\nstep", "one pass of\nKaczmarz", "ridge\nregression", "least\nsquares"],
        numbers=".0f",
        bar=r"$\log_{10}$ of the largest difference (-17: none)",
        of="exact",
    )
    return sheet


# %%
PROOFS.show(distances_on_one_page)
PROOFS.show(linear_attention_is_a_batch_step)
PROOFS.show(delta_rule_is_online_descent)
PROOFS.show(delta_rule_is_kaczmarz)
PROOFS.show(recursion_is_ridge)
PROOFS.show(one_layer_cannot_tell_the_masks)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
