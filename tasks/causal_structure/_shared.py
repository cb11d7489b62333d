"""What the parts of this sheet share: the two masks, hidden forests, and how much attention goes to parents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from lab.domains.chains.latent_graph_prompts import ROOT, CausalSequences, SeveralParentSequences, random_forest
from lab.domains.chains.latent_graphs import row_of, smoothed, soft_cross_entropy, transition_counts, unigram
from lab.figures import Panel
from lab.labels import Label, labelled
from lab.models import masks
from lab.streams import RandomStream, stream
from lab.study import Networks
from lab.training import Batch

PAPER = "nichani-2024-causal-structure"
ARM_NAMES = ("causal", "prefix")
BLOCK = 16  # steps whose data are drawn in one call

Graphs = Mapping[int, tuple[int, ...]]
"""For each seed the parents of the nodes of its context."""


def masks_of(arms: Sequence[str], length: int, questions: int = 1) -> dict[str, Tensor]:
    """Causal, or bidirectional over all of the context (everything but the last ``questions`` test tokens)."""
    known = {"causal": masks.causal(length), "prefix": masks.prefix_lm(length, length - questions)}
    return {arm: known[arm] for arm in arms}


def forests(seeds: Sequence[int], nodes: int, root_share: float) -> Graphs:
    """A random forest for each seed."""
    return {seed: random_forest(stream(seed, "latent forest"), nodes, root_share) for seed in seeds}


def parents_of_tokens(graphs: Graphs) -> xr.DataArray:
    """The parent of each token [seed, token]; `ROOT` for roots and for the test token."""
    rows = [(*graph, ROOT) for graph in graphs.values()]
    return labelled(rows, seed=list(graphs), token=range(len(rows[0])))


def in_another_order(source: RandomStream, data: CausalSequences) -> CausalSequences:
    """The same sequences with their context tokens at other positions, the same for all."""
    order = torch.from_numpy(source.rng().permutation(data.tokens.shape[1] - 1))
    return replace(data, tokens=torch.cat([data.tokens[:, order], data.tokens[:, -1:]], 1))


def tokens_and_target(data: CausalSequences | SeveralParentSequences) -> Batch:
    """What a model is told, and the law that it should name."""
    return {"tokens": data.tokens, "target": data.target}


def by_arm(networks: Networks, values: Tensor, **axes: Sequence[Label] | None) -> xr.DataArray:
    """Values [model, ...] of all networks of a study as [seed, arm, ...]."""
    arms = list(networks.study.arms)
    table = values.detach().double().unflatten(0, (len(networks.seeds), len(arms)))
    return labelled(table, seed=networks.seeds, arm=arms, **axes)


def own_masks(networks: Networks) -> Tensor:
    """The mask of each network [model, T, T]."""
    arms: Mapping[str, Any] = networks.study.arms
    return torch.stack([arms[member.arm] for member in networks.members])


def first_layer(networks: Networks) -> Float[Tensor, "model token token"]:
    """Attention of the one head of the first layer, under each network's own mask."""
    return networks.module.patterns(own_masks(networks))[:, 0]


def on_parents(networks: Networks, graphs: Graphs) -> Float[Tensor, " model"]:
    """Mean attention of the nodes with parents to them."""
    weights = []
    for table, member in zip(first_layer(networks), networks.members, strict=True):
        children = [node for node, parent in enumerate(graphs[member.seed]) if parent != ROOT]
        weights.append(table[children, [graphs[member.seed][child] for child in children]].mean())
    return torch.stack(weights)


REFERENCE_NAMES = ("oracle", "smoothed counts", "unigram")


def reference_losses(
    tests: Mapping[int, CausalSequences], graphs: Graphs, concentration: float, floor: float = 0.0
) -> xr.DataArray:
    """Losses [seed, reference] of who knows the law, of counts smoothed by the prior, and of the context's symbols.

    Args:
        floor: added to probabilities before the logarithm.
    """
    losses = []
    for seed, data in tests.items():
        states = data.target.shape[-1]
        counts = row_of(transition_counts(data.tokens, graphs[seed], states), data.tokens[:, -1])
        laws = (data.target, smoothed(counts, concentration), unigram(data.tokens, states))
        losses.append([float(soft_cross_entropy(data.target, law + floor).mean()) for law in laws])
    return labelled(losses, seed=list(tests), reference=REFERENCE_NAMES)


def parent_attention(attention: xr.DataArray, parent: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean attention to the parent, and share of nodes whose parent gets most, over the nodes that have one.

    Args:
        attention: [..., token, attended].
        parent: [..., token]; `ROOT` where there is none.
    """
    weight = attention.where(attention["attended"] == parent).sum("attended")
    hits = (attention.idxmax("attended") == parent).astype(float)
    return weight.where(parent != ROOT).mean("token"), hits.where(parent != ROOT).mean("token")


def first_training(results: xr.Dataset) -> xr.Dataset:
    """The training with the least seed, for pictures of single models."""
    return results.sel(seed=results["seed"].min())


def adjacency(parent: xr.DataArray) -> xr.DataArray:
    """1 at (token, its parent)."""
    positions = parent["token"].rename(token="attended")
    return (parent == positions).astype(float).transpose(..., "token", "attended")


def show_attention(panel: Panel, table: xr.DataArray, of: str = "one training") -> None:
    """A heat map [token, attended] from white (0) to black (1)."""
    panel.heat(table, low=0.0, high=1.0, of=of)


ATTENTION_AXES: dict[str, Any] = {"x": "token attended to", "y": "token"}


def log_slope(values: xr.DataArray, over: str = "length") -> xr.DataArray:
    """Least-squares slope of log ``values`` against the log of the labels of the axis ``over``."""
    places = np.log(values[over])
    centred = places - places.mean()
    return (centred * np.log(values)).sum(over) / (centred**2).sum()
