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
# # Training on samples, and what the trained layer predicts
#
# In `exact_descent.py` expectations were exact. Now there are fresh sequences at every update, all entries are free, there are
# three initial weights, and each is scored in two ways: at all positions, and from position $P$ on. The second is what a
# prefix arm is: under a prefix mask of $P$ tokens those positions compute what they compute under the causal mask, for
# whatever weights (I0.mask, T1.mask), so that one training stands for both masks and none of its own is needed.
#
# The product $c = ab$ follows the logistic flow (from equal starts) in the time that the rates add up to. Heavy sixth moments
# make single updates noisy; in the second half of the training the rate falls linearly to zero, so that the noise averages out
# and the last product, not a mean of many, is what was learnt.
#
# What the layer learnt is right for sparse starts. For Gaussian ones each coordinate is predicted at about $c\,x_{1j}^2$ of its
# truth, a fifth on average, and about two fifths of the square of the signal are missed. (We judge the missed share and not the
# mean of the ratio of prediction to truth: with weights ever so little off the diagonal another coordinate is divided by a
# Gaussian one, and such a quotient has no mean.)
#
# Two sizes: sequences of $20$ states, short enough that $c^*$ is told apart from its limit $1/5$, and the paper's own
# $d = 5$, $T = 100$, three beginnings and rate (for Gaussian starts at scale $1$; other scales are the same experiment, T1.scale).
# The paper trains on $10\,000$ fixed sequences; here twice as many are drawn afresh in the course of a training, a hundred an
# update. With so few, a full step from $(2, 2)$ can overshoot for good; so the rate rises over the first $20$ updates.

# %%
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.dynamics import mesa_optimization as theory
from lab.domains.dynamics.mesa_descent import Trained, descend
from lab.domains.dynamics.mesa_laws import missed_share, product_flow
from lab.domains.dynamics.mesa_layer import MesaLayer
from lab.domains.dynamics.sequences import Start, linear_dynamics
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.results import Results
from lab.streams import stream
from tasks.mesa_optimization._shared import PAPER, SCORED, SLUG, diagonal_layers, first_positions

Beginnings = tuple[tuple[float, float], ...]
LOOKS = {"all": 0, "from P on": 1}


@dataclass(frozen=True)
class Sizes:
    """Training on sampled sequences of one length."""

    length: int = 20
    """states T of a sequence"""
    prefix_length: int = 10
    """P: the first scored position of the second way to score"""
    sequences: int = 200
    """fresh sequences an update"""
    sparse_sequences: int = 40
    """the same for sparse starts, which have no heavy tails to average over"""
    updates: int = 200
    """updates; in the second half the rate falls to zero"""
    warmup: int = 0
    """updates over which the rate rises at first"""
    rate: float = 2e-3
    """step size of gradient descent; the curvature is about 2 (T - 2) k_1"""
    sparse_rate: float = 4e-2
    """the same for sparse starts, whose fourth moment is 15 times smaller"""
    beginnings: Beginnings = ((0.1, 0.1), (0.3, 0.8), (0.6, 0.6))
    """initial a and b"""
    test: int = 4_000
    """sequences that the final predictions are measured on"""


@dataclass(frozen=True)
class Config:
    """Sizes of the trainings on samples."""

    dimension: int = 5
    """d coordinates of a state"""
    trainings: int = 46  # 6 of them added later, since fresh seeds must give every verdict again
    """independent trainings on short sequences"""
    short: Sizes = Sizes()
    """short sequences"""
    long_trainings: int = 48  # 12 of them added later, since fresh seeds must give every verdict again
    """independent trainings on long sequences"""
    long: Sizes = field(
        default_factory=lambda: Sizes(
            100, 50, 100, warmup=20, rate=1e-4, beginnings=((0.1, 0.1), (0.5, 1.5), (2.0, 2.0))
        )
    )
    """the paper's sizes"""


TINY = Sizes(6, 3, 20, 20, 10, 2, test=50)
TASK = Task(
    SLUG,
    paper=PAPER,
    root=2026,
    presets={
        "smoke": Config(3, 2, TINY, 2, TINY),
        "ci": Config(),
        "paper": Config(
            long=Sizes(
                100, 50, 10_000, warmup=20, rate=1e-4, beginnings=((0.1, 0.1), (0.5, 1.5), (2.0, 2.0)), test=10_000
            )
        ),
    },
)
STARTS: tuple[Start, ...] = ("gaussian", "sparse")


def beginning_of(pair: tuple[float, float]) -> str:
    """Label of a beginning."""
    return f"({pair[0]:g}, {pair[1]:g})"


def rates(sizes: Sizes, start: Start) -> np.ndarray:
    """The rate of every update: up from zero during the warm-up, constant, then down to zero in a line."""
    peak, update = sizes.rate if start == "gaussian" else sizes.sparse_rate, np.arange(sizes.updates)
    up = (update + 1) / max(1, sizes.warmup)
    return np.asarray(peak * np.minimum(np.minimum(1.0, up), 2 * (1 - update / sizes.updates)))


def training(config: Config, sizes: Sizes, seed: int, start: Start, name: str, ways: int = 2) -> Trained:
    """All beginnings scored in each way, on the same sequences: beginnings of the first way, then of the second."""
    count = sizes.sequences if start == "gaussian" else sizes.sparse_sequences

    def batches() -> Iterator[Tensor]:
        for update in range(sizes.updates):
            yield linear_dynamics(
                stream(seed, name, start, update), count, dimension=config.dimension, length=sizes.length, start=start
            ).states

    keys, values = (tuple(pair[place] for pair in sizes.beginnings) * ways for place in (0, 1))
    first = first_positions(sizes.prefix_length)[:ways].repeat_interleave(len(sizes.beginnings))
    return descend(diagonal_layers(config.dimension, keys, values), batches(), rates(sizes, start).tolist(), first)


def products(trained: Trained, sizes: Sizes) -> xr.DataArray:
    """c after every update: [scored, beginning, update]."""
    by_way = trained.product.unflatten(0, (-1, len(sizes.beginnings)))
    return labelled(
        by_way,
        scored=SCORED[: len(by_way)],
        beginning=[beginning_of(pair) for pair in sizes.beginnings],
        update=range(1, sizes.updates + 1),
    )


def missed_by(layer: MesaLayer, config: Config, sizes: Sizes, seed: int, start: Start) -> list[float]:
    """Share of the mean square of the last state of new sequences that each layer misses."""
    states = linear_dynamics(
        stream(seed, "new sequences", start, sizes.length),
        sizes.test,
        dimension=config.dimension,
        length=sizes.length,
        start=start,
    ).states
    shares = []
    with torch.no_grad():
        for place in range(len(layer.value)):
            parts = [
                layer.select([place])(part[None], masks.causal(sizes.length))[0, :, -2] for part in states.split(500)
            ]
            error = (torch.cat(parts) - states[:, -1]).abs().square().sum()
            shares.append(float(error / states[:, -1].abs().square().sum()))
    return shares


@TASK.measurement(seeds=lambda config: config.trainings, root=2030)
def short_training(config: Config, seed: int) -> LabelledArrays:
    """By law of the first state: c by way to score, beginning and update; share missed by the layers of the first beginning."""
    trained = {start: training(config, config.short, seed, start, "fresh sequences") for start in STARTS}
    product = xr.concat([products(run, config.short) for run in trained.values()], "law").assign_coords(
        law=list(STARTS)
    )
    first_of = [0, len(config.short.beginnings)]
    missed = [
        missed_by(run.layer.select(first_of), config, config.short, seed, start) for start, run in trained.items()
    ]
    return {"product": product, "missed": labelled(missed, law=STARTS, scored=SCORED)}


# On other seeds one training in sixteen overshot at first and ended short of the others, which a mean and its deviation do
# not survive; the claim became one about the median, judged on seeds that were not used before.
@TASK.measurement(seeds=lambda config: config.long_trainings, root=2032)
def long_training(config: Config, seed: int) -> LabelledArrays:
    """The same at the paper's length, for Gaussian starts, scored at all positions."""
    trained = training(config, config.long, seed, "gaussian", "fresh long sequences", ways=1)
    missed = missed_by(trained.layer.select([0]), config, config.long, seed, "gaussian")[0]
    return {"product": products(trained, config.long), "missed": missed}


def limit_of(config: Config, sizes: Sizes, start: Start, scored: str = "all") -> float:
    """c* at this length, for a way to score."""
    prefix = sizes.prefix_length if scored == "from P on" else 0
    return theory.optimal_step(theory.moments(start, config.dimension), sizes.length, prefix)


def after(product: xr.DataArray, part: float = 1.0) -> xr.DataArray:
    """c after this part of the updates."""
    return product.sel(update=max(1, round(part * int(product["update"].max()))), drop=True)


STEP = "c*, the minimum of the population loss"


@TASK.claim(
    "mesa-optimization/P1",
    where="Simulations (dynamics of ab)",
    kind="training",
    statement=r"Trained on sampled Gaussian sequences ($d = 5$, $T = 20$) with all entries free, the product $ab$, averaged over "
    r"three initial weights, ends at $c^*$ within $5\,\%$ in the median training ($200$ updates of $200$ fresh sequences, rate "
    r"falling to zero).",
    controls=[
        control("1/5, the step of long sequences, as the target", target=0.2),
        control("after 5 of the 200 updates", part=0.025),
    ],
)
def curves_settle(results: Results, target: float | None = None, part: float = 1.0) -> Evidence:
    config = results.config
    product = results[short_training]["product"].sel(law="gaussian", scored="all").pipe(after, part).mean("beginning")
    exact = target or limit_of(config, config.short, "gaussian")
    return Evidence.median_equals(product, exact, within=0.05, origin=STEP)


@TASK.claim(
    "mesa-optimization/P1.long",
    where="Simulations (dynamics of ab, d = 5, T = 100)",
    kind="training",
    statement=r"At the paper's $d = 5$, $T = 100$ and its three beginnings $(0.1, 0.1)$, $(0.5, 1.5)$, $(2, 2)$ the product $ab$, averaged "
    r"over them, ends at $c^* = 0.192$ within $5\,\%$ in the median training (Gaussian starts, $200$ updates of $100$ fresh sequences, "
    r"rate rising at first and falling to zero at last).",
    controls=[
        control("c* of sequences of 20 states as the target", short=True),
        control("after 5 of the 200 updates", part=0.025),
    ],
)
def long_curves_settle(results: Results, short: bool = False, part: float = 1.0) -> Evidence:
    config = results.config
    product = results[long_training]["product"].sel(scored="all").pipe(after, part).mean("beginning")
    exact = limit_of(config, config.short if short else config.long, "gaussian")
    return Evidence.median_equals(product, exact, within=0.05, origin=STEP)


@TASK.claim(
    "mesa-optimization/P1.prefix",
    where="derived (the simulations scored as a prefix arm is)",
    kind="ordering",
    statement=r"Scored from $P = 10$ on, as a prefix arm is, the layer ends (200 updates, rate falling to zero) at a longer step than "
    r"scored at all positions of the same Gaussian sequences ($d = 5$, $T = 20$), in the median training by the difference of the "
    r"closed forms within $25\,\%$ of it.",
    controls=[control("sparse starts, whose best step is 1 at every position", start="sparse")],
)
def later_positions_ask_for_a_longer_step(results: Results, start: str = "gaussian") -> Evidence:
    config = results.config
    product = results[short_training]["product"].sel(law=start).pipe(after).mean("beginning")
    difference = product.sel(scored="from P on", drop=True) - product.sel(scored="all", drop=True)
    gap = limit_of(config, config.short, "gaussian", "from P on") - limit_of(config, config.short, "gaussian")
    return Evidence.median_equals(difference, gap, within=0.25, origin="the difference of the two closed forms")


@TASK.claim(
    "mesa-optimization/P1.missed",
    where="Simulations (what the trained layer predicts); the share derived",
    kind="phenomenon",
    statement=r"The layer trained on Gaussian sequences ($d = 5$, $T = 20$, 200 updates) misses, in the median training, of the mean "
    r"square of the last state of new ones what $c^*$ misses of it by the closed form, $0.431$, within $5\,\%$; it does not recover $W$.",
    controls=[
        control("trained on sparse sequences", start="sparse"),
        control("the share missed of long sequences, 2/5, as the law", limit=True),
    ],
)
def trained_layer_misses(results: Results, start: str = "gaussian", limit: bool = False) -> Evidence:
    config = results.config
    law = theory.moments("gaussian", config.dimension)
    share = missed_share(limit_of(config, config.short, "gaussian"), law, config.short.length - 2)
    return Evidence.median_equals(
        results[short_training]["missed"].sel(law=start, scored="all"),
        theory.limiting_loss(law) if limit else float(share),
        within=0.05,
        origin="a term of the population loss at c*",
    )


@TASK.figure
def product_curves(results: Results) -> Sheet:
    """The product c = ab while training on samples from three beginnings, beside the closed form of the flow (dotted)."""
    config = results.config
    sheet = Sheet(columns=3, width=5.0, height=3.6)
    short, long = results[short_training]["product"], results[long_training]["product"]
    panels: tuple[tuple[str, Start, xr.DataArray, Sizes], ...] = (
        (
            f"Gaussian, T = {config.short.length}: later positions, longer step",
            "gaussian",
            short.sel(law="gaussian"),
            config.short,
        ),
        (f"Gaussian, T = {config.long.length}: nearly the same step", "gaussian", long, config.long),
        ("sparse: both end at 1", "sparse", short.sel(law="sparse"), config.short),
    )
    for title, start, product, sizes in panels:
        panel = sheet.panel(title, x="update", y="$c = ab$", ylim=(0, 1.6 * limit_of(config, sizes, start)))
        law = theory.moments(start, config.dimension)
        times = np.cumsum(rates(sizes, start))
        for place, (key, value) in enumerate(sizes.beginnings):
            curves = product.sel(beginning=beginning_of((key, value)))
            words = ("first", "second", "third")[place]
            panel.curve(
                curves.sel(scored="all"),
                over="update",
                name=f"all scored, {words} start",
                look=LOOKS["all"],
                variant=place,
            )
            if place == 0 and sizes is config.short:
                panel.curve(
                    curves.sel(scored="from P on"),
                    over="update",
                    name=f"from P on, {words} start",
                    look=LOOKS["from P on"],
                )
            panel.theory(
                product["update"].values, product_flow(times, key, value, law, sizes.length), name="flow, closed form"
            )
        for scored in product["scored"].values:
            panel.level(limit_of(config, sizes, start, scored), look=LOOKS[scored])
    return sheet


@TASK.figure
def what_is_missed(results: Results) -> Sheet:
    """The step reached over its closed form, and the share that the trained layers miss of the last state of new sequences."""
    config = results.config
    sheet = Sheet(columns=2, width=4.6, height=3.6)
    panel = sheet.panel(
        "each way to score ends at its own $c^*$", x="states $T$", y="last $c$ over $c^*$", ylim=(0.9, 1.1)
    )
    long = (config.long, results[long_training]["product"])
    short = (config.short, results[short_training]["product"].sel(law="gaussian"))
    for place, (scored, look) in enumerate(LOOKS.items()):
        ratios = {
            str(sizes.length): (
                product.sel(scored=scored).pipe(after).mean("beginning") / limit_of(config, sizes, "gaussian", scored)
            ).values
            for sizes, product in (short, long)
            if scored in product["scored"]
        }
        panel.points(ratios, name=f"scored {scored}", look=look, slot=(place, 2))
    panel.level(1.0, "$c^*$")
    panel = sheet.panel(
        "Gaussian starts: two fifths are missed",
        x="states $T$",
        y="share of $|x_T|^2$ missed",
        scale=("log", "linear"),
        ylim=(0, 0.6),
    )
    law = theory.moments("gaussian", config.dimension)
    lengths = np.unique(np.round(np.geomspace(4, 200, 40))).astype(int)
    shares = [float(missed_share(theory.optimal_step(law, int(length)), law, int(length) - 2)) for length in lengths]
    panel.theory(lengths, shares, name="at $c^*$, closed form")
    panel.points(
        results[short_training]["missed"].sel(law="gaussian", scored="all"),
        x=config.short.length,
        name="trained, Gaussian",
        look=LOOKS["all"],
    )
    panel.points(results[long_training]["missed"], x=config.long.length, name="trained, Gaussian", look=LOOKS["all"])
    panel.points(
        results[short_training]["missed"].sel(law="sparse", scored="all"),
        x=config.short.length,
        name="trained, sparse",
        look=2,
    )
    panel.level(theory.limiting_loss(law), "limit 2/5")
    return sheet


TASK.show(curves_settle)
TASK.show(long_curves_settle)
TASK.show(later_positions_ask_for_a_longer_step)
TASK.show(trained_layer_misses)
TASK.show(product_curves)
TASK.show(what_is_missed)

# %% [markdown]
# ## Everything at a glance

# %%
TASK.show()
