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
# # What training makes of a mask: positions, pointers and a change of sight
#
# An attention mask has no parameters, and yet it decides what a network can know.
# `proofs_check/attention_masks.py` settles what follows from masks alone, to the last bit. Here are the
# sentences that need sampled or trained networks. In the order of this notebook:
#
# 1. a *random* causal network already shows who stands next to whom, because its first layer averages over
#    the past; give its attention sharper weights and the pattern fades; without the causal mask there is
#    none;
# 2. trained *without positions*, a causal network of two layers names the first of many tokens. One layer
#    cannot, and no depth can under a mask by which all see all: both stay at what counting symbols gives;
# 3. following a pointer to a *later* token is where a causal mask hurts: its best possible accuracy is
#    known in closed form, place by place, and both arms, causal and prefix, are trained to theirs;
# 4. which mask learns in-context regression better, at equal steps and at equal numbers of scored tokens;
#    and a network trained under the causal mask can be switched: reading it under the prefix mask already
#    helps, and a short training there beats both staying with the causal mask and starting anew.
#
# Throughout, the two arms are *one* model: the same initial weights, the same data, another mask.

# %%
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.causal_averaging import adjacency_score, cosines, running_mean_cosine
from lab.domains.attention.permutation_symmetry import order_blind_accuracy
from lab.domains.attention.pointer_jumping import (
    causal_accuracy,
    causal_two_hop_accuracy,
    follow,
    jump,
    two_hop_posterior,
)
from lab.domains.attention.position_tasks import first_token_prompts, pointer_prompts
from lab.domains.regression.prompts import RegressionPrompts, linear_regression, tokens
from lab.figures import ARMS, REFERENCES, THEORY, Drawing, label, mean_curve, panels
from lab.models import masks
from lab.models.transformer import Architecture, Record, Transformer
from lab.results import Results
from lab.statistics import mean_band
from lab.streams import Stream, stream
from lab.study import Arm, Study
from lab.training import Batch, Optimisation

# %% [markdown]
# ## Set-up


# %%
@dataclass(frozen=True)
class Initial:
    """Random networks whose tokens are normal vectors."""

    draws: int = 16
    """independent networks"""
    sequences: int = 96
    """prompts of each"""
    length: int = 16
    """tokens a prompt"""
    architecture: Architecture = Architecture(width=64, layers=3, heads=4, initialisation="fan_in_uniform")
    """pre-norm, no positions; weights as usual layers start, so that scores have variance 1/9"""
    gains: tuple[float, ...] = (1.0, 2.0, 4.0)
    """factors of the query and key weights; scores grow by their squares"""


@dataclass(frozen=True)
class FirstToken:
    """Name the first of k symbols, without positions."""

    symbols: int = 10
    """V"""
    length: int = 7
    """k"""
    architecture: Architecture = Architecture(width=32, layers=2, heads=2, mlp_ratio=2.0)
    batch: int = 64
    """prompts a step"""
    optimisation: Optimisation = Optimisation(
        steps=90, learning_rate=5e-3, warmup=0.1, schedule="cosine", clip_norm=1.0
    )
    test_prompts: int = 4000
    trainings: int = 8
    """independent trainings an arm"""


@dataclass(frozen=True)
class Pointers:
    """Follow a pointer of a random permutation, and the pointer found there."""

    length: int = 8
    """n"""
    architecture: Architecture = Architecture(width=32, layers=2, heads=4, mlp_ratio=2.0)
    """positions are learned, so that a pointer can be matched with a place"""
    batch: int = 64
    """prompts a step"""
    optimisation: Optimisation = Optimisation(
        steps=150, learning_rate=5e-3, warmup=0.1, schedule="cosine", clip_norm=1.0
    )
    test_prompts: int = 2000
    trainings: int = 8
    """independent trainings an arm"""
    hard_length: int = 64
    """tokens of the hard attention"""
    hard_prompts: int = 500
    """permutations a draw for it"""
    hard_draws: int = 8
    """draws"""


@dataclass(frozen=True)
class Adaptation:
    """In-context linear regression, trained under one mask and read or trained on under another."""

    dimension: int = 3
    """dimension d, inputs uniform on [-1, 1]^d"""
    context_length: int = 6
    """examples n"""
    queries: int = 6
    """queries a prompt"""
    architecture: Architecture = Architecture(width=32, layers=3, heads=2, mlp_ratio=2.0, norm="none")
    batch: int = 48
    """prompts a step"""
    optimisation: Optimisation = Optimisation(
        steps=300,
        learning_rate=6e-3,
        warmup=0.1,
        schedule="cosine",
        optimiser="adamw",
        betas=(0.9, 0.98),
        clip_norm=1.0,
    )
    share: float = 0.25
    """steps of the adaptation, as a share of those of the training, with a schedule of the same shape"""
    later_rate: float = 2e-3
    """learning rate of networks that are trained on; one from scratch has that of the training"""
    test_prompts: int = 300
    trainings: int = 12
    """independent trainings an arm"""


@dataclass(frozen=True)
class Config:
    """Sizes of every measurement of this task."""

    initial: Initial = Initial()
    first_token: FirstToken = FirstToken()
    pointers: Pointers = Pointers()
    adaptation: Adaptation = Adaptation()


SMOKE = Config(
    Initial(draws=2, sequences=8, length=8, architecture=Architecture(width=16, layers=3, heads=2)),
    FirstToken(batch=8, optimisation=Optimisation(steps=4, learning_rate=1e-3), test_prompts=20, trainings=2),
    Pointers(
        batch=8,
        optimisation=Optimisation(steps=4, learning_rate=1e-3),
        test_prompts=20,
        trainings=2,
        hard_length=12,
        hard_prompts=20,
        hard_draws=2,
    ),
    Adaptation(batch=4, optimisation=Optimisation(steps=8, learning_rate=1e-3), test_prompts=20, trainings=2),
)
# GPT-2-small-like depth and width for the symbols, the sizes of the in-context regression papers for the rest.
LARGE = Optimisation(steps=20_000, learning_rate=5e-4, warmup=0.05, schedule="cosine", clip_norm=1.0)
PAPER_SIZES = Config(
    Initial(
        draws=16,
        sequences=960,
        length=128,
        architecture=Architecture(width=768, layers=12, heads=12, initialisation="fan_in_uniform"),
    ),
    FirstToken(
        symbols=20, length=11, architecture=Architecture(width=192, layers=6, heads=6), optimisation=LARGE, trainings=10
    ),
    Pointers(length=64, architecture=Architecture(width=128, layers=2, heads=4), optimisation=LARGE, trainings=10),
    Adaptation(
        dimension=16,
        context_length=40,
        queries=20,
        architecture=Architecture(width=128, layers=12, heads=4, norm="none"),
        optimisation=replace(LARGE, steps=100_000, learning_rate=1e-4),
        trainings=10,
    ),
)
TASK = Task("attention-masks", "attention-masks", {"smoke": SMOKE, "ci": Config(), "paper": PAPER_SIZES})
ARM_NAMES = ("prefix", "causal")

# %% [markdown]
# ## Positions that nobody gave: random networks
#
# Feed independent normal vectors to a causal transformer without positions and look at the cosines of its
# states at two places, averaged over prompts. If the first attention layer were an exact running mean they
# would be $\sqrt{\min(i,j)/\max(i,j)}$ (dotted below). The **adjacency score** asks of every triple whether
# the nearer of two tokens is the more similar: 1 is a perfect picture of the order, $1/2$ is none.
#
# Three things to see. At the *output of the first attention layer* the law holds. In the *residual stream*
# the tokens' own parts cover most of it. And it is a law of nearly uniform attention: query and key weights
# four times as large make scores sixteen times as large, and the pattern fades. Under a mask by which all
# see all there is no pattern anywhere: without positions that network cannot tell places apart.

# %%
SITES = ("attention output, layer 1", "residual, layer 1", "residual, layer 2", "residual, layer 3")


def states_by_site(record: Record) -> list[Tensor]:
    """States [model, batch, token, width] at the places named by SITES (the deepest three where there are more layers)."""
    layers = sum(name.endswith(".residual") for name in record)
    depths = [0, layers // 2, layers - 1]
    return [record["layers.0.attention.output"]] + [record[f"layers.{depth}.residual"] for depth in depths]


@TASK.measurement(seeds=lambda config: config.initial.draws)
def initial_cosines(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Mean cosines [gain, mask, site, token, token], scores of those and mean scores of single prompts [gain, mask, site]."""
    sizes = config.initial
    rng = stream(seed, "tokens of random networks").rng()
    inputs = torch.from_numpy(rng.standard_normal((1, sizes.sequences, sizes.length, sizes.architecture.width)))
    found: dict[str, list] = {"cosine": [], "averaged": [], "single": []}
    for gain in sizes.gains:
        network = Transformer(sizes.architecture, [seed], torch.float64)
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if "attention.query" in name or "attention.key" in name:
                    weight.mul_(gain)
        rows: dict[str, list] = {name: [] for name in found}
        for pattern in (masks.causal(sizes.length), masks.full(sizes.length)):
            record: Record = {}
            with torch.no_grad():
                network(inputs, pattern, record=record)
            each = torch.stack([cosines(states[0] @ states[0].mT) for states in states_by_site(record)])
            mean = each.mean(1)
            rows["cosine"].append(mean.numpy())
            rows["averaged"].append(adjacency_score(mean).numpy())
            rows["single"].append(np.array([float(adjacency_score(one).mean()) for one in each]))
        for name, values in rows.items():
            found[name].append(values)
    return {name: np.array(values) for name, values in found.items()}


MASK_INDEX = {"causal": 0, "full": 1}


@TASK.figure
def cosine_matrices(results: Results) -> Drawing:
    """Cosines of states at two places in random networks, beside the law of running means."""
    found, length = results[initial_cosines], results.config.initial.length
    cosine, scores = found["cosine"].mean(0)[0], found["averaged"].mean(0)[0]
    law = running_mean_cosine(length)
    pictures = [
        ("law of running means", law.numpy(), float(adjacency_score(law))),
        ("causal: attention output", cosine[0, 0], scores[0, 0]),
        ("causal: residual, layer 3", cosine[0, -1], scores[0, -1]),
        ("all see all: attention output", cosine[1, 0], scores[1, 0]),
    ]
    figure, axes = panels(1, 4, width=3.1, height=3.3)
    tables = []
    for panel, (title, values, score) in zip(axes[0], pictures, strict=True):
        off = values[~np.eye(length, dtype=bool)]
        image = panel.imshow(values, cmap="gray_r", vmin=min(0.0, off.min()), vmax=off.max(), interpolation="nearest")
        panel.grid(visible=False)
        figure.colorbar(image, ax=panel, shrink=0.75)
        label(panel, f"{title}\nscore {score:.2f}", "token", "token")
        panel.title.set_fontsize(9.5)
        tables.append(
            pd.DataFrame(
                {
                    "matrix": title,
                    "row": np.arange(length),
                    "cosine_with_first": values[:, 0],
                    "cosine_with_last": values[:, -1],
                }
            )
        )
    figure.suptitle(
        "a random causal layer draws the order of its tokens; the residual stream covers most of it",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    return Drawing(figure, pd.concat(tables))


@TASK.figure
def adjacency_scores(results: Results) -> Drawing:
    """Adjacency score by place in the network and by gain of query and key weights."""
    found, sizes = results[initial_cosines], results.config.initial
    figure, axes = panels(1, 2, width=4.8, height=3.8)
    gains, places, tables = np.array(sizes.gains), np.arange(len(SITES)), []
    for kind, (arm, title) in enumerate((("causal", "causal mask"), ("prefix", "all see all"))):
        for score, name, line, fill in (
            ("averaged", "mean cosines", "-", "full"),
            ("single", "single prompts", ":", "none"),
        ):
            look = {**ARMS[arm], "linestyle": line, "fillstyle": fill}
            tables.append(mean_curve(axes[0, 0], places, found[score][:, 0, kind], look, f"{title}, {name}"))
        values = found["averaged"][:, :, kind, 0]
        tables.append(mean_curve(axes[0, 1], gains, values, ARMS[arm], f"{title}, by gain"))
    for panel in axes[0]:
        panel.axhline(0.5, **THEORY)
        panel.set_ylim(0.35, 1.05)
    axes[0, 0].set_xticks(places, [site.replace(", ", "\n") for site in SITES], fontsize=8)
    axes[0, 1].set_xscale("log", base=2)
    axes[0, 1].set_xticks(sizes.gains, [f"{gain:g}" for gain in sizes.gains])
    label(axes[0, 0], "clear after attention, faint in the stream", "", "adjacency score (1/2: no pattern)")
    label(
        axes[0, 1], "sharper attention blurs it", "factor of query and key weights", "adjacency score, attention output"
    )
    axes[0, 0].legend(loc="upper right", fontsize=7.5)
    axes[0, 1].legend(loc="center left")
    return Drawing(figure, pd.concat(tables))


@TASK.claim(
    "attention-masks/near.P1",
    where="Zuo, Guerzhoy et al. 2025; the score is this project's version of the paper's",
    paper="zuo-2025-nearby",
    kind="phenomenon",
    statement="At random initialisation and without positions, mean cosines of the first attention output of a "
    "causal network have an adjacency score above $0.95$, and lie within $0.15$ of "
    r"$\sqrt{\min(i,j)/\max(i,j)}$.",
    controls=[control("a mask by which all see all", kind="full")],
)
def random_causal_networks_show_the_order(results: Results, kind: str = "causal") -> Evidence:
    found = results[initial_cosines]
    law = running_mean_cosine(results.config.initial.length).numpy()
    deviation = np.abs(found["cosine"][:, 0, MASK_INDEX[kind], 0] - law).max((1, 2))
    scores = found["averaged"][:, 0, MASK_INDEX[kind], 0]
    return Evidence.weakest(
        Evidence.over_seeds(scores, ">", 0.95, "nearly every triple in order", parts=2),
        Evidence.over_seeds(deviation, "<", 0.15, "attention that is uniform up to scores of order 1", parts=2),
    )


@TASK.claim(
    "attention-masks/near.P1.full",
    where="derived",
    kind="phenomenon",
    statement="Where all see all there is no pattern: the adjacency score of mean cosines is $1/2$ on average, at "
    "the attention output and in the residual stream, because the places are exchangeable.",
    controls=[control("a causal mask", kind="causal")],
)
def full_attention_shows_no_order(results: Results, kind: str = "full") -> Evidence:
    scores = results[initial_cosines]["averaged"][:, 0, MASK_INDEX[kind]]
    return Evidence.weakest(
        *(
            Evidence.agreement(scores[:, site], 0.5, f"{name}: exchangeable places", parts=len(SITES))
            for site, name in enumerate(SITES)
        )
    )


@TASK.claim(
    "attention-masks/near.P1.residual",
    where="derived",
    kind="phenomenon",
    statement="In the residual stream after the last block the pattern is still there, but faint: a score above "
    "$0.55$ and below $0.95$.",
    controls=[
        control("a mask by which all see all", kind="full"),
        control("the attention output of the first layer", site=0),
    ],
)
def residual_stream_is_faint(results: Results, kind: str = "causal", site: int = -1) -> Evidence:
    scores = results[initial_cosines]["averaged"][:, 0, MASK_INDEX[kind], site]
    return Evidence.weakest(
        Evidence.over_seeds(scores, ">", 0.55, "above the 1/2 of no pattern by more than chance makes of it", parts=2),
        Evidence.over_seeds(scores, "<", 0.95, "the score demanded of the attention output", parts=2),
    )


@TASK.claim(
    "attention-masks/near.P1.any-gain",
    where="read into the abstract: random networks have it",
    kind="phenomenon",
    statement="A random causal network shows the order of its tokens (score above $0.95$ at the first attention "
    "output) whatever the size of its query and key weights.",
    expected="refuted",
    condition="when attention is nearly uniform, as with weights of order one over the root of the width",
    controls=[control("weights of that order", gain=0)],
)
def any_random_network_shows_the_order(results: Results, gain: int = -1) -> Evidence:
    scores = results[initial_cosines]["averaged"][:, gain, MASK_INDEX["causal"], 0]
    return Evidence.over_seeds(scores, ">", 0.95, "the score demanded at gain 1")


# %%
TASK.show(cosine_matrices)
TASK.show(adjacency_scores)
TASK.show(random_causal_networks_show_the_order)
TASK.show(full_attention_shows_no_order)
TASK.show(residual_stream_is_faint)
TASK.show(any_random_network_shows_the_order)

# %% [markdown]
# ## Using them: which symbol came first?
#
# Seven symbols, each one of ten, then a question: which was the first? A network that sees only the
# *multiset* of symbols cannot do better than name the most frequent, which is right with probability
# $E[\max_v N_v]/k$. That is the fate of any network without positions under a mask by which all see all,
# whatever its depth, and of a causal network of one layer (its last token sees the same multiset). Two
# causal layers are enough: in the first, token 1 averages over itself alone and looks unlike any other; in
# the second the question finds it.


# %%
def answers_at_the_question(module: Transformer, given: Batch, mask: Tensor) -> Tensor:
    """Logits [model, prompt, symbol]."""
    return module(given["tokens"], mask)[:, :, -1]


def answer_loss(module: Transformer, given: Batch, mask: Tensor) -> Tensor:
    """Cross-entropy of the answer at the question."""
    logits, targets = answers_at_the_question(module, given, mask), given["targets"]
    each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return each.view(targets.shape).mean(1)


def answer_accuracy(module: Transformer, given: Batch, mask: Tensor) -> Tensor:
    """Share of right answers at the question."""
    right: Tensor = answers_at_the_question(module, given, mask).argmax(-1) == given["targets"]
    return right.double().mean(1)


def first_output_adjacency(module: Transformer, given: Batch, mask: Tensor) -> Tensor:
    """Adjacency score of what the first attention adds to the symbols."""
    record: Record = {}
    module(given["tokens"], mask, record=record)
    states = record["layers.0.attention.output"][:, :, :-1].double()
    return adjacency_score(cosines(states @ states.mT).mean(1))


def question_lengths(module: Transformer, given: Batch, mask: Tensor) -> Tensor:
    """Mean length of the question's state after the embedding and each layer, [model, layers + 1]."""
    record: Record = {}
    module(given["tokens"], mask, record=record)
    names = ["embedding", *(f"layers.{depth}.residual" for depth in range(module.architecture.layers))]
    return torch.stack([record[name][:, :, -1].norm(dim=-1).mean(1) for name in names], -1)


def first_token_study(sizes: FirstToken, layers: int, arms: tuple[str, ...]) -> Study[Transformer]:
    """Networks without positions that name the first symbol."""
    architecture = replace(sizes.architecture, layers=layers, vocabulary=sizes.symbols + 1, output_size=sizes.symbols)
    patterns = {"prefix": masks.full(sizes.length + 1), "causal": masks.causal(sizes.length + 1)}
    return Study(
        build=lambda chosen: Transformer(architecture, tuple(chosen)),
        arms={arm: patterns[arm] for arm in arms},
        encode=None,
        loss=answer_loss,
    )


@TASK.measurement(seeds=lambda config: config.first_token.trainings, ensemble=True, seeds_per_job=4)
def first_token(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Accuracies ``accuracy`` [seed, case] (CASES), scores of the trained first attention output on distinct symbols
    ``adjacency`` [seed, arm], and mean lengths ``norms`` of the question's state [seed, 2 (trained, before), layers + 1, arm]."""
    sizes = config.first_token

    def prompts(source: Stream, count: int, distinct: bool = False) -> object:
        return first_token_prompts(source, count, symbols=sizes.symbols, length=sizes.length, distinct=distinct)

    def draw(seed: int, step: int) -> object:
        return prompts(stream(seed, "name the first symbol", step), sizes.batch)

    two, one = (
        first_token_study(sizes, sizes.architecture.layers, ARM_NAMES),
        first_token_study(sizes, 1, ("causal",)),
    )
    deep = two.fit(seeds, draw, sizes.optimisation, name=f"first {sizes.architecture.layers}")
    shallow = one.fit(seeds, draw, sizes.optimisation, name="first 1")
    tests = {seed: prompts(stream(seed, "name the first symbol, test"), sizes.test_prompts) for seed in seeds}
    distinct = {
        seed: prompts(stream(seed, "name the first symbol, distinct"), max(sizes.test_prompts // 4, 1), distinct=True)
        for seed in seeds
    }
    depths = range(sizes.architecture.layers + 1)
    lengths = [
        networks.ask(tests, question_lengths, depth=depths).transpose("seed", "depth", "arm")
        for networks in (deep, two.untrained(seeds))
    ]
    return {
        "accuracy": np.concatenate([found.ask(tests, answer_accuracy) for found in (deep, shallow)], 1),
        "adjacency": deep.ask(distinct, first_output_adjacency).values,
        "norms": np.stack(lengths, 1),
    }


CASES = ("prefix, 2 layers", "causal, 2 layers", "causal, 1 layer")


def three_errors(probability: float, prompts: int) -> float:
    """Three standard errors of the share of right answers among independent prompts."""
    return 3 * float(np.sqrt(probability * (1 - probability) / prompts))


def blind_accuracy(config: Config) -> float:
    """The best accuracy without order."""
    return order_blind_accuracy(config.first_token.symbols, config.first_token.length)


@TASK.claim(
    "attention-masks/sym.P1",
    where="Zuo and Guerzhoy 2024, on another task",
    paper="zuo-2024-symmetry",
    kind="training",
    statement="Trained without positions to name the first of seven symbols, a causal network of two layers is "
    r"right more often than halfway between the best that counting symbols gives, $E[\max_v N_v]/k$, and "
    "always.",
    controls=[control("a mask by which all see all, as deep", case=0), control("one causal layer", case=2)],
)
def two_causal_layers_find_the_first(results: Results, case: int = 1) -> Evidence:
    best = blind_accuracy(results.config)
    return Evidence.over_seeds(
        results[first_token]["accuracy"][:, case], ">", (1 + best) / 2, f"halfway between {best:.4f} and 1"
    )


@TASK.claim(
    "attention-masks/sym.P1.blind",
    where="derived",
    kind="training",
    statement="Without positions, neither a network in which all see all (two layers) nor a causal network of one "
    r"layer is right more often than $E[\max_v N_v]/k$, up to three standard errors of a test.",
    controls=[control("two causal layers", cases=(1,))],
)
def order_blind_networks_only_count(results: Results, cases: tuple[int, ...] = (0, 2)) -> Evidence:
    best = blind_accuracy(results.config)
    bound = best + three_errors(best, results.config.first_token.test_prompts)
    accuracy = results[first_token]["accuracy"][:, list(cases)].max(1)
    return Evidence.over_seeds(accuracy, "<", bound, f"E[max count] / k = {best:.4f} and 3 standard errors")


@TASK.claim(
    "attention-masks/near.P1.trained",
    where="Zuo, Guerzhoy et al. 2025, on another task",
    paper="zuo-2025-nearby",
    kind="phenomenon",
    statement="After this training, on prompts of distinct symbols, the first attention output of the causal "
    "network still shows the order: an adjacency score above $3/4$.",
    controls=[control("the network in which all see all", arm=0)],
)
def trained_networks_show_the_order(results: Results, arm: int = 1) -> Evidence:
    return Evidence.over_seeds(
        results[first_token]["adjacency"][:, arm], ">", 0.75, "halfway between no pattern and a perfect one"
    )


@TASK.figure
def who_finds_the_first(results: Results) -> Drawing:
    """Accuracy at naming the first symbol without positions, against what counting gives; length of the question's state."""
    found, norms = results[first_token]["accuracy"], results[first_token]["norms"]
    best = blind_accuracy(results.config)
    figure, axes = panels(1, 2, width=4.9, height=3.7)
    panel, tables = axes[0, 0], []
    for place, case in enumerate(CASES):
        arm, values = case.split(",")[0], found[:, place]
        look = {"color": ARMS[arm]["color"], "alpha": 0.7, "hatch": "" if arm == "prefix" else "//"}
        panel.bar(place, values.mean(), 0.55, **look)
        panel.plot(np.full(len(values), place), values, "k.", markersize=4)
        tables.append(pd.DataFrame({"curve": case, "x": np.arange(len(values)), "accuracy": values}))
    panel.axhline(best, **THEORY, label=r"counting symbols, $E[\max_v N_v]/k$")
    panel.set_xticks(range(len(CASES)), [case.replace(", ", "\n") for case in CASES])
    panel.set_ylim(0, 1.25)
    label(panel, "only two causal layers find the first", "trained network, no positions", "share of right answers")
    panel.legend(loc="upper left")
    layers = np.arange(norms.shape[2])
    for index, arm in enumerate(ARM_NAMES):
        for state, name in enumerate(("trained", "before")):
            look = dict(ARMS[arm]) if state == 0 else {**ARMS[arm], "fillstyle": "none", "alpha": 0.6}
            tables.append(mean_curve(axes[0, 1], layers, norms[:, state, :, index], look, f"{arm}, {name}"))
    axes[0, 1].set_xticks(layers)
    label(axes[0, 1], "longer states after training, in both arms", "layer", "mean norm of the question's state")
    axes[0, 1].legend(loc="upper left")
    return Drawing(figure, pd.concat(tables))


# %%
TASK.show(who_finds_the_first)
TASK.show(two_causal_layers_find_the_first)
TASK.show(order_blind_networks_only_count)
TASK.show(trained_networks_show_the_order)

# %% [markdown]
# ### Length of the last state
#
# If depth descends on the loss of the next token, the last token's state should grow while the right logit
# leads (along gradient flow exactly then). That is a reading, and not a theorem about trained networks.
# What can be measured: training does make the question's state longer than it is in the same network before
# training. Whether length tells who *knows* the answer is another question: the right panel above has beside
# it the network that can only count, whose probabilities stay low.


# %%
@TASK.claim(
    "attention-masks/meta.P1",
    where="suggested by Wu and Varshney 2024; derived",
    paper="wu-2024-meta-learning",
    kind="phenomenon",
    statement="Training makes the final state of the last token longer: in the causal network by a factor of more "
    "than $1.3$ over the same network before training.",
    controls=[control("the state before the first layer in the place of the final one", depth=0)],
)
def training_lengthens_the_last_state(results: Results, depth: int = -1) -> Evidence:
    norms = results[first_token]["norms"][:, :, depth, 1]
    return Evidence.over_seeds(
        np.log(norms[:, 0] / norms[:, 1]),
        ">",
        float(np.log(1.3)),
        "log ratio of mean lengths; clearly more than at the start",
    )


# %%
TASK.show(training_lengthens_the_last_state)

# %% [markdown]
# ## Pointers: what a causal mask cannot see
#
# Token $i$ holds $\pi(i)$ of a random permutation and must say $\pi(\pi(i))$. Under the prefix mask every
# token may look where its pointer leads. Under the causal mask the pointer of token $i$ (counting from 1)
# leads to itself or back with probability $i/n$; otherwise the answer is uniform over the $n - i$ values
# that no visible pointer has. The best possible accuracy is therefore $\frac{i}{n} + \frac1n$ at place $i <
# n$, and $\frac{n+1}{2n} + \frac{n-1}{n^2}$ on average. This is the question *before* the text against the
# text before the question, in miniature.
#
# With hard attention and more hops, depth cannot repair it: $L$ causal layers hold $\pi^{2^L}(i)$ only if a
# tree of $2^L$ places stands in the right order.


# %%
@TASK.measurement(seeds=lambda config: config.pointers.hard_draws)
def hard_pointers(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Share of tokens that hold the right pointer after 1, 2 and 3 hard layers, [2 arms, layers]."""
    sizes = config.pointers
    drawn = pointer_prompts(stream(seed, "hard"), sizes.hard_prompts, length=sizes.hard_length).tokens
    patterns = {"prefix": masks.full(sizes.hard_length), "causal": masks.causal(sizes.hard_length)}
    return {
        "accuracy": np.array(
            [
                [
                    float((jump(drawn, pattern, layers) == follow(drawn, 2**layers)).double().mean())
                    for layers in (1, 2, 3)
                ]
                for pattern in patterns.values()
            ]
        )
    }


@TASK.measurement(seeds=lambda config: config.pointers.trainings, ensemble=True, seeds_per_job=4)
def trained_pointers(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Accuracy [seed, arm, place] of trained networks, and of the best answer from what is visible on the same prompts."""
    sizes = config.pointers
    patterns = {"prefix": masks.full(sizes.length), "causal": masks.causal(sizes.length)}
    architecture = replace(
        sizes.architecture,
        vocabulary=sizes.length,
        output_size=sizes.length,
        positions="learned",
        maximum_length=sizes.length,
    )

    def loss(module: Transformer, given: Batch, mask: Tensor) -> Tensor:
        logits = module(given["tokens"], mask)
        each = F.cross_entropy(logits.flatten(0, 2), given["targets"].flatten(), reduction="none")
        return each.view(given["targets"].shape).mean((1, 2))

    def accuracy(module: Transformer, given: Batch, mask: Tensor) -> Tensor:
        return (module(given["tokens"], mask).argmax(-1) == given["targets"]).double().mean(1)

    study = Study(build=lambda chosen: Transformer(architecture, tuple(chosen)), arms=patterns, encode=None, loss=loss)
    fitted = study.fit(
        seeds,
        lambda seed, step: pointer_prompts(stream(seed, "two hops", step), sizes.batch, length=sizes.length),
        sizes.optimisation,
        name="pointers",
    )
    tests = {
        seed: pointer_prompts(stream(seed, "two hops, test"), sizes.test_prompts, length=sizes.length) for seed in seeds
    }
    best = [
        [two_hop_posterior(tests[seed].tokens, pattern).amax(-1).mean(0).numpy() for pattern in patterns.values()]
        for seed in seeds
    ]
    found = fitted.ask(tests, accuracy, place=range(1, sizes.length + 1))
    return {"accuracy": found.values, "best": np.array(best)}


@TASK.figure
def pointer_accuracy(results: Results) -> Drawing:
    """Pointer jumping: hard attention by depth, and trained networks by place."""
    hard, found, sizes = (results[hard_pointers]["accuracy"], results[trained_pointers], results.config.pointers)
    figure, axes = panels(1, 2, width=4.8, height=3.8)
    layers, places, tables = np.array([1, 2, 3]), np.arange(1, sizes.length + 1), []
    hard_law = {
        "prefix": np.ones(3),
        "causal": np.array([causal_accuracy(sizes.hard_length, int(one)) for one in layers]),
    }
    ceiling = {"prefix": np.ones(sizes.length), "causal": np.minimum((places + 1) / sizes.length, 1)}
    for index, arm in enumerate(ARM_NAMES):
        for panel, x, values, law, name in (
            (axes[0, 0], layers, hard[:, index], hard_law[arm], f"{arm} mask"),
            (axes[0, 1], places, found["accuracy"][:, index], ceiling[arm], f"{arm}, trained"),
        ):
            tables.append(mean_curve(panel, x, values, ARMS[arm], name).assign(closed_form=law))
            panel.plot(x, law, **THEORY, label="best possible" if index else None)
    axes[0, 0].annotate(
        f"(n + 1) / 2n = {hard_law['causal'][0]:.3f}",
        (1, hard_law["causal"][0]),
        xytext=(8, 4),
        textcoords="offset points",
        fontsize=8.5,
    )
    axes[0, 0].set_xticks(layers)
    for panel in axes[0]:
        panel.set_ylim(0, 1.08)
    label(
        axes[0, 0],
        f"hard attention: depth makes it worse (n = {sizes.hard_length})",
        "layers",
        r"share of tokens that hold $\pi^{2^L}(i)$",
    )
    label(
        axes[0, 1],
        "trained: each arm reaches what it can see",
        "place of the token",
        r"share of right answers $\pi(\pi(i))$",
    )
    axes[0, 0].legend(loc="center right")
    axes[0, 1].legend(loc="lower right")
    return Drawing(figure, pd.concat(tables))


@TASK.claim(
    "attention-masks/mas.pointers.hard",
    where="derived",
    kind="rate",
    statement=r"Hard causal attention over $64$ tokens holds $\pi^{2^L}(i)$ at the share of places that the hook "
    "length formula with its short cycles gives: $65/128$ for one layer, and so on for two and three.",
    controls=[control("the law of one layer for all depths", law_layers=1)],
)
def hard_causal_pointers_follow_the_law(results: Results, law_layers: int = 0) -> Evidence:
    found, length = results[hard_pointers]["accuracy"][:, 1], results.config.pointers.hard_length
    return Evidence.weakest(
        *(
            Evidence.agreement(
                found[:, layers - 1], causal_accuracy(length, law_layers or layers), f"{layers} layers", parts=3
            )
            for layers in (1, 2, 3)
        )
    )


@TASK.claim(
    "attention-masks/mas.pointers.trained",
    where="derived; the effect of Katz et al. 2025 in miniature",
    paper="katz-2025-segments",
    kind="training",
    statement=r"A trained two-layer network under the prefix mask says $\pi(\pi(i))$ rightly at more than $95\,\%$ "
    "of all places.",
    controls=[control("the causal mask", arm=1)],
)
def prefix_networks_follow_pointers(results: Results, arm: int = 0) -> Evidence:
    return Evidence.over_seeds(results[trained_pointers]["accuracy"][:, arm].mean(1), ">", 0.95, "nearly always")


@TASK.claim(
    "attention-masks/mas.pointers.ceiling",
    where="derived",
    kind="training",
    statement=r"The trained causal network comes within $0.05$ of its ceiling $\frac{n+1}{2n} + \frac{n-1}{n^2}$ "
    "and does not pass it (three standard errors of a test of as many prompts aside).",
    controls=[control("the prefix mask", arm=0)],
)
def causal_networks_reach_their_ceiling(results: Results, arm: int = 1) -> Evidence:
    sizes, accuracy = results.config.pointers, results[trained_pointers]["accuracy"][:, arm].mean(1)
    ceiling = causal_two_hop_accuracy(sizes.length)
    most = ceiling + three_errors(ceiling, sizes.test_prompts)
    return Evidence.weakest(
        Evidence.over_seeds(accuracy, "<", most, f"ceiling {ceiling:.4f} and 3 standard errors", parts=2),
        Evidence.over_seeds(accuracy, ">", ceiling - 0.05, f"ceiling {ceiling:.4f} less 0.05", parts=2),
    )


# %%
TASK.show(pointer_accuracy)
TASK.show(hard_causal_pointers_follow_the_law)
TASK.show(prefix_networks_follow_pointers)
TASK.show(causal_networks_reach_their_ceiling)

# %% [markdown]
# ## Changing the mask of a trained network
#
# Which mask is better may depend on what is counted. A full language model has a loss on every token, a
# prefix model only on what follows the prefix: with a uniform split of $n$ tokens on $(n + 1)/2$ of them.
# So arms can be compared at equal *steps* or at equal *loss tokens*, and the order could differ. Here, on
# in-context regression, the prefix arm is trained twice: with the loss on all queries (equal steps and equal
# loss tokens) and on half of them (equal steps, half the loss tokens). Given its context a query is as good
# as any other, and no query sees another: scoring half of them leaves the *expected* gradient what it was
# and makes it noisier. So a prefix arm that is ahead because it sees more should stay ahead; the figure shows
# it between the other two, but a dozen trainings at this size do not settle its order to the causal arm, so
# that no claim is made of it.
#
# Then the causal network is **switched**. (a) It is read under the prefix mask, without any training. (b)
# It is trained on under the prefix mask for a quarter of its steps; beside it a control that is trained on
# under the causal mask, and a network trained from scratch under the prefix mask, each for as many steps on
# the same data. The two that are continued have a lower learning rate, lest its restart undo what they know;
# the one from scratch has the rate of the full training. Both comparisons are about an order, so that the
# sign of a log ratio decides.

# %%
TRAINED_ARMS = ("prefix", "causal", "prefix, half the loss")
ADAPTED_ARMS = ("switched", "not switched", "from scratch")


def encoded(prompts: RegressionPrompts, scored: int) -> Batch:
    """Tokens and labels of prompts, and how many of the queries count in the loss."""
    return {"tokens": tokens(prompts), "labels": prompts.y_query, "scored": torch.tensor([scored])}


def regression_errors(module: Transformer, given: Batch, mask: Tensor) -> Tensor:
    """Squared errors [model, prompt, query]."""
    labels = given["labels"]
    squared: Tensor = (module(given["tokens"], mask)[:, :, -labels.shape[-1] :, 0] - labels).square()
    return squared


def regression_loss(module: Transformer, given: Batch, mask: Tensor) -> Tensor:
    """Mean over the queries that count: all of them, or the first half."""
    errors = regression_errors(module, given, mask).mean(1)
    half = errors[:, : errors.shape[1] // 2].mean(1)
    return torch.where(given["scored"][:, 0] < errors.shape[1], half, errors.mean(1))


def regression_error(module: Transformer, given: Batch, mask: Tensor) -> Tensor:
    """Mean squared error over all queries."""
    return regression_errors(module, given, mask).mean((1, 2))


@TASK.measurement(seeds=lambda config: config.adaptation.trainings, ensemble=True, seeds_per_job=4)
def adaptation(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Errors of trained networks by arm and by the mask under which they are read, ``trained`` [seed, arm, 2 (prefix, causal)];
    of adapted ones by step, ``adapted`` [seed, arm, records], with their ``steps`` [seed, records]."""
    sizes = config.adaptation
    architecture = replace(sizes.architecture, input_size=sizes.dimension + 1, output_size=1)
    prefix = masks.in_context_prefix(sizes.context_length, sizes.queries)
    causal = masks.in_context_causal(sizes.context_length, sizes.queries)

    def prompts(source: Stream, count: int) -> RegressionPrompts:
        return linear_regression(
            source,
            count,
            dimension=sizes.dimension,
            context_length=sizes.context_length,
            query_length=sizes.queries,
            dtype=torch.float32,
        )

    whole, half = (partial(encoded, scored=scored) for scored in (sizes.queries, sizes.queries // 2))
    first = Study(
        build=lambda chosen: Transformer(architecture, tuple(chosen)),
        arms={"prefix": prefix, "causal": causal, "prefix, half the loss": Arm(prefix, half)},
        encode=whole,
        loss=regression_loss,
    )
    base = first.fit(
        seeds,
        lambda seed, step: prompts(stream(seed, "examples and queries", step), sizes.batch),
        sizes.optimisation,
        name="base",
    )
    tests = {seed: prompts(stream(seed, "examples and queries, test"), sizes.test_prompts) for seed in seeds}

    # Both continued networks start from the causal one of their seed; the third starts where that one once did.
    continued = replace(first, build=base.start("causal"), arms={"switched": prefix, "not switched": causal})
    scratch = replace(first, arms={"from scratch": prefix})
    steps = max(round(sizes.share * sizes.optimisation.steps), 1)
    runs = [
        study.fit(
            seeds,
            lambda seed, step: prompts(stream(seed, "examples and queries, later", step), sizes.batch),
            replace(sizes.optimisation, steps=steps, learning_rate=rate),
            measure=lambda networks: {"error": networks.numbers(tests, regression_error)},
            measure_every=max(steps // 5, 1),
            name=name,
        )
        for name, study, rate in (
            ("adapted", continued, sizes.later_rate),
            ("scratch", scratch, sizes.optimisation.learning_rate),
        )
    ]
    return {
        "trained": np.stack([base.ask(tests, regression_error, read=mask) for mask in ARM_NAMES], -1),
        "adapted": np.concatenate([run.history["error"] for run in runs], 1),
        "steps": np.tile(runs[0].history["update"], (len(seeds), 1)),
    }


@TASK.figure
def adaptation_curves(results: Results) -> Drawing:
    """Error during a short training after the switch of the mask, beside its controls."""
    found = results[adaptation]
    steps = found["steps"][0]
    figure, axes = panels(1, 2, width=5.6, height=4.3)
    tables = []
    bars = (
        ("prefix", 0, 0),
        ("prefix,\nhalf the\nloss tokens", 2, 0),
        ("causal,\nread as\nprefix", 1, 0),
        ("causal", 1, 1),
    )
    for place, (title, arm, mask) in enumerate(bars):
        values, look = np.log10(found["trained"][:, arm, mask]), ARMS[ARM_NAMES[own_mask(arm)]]
        half = (mean_band(values)[1] - values.mean()).item()
        axes[0, 0].plot(np.full(len(values), place), values, ".", color=look["color"], alpha=0.5)
        axes[0, 0].errorbar(
            place + 0.15, values.mean(), yerr=half, color=look["color"], marker=look["marker"], capsize=3
        )
        name = title.replace("\n", " ")
        tables.append(pd.DataFrame({"curve": name, "x": np.arange(len(values)), "log10_error": values}))
    axes[0, 0].set_xticks(range(len(bars)), [title for title, *_ in bars], fontsize=8.5)
    axes[0, 0].set_xlim(-0.5, len(bars) - 0.4)
    error = "mean squared query error, log10"
    label(axes[0, 0], "after training: more sight, less error", "trained network", error)
    looks = (ARMS["prefix"], ARMS["causal"], {"color": REFERENCES[3], "linestyle": "-.", "marker": "^"})
    titles = (
        "causal network, switched to the prefix mask",
        "causal network, not switched",
        "prefix network from scratch",
    )
    panel = axes[0, 1]
    for index, (title, look) in enumerate(zip(titles, looks, strict=True)):
        tables.append(mean_curve(panel, steps, np.log10(found["adapted"][:, index]), look, title))
    levels = np.log10(found["trained"]).mean(0)
    for title, value, dashes in (
        ("before: causal, read causally", levels[1, 1], (6, 2)),
        ("before: causal, read with the prefix mask", levels[1, 0], (2, 2)),
        ("trained with the prefix mask throughout", levels[0, 0], (1, 1)),
    ):
        panel.axhline(value, color="black", linestyle=(0, dashes), linewidth=1.2, label=title)
        tables.append(pd.DataFrame({"curve": [title], "mean": [value]}))
    low, high = panel.get_ylim()
    panel.set_ylim(low, high + 0.9)
    label(panel, "switched: ahead of staying, and of starting anew", "further steps", error)
    panel.legend(loc="upper right", ncols=1, fontsize=8)
    return Drawing(figure, pd.concat(tables))


def read_as(results: Results, arm: int, mask: int) -> np.ndarray:
    """Log error [seed] of an arm of TRAINED_ARMS read under a mask of ARM_NAMES."""
    return np.log(results[adaptation]["trained"][:, arm, mask])


def own_mask(arm: int) -> int:
    """The mask, of ARM_NAMES, under which an arm of TRAINED_ARMS was trained."""
    return int(TRAINED_ARMS[arm] == "causal")


@TASK.claim(
    "attention-masks/arch.prefix-ahead",
    where="Wang et al. 2022, architectures compared; lab analogue",
    paper="wang-2022-architecture",
    kind="training",
    statement="At equal parameters, steps and loss tokens the prefix network has a smaller query error in "
    "in-context regression than the causal one.",
    controls=[control("a prefix network with a quarter of the steps", few_steps=True)],
)
def prefix_is_ahead(results: Results, few_steps: bool = False) -> Evidence:
    prefix = np.log(results[adaptation]["adapted"][:, 2, -1]) if few_steps else read_as(results, 0, 0)
    return Evidence.over_seeds(
        read_as(results, 1, 1) - prefix, ">", 0.0, "an order: sign of the log ratio causal / prefix"
    )


@TASK.claim(
    "attention-masks/arch.read",
    where="derived",
    kind="phenomenon",
    statement="A network trained under the causal mask has a smaller query error when it is simply read under the "
    "prefix mask.",
    controls=[control("the prefix network, read under the causal mask", arm=0)],
)
def reading_with_more_sight_helps(results: Results, arm: int = 1) -> Evidence:
    own = own_mask(arm)
    return Evidence.over_seeds(
        read_as(results, arm, 1 - own) - read_as(results, arm, own), "<", 0.0, "log ratio other mask / own mask"
    )


@TASK.claim(
    "attention-masks/arch.adaptation",
    where="Wang et al. 2022, adaptation; lab analogue",
    paper="wang-2022-architecture",
    kind="training",
    statement="After training on under the prefix mask for a quarter of its steps, a causal network has a smaller "
    "query error than the same network trained on under its own mask, and than a prefix network trained from "
    "scratch for as long.",
    controls=[
        control("the network that was not switched said to be ahead of the two others", arm=1),
        control("the network from scratch said to be ahead of the two others", arm=2),
    ],
)
def switching_pays(results: Results, arm: int = 0) -> Evidence:
    final = np.log(results[adaptation]["adapted"][:, :, -1])
    return Evidence.weakest(
        *(
            Evidence.over_seeds(
                final[:, arm] - final[:, other],
                "<",
                0.0,
                f"an order: sign of the log ratio to {ADAPTED_ARMS[other]}",
                parts=2,
            )
            for other in range(len(ADAPTED_ARMS))
            if other != arm
        )
    )


@TASK.claim(
    "attention-masks/arch.tokens",
    where="Wang et al. 2022, objectives; derived accounting",
    paper="wang-2022-architecture",
    kind="identity",
    statement=r"With a split drawn uniformly from $0, \dots, n - 1$, a prefix language model has a loss on $(n + "
    r"1)/2$ of $n$ tokens on average, a full language model on $n$ ($n = 1, \dots, 64$).",
    controls=[control("a split that leaves the last token alone to be predicted", only_last=True)],
)
def split_points_halve_the_loss_tokens(results: Results, only_last: bool = False) -> Evidence:
    worst = 0.0
    for length in range(1, 65):
        splits = [length - 1] if only_last else list(range(length))
        scored = [int((torch.arange(length) >= split).sum()) for split in splits]
        worst = max(worst, abs(float(np.mean(scored)) - (length + 1) / 2))
    return Evidence.exact(worst, "<=", 0.0, "halves are exact in floating point")


# %%
TASK.show(adaptation_curves)
TASK.show(prefix_is_ahead)
TASK.show(reading_with_more_sight_helps)
TASK.show(switching_pays)
TASK.show(split_points_halve_the_loss_tokens)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
