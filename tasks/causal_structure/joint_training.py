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
# # 4. All weights together
#
# Now the whole *disentangled* transformer: two attention-only layers whose outputs are appended to the stream
# instead of added, so that every block of a weight matrix says which part of the query meets which part of
# the key. All weights, $A_1$, $A_2$ and the read-out $W$, start at exactly zero and are trained together by
# plain gradient descent.
#
# It works, and the blocks are where the construction puts them. The attention need not saturate for that, and
# on a random forest a few single nodes may miss their parent. On **pairs** the loss comes close to the
# smoothed counts, or below: no contradiction, for with half of the tokens being roots the smoothed counts are
# not Bayes (roots tell something about $\pi$). On the **chain** there is still some way to go after 1,200
# updates.
#
# The control of all losses is the same network asked about the same symbols in *other orders*: the context's
# frequencies stay what they were, and what was learnt of the graph is of no use. (Something is left. Under this
# prior rows are nearly deterministic, and symbols that hardly occur are worth more than the add-one unigram
# grants them.)

# %%
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.chains.latent_graph_prompts import ROOT, CausalSequences, causal_sequences, chain, pairs
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.disentangled import Disentangled
from lab.results import Results
from lab.streams import stream
from lab.study import Networks, Study
from lab.training import Batch, Optimisation
from tasks.causal_structure._drawing import show_positions
from tasks.causal_structure._shared import (
    ARM_NAMES,
    ATTENTION_AXES,
    BLOCK,
    PAPER,
    Graphs,
    adjacency,
    by_arm,
    first_layer,
    first_training,
    forests,
    in_another_order,
    masks_of,
    on_parents,
    parent_attention,
    parents_of_tokens,
    reference_losses,
    show_attention,
    tokens_and_target,
)


@dataclass(frozen=True)
class Joint:
    """Training all weights of the disentangled transformer together."""

    trainings: int = 8
    """independent trainings an arm"""
    states: int = 3
    """symbols S"""
    length: int = 9
    """tokens T"""
    concentration: float = 0.1
    """alpha of the prior"""
    batch: int = 128
    """fresh sequences a step"""
    optimisation: Optimisation = Optimisation(steps=1_200, learning_rate=3.0, schedule="cosine", optimiser="sgd")
    """plain gradient descent"""
    scale: float = 0.0
    """standard deviation of the attention matrices at the start"""
    records: int = 12
    """how often loss and attention are measured during training"""
    test: int = 1_024
    """sequences a loss is measured on during training"""
    last_test: int = 32_768
    """sequences the last loss is measured on"""


@dataclass(frozen=True)
class Config:
    """Joint training on several graphs, by gradient descent and by Adam."""

    chain: Joint = Joint(trainings=20)  # 8 of them added later, since fresh seeds must give every verdict again
    """on the chain"""
    pairs: Joint = Joint(trainings=20)  # 4 of them added later, since fresh seeds must give every verdict again
    """on pairs; more trainings, because the last loss varies from one to the other"""
    forests: Joint = Joint(
        trainings=64, optimisation=Optimisation(steps=1_600, learning_rate=3.0, schedule="cosine", optimiser="sgd")
    )
    """on random forests; many, because some end with the opposite sign, and the median is asked for"""
    root_share: float = 0.25
    """probability that a later node of a random forest is a root"""
    adaptive: Joint = Joint(
        trainings=20, optimisation=Optimisation(steps=500, learning_rate=1e-2, schedule="cosine"), scale=1e-2
    )
    """on pairs with Adam, from small random attention matrices"""


TINY = Joint(
    trainings=2,
    batch=16,
    optimisation=Optimisation(steps=12, learning_rate=3.0, schedule="cosine", optimiser="sgd"),
    test=128,
    last_test=512,
)
# Figures 2 and 6 of the paper: single parents.
SINGLE_PARENTS = Joint(
    trainings=20,
    states=10,
    length=20,
    batch=1_024,
    optimisation=Optimisation(steps=2**17, learning_rate=1.0, schedule="cosine", optimiser="sgd"),
    records=128,
    test=2**12,
    last_test=2**16,
)
TASK = Task(
    "causal-structure",
    paper=PAPER,
    root=2027,
    presets={
        "smoke": Config(
            TINY,
            TINY,
            TINY,
            adaptive=replace(
                TINY, optimisation=Optimisation(steps=12, learning_rate=1e-2, schedule="cosine"), scale=1e-2
            ),
        ),
        "ci": Config(),
        "paper": Config(
            SINGLE_PARENTS,
            SINGLE_PARENTS,
            # Figure 9: twenty random graphs.
            replace(
                SINGLE_PARENTS, states=3, optimisation=Optimisation(steps=2**14, learning_rate=1.0, optimiser="sgd")
            ),
            0.5,
            replace(
                SINGLE_PARENTS,
                optimisation=Optimisation(steps=2**13, learning_rate=1e-2, schedule="cosine"),
                scale=1e-2,
            ),
        ),
    },
)


# %%
def loss(module: Disentangled, batch: Batch, mask: Tensor) -> Tensor:
    """Cross entropy of each model [E] at the test token."""
    return -(batch["target"] * torch.log_softmax(module.final(batch["tokens"], mask), -1)).sum(-1).mean(1)


def loss_in_parts(module: Disentangled, batch: Batch, mask: Tensor) -> Tensor:
    """The same on many sequences, a few hundred at a time."""
    starts = range(0, batch["tokens"].shape[1], 512)
    parts = [{name: values[:, start : start + 512] for name, values in batch.items()} for start in starts]
    return torch.stack([loss(module, part, mask) for part in parts]).mean(0)


ORDERS = (1, 2)  # other orders of the context in which trained networks read it, for controls


def train_all_weights(sizes: Joint, graphs: Graphs, kind: str, arms: tuple[str, ...] = ARM_NAMES) -> LabelledArrays:
    """Train all weights of the disentangled transformer; all arms of a seed on the same data from the same start.

    Args:
        kind: of the graphs; different kinds draw different sequences, so that their trainings are independent.
    """
    length, states, seeds = sizes.length, sizes.states, list(graphs)

    def sample_for(name: str) -> Callable[[int, int, int], CausalSequences]:
        return lambda seed, number, prompts: causal_sequences(
            stream(seed, "sequences of all weights", kind, name, number),
            prompts,
            states,
            graphs[seed],
            sizes.concentration,
        )

    study = Study(
        lambda all_seeds: Disentangled.normal(all_seeds, states, length, (1, 1), sizes.scale),
        masks_of(arms, length),
        tokens_and_target,
        loss,
    )
    tests = {seed: sample_for("test")(seed, 0, sizes.test) for seed in seeds}

    def measure(networks: Networks[Disentangled]) -> Mapping[str, Tensor]:
        return {"test": networks.numbers(tests, loss), "on_parent": on_parents(networks, graphs)}

    trained = study.fit(
        seeds,
        sample_for("train"),
        sizes.optimisation,
        blocks=(sizes.batch, BLOCK),
        measure=measure,
        measure_every=max(sizes.optimisation.steps // sizes.records, 1),
    )
    last_tests = {seed: sample_for("last test")(seed, 0, sizes.last_test) for seed in seeds}
    reordered = [
        trained.ask(
            {
                seed: in_another_order(stream(seed, "another order", kind, order), data)
                for seed, data in last_tests.items()
            },
            loss_in_parts,
        )
        for order in ORDERS
    ]
    # Of A_2 the block that compares the query's symbol with the copied one, of W the block that the second layer has read.
    width, symbols = states + length, range(states)
    score = trained.module.attention[1][:, 0, :states, width : width + states]
    readout = trained.module.readout[:, 2 * width : 2 * width + states]
    return {
        "parent": parents_of_tokens(graphs),
        "attention": by_arm(trained, first_layer(trained), token=range(length), attended=range(length)),
        "score": by_arm(trained, score, asked=symbols, copied=symbols),
        "readout": by_arm(trained, readout, read=symbols, predicted=symbols),
        "losses": trained.history["test"],
        "on_parent": trained.history["on_parent"],
        "loss": trained.ask(last_tests, loss_in_parts),
        "loss_reordered": labelled(np.stack(reordered, -1), seed=seeds, arm=arms, order=ORDERS),
        "references": reference_losses(last_tests, graphs, sizes.concentration),
    }


@TASK.measurement(seeds=lambda config: config.chain.trainings, ensemble=True)
def joint_chain(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Both arms on a chain."""
    return train_all_weights(config.chain, dict.fromkeys(seeds, chain(config.chain.length - 1)), "chain")


@TASK.measurement(seeds=lambda config: config.pairs.trainings, ensemble=True)
def joint_pairs(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Both arms on pairs."""
    return train_all_weights(config.pairs, dict.fromkeys(seeds, pairs(config.pairs.length - 1)), "pairs")


@TASK.measurement(seeds=lambda config: config.forests.trainings, ensemble=True, root=2031)
def joint_forests(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """A random forest of its own for each training."""
    graphs = forests(seeds, config.forests.length - 1, config.root_share)
    return train_all_weights(config.forests, graphs, "forests", ("causal",))


@TASK.measurement(seeds=lambda config: config.adaptive.trainings, ensemble=True, root=2030)
def adam_on_pairs(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Adam instead of gradient descent."""
    graphs = dict.fromkeys(seeds, pairs(config.adaptive.length - 1))
    return train_all_weights(config.adaptive, graphs, "pairs for Adam", ("causal",))


JOINT = {"chain": joint_chain, "pairs": joint_pairs, "forests": joint_forests}


ALL_ROWS = (
    "a chance order of the visible tokens would do it in 1 of 384 trainings on pairs and 1 of 362,880 on the chain"
)


@TASK.claim(
    "causal-structure/T2",
    where="Figures of the single-parent experiments",
    kind="training",
    statement=r"Plain gradient descent on all weights of a two-layer disentangled transformer, from zero, finds the "
    r"graph: after 1,200 updates on the chain or on pairs the parent gets the most attention at every node in most "
    r"trainings, and more than half on average ($S=3$, $T=9$, $\alpha=0.1$).",
    controls=[control("Adam instead of gradient descent", adam=True)],
)
def joint_training_finds_the_graph(results: Results, adam: bool = False) -> Evidence:
    parts, complete = [], []
    for run in [adam_on_pairs] if adam else [joint_chain, joint_pairs]:
        causal = results[run].sel(arm="causal")
        weight, hits = parent_attention(causal["attention"], causal["parent"])
        complete += (hits == 1).values.tolist()
        parts.append(Evidence.over_seeds(weight, ">", 0.5, "more than on all other tokens together"))
    return Evidence.all(
        Evidence.proportion(sum(complete), len(complete), ">", 0.5, f"most trainings; {ALL_ROWS}"), *parts
    )


def least_attention(attention: xr.DataArray, parent: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Share of nodes whose parent gets the least attention of all visible tokens, and how little that is.

    The second is the parent's attention over the mean of the other visible tokens', averaged over nodes.
    """
    visible = attention["attended"] <= attention["token"]
    least = attention.where(visible).idxmin("attended") == parent
    of_parent = attention.where(attention["attended"] == parent).sum("attended")
    of_others = (1 - of_parent) / attention["token"].where(attention["token"] > 0)
    return least.where(parent != ROOT).mean("token"), (of_parent / of_others).where(parent != ROOT).mean("token")


def copy_contrast(score: xr.DataArray) -> xr.DataArray:
    """Mean of the diagonal of A_2's copy block less the mean of the rest: above 0 it looks for the symbol asked about."""
    same = score["asked"] == score["copied"]
    return score.where(same).mean(("asked", "copied")) - score.where(~same).mean(("asked", "copied"))


@TASK.claim(
    "causal-structure/T2.forests",
    where="Figure of the many-graphs experiment",
    kind="training",
    statement=r"The same training on random forests, 1,600 updates on each with one of its own, puts more than half of the "
    r"attention on the parents in the median forest; and read from both ends, by the largest or, where that finds more, by "
    r"the least weights, parents are found at more than two thirds of the nodes on average ($S=3$, $T=9$, $\alpha=0.1$).",
    controls=[control("the parents are those of another training's forest", other=True)],
)
def joint_training_finds_forests(results: Results, other: bool = False) -> Evidence:
    causal = results[joint_forests].sel(arm="causal")
    parent = causal["parent"]
    if other:
        parent = parent.copy(data=np.roll(parent.values, 1, axis=parent.dims.index("seed")))
    weight, most = parent_attention(causal["attention"], parent)
    least, _ = least_attention(causal["attention"], parent)
    origin = (
        "two thirds: below root 2030 three quarters was not decided (0.86 on average); judged on seeds drawn afterwards"
    )
    return Evidence.all(
        Evidence.median(weight, ">", 0.5, "more than on all other tokens together"),
        Evidence.over_seeds(xr.where(most > least, most, least), ">", 2 / 3, origin),
    )


def below_the_unigram(measured: xr.Dataset, reordered: bool = False) -> xr.DataArray:
    """By how much the loss of the causal arm is below the unigram's, which is the same for tokens in another order."""
    loss = measured["loss_reordered"].mean("order") if reordered else measured["loss"]
    return measured["references"].sel(reference="unigram") - loss.sel(arm="causal")


def worth_of_the_order(measured: xr.Dataset, reordered: bool = False) -> xr.DataArray:
    """By how much the loss of the causal arm rises if the context is read in another order, or from one such to the next."""
    losses = measured["loss_reordered"].sel(arm="causal")
    if reordered:
        return losses.sel(order=2) - losses.sel(order=1)
    return losses.mean("order") - measured["loss"].sel(arm="causal")


@TASK.claim(
    "causal-structure/T2.loss",
    where="Figures of the single-parent experiments, dashed line",
    kind="training",
    statement=r"On pairs the loss after 1,200 updates of joint training is at least 85 % of the way from the unigram's to "
    r"that of the smoothed counts on the true graph ($S=3$, $T=9$, $\alpha=0.1$).",
    controls=[
        control("the same networks read the context's tokens in other orders", reordered=True),
        control("Adam instead of gradient descent (500 updates)", adam=True),
    ],
)
def joint_training_counts(results: Results, adam: bool = False, reordered: bool = False) -> Evidence:
    measured = results[adam_on_pairs if adam else joint_pairs]
    gains = measured["references"].sel(reference="unigram") - measured["references"].sel(reference="smoothed counts")
    share = below_the_unigram(measured, reordered) / gains
    return Evidence.over_seeds(share, ">=", 0.85, "chosen on pilot seeds (0.95), judged on fresh ones")


@TASK.claim(
    "causal-structure/T2.unigram",
    where="Figures of the single-parent experiments",
    kind="training",
    statement=r"After joint training the loss on chain, pairs and random forests is more than 0.1 nats below the unigram's, "
    r"and more than 0.1 nats below what the same networks lose on the same tokens in other orders ($S=3$, $T=9$, "
    r"$\alpha=0.1$; 1,200 and, on forests, 1,600 updates).",
    controls=[control("other orders against one another", reordered=True)],
)
def joint_training_beats_the_unigram(results: Results, reordered: bool = False) -> Evidence:
    parts = []
    for run in JOINT.values():
        parts += [
            Evidence.over_seeds(below_the_unigram(results[run], reordered), ">", 0.1, "a gap that a figure shows"),
            Evidence.over_seeds(worth_of_the_order(results[run], reordered), ">", 0.1, "the same"),
        ]
    return Evidence.all(*parts)


@TASK.claim(
    "causal-structure/T2.shortcut",
    where="derived: joint training with an adaptive optimiser",
    kind="phenomenon",
    statement=r"Adam writes down the graph with the opposite sign: on pairs, after 500 updates, the parent gets the least "
    r"attention of all visible tokens at every node in more than a quarter of the trainings (by chance: 1 of 384), less "
    r"than half of what the others get on average, and the second layer looks for symbols that differ from the one asked "
    r"about ($S=3$, $T=9$, $\alpha=0.1$).",
    controls=[control("plain gradient descent (1,200 updates)", run="descent")],
)
def adam_writes_the_opposite_sign(results: Results, run: str = "adam") -> Evidence:
    measured = results[joint_pairs if run == "descent" else adam_on_pairs]
    causal = measured.sel(arm="causal")
    least, ratio = least_attention(causal["attention"], causal["parent"])
    return Evidence.all(
        Evidence.proportion(int((least == 1).sum()), least.size, ">", 0.25, f"with room for a miss; {ALL_ROWS}"),
        Evidence.over_seeds(ratio, "<", 0.5, "half of the others' mean"),
        Evidence.over_seeds(copy_contrast(causal["score"]), "<", 0, "no preference of the second layer"),
    )


@TASK.figure
def written_weights(results: Results) -> Sheet:
    """Joint training from zero: the graph, the first layer's attention under both masks, and the blocks of A_2 and W."""
    sheet = Sheet(rows=2, columns=5, width=3.0, height=3.1)
    shown = "a hidden graph or one training"
    for graph, run in {"chain": joint_chain, "pairs": joint_pairs}.items():
        measured = results[run]
        single = first_training(measured)
        weight, _ = parent_attention(measured["attention"], measured["parent"])
        show_attention(
            sheet.panel(f"{graph}: the hidden graph", **ATTENTION_AXES), adjacency(single["parent"]), of=shown
        )
        for arm in ARM_NAMES:
            panel = sheet.panel(f"{arm}: {float(weight.sel(arm=arm).mean()):.2f} on the parent", **ATTENTION_AXES)
            show_attention(panel, single["attention"].sel(arm=arm), of=shown)
        panel = sheet.panel("$A_2$ (causal)", x="copied symbol", y="query symbol")
        panel.heat(single["score"].sel(arm="causal"), signed=True, numbers=".1f", of=shown)
        panel = sheet.panel("$W$ (causal)", x="predicted", y="read symbol")
        panel.heat(single["readout"].sel(arm="causal"), signed=True, numbers=".1f", of=shown)
    return sheet


@TASK.figure
def joint_losses(results: Results) -> Sheet:
    """Loss of joint training against steps, beside the references, for both masks."""
    sheet = Sheet(columns=3, width=4.1)
    for graph, run in JOINT.items():
        measured = results[run]
        levels = measured["references"].mean("seed")
        smooth, symbols = (float(levels.sel(reference=name)) for name in ("smoothed counts", "unigram"))
        arms = measured["arm"].values.tolist()
        if "prefix" in arms:
            gap = float((measured["loss"].sel(arm="prefix") - measured["loss"].sel(arm="causal")).mean())
            finding = f"prefix ends {abs(gap):.3f} {'above' if gap > 0 else 'below'} causal"
        else:
            finding = f"causal ends {float(measured['loss'].mean()) - smooth:.3f} above counting"
        panel = sheet.panel(f"{graph}: {finding}", x="steps", y="loss (nats)", ylim=(smooth - 0.08, symbols + 0.35))
        for arm in arms:
            panel.curve(measured["losses"].sel(arm=arm), over="update", arm=arm)
        if graph == "pairs":
            adam = results[adam_on_pairs]["losses"].sel(arm="causal")
            panel.curve(adam, over="update", name="causal, Adam: parents least")
        panel.level(smooth, "smoothed counts on the graph")
        panel.level(symbols, "unigram")
    return sheet


@TASK.figure
def joint_attention_by_position(results: Results) -> Sheet:
    """Joint training on random forests, one a training: attention of each node to its parent."""
    sheet = Sheet()
    show_positions(sheet, "joint", results[joint_forests])
    return sheet


# %%
TASK.show(written_weights)
TASK.show(joint_losses)
TASK.show(joint_attention_by_position)

# %% [markdown]
# ### The same graph with the opposite sign
#
# **Adam writes down the graph as well, but the other way round**: the parent is the token with the *least*
# attention in its row, and the copy block of $A_2$ is negative. Such a head averages everything but the
# parent, and the second layer looks for tokens at which the symbol asked about is missing from that average.
# Whoever reads the graph off the largest weight finds nothing; read from both ends, it is there.
#
# Both signs are there at the start, and they are mirror images: turning the sign of $\beta_0$ turns, to first
# order, the gradient of $A_1$ (`proofs_check`, G4). Plain descent waits at even attention until the
# read-out has grown, and then the copy side wins, though not always: on a few forests descent, too, ends with
# the parents least. Adam blows up the first small gradients, whose sign is the other one. Where it goes from
# there is the subject of `adam_on_forests`.

# %%
TASK.show(joint_training_finds_the_graph)
TASK.show(joint_training_finds_forests)
TASK.show(joint_training_counts)
TASK.show(joint_training_beats_the_unigram)
TASK.show(adam_writes_the_opposite_sign)

# %%
TASK.show()
