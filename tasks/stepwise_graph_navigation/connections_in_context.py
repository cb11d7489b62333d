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

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.decoding import decode
from lab.domains.graphs.navigation_prompts import (
    Vocabulary,
    conflicting_chains,
    draw_motifs,
    motif_chains,
    path_outcome,
    reserve_orders,
)
from lab.figures import ARMS, REFERENCES, Drawing, label, mean_curve, panels
from lab.models.transformer import Transformer
from lab.results import Results
from lab.statistics import mean_band
from lab.streams import stream
from lab.training import Member, train
from tasks.stepwise_graph_navigation._drawing import differences_of_masks
from tasks.stepwise_graph_navigation._shared import (
    CAUSAL,
    PAPER,
    PAPER_NETWORK,
    POSITIONS,
    PREFIX,
    SLUG,
    SMOKE_NETWORK,
    Network,
    cross_entropy,
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
    SLUG,
    PAPER,
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


def motif_world(config: Config, seed: int) -> tuple[Tensor, Tensor]:
    source = stream(seed, "wayfarer", "motifs")
    return draw_motifs(source, config.motifs, 0.75), reserve_orders(source, config.motifs, config.reserved)


def chain_questions(config: Config) -> list[tuple[int, bool]]:
    """(motifs in the chain, whether a reserved pair occurs) of every kind of question."""
    longest = config.longest_chain
    return [(length, held) for length in range(2, longest + 1) for held in (False, True)] + [(longest + 1, False)]


def train_chains(
    config: Config, seeds: tuple[int, ...], arms: tuple[str, ...], network: Network, shuffled: bool
) -> dict[str, np.ndarray]:
    """Train on chains, each arm: losses [seed, record], successes [seed, kind of question], choices at a conflict."""
    longest, steps = config.longest_chain, network.steps
    worlds = {seed: motif_world(config, seed) for seed in seeds}
    words = Vocabulary(len(worlds[seeds[0]][0]))
    lengths = longest - 1
    rows = -(-steps // lengths) * network.batch
    data = {
        (seed, length): motif_chains(
            stream(seed, "wayfarer", "chains", length), rows, motifs, length, reserved, shuffled=shuffled
        )
        for seed, (motifs, reserved) in worlds.items()
        for length in range(2, longest + 1)
    }

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        # One length of chain a step: no padding, and one mask for all.
        one = data[seed, 2 + step % lengths]
        chosen = slice(step // lengths * network.batch, (step // lengths + 1) * network.batch)
        return {
            "tokens": one.tokens[chosen, :-1],
            "targets": one.targets[chosen, :-1],
            "prefix_length": one.prefix_length[chosen],
        }

    def loss(module: Transformer, batch: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        prefix = int(batch["prefix_length"][0, 0])
        logits = module(batch["tokens"], mask_of(arms, batch["tokens"].shape[2], prefix))
        return cross_entropy(logits[:, :, prefix - 1 :], batch["targets"][:, :, prefix - 1 :])

    trained = train(
        lambda chosen: Transformer(network.architecture(words.size), chosen),
        [Member(seed, arm) for seed in seeds for arm in arms],
        batch,
        loss,
        network.optimisation,
        evaluate_every=max(lengths, steps // 15 // lengths * lengths),
        name="shuffled" if shuffled else "ordered",
    )
    found = {"step": np.tile(trained.history["step"], (len(seeds), 1))}
    for arm in arms:
        module = trained.arm(arm)
        found[f"{arm}_loss"] = trained.history["loss"][:, trained.indices(arm)].T
        found[f"{arm}_success"] = ask_chains(config, module, worlds, arm, shuffled)
        found[f"{arm}_choices"] = ask_conflicts(config, module, worlds, arm)
    return found


def ask_chains(
    config: Config, module: Transformer, worlds: Mapping[int, tuple[Tensor, Tensor]], arm: str, shuffled: bool
) -> np.ndarray:
    """Share of right paths [seed, kind of question], read under the mask of ``arm``."""
    successes = []
    for length, held in chain_questions(config):
        asked = [
            motif_chains(
                stream(seed, "wayfarer", "chain questions", length, int(held)),
                config.questions,
                motifs,
                length,
                reserved,
                held_out=held,
                shuffled=shuffled,
            )
            for seed, (motifs, reserved) in worlds.items()
        ]
        prefix = int(asked[0].prefix_length[0])
        prompts = torch.stack([one.tokens[:, :prefix] for one in asked])
        stop = Vocabulary(len(worlds[next(iter(worlds))][0])).end
        written = decode(module, prompts, mask_of([arm], POSITIONS, prefix), 3 * length, stop_token=stop).tokens
        right = []
        for one, (motifs, _), tokens in zip(asked, worlds.values(), written, strict=True):
            edges, arrived = path_outcome(motifs, one.tokens[:, prefix - 1], one.goal, tokens, stop, one.ghosts)
            right.append((edges & arrived).double().mean())
        successes.append(torch.stack(right))
    return torch.stack(successes, 1).numpy()


def ask_conflicts(
    config: Config, module: Transformer, worlds: Mapping[int, tuple[Tensor, Tensor]], arm: str
) -> np.ndarray:
    """Share of greedy answers whose first ghost edge is that of the first and of the second chain [seed, 2]."""
    asked = [
        conflicting_chains(stream(seed, "wayfarer", "conflicts"), config.conflicts, motifs)
        for seed, (motifs, _) in worlds.items()
    ]
    prefix = int(asked[0].prefix_length[0])
    prompts = torch.stack([one.tokens[:, :prefix] for one in asked])
    written = decode(module, prompts, mask_of([arm], POSITIONS, prefix), 3).tokens
    first = torch.stack([one.ghosts[:, [0, 2]] for one in asked])  # [seed, question, chain, 2]
    return (written[:, :, None, 1:3] == first).all(-1).double().mean(1).numpy()


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=10)
def ordered_exemplars(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Exemplars in the order of the chain."""
    return train_chains(config, seeds, (CAUSAL, PREFIX), config.network, shuffled=False)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=10)
def shuffled_exemplars(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Exemplars in random order."""
    network = replace(config.network, steps=config.shuffled_steps)
    return train_chains(config, seeds, (CAUSAL,), network, shuffled=True)


# %% [markdown]
# ## Chains in new orders, longer chains, conflicts


# %%
@TASK.figure
def chains_of_motifs(results: Results) -> Drawing:
    """Success against the number of motifs, and which of two conflicting chains is followed."""
    figure, axes = panels(1, 3)
    kinds, rows = chain_questions(results.config), []
    contexts = {"ordered": results[ordered_exemplars], "shuffled": results[shuffled_exemplars]}
    titles = ("Ordered: new orders yes, longer chains no", "Shuffled exemplars: learnt more slowly")
    for panel, (context, measured), title in zip(axes[0], contexts.items(), titles, strict=False):
        for arm in (CAUSAL, PREFIX) if context == "ordered" else (CAUSAL,):
            for held in (False, True):
                chosen = [index for index, kind in enumerate(kinds) if kind[1] == held]
                x = np.array([kinds[index][0] for index in chosen])
                style = ARMS[arm] | ({"linestyle": ":", "markerfacecolor": "white"} if held else {})
                name = f"{arm}, orders {'held out' if held else 'seen'}"
                samples = measured[f"{arm}_success"][:, chosen]
                rows.append(mean_curve(panel, x, samples, style, name).assign(context=context))
        panel.axvline(results.config.longest_chain + 0.5, color=REFERENCES[1], linewidth=0.8)
        panel.set_ylim(-0.03, 1.05)
        panel.set_xticks([kind[0] for kind in kinds if not kind[1]])
        label(panel, title, "motifs in the chain (line: longest trained)", "share of right paths")
    axes[0, 0].legend(loc="lower left")
    panel = axes[0, 2]
    bars = {
        f"{context},\n{key.removesuffix('_choices')}": measured[key]
        for context, measured in contexts.items()
        for key in measured
        if key.endswith("_choices")
    }
    x = np.arange(len(bars))
    for place, (name, color, hatch) in enumerate((("first chain", "#1f4e9e", ""), ("second chain", "#cccccc", "///"))):
        samples = np.stack([choices[:, place] for choices in bars.values()], 1)
        low, high = mean_band(samples)
        mean = samples.mean(0)
        error = np.clip([mean - low, high - mean], 0, None)
        panel.bar(x + 0.4 * place - 0.2, mean, 0.38, yerr=error, label=name, hatch=hatch, color=color, capsize=2)
        rows.append(pd.DataFrame({"curve": name, "x": x, "mean": mean, "low": low, "high": high, "context": [*bars]}))
    panel.set_xticks(x, [*bars])
    panel.set_ylim(0, 1.2)
    panel.legend(loc="upper right", ncols=2)
    label(panel, "Primacy comes from ordered contexts", "exemplars in training", "share: first ghost edge taken")
    return Drawing(figure, pd.concat(rows, ignore_index=True).replace("\n", " ", regex=True))


def first_share(choices: np.ndarray) -> np.ndarray:
    """First chain's share among the answers that follow either chain's first ghost edge [seed]."""
    return choices[:, 0] / np.maximum(choices.sum(1), 1e-12)


@TASK.claim(
    "stepwise-graph-navigation/X1",
    where="section 6, figure 7",
    kind="training",
    statement="With exemplars in order, a network follows chains through pairs of motifs that were never neighbours in "
    "training: over $2$ to $5$ motifs more than half of its paths are right.",
    controls=[control("one motif more than trained", longer=True)],
)
def new_orders(results: Results, longer: bool = False) -> Evidence:
    found, kinds = results[ordered_exemplars], chain_questions(results.config)
    chosen = [-1] if longer else [place for place, kind in enumerate(kinds) if kind[1]]
    origin = "twice the 1/4 of guessing both ends of one ghost edge"
    return Evidence.over_seeds(found["causal_success"][:, chosen].mean(1), ">=", 0.5, origin)


@TASK.claim(
    "stepwise-graph-navigation/X1.length",
    where="section 6, figure 7",
    kind="training",
    statement="One motif more than trained is too many: less than $0.1$ of the paths through $6$ motifs are right, under either "
    "mask.",
    controls=[control("the longest trained chains", longest=True)],
)
def no_longer_chains(results: Results, longest: bool = False) -> Evidence:
    found = results[ordered_exemplars]
    return Evidence.weakest(
        *(
            Evidence.over_seeds(
                found[f"{arm}_success"][:, -3 if longest else -1], "<=", 0.1, "fixed beforehand", parts=2
            )
            for arm in (CAUSAL, PREFIX)
        )
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
    found = results[shuffled_exemplars if shuffled else ordered_exemplars]
    arms = (CAUSAL,) if shuffled else (CAUSAL, PREFIX)
    return Evidence.weakest(
        *(
            Evidence.over_seeds(first_share(found[f"{arm}_choices"]), ">=", 0.9, "fixed beforehand", parts=len(arms))
            for arm in arms
        )
    )


@TASK.claim(
    "stepwise-graph-navigation/X2c",
    where="derived, on section 6",
    kind="training",
    statement="The order of exemplars in training makes the primacy: shuffling them lowers the first chain's share by more "
    "than $0.1$, a fifth of the way from always to an unbiased choice, while chains of two motifs in seen orders are still "
    "followed (more than half right).",
    controls=[control("the other mask instead of another order", other=PREFIX)],
)
def order_makes_primacy(results: Results, other: str = "shuffled") -> Evidence:
    ordered, shuffled = results[ordered_exemplars], results[shuffled_exemplars]
    changed = shuffled["causal_choices"] if other == "shuffled" else ordered["prefix_choices"]
    success = shuffled["causal_success"] if other == "shuffled" else ordered["prefix_success"]
    drop = first_share(ordered["causal_choices"]) - first_share(changed)
    return Evidence.weakest(
        Evidence.over_seeds(drop, ">=", 0.1, "a fifth of the way to an unbiased choice", parts=2),
        Evidence.over_seeds(success[:, 0], ">=", 0.5, "twice the 1/4 of guessing both ends of the ghost edge", parts=2),
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
def what_the_prefix_changes(results: Results) -> Drawing:
    """Prefix minus causal, seed by seed, for everything measured in both arms; and how fast each arm learns."""
    figure, axes = panels(1, 2, width=5.2)
    chains, kinds = results[ordered_exemplars], chain_questions(results.config)
    gap = chains["prefix_success"] - chains["causal_success"]
    held = np.array([kind[1] for kind in kinds[:-1]])
    first = [first_share(chains[f"{arm}_choices"]) for arm in (PREFIX, CAUSAL)]
    differences = {
        "right, orders seen": gap[:, :-1][:, ~held].mean(1),
        "right, orders held out": gap[:, :-1][:, held].mean(1),
        "right, one motif more": gap[:, -1],
        "first chain followed": first[0] - first[1],
    }
    rows = [differences_of_masks(axes[0, 0], differences, "Each under its own mask: no difference")]
    panel = axes[0, 1]
    for arm in (CAUSAL, PREFIX):
        rows.append(mean_curve(panel, chains["step"][0], chains[f"{arm}_loss"], ARMS[arm], arm))
    panel.set_yscale("log")
    panel.legend()
    label(panel, "Exemplars: both masks learn at one pace", "training step", "training loss (nats a token)")
    return Drawing(figure, pd.concat(rows, ignore_index=True))


# %%
TASK.show(what_the_prefix_changes)

# %%
TASK.show()
