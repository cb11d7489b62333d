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
# # Connections in the context
#
# Several small graphs, *motifs*, live in the weights: two sources, two nodes between, two sinks, edges upwards. What joins
# them is new in every sequence: *ghost edges* from a sink of one motif to a source of another, shown by *exemplars*, each a
# path that crosses one ghost edge. After exemplars for $i_1 \to i_2$, ..., $i_{K-1} \to i_K$ the model is given a start in
# $i_1$ and a goal in $i_K$ and must write the way. Training has $K = 2, \dots, 5$ and never puts certain ordered pairs of
# motifs next to each other.


# %%
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.decoding import decode
from lab.domains.graphs.navigation_prompts import (
    MotifChains,
    Vocabulary,
    conflicting_chains,
    motif_chains,
    path_outcome,
    reserve_orders,
    sample_motifs,
)
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from lab.study import Networks, Study
from lab.training import Batch
from tasks.stepwise_graph_navigation._shared import (
    CAUSAL,
    PAPER_NETWORK,
    PREFIX,
    SMOKE_NETWORK,
    Network,
    cross_entropy,
    logits_of,
    mask_of,
)


@dataclass(frozen=True)
class Config:
    """Sizes of motifs, chains, networks and tests."""

    motifs: int = 6
    """motifs"""
    reserved: int = 4
    """ordered pairs of motifs that training never shows"""
    longest_chain: int = 5
    """motifs of the longest training chain"""
    network: Network = Network(layers=2, mlp_ratio=1.0, steps=520, batch=8)
    """the networks"""
    shuffled_steps: int = 440
    """updates where exemplars are shuffled"""
    questions: int = 40
    """questions about chains of each kind"""
    conflicts: int = 400
    """contexts with two conflicting chains"""
    trainings: int = 10
    """independent sets of motifs and trainings"""


TASK = Task(
    "stepwise-graph-navigation",
    "khona-2024-stepwise",
    presets={
        "smoke": Config(
            network=replace(SMOKE_NETWORK, layers=2, mlp_ratio=1.0, batch=4),
            shuffled_steps=12,
            questions=4,
            conflicts=12,
            trainings=2,
        ),
        "ci": Config(),
        "paper": Config(
            motifs=8, reserved=10, network=PAPER_NETWORK, shuffled_steps=20_000, questions=1000, conflicts=1000
        ),
    },
)


class World(NamedTuple):
    """One seed's motifs, and which ordered pairs of them training never shows."""

    adjacency: Tensor
    reserved: Tensor


def motif_world(config: Config, seed: int) -> World:
    source = stream(seed, "wayfarer", "motifs")
    return World(sample_motifs(source, config.motifs, 0.75), reserve_orders(source, config.motifs, config.reserved))


def scored_loss(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Mean cross-entropy of what follows the prompts, whose lengths are equal [model]."""
    prefix = int(batch["prefix_length"].flatten()[0])
    logits = logits_of(module, batch, mask)
    return cross_entropy(logits[:, :, prefix - 1 :], batch["targets"][:, :, prefix - 1 :])


def train_chains(
    config: Config, seeds: tuple[int, ...], arms: tuple[str, ...], network: Network, shuffled: bool
) -> LabelledArrays:
    """Train on chains, each arm: ``loss`` during the training, and what the networks make of chains and conflicts."""
    longest = config.longest_chain
    worlds = {seed: motif_world(config, seed) for seed in seeds}
    lengths = longest - 1
    rows = -(-network.steps // lengths) * network.batch
    chains = {
        (seed, length): motif_chains(
            stream(seed, "wayfarer", "chains", length), rows, world.adjacency, length, world.reserved, shuffled=shuffled
        )
        for seed, world in worlds.items()
        for length in range(2, longest + 1)
    }

    def draw(seed: int, step: int) -> Batch:
        # One length of chain a step: no padding, and one mask for all.
        drawn = chains[seed, 2 + step % lengths]
        chosen = slice(step // lengths * network.batch, (step // lengths + 1) * network.batch)
        return {
            "tokens": drawn.tokens[chosen, :-1],
            "targets": drawn.targets[chosen, :-1],
            "prefix_length": drawn.prefix_length[chosen],
        }

    study = Study(
        network.build(Vocabulary(len(worlds[seeds[0]].adjacency))),
        arms={arm: partial(mask_over_prompt, arm) for arm in arms},
        encode=None,
        loss=scored_loss,
    )
    fitted = study.fit(
        seeds,
        draw,
        network.optimisation,
        measure_every=max(lengths, network.steps // 15 // lengths * lengths),
        name="shuffled" if shuffled else "ordered",
    )
    return {
        "loss": fitted.history["loss"],
        "success": ask_chains(config, fitted, worlds, shuffled),
        "choice": ask_conflicts(config, fitted, worlds),
    }


def mask_over_prompt(arm: str, batch: Batch) -> Tensor:
    return mask_of(arm, int(batch["prefix_length"][0]))


def continued(
    networks: Networks[Transformer], arm: str, asked: list[MotifChains], steps: int, stop: int | None
) -> Tensor:
    """What the networks of an arm write greedily after the prompts of their seeds [seed, question, token]."""
    prefix = int(asked[0].prefix_length[0])
    prompts = torch.stack([questions.tokens[:, :prefix] for questions in asked])
    module = networks.of(arms=[arm]).module
    return decode(module, prompts, mask_of(arm, prefix), steps, stop_token=stop).tokens


def ask_chains(
    config: Config, networks: Networks[Transformer], worlds: Mapping[int, World], shuffled: bool
) -> xr.DataArray:
    """Share of right paths, by motifs in the chain, and by whether a reserved order occurs in it.

    Chains of one motif more than trained are asked about in seen orders only.
    """
    arms, longest = list(networks.study.arms), config.longest_chain
    lengths = range(2, longest + 2)
    stop = Vocabulary(len(next(iter(worlds.values())).adjacency)).end
    success = np.full((len(worlds), len(arms), len(lengths), 2), np.nan)
    for row, length in enumerate(lengths):
        for column, held_out in enumerate((False, True) if length <= longest else (False,)):
            asked = [
                motif_chains(
                    stream(seed, "wayfarer", "chain questions", length, int(held_out)),
                    config.questions,
                    world.adjacency,
                    length,
                    world.reserved,
                    held_out=held_out,
                    shuffled=shuffled,
                )
                for seed, world in worlds.items()
            ]
            for place, arm in enumerate(arms):
                written = continued(networks, arm, asked, 3 * length, stop)
                for index, (questions, world, tokens) in enumerate(zip(asked, worlds.values(), written, strict=True)):
                    start = questions.tokens[:, int(questions.prefix_length[0]) - 1]
                    edges, arrived = path_outcome(
                        world.adjacency, start, questions.goal, tokens, stop, questions.ghosts
                    )
                    success[index, place, row, column] = (edges & arrived).double().mean()
    return labelled(success, seed=list(worlds), arm=arms, motifs=lengths, orders=("seen", "held out"))


def ask_conflicts(config: Config, networks: Networks[Transformer], worlds: Mapping[int, World]) -> xr.DataArray:
    """Share of greedy answers whose first ghost edge is that of the first, and of the second chain shown."""
    arms = list(networks.study.arms)
    asked = [
        conflicting_chains(stream(seed, "wayfarer", "conflicts"), config.conflicts, world.adjacency)
        for seed, world in worlds.items()
    ]
    first = torch.stack([questions.ghosts[:, [0, 2]] for questions in asked])  # [seed, question, chain, 2]
    written = torch.stack([continued(networks, arm, asked, 3, None) for arm in arms], 1)
    taken = (written[:, :, :, None, 1:3] == first[:, None]).all(-1)
    return labelled(taken.double().mean(2), seed=list(worlds), arm=arms, chain=("first", "second"))


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=10)
def ordered_exemplars(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Exemplars in the order of the chain."""
    return train_chains(config, seeds, (CAUSAL, PREFIX), config.network, shuffled=False)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=10)
def shuffled_exemplars(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Exemplars in random order."""
    return train_chains(config, seeds, (CAUSAL,), replace(config.network, steps=config.shuffled_steps), shuffled=True)


# %% [markdown]
# ## Chains in new orders, longer chains, conflicts


# %%
@TASK.figure
def chains_of_motifs(results: Results) -> Sheet:
    """Success against the number of motifs, and which of two conflicting chains is followed."""
    longest = results.config.longest_chain
    orders = {"ordered": results[ordered_exemplars], "shuffled": results[shuffled_exemplars]}
    titles = {
        "ordered": "Ordered: new orders yes, longer chains no",
        "shuffled": "Shuffled exemplars: learnt more slowly",
    }
    sheet = Sheet(columns=3)
    for order, measured in orders.items():
        panel = sheet.panel(
            titles[order],
            x="motifs in the chain",
            y="share of right paths",
            ylim=(-0.03, 1.05),
            xticks=measured["motifs"].values,
        )
        for arm in measured["arm"].values:
            for variant, orders_asked in enumerate(("seen", "held out")):
                shares = measured["success"].sel(arm=arm, orders=orders_asked)
                panel.curve(shares, over="motifs", arm=arm, variant=variant, name=f"{arm}, orders {orders_asked}")
        panel.level(longest + 0.5, "longest trained", vertical=True)
    panel = sheet.panel(
        "Primacy comes from ordered contexts",
        x="exemplars in training",
        y="share: first ghost edge taken",
        ylim=(0, 1.2),
    )
    for place, chain in enumerate(("first", "second")):
        choices = {
            f"{order}, {arm}": measured["choice"].sel(arm=arm, chain=chain)
            for order, measured in orders.items()
            for arm in measured["arm"].values
        }
        panel.bars(choices, name=f"{chain} chain", slot=(place, 2))
    return sheet


def first_share(choice: xr.DataArray) -> xr.DataArray:
    """First chain's share among the answers that follow either chain's first ghost edge."""
    return choice.sel(chain="first") / choice.sum("chain").clip(min=1e-12)


@TASK.claim(
    "stepwise-graph-navigation/X1",
    where="section 6, figure 7",
    kind="training",
    statement="With exemplars in order, a network follows chains through pairs of motifs that were never neighbours in "
    "training: over $2$ to $5$ motifs more than half of its paths are right.",
    controls=[control("one motif more than trained", longer=True)],
)
def new_orders(results: Results, longer: bool = False) -> Evidence:
    success, longest = results[ordered_exemplars]["success"].sel(arm=CAUSAL), results.config.longest_chain
    shares = success.sel(orders="held out", motifs=slice(2, longest)).mean("motifs")
    if longer:
        shares = success.sel(orders="seen", motifs=longest + 1)
    return Evidence.over_seeds(shares, ">=", 0.5, "twice the 1/4 of guessing both ends of one ghost edge")


@TASK.claim(
    "stepwise-graph-navigation/X1.length",
    where="section 6, figure 7",
    kind="training",
    statement="One motif more than trained is too many: less than $0.1$ of the paths through $6$ motifs are right, under either "
    "mask.",
    controls=[control("the longest trained chains", more=0)],
)
def no_longer_chains(results: Results, more: int = 1) -> Evidence:
    success = results[ordered_exemplars]["success"].sel(orders="seen", motifs=results.config.longest_chain + more)
    return Evidence.all(
        *(Evidence.over_seeds(success.sel(arm=arm), "<=", 0.1, f"fixed beforehand, {arm}") for arm in (CAUSAL, PREFIX))
    )


@TASK.claim(
    "stepwise-graph-navigation/X2",
    where="section 6, figure 8",
    kind="phenomenon",
    statement="Primacy: of two conflicting chains in the context, the one shown first is followed; among answers that take "
    "either chain's first ghost edge, more than $0.9$ take the first chain's, under either mask.",
    controls=[control("trained with shuffled exemplars", shuffled=True)],
)
def primacy(results: Results, shuffled: bool = False) -> Evidence:
    share = first_share(results[shuffled_exemplars if shuffled else ordered_exemplars]["choice"])
    return Evidence.all(
        *(Evidence.over_seeds(share.sel(arm=arm), ">=", 0.9, f"fixed beforehand, {arm}") for arm in share["arm"].values)
    )


@TASK.claim(
    "stepwise-graph-navigation/X2c",
    where="derived, on section 6",
    kind="training",
    statement="The order of exemplars in training makes the primacy: shuffling them lowers the first chain's share by more "
    "than $0.1$, a fifth of the way from always to an unbiased choice, while chains of two motifs in seen orders are still "
    "followed (more than half right).",
    controls=[control("the other mask instead of another order", shuffled=False)],
)
def order_makes_primacy(results: Results, shuffled: bool = True) -> Evidence:
    ordered = results[ordered_exemplars]
    other = results[shuffled_exemplars].sel(arm=CAUSAL) if shuffled else ordered.sel(arm=PREFIX)
    drop = first_share(ordered["choice"].sel(arm=CAUSAL)) - first_share(other["choice"])
    success = other["success"].sel(motifs=2, orders="seen")
    return Evidence.all(
        Evidence.over_seeds(drop, ">=", 0.1, "a fifth of the way to an unbiased choice"),
        Evidence.over_seeds(success, ">=", 0.5, "twice the 1/4 of guessing both ends of the ghost edge"),
    )


# %%
TASK.show(chains_of_motifs)

# %% [markdown]
# The rule that is learnt from ordered contexts is "hop $k$ uses exemplar $k$": it works for motifs in new orders, ends
# where positions were never trained, and looks like a preference for what comes first. With shuffled exemplars that rule is
# useless, the network has to look exemplars up by content, learns more slowly, and shows no such preference.

# %%
TASK.show(new_orders)
TASK.show(no_longer_chains)
TASK.show(primacy)
TASK.show(order_makes_primacy)

# %% [markdown]
# ## What the prefix mask changes
#
# With exemplars in the prompt it *could* matter, for an exemplar may then be read forwards as well as backwards. What it
# does not change are the rules that are learnt: primacy and the failure at longer chains are the same under either mask
# (the claims above). The left panel collects all differences, the right one shows how fast both arms learn. (For prompts of
# two words see `law_of_paths`.)


# %%
@TASK.figure
def what_the_prefix_changes(results: Results) -> Sheet:
    """Prefix minus causal, seed by seed, after training with ordered exemplars; and how fast each arm learns."""
    measured, longest = results[ordered_exemplars], results.config.longest_chain
    success, choice = measured["success"], first_share(measured["choice"])
    gap = success.sel(arm=PREFIX) - success.sel(arm=CAUSAL)
    trained = gap.sel(motifs=slice(2, longest)).mean("motifs")
    sheet = Sheet(columns=2, width=5.2)
    panel = sheet.panel("Each under its own mask: no difference", x="prefix minus causal", y="quantity", legend="none")
    differences = {
        "right, orders seen": trained.sel(orders="seen"),
        "right, orders held out": trained.sel(orders="held out"),
        "right, one motif more": gap.sel(orders="seen", motifs=longest + 1),
        "first chain followed": choice.sel(arm=PREFIX) - choice.sel(arm=CAUSAL),
    }
    panel.points(differences, name="prefix minus causal", horizontal=True)
    panel.level(0.0, vertical=True)
    panel = sheet.panel(
        "Exemplars: both masks learn at one pace", x="update", y="training loss (nats a token)", scale=("linear", "log")
    )
    for arm in (CAUSAL, PREFIX):
        panel.curve(measured["loss"].sel(arm=arm), over="update", arm=arm)
    return sheet


# %%
TASK.show(what_the_prefix_changes)

# %%
TASK.show()
