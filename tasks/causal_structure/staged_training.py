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
# # 2. Staged training: first the graph, then the counting
#
# The algorithm that the theory analyses: gradient steps on $A_1$ alone, then on $A_2$ alone. Row $i$ of $A_1$
# is given a rate proportional to $T/\beta_0$ times the number of tokens that it sees ($i + 1$ under a causal
# mask), which makes up for the size of its gradient. The first stage drives all attention to the parent; the
# second grows $A_2$ towards a multiple $\beta$ of the identity (up to a constant in each row, which softmax
# ignores).
#
# Two things must break it. A **sticky prior** makes every node look most like itself. And if the **target is
# shuffled**, the row of a symbol that has nothing to do with the test token, nothing is left to be learnt
# from.

# %%
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import xarray as xr

from lab import Evidence, Task, control
from lab.domains.chains.latent_graph_prompts import ROOT, causal_sequences, chain, pairs
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.disentangled import reduced_law
from lab.results import Results
from lab.streams import stream
from tasks.causal_structure import _staged
from tasks.causal_structure._drawing import show_positions
from tasks.causal_structure._shared import (
    ARM_NAMES,
    ATTENTION_AXES,
    PAPER,
    Graphs,
    adjacency,
    first_training,
    forests,
    parent_attention,
    show_attention,
)
from tasks.causal_structure._staged import Staged, cross_entropy, train_in_stages


@dataclass(frozen=True)
class Config:
    """Training the two matrices one after the other, on several graphs."""

    training: Staged = Staged()
    """how"""
    length: int = 16
    """tokens T"""
    trainings: int = 12
    """independent trainings an arm"""
    control_trainings: int = 8  # 3 of them added later, since fresh seeds must give every verdict again
    """the same where training must fail"""
    stickiness: float = 0.6
    """weight of repeating a symbol, in the control with a sticky prior"""
    root_share: float = 0.25
    """probability that a later node of a random forest is a root"""


TASK = Task(
    "causal-structure",
    paper=PAPER,
    root=2026,
    presets={
        "smoke": Config(_staged.SMOKE, trainings=2, control_trainings=2),
        "ci": Config(),
        "paper": Config(_staged.PAPER_SIZES, trainings=20, root_share=0.5),
    },
)


def exchanged_roots(
    config: Config, seeds: Sequence[int], graphs: Graphs, kind: str, trained: Mapping[str, xr.DataArray]
) -> xr.DataArray:
    """Loss of the causal model with rows of the prefix model's first layer [seed, exchanged], on sequences of their own.

    Exchanged are no row, row 0, or the rows of all other roots; and last stands the loss of the prefix model itself.
    """
    sizes, losses = config.training, []
    for seed in seeds:
        data = causal_sequences(
            stream(seed, "sequences for exchanged rows", kind),
            4 * sizes.test,
            sizes.states,
            graphs[seed],
            sizes.concentration,
        )
        causal, prefix = (
            torch.from_numpy(trained["attention"].sel(seed=seed, arm=arm).values) for arm in ("causal", "prefix")
        )
        other_roots = [node for node, parent in enumerate(graphs[seed]) if parent == ROOT and node > 0]
        mixed = torch.stack([causal, causal, causal, prefix])
        mixed[1, 0], mixed[2, other_roots] = prefix[0], prefix[other_roots]
        score = trained["score"].sel(seed=seed, arm=["causal", "causal", "causal", "prefix"]).values
        law = reduced_law(data.tokens[None], mixed, torch.from_numpy(score))
        losses.append(cross_entropy(law, data.target, sizes.floor))
    return labelled(torch.stack(losses), seed=seeds, exchanged=("no row", "row 0", "other roots", "whole model"))


def staged_both(config: Config, graphs: Graphs, kind: str) -> LabelledArrays:
    """Staged training of both arms, and what rows of the one do in the other."""
    seeds = list(graphs)
    _, _, trained = train_in_stages(config.training, seeds, graphs, kind=kind)
    return trained | {"loss_exchanged": exchanged_roots(config, seeds, graphs, kind, trained)}


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, root=2030)
def staged_chain(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Both arms on a chain."""
    return staged_both(config, dict.fromkeys(seeds, chain(config.length - 1)), "chain")


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, root=2030)
def staged_pairs(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Both arms on pairs."""
    return staged_both(config, dict.fromkeys(seeds, pairs(config.length - 1)), "pairs")


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, root=2030)
def staged_forests(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """A random forest of its own for each training."""
    return staged_both(config, forests(seeds, config.length - 1, config.root_share), "forests")


@TASK.measurement(seeds=lambda config: config.control_trainings, ensemble=True)
def staged_sticky(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """A prior that prefers to repeat the parent's symbol."""
    graphs = dict.fromkeys(seeds, chain(config.length - 1))
    return train_in_stages(config.training, seeds, graphs, ("causal",), stickiness=config.stickiness)[-1]


@TASK.measurement(seeds=lambda config: config.control_trainings, ensemble=True)
def staged_shuffled(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """A target that has nothing to do with the test token."""
    return train_in_stages(config.training, seeds, dict.fromkeys(seeds, pairs(config.length - 1)), shuffled=True)[-1]


@TASK.measurement(seeds=lambda config: config.control_trainings, ensemble=True)
def second_layer_alone(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """A_2 trained while A_1 = 0: the order of the stages exchanged."""
    graphs = dict.fromkeys(seeds, chain(config.length - 1))
    return train_in_stages(config.training, seeds, graphs, ("causal",), first_stage=False)[-1]


def sharpness_and_spread(score: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """beta, and the largest deviation of A_2 from beta I + constants in rows, relative to beta."""
    centred = score - score.mean("copied")
    identity = (score["asked"] == score["copied"]).astype(float)
    shape = identity - identity.mean("copied")
    matrix = ("asked", "copied")
    sharpness = (centred * shape).sum(matrix) / (shape**2).sum(matrix)
    return sharpness, abs(centred - sharpness * shape).max(matrix) / abs(sharpness)


STAGED = {"chain": staged_chain, "pairs": staged_pairs, "forests": staged_forests}


@TASK.claim(
    "causal-structure/T1",
    where="Staged training algorithm, first stage",
    kind="training",
    statement=r"After 120 updates the first stage of staged gradient descent on the reduced model ($S=3$, $T=16$, "
    r"$\alpha=1$) has put at least 0.95 of the attention of layer 1 on the parent, on chain, pairs and random forests, and "
    r"in most trainings the largest weight of every single node.",
    controls=[
        control("a sticky prior: every node attends to itself", case="sticky"),
        control("the target is the row of an independent symbol", case="shuffled"),
    ],
)
def writes_down_the_graph(results: Results, case: str = "") -> Evidence:
    parts, complete = [], []
    runs = {"sticky": [staged_sticky], "shuffled": [staged_shuffled]}.get(case, list(STAGED.values()))
    for run in runs:
        causal = results[run].sel(arm="causal")
        weight, hits = parent_attention(causal["attention"], causal["parent"])
        complete += (hits == 1).values.tolist()
        parts.append(Evidence.over_seeds(weight, ">=", 0.95, "19 times as much as on all other tokens together"))
    every = Evidence.proportion(
        sum(complete), len(complete), ">", 0.5, "trainings in which the parent is the argmax of every row"
    )
    return Evidence.all(every, *parts)


@TASK.claim(
    "causal-structure/T1.second",
    where="Staged training algorithm, second stage",
    kind="training",
    statement=r"After 150 updates the second stage has made $A_2$ a multiple $\beta I$ of the identity, up to constants in "
    r"rows and 15 % of $\beta$, with $\beta$ at least ten times the $\beta_0$ it starts from (chain, pairs, random forests).",
    controls=[control("trained alone, on even attention", alone=True)],
)
def counts_with_the_identity(results: Results, alone: bool = False) -> Evidence:
    parts = []
    for run in [second_layer_alone] if alone else list(STAGED.values()):
        sharpness, spread = sharpness_and_spread(results[run]["score"].sel(arm="causal"))
        start = results.config.training.start
        parts += [
            Evidence.over_seeds(spread, "<=", 0.15, "15 % of beta"),
            Evidence.over_seeds(sharpness, ">=", 10 * start, "ten times the start"),
        ]
    return Evidence.all(*parts)


@TASK.claim(
    "causal-structure/T1.order",
    where="Staged training algorithm, order of the stages",
    kind="ordering",
    statement=r"The second layer has hardly anything to learn before the first: trained alone for its 150 updates on even "
    r"attention ($A_1 = 0$) it gains less than a tenth of what separates the untrained model from the smoothed counts (chain).",
    controls=[control("after the first layer", order="staged")],
)
def nothing_without_the_graph(results: Results, order: str = "alone") -> Evidence:
    causal = results[staged_chain if order == "staged" else second_layer_alone].sel(arm="causal")
    attainable = causal["before"] - causal["references"].sel(reference="smoothed counts")
    gain = causal["before"] - causal["loss"]
    return Evidence.over_seeds(gain / attainable, "<", 0.1, "a tenth of what counting gains")


# %% [markdown]
# ### The same with a prefix mask
#
# Both arms start from the same weights and see the same sequences. Reading both ways does not lead the model
# astray: the parent still wins every row. What changes is the rows of the *roots*. A root has no parent to
# find, and under a causal mask its attention finds nothing; under a prefix mask it is drawn to its **child**.
# The staged model ends with a slightly lower loss, and it is tempting to think that it profits from reading
# edges backwards. Putting single rows of the prefix model into the causal one shows that most of the profit
# is of a plainer kind. Under a causal mask **position 0 can see only itself**, so whenever $x_0 = s$ it poses
# as a child of $s$ with the symbol $s$, and nothing can be learnt against that. Under a prefix mask it looks
# elsewhere.


# %%
def attention_to_children(attention: xr.DataArray, parent: xr.DataArray) -> xr.DataArray:
    """Mean attention of roots with children to their children, from [..., token, attended] and [..., token]."""
    # Seen from a token, its children are those attended tokens whose parent it is.
    children = parent.rename(token="attended") == attention["token"]
    weight = attention.where(children).sum("attended")
    return weight.where((parent == ROOT) & children.any("attended")).mean("token")


@TASK.claim(
    "causal-structure/P2",
    where="derived: the same staged training under a mask that is bidirectional over the context",
    kind="training",
    statement=r"Under a prefix mask the first 120 updates of staged training find the parents as well (attention at least 0.95), "
    r"and send at least 0.9 of the attention of roots with a child to their children, on average (pairs, $S=3$, $T=16$).",
    controls=[control("the target is the row of an independent symbol", shuffled=True)],
)
def prefix_reads_edges_backwards(results: Results, shuffled: bool = False) -> Evidence:
    trained = results[staged_shuffled if shuffled else staged_pairs].sel(arm="prefix")
    weight, _ = parent_attention(trained["attention"], trained["parent"])
    children = attention_to_children(trained["attention"], trained["parent"])
    return Evidence.all(
        Evidence.over_seeds(weight, ">=", 0.95, "as for a causal mask"),
        Evidence.over_seeds(children, ">=", 0.9, "nine times as much as on all others together"),
    )


def gains_of_rows(losses: xr.DataArray) -> xr.DataArray:
    """How much the loss of the causal model falls by each exchange of rows."""
    return losses.sel(exchanged="no row") - losses.drop_sel(exchanged="no row")


@TASK.claim(
    "causal-structure/P2.first",
    where="derived: the same staged training under a mask that is bidirectional over the context",
    kind="phenomenon",
    statement=r"After the 120 and 150 updates the prefix arm has a lower loss than the causal one, and position 0, which a "
    r"causal mask lets see only itself, makes up most of the difference: its row alone, put into the causal model, brings more than "
    r"half of it (chain, pairs).",
    controls=[control("the rows of all other roots instead", rows="other roots")],
)
def position_zero_makes_the_difference(results: Results, rows: str = "row 0") -> Evidence:
    parts = []
    for run in (staged_chain, staged_pairs):
        gains = gains_of_rows(results[run]["loss_exchanged"])
        whole_model, by_rows = gains.sel(exchanged="whole model"), gains.sel(exchanged=rows)
        parts += [
            Evidence.over_seeds(whole_model, ">", 0, "the loss of the causal arm"),
            Evidence.over_seeds(by_rows - whole_model / 2, ">", 0, "half of the difference between arms"),
        ]
    return Evidence.all(*parts)


@TASK.figure
def staged_attention(results: Results) -> Sheet:
    """Staged training: the hidden graph, the first layer's attention under both masks (one training), and the losses."""
    sheet = Sheet(rows=3, columns=4, width=3.3, height=3.3)
    for graph, run in STAGED.items():
        trained = results[run]
        single = first_training(trained)
        weight, _ = parent_attention(trained["attention"], trained["parent"])
        children = attention_to_children(trained["attention"], trained["parent"]).mean("seed")
        panel = sheet.panel(f"{graph}: who is whose parent", **ATTENTION_AXES)
        show_attention(panel, adjacency(single["parent"]), of="a hidden graph or one training")
        for arm in ARM_NAMES:
            panel = sheet.panel(f"{arm}: {float(weight.sel(arm=arm).mean()):.3f} on the parent", **ATTENTION_AXES)
            show_attention(panel, single["attention"].sel(arm=arm), of="a hidden graph or one training")
        gains = gains_of_rows(trained["loss_exchanged"]).mean("seed")
        whole_model, row = (float(gains.sel(exchanged=name)) for name in ("whole model", "row 0"))
        panel = sheet.panel(
            f"prefix ahead by {whole_model:.4f}, by {row:.4f} of it in row 0",
            x="arm",
            y="loss above the oracle (nats)",
            legend="none",
        )
        excess = trained["references"] - trained["references"].sel(reference="oracle")
        for arm in ARM_NAMES:
            loss = (trained["loss"] - trained["references"].sel(reference="oracle")).sel(arm=arm)
            panel.points(loss, x=f"{arm}, roots to children {float(children.sel(arm=arm)):.2f}", arm=arm)
        for reference in ("smoothed counts", "unigram"):
            level = float(excess.sel(reference=reference).mean("seed"))
            panel.level(level, reference)
            panel.text(reference, 0.5, level, align="center")
    return sheet


@TASK.figure
def staged_attention_by_position(results: Results) -> Sheet:
    """Staged training on random forests, one a training: attention of each node to its parent."""
    sheet = Sheet()
    show_positions(sheet, "staged", results[staged_forests])
    return sheet


# %%
TASK.show(staged_attention)
TASK.show(staged_attention_by_position)
TASK.show(writes_down_the_graph)
TASK.show(counts_with_the_identity)
TASK.show(nothing_without_the_graph)
TASK.show(prefix_reads_edges_backwards)
TASK.show(position_zero_makes_the_difference)

# %%
TASK.show()
