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
#
# Two things in such a training are regular beyond the task itself. Exemplars come *in the order* of the chain, so that hop
# $k$ may use exemplar $k$. And every sequence begins at position 0, so that exemplar $k$ always stands at *the same places*
# (and a chain of six motifs needs places that were never trained). Each can be taken away: exemplars in random order;
# positions shifted by a random offset, one for each training sequence (questions come without shift).


# %%
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.decoding import decode
from lab.domains.graphs.navigation_prompts import (
    MOTIF,
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
from lab.study import Arm, Networks, Study
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
    crossed_steps: int = 2400
    """updates where order and positions are varied"""
    offset: int = 12
    """largest random shift of positions"""
    questions: int = 40
    """questions about chains of each kind"""
    conflicts: int = 400
    """contexts with two conflicting chains"""
    trainings: int = 40  # 8 of them added later, since fresh seeds must give every verdict again
    """independent sets of motifs and trainings with ordered exemplars"""
    crossed_trainings: int = 54  # 18 of them added later, since fresh seeds must give every verdict again
    """the same where order and positions are varied"""


TASK = Task(
    "stepwise-graph-navigation",
    "khona-2024-stepwise",
    presets={
        "smoke": Config(
            network=replace(SMOKE_NETWORK, layers=2, mlp_ratio=1.0, batch=4),
            crossed_steps=12,
            questions=4,
            conflicts=12,
            trainings=2,
            crossed_trainings=2,
        ),
        "ci": Config(),
        "paper": Config(
            motifs=8, reserved=10, network=PAPER_NETWORK, crossed_steps=20_000, questions=1000, conflicts=1000
        ),
    },
    # Below 2026 twelve trainings were too few for X1.length, X2c and the control of X2; below 2027 there were fewer than now.
    root=2030,
)


class Contexts(NamedTuple):
    """What an arm is trained on, and under which mask."""

    mask: str = CAUSAL
    shuffled: bool = False
    """exemplars in random order"""
    shifted: bool = False
    """positions shifted by a random offset"""


BOTH, SHIFTED, SHUFFLED = "in order, fixed places", "in order, shifted", "shuffled, fixed places"
MASKS = {CAUSAL: Contexts(CAUSAL), PREFIX: Contexts(PREFIX)}
CROSSED = {
    BOTH: Contexts(),
    SHIFTED: Contexts(shifted=True),
    SHUFFLED: Contexts(shuffled=True),
    "shuffled, shifted": Contexts(shuffled=True, shifted=True),
}
PILOTS = "chosen on pilot seeds (root 0), judged on seeds not used before"


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
    config: Config, seeds: tuple[int, ...], arms: Mapping[str, Contexts], network: Network, name: str
) -> LabelledArrays:
    """Train on chains, each arm on the same ones: ``loss`` on the way, and what is made of chains and conflicts.

    ``success``: share of right paths; ``unshown``: the same judged by ghost edges that the context did not show;
    ``choice``: which of two conflicting chains is followed.
    """
    longest = config.longest_chain
    worlds = {seed: motif_world(config, seed) for seed in seeds}
    lengths = longest - 1
    rows = -(-network.steps // lengths) * network.batch
    chains = {
        (seed, length, order): motif_chains(
            stream(seed, "wayfarer", "chains", length), rows, world.adjacency, length, world.reserved, shuffled=order
        )
        for seed, world in worlds.items()
        for length in range(2, longest + 1)
        for order in {contexts.shuffled for contexts in arms.values()}
    }

    def draw(seed: int, step: int) -> dict[str, Batch]:
        # One length of chain a step: no padding, and one mask for all.
        chosen = slice(step // lengths * network.batch, (step // lengths + 1) * network.batch)
        offsets = stream(seed, "wayfarer", "offsets", step).rng().integers(0, config.offset + 1, (network.batch, 1))
        batches = {}
        for arm, contexts in arms.items():
            drawn = chains[seed, 2 + step % lengths, contexts.shuffled]
            tokens = drawn.tokens[chosen, :-1]
            places = torch.arange(tokens.shape[1]).expand(tokens.shape)
            batches[arm] = {
                "tokens": tokens,
                "targets": drawn.targets[chosen, :-1],
                "prefix_length": drawn.prefix_length[chosen],
                "positions": places + torch.from_numpy(offsets) if contexts.shifted else places,
            }
        return batches

    study = Study(
        network.build(Vocabulary(len(worlds[seeds[0]].adjacency))),
        arms={arm: Arm(partial(mask_over_prompt, contexts.mask), itemgetter(arm)) for arm, contexts in arms.items()},
        encode=None,
        loss=scored_loss,
    )
    fitted = study.fit(
        seeds,
        draw,
        network.optimisation,
        measure_every=max(lengths, network.steps // 15 // lengths * lengths),
        name=name,
    )
    return {
        "loss": fitted.history["loss"],
        **ask_chains(config, fitted, worlds, arms),
        "choice": ask_conflicts(config, fitted, worlds, arms),
    }


def mask_over_prompt(mask: str, batch: Batch) -> Tensor:
    return mask_of(mask, int(batch["prefix_length"][0]))


def continued(
    networks: Networks[Transformer], arm: str, mask: str, chains: list[MotifChains], steps: int, stop: int | None
) -> Tensor:
    """What the networks of an arm write greedily after the prompts of their seeds [seed, question, token]."""
    prefix = int(chains[0].prefix_length[0])
    prompts = torch.stack([questions.tokens[:, :prefix] for questions in chains])
    module = networks.of(arms=[arm]).module
    return decode(module, prompts, mask_of(mask, prefix), steps, stop_token=stop).tokens


def other_ghosts(seed: int, questions: MotifChains) -> Tensor:
    """Ghost edges between the same motifs, drawn once more: the context says nothing of them."""
    ghosts = questions.ghosts
    drawn = stream(seed, "wayfarer", "other ghosts", ghosts.shape[1]).rng().integers(0, 2, tuple(ghosts.shape))
    return ghosts // MOTIF * MOTIF + torch.from_numpy(drawn) + torch.tensor([4, 0])


def ask_chains(
    config: Config, networks: Networks[Transformer], worlds: Mapping[int, World], arms: Mapping[str, Contexts]
) -> dict[str, xr.DataArray]:
    """Shares of right paths, by motifs in the chain, and by whether a reserved order occurs in it.

    Each arm is asked in contexts of its own kind, unshifted. Chains of one motif more than trained are asked about in seen
    orders only.
    """
    longest = config.longest_chain
    lengths = range(2, longest + 2)
    stop = Vocabulary(len(next(iter(worlds.values())).adjacency)).end
    shares = np.full((2, len(worlds), len(arms), len(lengths), 2), np.nan)
    for row, length in enumerate(lengths):
        for column, held_out in enumerate((False, True) if length <= longest else (False,)):
            for place, (arm, contexts) in enumerate(arms.items()):
                chains = [
                    motif_chains(
                        stream(seed, "wayfarer", "chain questions", length, int(held_out)),
                        config.questions,
                        world.adjacency,
                        length,
                        world.reserved,
                        held_out=held_out,
                        shuffled=contexts.shuffled,
                    )
                    for seed, world in worlds.items()
                ]
                written = continued(networks, arm, contexts.mask, chains, 3 * length, stop)
                for index, (questions, (seed, world), tokens) in enumerate(
                    zip(chains, worlds.items(), written, strict=True)
                ):
                    start = questions.tokens[:, int(questions.prefix_length[0]) - 1]
                    for judged, ghosts in enumerate((questions.ghosts, other_ghosts(seed, questions))):
                        edges, arrived = path_outcome(world.adjacency, start, questions.goal, tokens, stop, ghosts)
                        shares[judged, index, place, row, column] = (edges & arrived).double().mean()

    def named(values: np.ndarray) -> xr.DataArray:
        return labelled(values, seed=list(worlds), arm=list(arms), motifs=lengths, orders=("seen", "held out"))

    return {"success": named(shares[0]), "unshown": named(shares[1])}


def ask_conflicts(
    config: Config, networks: Networks[Transformer], worlds: Mapping[int, World], arms: Mapping[str, Contexts]
) -> xr.DataArray:
    """Share of greedy answers whose first ghost edge is that of the first, and of the second chain shown."""
    chains = [
        conflicting_chains(stream(seed, "wayfarer", "conflicts"), config.conflicts, world.adjacency)
        for seed, world in worlds.items()
    ]
    first = torch.stack([questions.ghosts[:, [0, 2]] for questions in chains])  # [seed, question, chain, 2]
    written = torch.stack(
        [continued(networks, arm, contexts.mask, chains, 3, None) for arm, contexts in arms.items()], 1
    )
    followed = (written[:, :, :, None, 1:3] == first[:, None]).all(-1)
    return labelled(followed.double().mean(2), seed=list(worlds), arm=list(arms), chain=("first", "second"))


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=8)
def ordered_exemplars(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Exemplars in the order of the chain, under both masks."""
    return train_chains(config, seeds, MASKS, config.network, "ordered")


@TASK.measurement(seeds=lambda config: config.crossed_trainings, ensemble=True, seeds_per_job=6)
def order_and_places(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """The order of exemplars crossed with the shift of positions: causal networks, all trained equally long."""
    return train_chains(config, seeds, CROSSED, replace(config.network, steps=config.crossed_steps), "crossed")


# %% [markdown]
# ## Chains in new orders, longer chains, conflicts


# %%
@TASK.figure
def chains_of_motifs(results: Results) -> Sheet:
    """Success against the number of motifs; and order crossed with positions: success, and the chain that is followed."""
    longest, ordered, crossed = results.config.longest_chain, results[ordered_exemplars], results[order_and_places]
    steps = results.config.network.steps, results.config.crossed_steps
    sheet = Sheet(columns=2, rows=2)
    panel = sheet.panel(
        f"In order, fixed places, {steps[0]} updates",
        x="motifs in the chain",
        y="share of right paths",
        ylim=(-0.03, 1.05),
        xticks=ordered["motifs"].values,
    )
    for arm in MASKS:
        for variant, orders in enumerate(("seen", "held out")):
            shares = ordered["success"].sel(arm=arm, orders=orders)
            panel.curve(shares, over="motifs", arm=arm, variant=variant, name=f"{arm}, orders {orders}", within=(0, 1))
    panel.level(longest + 0.5, "longest trained", vertical=True)
    for orders in ("seen", "held out"):
        panel = sheet.panel(
            f"{steps[1]} updates, causal, orders {orders}",
            x="motifs in the chain",
            y="share of right paths",
            ylim=(-0.03, 1.05),
            xticks=crossed["motifs"].values,
            legend="lower left" if orders == "seen" else "none",
        )
        for arm in CROSSED:
            panel.curve(crossed["success"].sel(arm=arm, orders=orders), over="motifs", name=arm, within=(0, 1))
        panel.level(longest + 0.5, "longest trained", vertical=True)
    panel = sheet.panel(
        "Primacy needs both",
        x="right, longest trained chains (one training a point)",
        y="share that follows the first chain",
        ylim=(0, 1.05),
    )
    for arm in CROSSED:
        right = crossed["success"].sel(arm=arm, motifs=longest, orders="seen")
        panel.scatter(right, first_share(crossed["choice"].sel(arm=arm)), name=arm)
    panel.level(0.5, "no preference")
    return sheet


def first_share(choice: xr.DataArray) -> xr.DataArray:
    """First chain's share among the answers that follow either chain's first ghost edge."""
    return choice.sel(chain="first") / choice.sum("chain").clip(min=1e-12)


@TASK.claim(
    "stepwise-graph-navigation/X1",
    where="section 6, figure 7",
    kind="training",
    statement="With exemplars in order, after 520 updates, a network follows chains through pairs of motifs that were never "
    "neighbours in training: of its paths through chains with such a pair more than half are right in the median training, at "
    "every length from $2$ to $5$ motifs.",
    controls=[control("judged by ghost edges that the context does not show", judged="unshown")],
)
def new_orders(results: Results, judged: str = "success") -> Evidence:
    shares = results[ordered_exemplars][judged].sel(arm=CAUSAL, orders="held out")
    origin = "twice the 1/4 of guessing both ends of one ghost edge"
    lengths = range(2, results.config.longest_chain + 1)
    return Evidence.all(*(Evidence.median(shares.sel(motifs=motifs), ">=", 0.5, origin) for motifs in lengths))


@TASK.claim(
    "stepwise-graph-navigation/X1.length",
    where="derived, on section 6, figure 7",
    kind="training",
    statement="One motif more than trained is too many only where its positions were never trained: with exemplars in order "
    "less than $0.1$ of the paths through $6$ motifs are right in the median training after 520 updates, under either mask; after "
    "2,400, shifting the positions of training sequences raises the mean share by more than $0.1$ (seen orders).",
    controls=[
        control("the longest trained chains", more=0),
        control("exemplars shuffled instead of positions shifted", other=SHUFFLED),
    ],
)
def longer_chains_need_positions(results: Results, more: int = 1, other: str = SHIFTED) -> Evidence:
    selection = {"orders": "seen", "motifs": results.config.longest_chain + more}
    fixed = results[ordered_exemplars]["success"].sel(selection)
    crossed = results[order_and_places]["success"].sel(selection)
    return Evidence.all(
        *(Evidence.median(fixed.sel(arm=arm), "<=", 0.1, f"{arm}; {PILOTS}") for arm in MASKS),
        Evidence.over_seeds(crossed.sel(arm=other) - crossed.sel(arm=BOTH), ">=", 0.1, f"the gain by shifts; {PILOTS}"),
    )


@TASK.claim(
    "stepwise-graph-navigation/X2",
    where="section 6, figure 8",
    kind="phenomenon",
    statement="Primacy: of two conflicting chains in the context the one shown first is preferred. After 520 updates with "
    "exemplars in order, among answers whose first ghost edge is that of either chain, more than $0.9$ take the first chain's, "
    "under either mask, in the median training.",
    controls=[control("trained in the same order with shifted positions", shifted=True)],
)
def primacy(results: Results, shifted: bool = False) -> Evidence:
    choice = results[order_and_places]["choice"].sel(arm=[SHIFTED]) if shifted else results[ordered_exemplars]["choice"]
    share = first_share(choice)
    return Evidence.all(
        *(Evidence.median(share.sel(arm=arm), ">=", 0.9, f"{arm}; {PILOTS}") for arm in share["arm"].values.tolist())
    )


@TASK.claim(
    "stepwise-graph-navigation/X2c",
    where="derived, on section 6",
    kind="training",
    statement="Primacy needs both regularities of the training, exemplars in order and at fixed places: after 2,400 updates, "
    "shuffling the exemplars or shifting the positions lowers the first chain's share by more than $0.2$ on average "
    "($1$ is always, $0.5$ no preference); and the task is learnt: in the median training more than half of the paths through seen "
    "orders are right at every length, $2$ to $5$ motifs in order, $2$ and $3$ shuffled.",
    controls=[
        control("exemplars in order in place of shuffled ones", shuffled=BOTH),
        control("fixed places in place of shifted ones", shifted=BOTH),
        control("one motif more than trained", more=1),
    ],
)
def primacy_needs_both(results: Results, shifted: str = SHIFTED, shuffled: str = SHUFFLED, more: int = 0) -> Evidence:
    crossed, longest = results[order_and_places], results.config.longest_chain
    share, success = first_share(crossed["choice"]), crossed["success"].sel(orders="seen")
    drops = {
        name: share.sel(arm=BOTH) - share.sel(arm=arm) for name, arm in (("shuffled", shuffled), ("shifted", shifted))
    }
    followed = [(arm, motifs) for arm in (BOTH, shifted) for motifs in range(2, longest + more + 1)]
    followed += [(shuffled, motifs) for motifs in (2, 3)]
    guess = "twice the 1/4 of guessing both ends of one ghost edge"
    return Evidence.all(
        *(Evidence.over_seeds(drop, ">=", 0.2, f"{name}; {PILOTS}") for name, drop in drops.items()),
        *(
            Evidence.median(success.sel(arm=arm, motifs=motifs), ">=", 0.5, f"{arm}, {motifs} motifs; {guess}")
            for arm, motifs in followed
        ),
    )


# %%
TASK.show(chains_of_motifs)

# %% [markdown]
# With exemplars in order at fixed places the rule "hop $k$ uses what stands at the places of exemplar $k$" does the task. It
# works for motifs in new orders, ends where places were never trained, and looks like a preference for what comes first.
# Take away the fixed places and keep the order: longer chains are followed now, and of two conflicting chains either is
# taken about as often. (There is a price: pairs of motifs that were never neighbours are followed less often, upper right
# against lower left.) Take away the order and keep the places: the preference is gone as well. Without both the task is
# learnt most slowly; the networks that have not learnt it within 2,400 updates still lean to the first chain.

# %%
TASK.show(new_orders)
TASK.show(longer_chains_need_positions)
TASK.show(primacy)
TASK.show(primacy_needs_both)

# %% [markdown]
# ## What the prefix mask changes
#
# With exemplars in the prompt it *could* matter, for an exemplar may then be read forwards as well as backwards. What it
# does not change are the rules that are learnt from exemplars in order at fixed places: primacy and the failure at longer
# chains are the same under either mask (the claims above). The left panel collects all differences, the right one shows how
# fast both arms learn. (For prompts of two words see `law_of_paths`.)


# %%
@TASK.figure
def what_the_prefix_changes(results: Results) -> Sheet:
    """Prefix minus causal, seed by seed, after training with ordered exemplars; and how fast each arm learns."""
    measured, longest = results[ordered_exemplars], results.config.longest_chain
    success, choice = measured["success"], first_share(measured["choice"])
    gap = success.sel(arm=PREFIX) - success.sel(arm=CAUSAL)
    trained = gap.sel(motifs=slice(2, longest)).mean("motifs")
    sheet = Sheet(columns=2, width=5.2)
    panel = sheet.panel(
        "Each under its own mask: not told apart",
        x="prefix minus causal",
        y="quantity",
        xticks=(0.0, 0.01, 0.02),
        legend="none",
    )
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
