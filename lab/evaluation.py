"""Metrics that compare any two predictors, and adapters that turn a trained ensemble into one.

A metric takes predictions, so it cannot tell a closed form from a trained network. A predictor of a whole
ensemble returns its predictions with a leading model axis; every metric keeps such leading axes.
Everything is computed in float64: differences of nearly equal predictors are what is being measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.domains.regression.prompts import pair_tokens
from lab.errors import LabError
from lab.predictors import RegressionPredictor, TokenPredictor
from lab.training import NUMBERS_IN_FLIGHT, Ensemble


def squared_error(
    prediction: Float[Tensor, "*models batch query"], target: Float[Tensor, "batch query"]
) -> Float[Tensor, "*models query"]:
    """mean_b (prediction_bq - target_bq)^2 for each query q: the mean squared error over the batch."""
    return (prediction.double() - target.double()).square().mean(-2)


def relative_distance(
    first: Float[Tensor, "*models batch query"], second: Float[Tensor, "#*models batch query"]
) -> Float[Tensor, "*models"]:
    """mean (first - second)^2 / mean second^2 over batch and queries: 0 if equal, 1 if first is 0.

    The unit is the distance of the zero predictor from ``second``, the reference; so the order matters.

    Raises:
        LabError: the reference predicts nothing but zero.
    """
    unit = second.double().square().mean((-2, -1))
    if not bool((unit > 0).all()):
        raise LabError("A distance relative to a predictor that is 0 everywhere has no unit; exchange the predictors.")
    return (first.double() - second.double()).square().mean((-2, -1)) / unit


def error_by_context_length(
    predictor: RegressionPredictor,
    x_context: Float[Tensor, "batch context dimension"],
    y_context: Float[Tensor, "batch context"],
    x_query: Float[Tensor, "batch query dimension"],
    y_query: Float[Tensor, "batch query"],
    lengths: Sequence[int],
) -> Float[Tensor, "*models length"]:
    """Mean squared error over batch and queries when only the first k examples are shown, for k in lengths.

    Raises:
        LabError: a length outside 0 .. n.
    """
    longest = x_context.shape[1]
    if not lengths or min(lengths) < 0 or max(lengths) > longest:
        raise LabError(f"Context lengths {list(lengths)} must lie between 0 and the {longest} examples; shorten them.")
    errors = [squared_error(predictor(x_context[:, :k], y_context[:, :k], x_query), y_query).mean(-1) for k in lengths]
    return torch.stack(errors, dim=-1)


def cross_entropy(
    log_probabilities: Float[Tensor, "*models batch time token"], tokens: Int[Tensor, "batch time"]
) -> Float[Tensor, "*models batch time-1"]:
    """-log p_t(token_{t+1}) in nats for each prompt and each position t = 0, ..., T - 2."""
    predicted = log_probabilities[..., :-1, :].double()
    target = tokens[:, 1:].long().expand(predicted.shape[:-1]).unsqueeze(-1)
    return -predicted.gather(-1, target).squeeze(-1)


def accuracy(
    log_probabilities: Float[Tensor, "*models batch time token"], tokens: Int[Tensor, "batch time"]
) -> Float[Tensor, "*models batch time-1"]:
    """1 where the likeliest token (the first of equals) of position t is token_{t+1}, else 0; 0 where one is not a number."""
    predicted = log_probabilities[..., :-1, :]
    return ((predicted.argmax(-1) == tokens[:, 1:]) & ~predicted.isnan().any(-1)).double()


def kullback_leibler(
    first: Float[Tensor, "*models batch time token"], second: Float[Tensor, "#*models batch time token"]
) -> Float[Tensor, "*models batch time"]:
    """KL(p || q) = sum_v p_v (log p_v - log q_v) in nats, from log p = first and log q = second.

    0 log 0 = 0; infinite where q excludes a token that p allows.
    """
    log_p, log_q = torch.broadcast_tensors(first.double(), second.double())
    excluded = torch.isneginf(log_p)  # -inf - -inf is not a number
    return torch.where(excluded, 0.0, log_p.exp() * (log_p - log_q)).sum(-1)


def total_variation(
    first: Float[Tensor, "*models batch time token"], second: Float[Tensor, "#*models batch time token"]
) -> Float[Tensor, "*models batch time"]:
    """sum_v |p_v - q_v| / 2, between 0 and 1, from log p = first and log q = second."""
    return 0.5 * (first.double().exp() - second.double().exp()).abs().sum(-1)


def per_position(
    values: Float[Tensor, "*models batch time"], scored: Bool[Tensor, "batch time"] | None = None
) -> Float[Tensor, "*models time"]:
    """Mean over the prompts that score a position (all without ``scored``); NaN where no prompt does."""
    if scored is None:
        return values.mean(-2)
    return torch.where(scored, values, 0.0).sum(-2) / scored.sum(-2)


def last_coordinate(
    output: Float[Tensor, "model batch time out"], context: int, queries: int
) -> Float[Tensor, "model batch {queries}"]:
    """The last output coordinate at the tokens of the queries, where `pair_tokens` puts them."""
    return output[:, :, context : context + queries, -1]


def as_regression_predictor(
    module: Ensemble,
    mask: Tensor | Callable[[int, int], Tensor],
    *,
    encode: Callable[[Tensor, Tensor, Tensor], Tensor] = pair_tokens,
    decode: Callable[[Tensor, int, int], Tensor] = last_coordinate,
    member: int | None = None,
) -> RegressionPredictor:
    """The predictor decode(module(encode(prompt), mask)) of an ensemble [E, B, m] or one member [B, m].

    Args:
        module: ensemble taking (tokens [E, B, T, in], mask).
        mask: [T, T] or [E, T, T], or a function of (context length, queries) that returns one.
        encode: prompt to tokens [B, T, in].
        decode: (output [E, B, T, out], context length, queries) to predictions [E, B, m].
        member: place of the one model to ask; None asks all.
    """
    selected = module if member is None else module.select([member])

    def predict(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        context, queries = x_context.shape[1], x_query.shape[1]
        tokens = encode(x_context, y_context, x_query)
        pattern = mask(context, queries) if callable(mask) else mask
        if member is not None and pattern.dim() == 3:
            pattern = pattern[member : member + 1]
        predictions = decode(_forward(selected, tokens, pattern), context, queries).to(x_query)
        return predictions if member is None else predictions[0]

    return predict


def as_token_predictor(
    module: Ensemble, mask: Tensor | Callable[[Tensor, int], Tensor], *, member: int | None = None
) -> TokenPredictor:
    """The predictor log_softmax(module(tokens, mask)) of an ensemble [E, B, T, V] or one member [B, T, V].

    Args:
        module: ensemble taking (ids [E, B, T], mask) and returning logits [E, B, T, V].
        mask: [T, T] or [E, T, T], or a function of (prefix_length [B], T) that returns [T, T] or [B, T, T].
        member: place of the one model to ask; None asks all.
    """
    selected = module if member is None else module.select([member])

    def predict(tokens: Tensor, prefix_length: Tensor) -> Tensor:
        pattern = mask(prefix_length, tokens.shape[1]) if callable(mask) else mask
        if callable(mask) and pattern.dim() == 3:
            pattern = pattern.unsqueeze(0)  # one mask a prompt, the same for all models
        elif member is not None and pattern.dim() == 3:
            pattern = pattern[member : member + 1]
        log_probabilities = torch.log_softmax(_forward(selected, tokens, pattern), dim=-1)
        return log_probabilities if member is None else log_probabilities[0]

    return predict


def _forward(module: Ensemble, tokens: Tensor, mask: Tensor) -> Float[Tensor, "model batch time out"]:
    """Outputs of every model for the same prompts, a few at a time so that activations stay in cache."""
    parameter = next(parameter for _, parameter in module.named_parameters())
    models, batch, time = parameter.shape[0], *tokens.shape[:2]
    width = int(getattr(module, "width", None) or parameter.shape[-1])
    rows = max(1, NUMBERS_IN_FLIGHT // (models * time * width))
    tokens = tokens.to(parameter.device, parameter.dtype if tokens.is_floating_point() else tokens.dtype)
    tokens, mask = tokens.expand(models, *tokens.shape), mask.to(parameter.device)
    if mask.dim() == 4:
        mask = mask.expand(models, batch, time, time)
    # no_grad, not inference_mode: predictions, and anything cached on the way, remain usable in training.
    with torch.no_grad():
        outputs = [
            module(tokens[:, i : i + rows], mask[:, i : i + rows] if mask.dim() == 4 else mask)
            for i in range(0, batch, rows)
        ]
    return torch.cat(outputs, dim=1)
