"""How a network reaches its answers, not only which: where every head looks, beside what theory says.

A *relation* names the places that a token may look at: the one before, its own label, its parent. Of every head it is said
which share of its attention goes there; beside it stands the share of a head that sees all visible places alike, and, where
theory has an explicit construction, the largest share that one of its heads gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.diagnosis import attention_maps
from lab.diagnosis.attention_maps import Maps
from lab.models.checkpoint import StoredModel
from lab.models.transformer import Transformer

Targets = Bool[Tensor, "prompt token token"]
"""True where the token (row) would find what is asked for (column); rows without any do not count."""


@dataclass(frozen=True)
class Look:
    """How much of its attention one head gives to one relation.

    Args:
        layer, head: which head, counted from 1.
        relation: where it looks.
        shares: of every prompt, mean over the tokens that can look there.
        uniform: the same share, were all visible places seen alike.
        construction: the largest share of a head of the explicit construction; None where there is none.
    """

    layer: int
    head: int
    relation: str
    shares: Float[Tensor, " prompt"]
    uniform: float
    construction: float | None


def looks(maps: Maps, relations: Mapping[str, Targets], constructed: Sequence[Maps] = ()) -> list[Look]:
    """Every head of every layer, for every relation that any of its tokens can see.

    Args:
        maps: of the network, each row a share of its whole (`within`).
        relations: by name, over the same tokens.
        constructed: of explicit constructions, over the same tokens.
    """
    looks = []
    for name, targets in relations.items():
        built = [
            float(share)
            for construction in constructed
            for layer in construction
            for share in _shares(layer, targets)[0].nanmean(0)
        ]
        best = max((share for share in built if share == share), default=None)
        for depth, layer in enumerate(maps):
            shares, uniform = _shares(layer, targets)
            defined = ~shares.isnan().any(1)
            if int(defined.sum()) < 2:  # of which there is no interval
                continue
            for head in range(layer.shape[1]):
                look = Look(depth + 1, head + 1, name, shares[defined, head], float(uniform[defined].mean()), best)
                looks.append(look)
    return looks


def _shares(
    layer: Float[Tensor, "prompt head token token"], targets: Targets
) -> tuple[Float[Tensor, "prompt head"], Float[Tensor, " prompt"]]:
    """Share of the attention on the targets, mean over the rows that see one; and that of uniform weights.

    NaN for a prompt of which no token can look there. What is visible is told by the weights: hidden places have 0.
    """
    visible = (layer > 0).any(1)
    reached = targets & visible
    rows = reached.any(-1)
    share = (layer * reached[:, None]).sum(-1)
    uniform = reached.sum(-1) / visible.sum(-1).clamp_min(1)
    count = rows.sum(-1).double()
    count = torch.where(count > 0, count, torch.nan)
    return (share * rows[:, None]).sum(-1) / count[:, None], (uniform * rows).sum(-1) / count


def maps_of(
    model: Any,
    predictor: Callable[..., Any],
    stored: Callable[[StoredModel], Callable[..., Any]],
    inputs: Sequence[Tensor],
) -> Maps:
    """The maps of what is diagnosed, as they are; none where it has none that can be seen.

    Args:
        model: what the user named: a stored model, or anything else.
        predictor: it as a predictor.
        stored: makes a predictor of a stored model.
        inputs: what it is asked.
    """
    if isinstance(model, StoredModel):

        def ask(transformer: Transformer) -> Callable[..., Any]:
            return stored(StoredModel(transformer, model.mask, model.sign))

        return attention_maps.of_transformer(model.transformer, ask, inputs)
    return attention_maps.watched(predictor, inputs)


# Relations


def between_tokens(tokens: Int[Tensor, "prompt token"], rows: Bool[Tensor, "prompt token"]) -> dict[str, Targets]:
    """What any sequence of symbols has: the token itself, the one before, those of the same symbol, those after these.

    Args:
        rows: the tokens that count.
    """
    batch, length = tokens.shape
    place = torch.arange(length)
    before = (place[:, None] > place).expand(batch, length, length)
    same = (tokens[:, :, None] == tokens[:, None, :]) & before
    follower = torch.nn.functional.pad(same[:, :, :-1], (1, 0))  # column j: the symbol before j is that of the row
    relations = {
        "itself": torch.eye(length, dtype=torch.bool).expand(batch, length, length),
        "previous token": (place[:, None] == place + 1).expand(batch, length, length),
        "same symbol": same,
        "after the same symbol": follower & (before | torch.eye(length, dtype=torch.bool)),
        "first token": ((place == 0) & (place[:, None] > 0)).expand(batch, length, length),
    }
    return {name: targets & rows[:, :, None] for name, targets in relations.items()}


def between_examples(x: Float[Tensor, "prompt example dimension"], query: Tensor, length: int) -> dict[str, Targets]:
    """Relations of a prompt of n examples and one query, written as n + 1 or as 2n + 1 tokens; none for other lengths.

    Args:
        x: inputs of the examples.
        query: input of the query, [prompt, 1, dimension].
        length: tokens of the network.
    """
    batch, count = x.shape[:2]
    if length == count + 1:  # (x_1, y_1), ..., (x_query, 0)
        inputs = labels = torch.arange(count)
    elif length in (2 * count + 1, 2 * count + 2):  # x_1, y_1, ..., x_query, and perhaps its place for y
        inputs, labels = 2 * torch.arange(count), 2 * torch.arange(count) + 1
    else:
        return {}
    apart, place = length > count + 1, torch.arange(length)
    asking = torch.tensor([2 * count if apart else count])

    def only(rows: Tensor, columns: Tensor) -> Targets:
        """True at these rows and columns, the same for all prompts or [prompt, 1]."""
        targets = torch.zeros(batch, length, length, dtype=torch.bool)
        targets[torch.arange(batch)[:, None], rows, columns] = True
        return targets

    nearest = labels[(x - query).square().sum(-1).argmin(1)][:, None]
    relations = {"previous token": (place[:, None] == place + 1).expand(batch, length, length)}
    if apart:
        relations["own input, from a label"] = only(labels, inputs)
        relations["own label, from an input"] = only(inputs, labels)
        relations["inputs, from the query"] = only(asking, inputs)
        relations["labels, from the query"] = only(asking, labels)
        relations["label of the nearest, from the query"] = only(asking, nearest)
    else:
        relations["own example"] = only(labels, labels)
        relations["examples, from the query"] = only(asking, labels)
        relations["nearest example, from the query"] = only(asking, nearest)
    relations["itself, from the query"] = only(asking, asking)
    return relations


def maps_of_construction(transformer: Transformer, tokens: Tensor, mask: Tensor, skip: int = 0) -> Maps:
    """The maps of a construction, asked about tokens [prompt, token, ...] under a mask.

    Args:
        skip: tokens at the beginning that the network has beyond those asked about; attention to them stays in the whole.
    """
    noted: dict[str, Tensor] = {}
    with torch.no_grad():
        transformer(tokens[None], mask, intermediates=noted)
    weights = [noted[f"layers.{depth}.attention.weights"][0] for depth in range(transformer.architecture.layers)]
    return [within(layer, skip) for layer in weights]


def within(weights: Float[Tensor, "prompt head token token"], skip: int = 0) -> Float[Tensor, "prompt head rest rest"]:
    """Absolute weights as shares of each row's sum, without the first tokens, whose share is left out."""
    total = weights.abs().sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    return (weights.abs() / total)[:, :, skip:, skip:]
