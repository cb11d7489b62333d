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
# # A chain to be learnt in the weights
#
# Now the chain is fixed, binary, $P(1|0) = p$, $P(0|1) = q$. The best predictor needs the current token only
# and has the loss $h$ (entropy rate); who ignores it gets $H(\pi)$. Makkuva et al. show that a single
# attention layer with *tied* embedding, under gradient flow from a small start, is trapped at
# $H(\pi)$ when $p + q > 1$, that is when symbols tend to alternate. The reason shows in the model of three
# numbers analysed in the proofs: the logit of "the same symbol again" is a square, $e^2$ times a factor that
# is positive for small attention weights $w$, so it cannot become negative without passing through a barrier.
#
# In that model the logit of "the next symbol is 1" after $x$ is $b - u/2 + u\,(1 + 2 w|w|)\,x$ with
# $u = e^2$, or $u = a e$ where the readout $a$ is free. At $u = 0$ and $b = \log(p/q)$ the model is the
# unigram, and to first order in $u$ the loss changes by $u\,c$, $c = -(1 + 2 w|w|)\,\pi_0 \pi_1 (1 - p - q)$.
# Tied, $u = e^2 \ge 0$: where $c > 0$, the case of $p + q > 1$ and small $w$, there is no way down. Untied,
# $u = a e$ takes both signs, and the Hessian in $(a, e)$ is $c$ times the exchange matrix, with eigenvalues
# $\pm c$: a saddle wherever $c \ne 0$, that is for $p + q \ne 1$ and $w \ne -1/\sqrt 2$. **The tie alone makes the
# minimum.**
# %%
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lab import Evidence, Task, control
from lab.domains.chains.markov import (
    basin_edge,
    canonical_flow,
    conserved_energy,
    entropy_rate,
    kernel_slope,
    stationary_entropy,
    trap_curvature,
)
from lab.domains.chains.markov_prompts import binary_kernel, fixed_chains
from lab.figures import Panel, Sheet
from lab.labels import LabelledArrays, at_end
from lab.models.masks import causal
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import proportion_interval, rounding_bound
from lab.streams import RandomStream, stream
from lab.study import Networks, Study
from lab.training import Batch, Optimisation
from tasks.induction_heads_markov._shared import ROOT, SLUG, arrays, follow, most

SMALL, LARGE = 0.02, 0.35  # standard deviations of the first weights, of which claims speak
BETWEEN = (0.2, 0.225, 0.25, 0.275)  # some trainings escape from these, others do not


@dataclass(frozen=True)
class Config:
    """Sizes of the trainings."""

    trainings: int = 40
    """independent trainings an arm"""
    steps: int = 600
    """updates"""
    sweep_trainings: int = 60
    """independent trainings from each scale between"""
    sweep_steps: int = 400
    """updates from each scale"""
    length: int = 16
    """tokens that a model reads"""
    batch: int = 16
    """sequences an update"""
    width: int = 8
    """size of the residual stream"""
    learning_rate: float = 0.3
    """of plain gradient descent"""
    test: int = 128
    """test sequences of each training"""


TASK = Task(
    SLUG,
    paper=SLUG,
    presets={
        "smoke": Config(trainings=2, steps=30, test=16, sweep_trainings=2, sweep_steps=15),
        "ci": Config(),
        "paper": Config(steps=8000, length=512, batch=64, test=512),
    },
    root=2030,  # sized so that fresh seeds give every verdict again; below 2026 there were fewer
)


def pair_loss(
    product: Float[Tensor, "*shape"],
    attention: Float[Tensor, "*shape"],
    bias: Float[Tensor, "*shape"],
    p: Tensor,
    q: Tensor,
) -> Float[Tensor, "*shape"]:
    r"""Cross entropy of logit(x) = b - u/2 + u (1 + 2 w|w|) x with the next token of the stationary chain (p, q).

    Args:
        product: u, the square of e (tied) or a times e; ``attention``: w; ``bias``: b.
    """
    logit_zero = bias - product / 2
    logit_one = logit_zero + product * (1 + 2 * attention * attention.abs())
    softplus = nn.functional.softplus  # the loss of a logit f: softplus(-f) if 1 follows, softplus(f) if 0 does
    after_zero = p * softplus(-logit_zero) + (1 - p) * softplus(logit_zero)
    after_one = (1 - q) * softplus(-logit_one) + q * softplus(logit_one)
    return (q * after_zero + p * after_one) / (p + q)


@TASK.cases(claimed={}, tied={"tie": True})
def unigram_hessians(config: Config, *, tie: bool = False) -> LabelledArrays:
    """Largest differences between Hessians at the unigram, by differentiating twice, and their formulas.

    At 200 random chains and attention weights: "tied" of the curvature in e, "untied" of the eigenvalues in (a, e), which are
    expected to be c and -c, or, with ``tie``, both as in the tied model.
    """
    uniform = torch.from_numpy(stream(0, ROOT, "landscape").rng().uniform(size=(200, 3)))
    p, q, w = 0.05 + 0.9 * uniform[:, 0], 0.05 + 0.9 * uniform[:, 1], 2 * uniform[:, 2] - 1.2
    bias = (p / q).log()
    pair = torch.zeros(len(p), 2, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(pair_loss(pair.prod(-1), w, bias, p, q).sum(), pair, create_graph=True)[0]
    untied = torch.stack([torch.autograd.grad(slope[:, i].sum(), pair, retain_graph=True)[0] for i in range(2)], 1)
    e = torch.zeros(len(p), dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(pair_loss(e * e, w, bias, p, q).sum(), e, create_graph=True)[0]
    tied = torch.autograd.grad(slope.sum(), e)[0]
    twice_c = np.array(
        [float(trap_curvature(attention, float(a), float(b))) for attention, a, b in zip(w, p, q, strict=True)]
    )
    half = np.abs(twice_c) / 2
    eigenvalues = np.stack([twice_c / 2] * 2 if tie else [-half, half], -1)
    return {
        "untied": np.abs(np.linalg.eigvalsh(untied.numpy()) - eigenvalues).max(),
        "tied": np.abs(tied.numpy() - twice_c).max(),
    }


@TASK.claim(
    "induction-heads-markov/L2-untied",
    where="Makkuva et al., with and without weight tying",
    kind="identity",
    statement=r"At the unigram the loss curves by $2c$ in $e$ if the weights are tied and by $\pm c$ in $(a, e)$ if they are not, "
    r"$c = -(1 + 2 w|w|)\,\pi_0\pi_1 (1 - p - q)$: without the tie the unigram is a saddle for every $p + q \ne 1$ and "
    r"$w \ne -1/\sqrt 2$.",
    controls=[control("the tied curvature expected without the tie", case="tied")],
)
def untied_is_a_saddle(results: Results, case: str = "claimed") -> Evidence:
    differences = results[unigram_hessians].sel(case=case)
    # Both derivatives pass some fifty operations on numbers below log 19, the largest bias.
    bound, origin = rounding_bound(50, np.log(19)), "rounding of 50 operations"
    return Evidence.all(*(Evidence.exact(float(differences[name]), "<=", bound, origin) for name in ("tied", "untied")))


# %% [markdown]
# The plane of $(w, e)$ with the flow of gradient descent: paths are contours of the conserved
# $e^2 - w^2 - \mathrm{sign}(w) \log |w|$; on the axis $e = 0$ the model is the unigram, and the curve of squares
# $e^2 (1 + 2w|w|) = \log \frac{(1-p)(1-q)}{pq}$ holds all global minima, where the model is the chain itself.
# On the right the loss along $u$ for small $w$, with the bias at its best: one curve for both models, of
# which the tied one can only reach the half $u \ge 0$.


# %%
def plot_plane(panel: Panel, p: float) -> None:
    """Gradient flow of the tied model for p = q, with what is known in closed form."""
    grid = np.meshgrid(np.linspace(-1.6, 1.0, 260), np.linspace(-1.6, 1.6, 160))
    weights, embedding = (torch.from_numpy(values) for values in grid)
    energy = conserved_energy(embedding, weights).numpy()
    panel.axes.contour(
        *grid, energy, levels=np.linspace(-4, 4, 17), colors="#d5d5d5", linewidths=0.6, linestyles="solid"
    )
    e_dot, w_dot = (speed.numpy() for speed in canonical_flow(embedding, weights, p, p))
    panel.axes.streamplot(*grid, w_dot, e_dot, color="#777777", density=0.7, linewidth=0.7, arrowsize=0.8)
    panel.note(
        f"p = q = {p}", [float("nan")], [float("nan")], words="pale lines: contours of the energy; arrows: the flow"
    )
    # The minima e = ± sqrt(s / (1 + 2 w|w|)), where that is a square.
    w = np.linspace(-1.6, 1.0, 521)
    with np.errstate(invalid="ignore", divide="ignore"):
        e = np.sqrt(kernel_slope(p, p) / (1 + 2 * w * np.abs(w)))
    for sign in (1, -1):
        panel.theory(w, np.where(e < 1.7, sign * e, np.nan), name="global minima")
    # The edge of the trap stands where the unigram is a local minimum and w < 0.
    curvature = trap_curvature(torch.from_numpy(w), p, p).numpy()
    square = basin_edge(torch.from_numpy(w)).numpy()
    with np.errstate(invalid="ignore"):
        edge = np.where((curvature > 0) & (w < 0) & (square < 1.6**2), np.sqrt(square), np.nan)
    for sign in (1, -1):
        panel.theory(w, sign * edge, name="edge of the trap")
    for look, (holds, name) in enumerate(
        ((curvature > 0, "unigram: local minimum"), (curvature < 0, "unigram: saddle"))
    ):
        panel.line(w, np.where(holds, 0.0, np.nan), name=name, look=look, marks=False, of="exact")


@TASK.figure
def canonical_plane(results: Results) -> Sheet:
    """Gradient flow of the three-number model (bias always optimal) for p = q = 0.1 and p = q = 0.9, with all global minima,
    the edge between starts that are trapped and starts that escape, and on the axis e = 0 the unigram as local minimum or as
    saddle (a maximum in e, a minimum in b). Right: loss above the
    entropy rate along u = e² (tied) or a e (untied) at w = 0.02, with its closed-form minimum."""
    sheet = Sheet(columns=3, width=4.6, height=4.0)
    for p, finding in ((0.1, "small starts escape"), (0.9, "small starts are trapped")):
        panel = sheet.panel(
            f"p = q = {p}: {finding}", x="attention w", y="embedding e", xlim=(-1.6, 1.0), ylim=(-1.6, 1.6)
        )
        plot_plane(panel, p)
    panel = sheet.panel(
        "the tie cuts the way down at u = 0",
        x="u = e² (tied) or a e (untied)",
        y="loss - h [nats]",
        legend="upper center",
    )
    panel.region(-6, 0, "only untied")
    product = torch.linspace(-6, 6, 49, dtype=torch.float64)
    attention = torch.full_like(product, 0.02)
    for p in (0.1, 0.9):
        chance = torch.tensor(p)
        # For p = q the best logits after 0 and 1 are opposite, so that the best bias is u (1/2 - (1 + 2 w|w|)/2).
        bias = product / 2 - product * (1 + 2 * 0.02**2) / 2
        above = pair_loss(product, attention, bias, chance, chance) - entropy_rate(binary_kernel(p, p))
        panel.line(product.tolist(), above.numpy(), name=f"p = q = {p}", marks=False, of="exact")
        panel.level(kernel_slope(p, p) / (1 + 2 * 0.02**2), "minimum, closed form", vertical=True)
    return sheet


# %%
TASK.show(canonical_plane)
TASK.show(untied_is_a_saddle)

# %% [markdown]
# ## Is it true of a transformer?
#
# One attention layer with all that belongs to it: a token $x \in \{0, 1\}$ enters as $x$ times a vector $e$
# plus a learned position, then attention, a ReLU MLP, and the logit is $a \cdot z + b$ with $a = e$ (tied) or
# $a$ free. Plain gradient descent, four arms from equal weights.


# %%
KERNELS = ((0.2, 0.3), (0.8, 0.7))  # (p, q)


@dataclass(frozen=True)
class Arm:
    """What an arm does."""

    tied: bool
    """the read-out vector is the embedding"""
    kernel: int
    """place of its chain among `KERNELS`"""

    @property
    def alternating(self) -> bool:
        """Whether p + q > 1."""
        return sum(KERNELS[self.kernel]) > 1


ARMS = {
    "tied, p + q < 1": Arm(True, 0),
    "tied, p + q > 1": Arm(True, 1),
    "untied, p + q < 1": Arm(False, 0),
    "untied, p + q > 1": Arm(False, 1),
}


class ScalarTokens(nn.Module):
    """Logits a . z_t + b of the token after x_t, z the residual stream of a transformer that reads x_t e.

    Args:
        body: transformer without read-in and read-out.
        embedding: e [model, width].
        free: a [model, width] where it is not tied to e.
        bias: b [model, 1].
    """

    def __init__(self, body: Transformer, embedding: Tensor, free: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.body = body
        self.embedding, self.free, self.bias = (nn.Parameter(part.detach().clone()) for part in (embedding, free, bias))
        self.width = body.width

    @classmethod
    def build(cls, architecture: Architecture, seeds: Sequence[int]) -> ScalarTokens:
        """Models whose weights come from streams of their seeds."""
        normal = np.stack(
            [stream(seed, ROOT, "scalar tokens").rng().normal(size=(2, architecture.width)) for seed in seeds]
        )
        vectors = torch.from_numpy((architecture.initial_scale or 0) * normal).float()
        body = [int(stream(seed, ROOT, "weights").rng().integers(2**62)) for seed in seeds]
        return cls(Transformer(architecture, body), vectors[:, 0], vectors[:, 1], torch.zeros(len(seeds), 1))

    def select(self, indices: Sequence[int]) -> ScalarTokens:
        """The models at these places, as an ensemble of their own."""
        places = list(indices)
        return ScalarTokens(self.body.select(places), self.embedding[places], self.free[places], self.bias[places])

    def forward(
        self, tokens: Int[Tensor, "model batch token"], mask: Bool[Tensor, "token token"], tied: Bool[Tensor, " model"]
    ) -> Float[Tensor, "model batch token"]:
        """Logits of "the next token is 1"."""
        entering = tokens.unsqueeze(-1) * self.embedding[:, None, None]
        read_out = torch.where(tied.unsqueeze(-1), self.embedding, self.free)
        leaving = self.body(entering.to(self.embedding), mask)
        return (leaving @ read_out[:, None, :, None])[..., 0] + self.bias.unsqueeze(-1)


def follow_fixed(
    config: Config,
    seeds: Sequence[int],
    arms: Mapping[str, Arm],
    optimisation: Optimisation,
    layers: int = 1,
    scale: float = SMALL,
) -> xr.Dataset:
    """Train on the fixed binary chains, from weights of standard deviation ``scale``.

    Returns:
        "excess" loss over h in units of H(pi) - h [seed, arm, update]: 0 has learnt the chain, 1 is the unigram.
    """
    architecture = Architecture(
        width=config.width,
        layers=layers,
        activation="relu",
        norm="none",
        positions="learned",
        maximum_length=config.length,
        initial_scale=scale,
    )
    pattern = causal(config.length)
    kernels = torch.stack([binary_kernel(p, q) for p, q in KERNELS])
    rate, trap = entropy_rate(kernels), stationary_entropy(kernels)

    def sequences(source: RandomStream, number: int) -> Batch:
        """Tokens of all chains [sequence, kernel, token]."""
        walks = [
            fixed_chains(source.child(place), number, transition=kernel, length=config.length + 1).tokens
            for place, kernel in enumerate(kernels)
        ]
        return {"tokens": torch.stack(walks, 1)}

    @lru_cache(maxsize=64)
    def test(seed: int) -> Batch:
        return sequences(stream(seed, ROOT, "fixed", "test"), config.test)

    def own_tokens(tokens: Tensor, arms: Sequence[Arm]) -> Tensor:
        """Of all chains [model, sequence, kernel, token] each model's."""
        return torch.stack([walks[:, arm.kernel] for walks, arm in zip(tokens, arms, strict=True)])

    def logits(module: ScalarTokens, batch: Batch, arms: tuple[Arm, ...]) -> Tensor:
        tokens = own_tokens(batch["tokens"], arms)
        tied = torch.tensor([arm.tied for arm in arms], device=tokens.device)
        answers: Tensor = module(tokens[..., :-1], pattern.to(tokens.device), tied)
        return answers

    def loss(module: ScalarTokens, batch: Batch, arms: tuple[Arm, ...]) -> Tensor:
        answers = logits(module, batch, arms)
        target = own_tokens(batch["tokens"], arms)[..., 1:].to(answers)
        return nn.functional.binary_cross_entropy_with_logits(answers, target, reduction="none").mean((1, 2))

    def measure(networks: Networks[ScalarTokens]) -> dict[str, Tensor]:
        answers = networks.numbers({seed: test(seed) for seed in networks.seeds}, logits).double()
        present = [arms[member.arm] for member in networks.members]
        place = [arm.kernel for arm in present]
        tokens = own_tokens(torch.stack([test(member.seed)["tokens"] for member in networks.members]), present)
        ones = torch.stack([kernels[k][:, 1][row[:, :-1]] for k, row in zip(place, tokens, strict=True)])
        losses = nn.functional.binary_cross_entropy_with_logits(answers, ones, reduction="none").mean((1, 2))
        return {"excess": (losses - rate[place]) / (trap - rate)[place]}

    return follow(
        Study(lambda seeds: ScalarTokens.build(architecture, seeds), arms, None, loss),
        seeds,
        lambda seed, block, count: sequences(stream(seed, ROOT, "fixed", block), count),
        optimisation,
        batch=config.batch,
        measure=measure,
        every=max(1, optimisation.steps // 15),
        name=f"fixed {layers} {optimisation.optimiser} {scale:g}",
    )


# Descent in the sweep is clipped, for from large weights single steps could leave the finite numbers; in the trap
# gradients are far shorter.
OPTIMISERS = {
    "SGD": lambda config: Optimisation(config.steps, config.learning_rate, optimiser="sgd"),
    "SGD, clipped": lambda config: Optimisation(
        config.sweep_steps, config.learning_rate, optimiser="sgd", clip_norm=1.0
    ),
    "AdamW": lambda config: Optimisation(
        config.steps, 2e-3, optimiser="adamw", betas=(0.9, 0.95), weight_decay=1e-3
    ),  # as in the authors' experiments
}
TRAPPED = "tied, p + q > 1"
DEPTHS = (1, 2)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8, root=2031)
def fixed_chain(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """One layer, tied and untied, on both chains, by plain gradient descent."""
    return arrays(follow_fixed(config, seeds, ARMS, OPTIMISERS["SGD"](config)))


def by_depth(config: Config, seeds: tuple[int, ...], optimiser: str, scale: float) -> xr.DataArray:
    """Excess of the tied model at p + q > 1 after training, of one layer and of two [seed, layers]."""
    arm, optimisation = {TRAPPED: ARMS[TRAPPED]}, OPTIMISERS[optimiser](config)
    excesses = [follow_fixed(config, seeds, arm, optimisation, layers, scale)["excess"] for layers in DEPTHS]
    ends = [excess.squeeze("arm", drop=True).isel(update=-1, drop=True) for excess in excesses]
    return xr.concat(ends, "layers").assign_coords(layers=list(DEPTHS)).transpose("seed", "layers")


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8, root=2031)
def other_optimiser(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """The tied model at p + q > 1 with AdamW, from the same small weights: [seed, layers]."""
    return {"excess": by_depth(config, seeds, "AdamW", SMALL)}


def by_scale(config: Config, seeds: tuple[int, ...], scales: Sequence[float]) -> LabelledArrays:
    """The tied model at p + q > 1 by gradient descent, by depth and scale of the first weights: [seed, scale, layers]."""
    rows = [by_depth(config, seeds, "SGD, clipped", scale) for scale in scales]
    excess = xr.concat(rows, "scale").assign_coords(scale=list(scales)).transpose("seed", "scale", "layers")
    return {"excess": excess}


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=12, root=2031)
def small_and_large_starts(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """From the scales at which the fate is the same for nearly all."""
    return by_scale(config, seeds, (SMALL, 0.1, LARGE))


@TASK.measurement(seeds=lambda config: config.sweep_trainings, ensemble=True, seeds_per_job=12)
def starts_between(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """From the scales at which some trainings escape and others do not."""
    return by_scale(config, seeds, BETWEEN)


def nearer(excess: xr.DataArray, trapped: bool, name: str) -> Evidence:
    """More than half of the trainings are nearer to the unigram (1; ``trapped``) or to the entropy rate (0)."""
    where = "the unigram H(pi)" if trapped else "the entropy rate h"
    return most((excess > 0.5) if trapped else (excess < 0.5), f"{name}: nearer to {where}")


@TASK.claim(
    "induction-heads-markov/L5",
    where="Makkuva et al., tied single layer; derived",
    kind="training",
    statement=r"A single attention layer, trained by plain gradient descent for 600 updates from weights of standard deviation 0.02, "
    r"is in most trainings nearer to the unigram loss $H(\pi)$ than to the entropy rate $h$ if it is tied and $p + q > 1$, and "
    r"nearer to $h$ if it is untied or $p + q < 1$.",
    controls=[
        control("predicted from p + q alone, tied or not", rule="sum"),
        control("predicted from the tie alone, whatever p + q", rule="tie"),
    ],
)
def trapped_if_tied_and_alternating(results: Results, rule: str = "both") -> Evidence:
    trained = at_end(results[fixed_chain]["excess"], "update")
    parts = []
    for name, arm in ARMS.items():
        predicted = {"both": arm.alternating and arm.tied, "sum": arm.alternating, "tie": arm.tied}[rule]
        parts.append(nearer(trained.sel(arm=name), predicted, name))
    return Evidence.all(*parts)


@TASK.claim(
    "induction-heads-markov/L5-adamw",
    where="derived; Makkuva et al. train with AdamW",
    kind="training",
    statement=r"From weights of standard deviation 0.02 AdamW takes the tied model at $p + q > 1$ out of the trap: after 600 updates, with "
    r"one layer and with two, most trainings are nearer to the entropy rate.",
    controls=[control("gradient descent", optimiser="SGD")],
)
def adamw_opens_the_trap(results: Results, optimiser: str = "AdamW") -> Evidence:
    if optimiser == "AdamW":
        trained = results[other_optimiser]["excess"]
    else:
        trained = results[small_and_large_starts]["excess"].sel(scale=SMALL)
    return Evidence.all(*(nearer(trained.sel(layers=depth), False, f"{depth} layers") for depth in DEPTHS))


@TASK.claim(
    "induction-heads-markov/L6",
    where="derived; Makkuva et al. on deeper models",
    kind="ordering",
    statement=r"Whether a second layer helps out of the trap of gradient descent depends on the start: from weights of standard deviation "
    r"0.02 most trainings at $p + q > 1$ are nearer to the unigram after 400 updates with one layer and with two; from 0.2, 0.225, 0.25 "
    r"and 0.275, where the two depths differ, it is mostly two layers that leave it from more of these scales.",
    controls=[
        control("from 0.35 for 0.02", small=LARGE),
        control("from 0.02 and 0.1, from which neither moves, for the scales between", between=False),
    ],
)
def depth_opens_the_trap_of_larger_starts(results: Results, small: float = SMALL, between: bool = True) -> Evidence:
    ends = results[small_and_large_starts]["excess"]
    swept = results[starts_between]["excess"] if between else ends.sel(scale=[SMALL, 0.1])
    escaped = (swept < 0.5).sum("scale")
    ahead = escaped.sel(layers=2) - escaped.sel(layers=1)
    differ = int((ahead != 0).sum()) or ahead.size  # where none differs, none is ahead
    return Evidence.all(
        *(nearer(ends.sel(scale=small, layers=depth), True, f"{depth} layers from {small}") for depth in DEPTHS),
        Evidence.proportion(
            int((ahead > 0).sum()), differ, ">", 0.5, "of the trainings in which the depths differ: two layers ahead"
        ),
    )


@TASK.claim(
    "induction-heads-markov/L6-scale",
    where="derived: the edge of the basin",
    kind="ordering",
    statement=r"A larger start opens the trap without depth: a single tied layer at $p + q > 1$, trained by gradient descent for 400 "
    r"updates, is in most trainings nearer to the unigram from weights of standard deviation 0.02 or 0.1 and nearer to the entropy "
    r"rate from 0.35.",
    controls=[control("from 0.1 for 0.35", large=0.1), control("from 0.35 for 0.1", small=LARGE)],
)
def large_starts_escape(results: Results, small: float = 0.1, large: float = LARGE) -> Evidence:
    trained = results[small_and_large_starts]["excess"].sel(layers=1)
    return Evidence.all(
        nearer(trained.sel(scale=SMALL), True, f"from {SMALL}"),
        nearer(trained.sel(scale=small), True, f"from {small}"),
        nearer(trained.sel(scale=large), False, f"from {large}"),
    )


@TASK.figure
def fixed_chain_losses(results: Results) -> Sheet:
    """Loss after training on a fixed binary chain, 0 the entropy rate h and 1 the unigram H(pi). Left: a single layer, tied or
    untied, p + q below or above 1, by plain gradient descent from weights of standard deviation 0.02. Middle: share of the
    trainings of the tied model at p + q > 1 that are nearer to h, by standard deviation of the first weights and depth. Right:
    those weights of 0.02 by optimiser and depth."""
    sheet = Sheet(columns=3, width=4.9)
    trained = at_end(results[fixed_chain]["excess"], "update")
    ends, adamw = results[small_and_large_starts]["excess"], results[other_optimiser]["excess"]
    swept = results[starts_between]["excess"]
    panel = sheet.panel("trapped: tied and p + q > 1", x="network", y="excess loss [H(π) - h]")
    panel.bars(
        {name.replace(", ", "\n"): trained.sel(arm=name) for name in ARMS}, name="excess loss, SGD from 0.02", look=3
    )
    panel.level(1, "unigram H(π)")
    panel = sheet.panel(
        "larger starts escape, two layers sooner",
        x="standard deviation of the first weights",
        y="share of trainings nearer to h",
        ylim=(-0.05, 1.05),
        legend="upper left",
    )
    for place, depth in enumerate(DEPTHS):
        counts = {
            float(scale): (int((run.sel(scale=scale, layers=depth) < 0.5).sum()), run.sizes["seed"])
            for run in (ends, swept)
            for scale in run["scale"].values
        }
        counts = dict(sorted(counts.items()))
        intervals = np.array([proportion_interval(*count, 0.025) for count in counts.values()])
        panel.intervals(
            list(counts),
            [hits / trials for hits, trials in counts.values()],
            *intervals.T,
            n=[trials for _, trials in counts.values()],
            words="exact 95 % binomial intervals of {n} trainings",
            name=f"{depth} layer{'s' * (depth > 1)}, SGD",
            look=place,
            join=True,
        )
    panel = sheet.panel("from 0.02 the optimiser decides", x="optimiser", y="excess loss [H(π) - h]")
    groups = {
        f"{name}\n{depth} layer{'s' * (depth > 1)}": values.sel(layers=depth)
        for name, values in (("SGD", ends.sel(scale=SMALL)), ("AdamW", adamw))
        for depth in DEPTHS
    }
    panel.bars(groups, name="excess loss", look=3)
    panel.level(1, "unigram H(π)")
    return sheet


# %%
TASK.show(fixed_chain_losses)
TASK.show(trapped_if_tied_and_alternating)
TASK.show(adamw_opens_the_trap)
TASK.show(depth_opens_the_trap_of_larger_starts)
TASK.show(large_starts_escape)

# %% [markdown]
# So the trap is real, but narrow: it needs the tie, an optimiser whose steps shrink with the gradient, and a
# start from small weights. From a standard deviation of 0.02, at which transformers are often started, a second
# layer is as good as absent under gradient descent, and AdamW is what gets out. From weights ten times as large
# some starts lie beyond the edge of the trap (proofs, L4-basin-above, for the model of three numbers), and over a
# range of scales two layers get out where one does not.

# %%
TASK.show()
