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
# # 6. An ordinary transformer, with MLPs
#
# The models so far were made for being read: their stream is concatenated, they have no MLP, and the position of
# a token is a unit vector. The paper also trains a transformer as they usually are: added stream, learned
# embeddings of symbols and positions, an MLP in each of two layers, and AdamW. Query and key share one
# matrix (scores are divided by the root of the width, as usual), which starts at zero, as does the last layer of each
# MLP; there are no norms. The `paper` preset has the
# sizes of its figure (ten symbols, 20 tokens, 4,096 updates); at `ci` the network is the same and the task smaller.
#
# What it has learnt is asked of its loss, and its first attention is drawn: the weights that every token
# gives to the tokens before it, averaged over prompts.

# %%
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.chains.latent_graph_prompts import CausalSequences, causal_sequences, chain
from lab.figures import Sheet
from lab.labels import LabelledArrays
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.streams import stream
from lab.study import Study
from lab.training import Batch, Optimisation
from tasks.causal_structure._shared import (
    ATTENTION_AXES,
    BLOCK,
    PAPER,
    in_another_order,
    reference_losses,
    show_attention,
    tokens_and_target,
)


@dataclass(frozen=True)
class Config:
    """Training an ordinary two-layer transformer with MLPs on a chain."""

    trainings: int = 24  # 8 of them added later, since fresh seeds must give every verdict again
    """independent trainings"""
    states: int = 3
    """symbols S"""
    length: int = 9
    """tokens T"""
    concentration: float = 0.1
    """alpha of the prior"""
    batch: int = 128
    """fresh sequences a step"""
    optimisation: Optimisation = Optimisation(
        steps=600, learning_rate=1e-2, schedule="cosine", optimiser="adamw", weight_decay=2e-4
    )
    """AdamW, as in the paper"""
    test: int = 8_192
    """sequences the loss is measured on"""


CI = Config()
TASK = Task(
    "causal-structure",
    paper=PAPER,
    root=2027,
    presets={
        "smoke": Config(2, batch=16, optimisation=replace(CI.optimisation, steps=12), test=256),
        "ci": CI,
        # The figure with MLPs: ten symbols, 20 tokens, 2^12 updates of 1,024 sequences.
        "paper": Config(4, 10, 20, 0.1, 1_024, replace(CI.optimisation, steps=2**12), 2**14),
    },
)


# %%
def ordinary(states: int, length: int) -> Callable[[Sequence[int]], Transformer]:
    """Two layers of width S + T, one head each with a merged query-key matrix, MLPs of the same width, no norms."""
    architecture = Architecture(
        width=states + length,
        layers=2,
        vocabulary=states,
        output_size=states,
        attention_matrices="merged",
        mlp_ratio=1.0,
        activation="relu",
        norm="none",
        positions="learned",
        maximum_length=length,
    )

    def build(seeds: Sequence[int]) -> Transformer:
        module = Transformer(architecture, seeds)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name.endswith("attention.query.weight") or ".mlp.output." in name:
                    parameter.zero_()
        return module

    return build


def loss(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Cross entropy of each model [E] at the test token."""
    return -(batch["target"] * torch.log_softmax(module(batch["tokens"], mask)[:, :, -1], -1)).sum(-1).mean(1)


def first_attention(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Weights of the first layer, averaged over prompts [E, T, T]."""
    intermediates: dict[str, Tensor] = {}
    module(batch["tokens"], mask, intermediates=intermediates)
    return intermediates["layers.0.attention.weights"].mean(1)[:, 0]


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True)
def with_mlps(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Losses, also on contexts in another order, references, and the mean attention of the first layer."""
    length, states = config.length, config.states
    graphs = dict.fromkeys(seeds, chain(length - 1))

    def sample_for(name: str) -> Callable[[int, int, int], CausalSequences]:
        return lambda seed, number, prompts: causal_sequences(
            stream(seed, "sequences with MLPs", name, number), prompts, states, graphs[seed], config.concentration
        )

    study = Study(ordinary(states, length), {"causal": masks.causal(length)}, tokens_and_target, loss)
    trained = study.fit(seeds, sample_for("train"), config.optimisation, blocks=(config.batch, BLOCK))
    tests: Mapping[int, CausalSequences] = {seed: sample_for("test")(seed, 0, config.test) for seed in seeds}
    orders = [
        {seed: in_another_order(stream(seed, "another order", order), data) for seed, data in tests.items()}
        for order in (1, 2)
    ]
    shown = {seed: sample_for("shown")(seed, 0, 256) for seed in seeds}
    return {
        "loss": trained.ask(tests, loss),
        "loss_reordered": sum(trained.ask(turned, loss) for turned in orders) / len(orders),
        "references": reference_losses(tests, graphs, config.concentration),
        "attention": trained.ask(shown, first_attention, token=range(length), attended=range(length)),
    }


@TASK.claim(
    "causal-structure/T2.mlp",
    where="Figure of the standard transformer with MLPs",
    kind="training",
    statement=r"The loss of an ordinary two-layer transformer with MLPs and learned embeddings, trained by AdamW on a chain "
    r"for 600 updates, is at least 80 % of the way from the unigram's to that of the smoothed counts ($S=3$, $T=9$, "
    r"$\alpha=0.1$).",
    controls=[control("the same networks read the context's tokens in other orders", reordered=True)],
)
def an_ordinary_transformer_learns_it(results: Results, reordered: bool = False) -> Evidence:
    measured = results[with_mlps]
    losses = measured["loss_reordered" if reordered else "loss"].sel(arm="causal")
    unigram, counts = (measured["references"].sel(reference=name) for name in ("unigram", "smoothed counts"))
    share = (unigram - losses) / (unigram - counts)
    return Evidence.over_seeds(share, ">=", 0.8, "chosen on pilot seeds (0.95), judged on fresh ones")


@TASK.figure
def ordinary_attention(results: Results) -> Sheet:
    """An ordinary transformer with MLPs on a chain: first attention of one training, and losses beside the references."""
    measured = results[with_mlps]
    sheet = Sheet(columns=2, width=4.2)
    panel = sheet.panel("first layer, averaged over prompts", **ATTENTION_AXES)
    show_attention(panel, measured["attention"].sel(arm="causal", seed=results.seeds(with_mlps)[0]))
    gap = float((measured["references"].sel(reference="unigram") - measured["loss"].sel(arm="causal")).mean())
    panel = sheet.panel(f"its loss is {gap:.2f} below the unigram's", x="who predicts", y="loss (nats)", legend="none")
    panel.bars(
        {name: measured["references"].sel(reference=name) for name in ("smoothed counts", "unigram")}, name="references"
    )
    panel.bars(measured["loss"].sel(arm="causal"), x="transformer", arm="causal")
    panel.bars(measured["loss_reordered"].sel(arm="causal"), x="other orders", name="causal, other orders")
    return sheet


# %%
TASK.show(ordinary_attention)
TASK.show(an_ordinary_transformer_learns_it)

# %%
TASK.show()
