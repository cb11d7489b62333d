"""Greedy and sampled continuation of prompts by an ensemble of transformers, with a key-value cache.

A token's keys and values, once computed, never change as long as its row of the attention pattern allows no
token that comes later. That is so for the causal pattern, and for a prefix pattern whose prefix lies inside the
prompt: the prompt is run once, both ways, and the rest of the sequence is causal. Then each new token costs
one row of attention instead of a whole forward pass, and the result is the same up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.errors import LabError, kind_of
from lab.models.transformer import KeyValueCache, Transformer
from lab.streams import RandomStream


@dataclass(frozen=True)
class Continuation:
    """What an ensemble wrote after its prompts.

    Attributes:
        tokens: the tokens written; after the stop token, the stop token again.
        lengths: how many tokens were written, the stop token included.
        log_probabilities: log p of each token under the distribution it was taken from (temperature and
            allowed tokens included; at temperature 0, that of temperature 1); 0 after the stop token.
    """

    tokens: Int[Tensor, "model batch step"]
    lengths: Int[Tensor, "model batch"]
    log_probabilities: Float[Tensor, "model batch step"]


def decode(
    module: Transformer,
    prompts: Int[Tensor, "batch time"] | Int[Tensor, "model batch time"],
    mask: Bool[Tensor, "*prompt total total"],
    steps: int,
    *,
    stop_token: int | None = None,
    temperature: float = 0.0,
    stream: RandomStream | None = None,
    allowed: Bool[Tensor, " vocabulary"] | Bool[Tensor, "step vocabulary"] | None = None,
    cached: bool = True,
) -> Continuation:
    r"""Write $x_{P+k} \sim \mathrm{softmax}(z_{P+k-1} / \tau)$, or its mode at $\tau = 0$, for k < ``steps``.

    z_t are the logits at position t given tokens 0 .. t under the attention pattern, restricted to the allowed
    tokens; ties go to the smaller id. A sequence ends with its stop token. Of one prompt, all models of the
    ensemble use the same random numbers, and the first prompts do not depend on how many follow.

    Args:
        module: ensemble of E models.
        prompts: P tokens a prompt, the same for all models or one set a model.
        mask: pattern over at least P + steps - 1 positions, the same for all prompts or one a prompt; no row may allow
            a token behind both its own position and the prompt, for no such token exists when the row is computed.
        steps: K, the most tokens to write.
        stop_token: a token of the vocabulary that ends a sequence; None writes K tokens always.
        temperature: tau >= 0; 0 is greedy.
        stream: where random numbers come from, needed for tau > 0 only.
        allowed: True for tokens that may be written, at all steps or step by step.
        cached: False recomputes every position at every step (the reference that the cache must equal).

    Raises:
        LabError: prompts or a pattern that are no tensors, no room for the tokens, a pattern that looks ahead or is of other
            prompts, tokens that are no whole numbers or lie outside the vocabulary, allowed tokens of another size or none, a
            temperature below 0, too near it, or without a stream; or logits that are not numbers.
    """
    for name, value in (("prompts are", prompts), ("attention pattern is", mask)):
        if not isinstance(value, Tensor):
            raise LabError(
                f"The {name} {kind_of(value)}, not a tensor; give token ids, and a pattern of lab.models.masks."
            )
    models, total = module.models, prompts.shape[-1] + steps - 1
    if prompts.dim() == 2:
        prompts = prompts.expand(models, *prompts.shape)
    _check(module, prompts, mask, steps, stop_token, temperature, stream, allowed)
    pattern = mask if mask.dim() == 2 else mask.unsqueeze(0)  # the module has models before prompts
    device, batch, prompt = mask.device, prompts.shape[1], prompts.shape[2]
    tokens = torch.zeros(models, batch, total + 1, dtype=torch.int64, device=device)
    tokens[..., :prompt] = prompts
    scores = torch.zeros(models, batch, steps, dtype=next(module.parameters()).dtype, device=device)
    lengths = torch.full((models, batch), steps, dtype=torch.int64, device=device)
    running = torch.ones(models, batch, dtype=torch.bool, device=device)
    cache = KeyValueCache() if cached else None
    start = 0
    with torch.no_grad():
        for step in range(steps):
            end = prompt + step
            logits = module(tokens[..., start:end], pattern[..., start:end, :end], cache=cache)[:, :, -1]
            start = end if cached else 0
            if allowed is not None:
                row = allowed if allowed.dim() == 1 else allowed[step]
                logits = logits.masked_fill(~row.to(device), -torch.inf)
            log_probabilities = torch.log_softmax(logits / temperature if temperature else logits, dim=-1)
            _check_numbers(logits, log_probabilities, step, temperature)
            if temperature and stream is not None:
                chosen = _draw(log_probabilities, stream.child("step", step))
            else:
                chosen = logits.argmax(-1)
            score = log_probabilities.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
            scores[..., step] = torch.where(running, score, 0.0)
            if stop_token is not None:
                chosen = torch.where(running, chosen, stop_token)
                ends = running & (chosen == stop_token)
                lengths[ends] = step + 1
                running &= ~ends
            tokens[..., end] = chosen
            if not bool(running.any()):
                tokens[..., end + 1 :] = chosen.unsqueeze(-1)  # all have stopped: the rest is the stop token
                break
    return Continuation(tokens[..., prompt:], lengths, scores)


def _check_numbers(logits: Tensor, log_probabilities: Tensor, step: int, temperature: float) -> None:
    """Refuse what has no likeliest token, of which ``argmax`` would make token 0."""
    broken = log_probabilities.isnan().any(-1)
    if not bool(broken.any()):
        return
    model, prompt = broken.nonzero()[0].tolist()
    if temperature and not bool(logits.isnan().any()):
        raise LabError(
            f"temperature = {temperature} is so near 0 that {logits.dtype} logits divided by it overflow; "
            "use 0 for the likeliest token"
        )
    raise LabError(
        f"The logits of model {model} for token {step + 1} after prompt {prompt} are not numbers, so none is the "
        "likeliest; check its weights."
    )


def _draw(
    log_probabilities: Float[Tensor, "model batch vocabulary"], stream: RandomStream
) -> Int[Tensor, "model batch"]:
    """Inverse distribution function at one uniform number a prompt, shared by the models."""
    uniform = torch.from_numpy(stream.rng().random(log_probabilities.shape[1]))
    cumulative = log_probabilities.double().exp().cumsum(-1)
    # Times the total, which rounding leaves beside 1, so that a token of probability 0 is never drawn.
    threshold = uniform.to(cumulative.device).unsqueeze(-1) * cumulative[..., -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)


def _check(
    module: Transformer,
    prompts: Int[Tensor, "model batch time"],
    mask: Bool[Tensor, "*prompt total total"],
    steps: int,
    stop_token: int | None,
    temperature: float,
    stream: RandomStream | None,
    allowed: Bool[Tensor, "*step vocabulary"] | None,
) -> None:
    architecture, prompt = module.architecture, prompts.shape[-1]
    positions = architecture.maximum_length if architecture.positions == "learned" else None
    if steps < 1 or prompt < 1:
        raise LabError(
            f"{prompt} prompt tokens and {steps} steps must both be at least 1; give a longer prompt or more steps."
        )
    needed = prompt + steps - 1
    if positions is not None and needed > positions:
        raise LabError(
            f"A prompt of {prompt} tokens continued by {steps} needs {needed} positions but the model has "
            f"{positions}; shorten the prompt or ask for fewer tokens."
        )
    batch, shape = prompts.shape[1], tuple(mask.shape)
    if len(shape) < 2 or shape[:-2] not in ((), (batch,)):
        raise LabError(
            f"The attention pattern has the shape {shape}; give one for all prompts, [position, position], or one for "
            f"each of the {batch} prompts, [{batch}, position, position]."
        )
    if min(shape[-2:]) < needed:
        raise LabError(
            f"The attention pattern covers {min(shape[-2:])} positions but {needed} are needed; build a larger one."
        )
    later = mask[..., :needed, :needed].triu(1)
    later[..., :prompt, :prompt] = False
    if bool(later.any()):
        row, column = later.nonzero()[0].tolist()[-2:]
        raise LabError(
            f"Position {row} may attend to position {column}, which is not written yet when {row} is computed; "
            f"use a pattern that is causal beyond the {prompt} prompt tokens."
        )
    if prompts.is_floating_point():
        raise LabError(f"The prompts are {prompts.dtype} and not the numbers of tokens; encode them as whole numbers.")
    vocabulary = architecture.vocabulary or 0
    outside = prompts[(prompts < 0) | (prompts >= vocabulary)]
    if outside.numel():
        raise LabError(f"Token {int(outside[0])} lies outside the vocabulary of {vocabulary}; encode the prompt again.")
    if stop_token is not None and not 0 <= stop_token < vocabulary:
        raise LabError(
            f"The stop token {stop_token} lies outside the vocabulary of {vocabulary}, so no sequence could end with it; "
            "name one of its tokens, or None to write all steps."
        )
    if not temperature >= 0:
        raise LabError(f"temperature = {temperature} must be at least 0; use 0 for the likeliest token.")
    if temperature and stream is None:
        raise LabError(f"Sampling at temperature {temperature} needs a stream of random numbers; give one.")
    written = architecture.output_size or architecture.width  # without a read-out the stream itself is read
    if allowed is not None and tuple(allowed.shape) not in ((written,), (steps, written)):
        raise LabError(
            f"The allowed tokens have the shape {tuple(allowed.shape)} but there are {written} tokens; give a value for each, "
            f"for all steps at once or in {steps} rows, one a step."
        )
    if allowed is not None and not bool(allowed.any(-1).all()):
        raise LabError("The allowed tokens are none at some step; allow at least one token.")
