"""What the exact predictor of a generator answers to its prompts, the risk it runs, and where prompts are scored.

An answer is a number for each scored place (regression, deterministic targets) or log-probabilities for each position
(tokens). Its risk is what it loses on average, given the prompt: the squared error against the label that the prompt holds,
or the entropy in nats of the next token. Closed forms are those of ``lab.domains``; where a generator has none at the sizes
asked for, that is said, and nothing is made up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from lab.data.sources import Source
from lab.domains.chains.latent_graphs import graph_posterior, with_test_token
from lab.domains.chains.markov import markov_posterior, switching_posterior, true_law
from lab.domains.regression.least_squares import least_squares, ridge
from lab.domains.regression.mixtures import (
    posterior,
    running_least_squares,
    running_posterior_mean,
    running_ridge,
    running_scores,
)
from lab.errors import LabError

Column = Literal["mask", "answer", "risk"]
Prompts = Mapping[str, Tensor]
Answered = tuple[Tensor, Tensor]


def added(source: Source, prompts: Prompts, columns: tuple[Column, ...]) -> dict[str, Tensor]:
    """The columns asked for, each [batch, ...].

    Raises:
        LabError: the generator marks nothing to be answered, or has no exact predictor at these sizes.
    """
    fields: dict[str, Tensor] = {}
    if "mask" in columns:
        fields["mask"] = mask(source, prompts)
    if {"answer", "risk"} & set(columns):
        answer, risk = exact(source, prompts)
        fields |= {name: value for name, value in (("answer", answer), ("risk", risk)) if name in columns}
    return fields


def mask(source: Source, prompts: Prompts) -> Tensor:
    """Where a prompt is scored: true at the queries, at the positions with a target, or at every token that has a next one."""
    if "loss_mask" in prompts:
        return prompts["loss_mask"]
    for label in ("y_query", "y"):
        if label in prompts:
            return torch.ones_like(prompts[label], dtype=torch.bool)
    if "tokens" not in prompts:
        raise LabError(
            f"{source.name} draws {', '.join(prompts)} and asks nothing, so that it has no scoring mask; leave mask out of --also"
        )
    tokens = prompts["tokens"]
    scored = torch.ones_like(tokens, dtype=torch.bool)
    if "targets" in prompts and prompts["targets"].shape == tokens.shape:
        return scored
    if "targets" in prompts or "target" in prompts:
        scored[:, :-1] = False  # the question stands last
    else:
        scored[:, -1] = False  # nothing follows the last token
    return scored


def exact(source: Source, prompts: Prompts) -> Answered:
    """Answer and risk of the exact predictor.

    Raises:
        LabError: there is none, or none at these sizes.
    """
    in_library = source.sample.__module__.startswith("lab.domains.")
    if source.name not in _EXACT or not in_library:
        raise LabError(
            f"{source.name} has no exact predictor here; there is one for {', '.join(_EXACT)}; leave answer and risk out of --also"
        )
    return _EXACT[source.name](prompts, source.sizes)


def _only(source: str, sizes: Mapping[str, Any], **allowed: Any) -> None:
    """Refuse sizes at which the closed form is not the exact predictor."""
    for name, value in allowed.items():
        if sizes.get(name, value) != value:
            raise LabError(
                f"{source} has an exact predictor for {name} = {value!r} alone, and {name} is {sizes[name]!r}; "
                "change it, or leave answer and risk out of --also"
            )


def _linear_regression(prompts: Prompts, sizes: Mapping[str, Any]) -> Answered:
    r"""Posterior mean of $w \sim N(0, s^2 I)$ and $x^\top \Sigma x$ plus the noise of the query."""
    _only("linear_regression", sizes, output="linear")
    scale, noise = sizes.get("weight_scale", 1.0), sizes.get("noise", 0.0)
    x, y, query = (prompts[name] for name in ("x_context", "y_context", "x_query"))
    clean = sizes.get("query_noise", 0.0) ** 2 * torch.ones_like(query[..., 0])
    if scale == 0:
        return torch.zeros_like(clean), clean
    predict = ridge((noise / scale) ** 2) if noise else least_squares()
    _, values, directions = torch.linalg.svd(x, full_matrices=False)
    smallest = max(x.shape[-2:]) * torch.finfo(x.dtype).eps * values[..., :1]
    known = torch.where(values > smallest, values.square() / (values.square() + (noise / scale) ** 2), 0.0)
    explained = (known.unsqueeze(-1) * (directions @ query.mT).square()).sum(-2)
    unknown = (query.square().sum(-1) - explained).clamp_min(0.0)
    return predict(x, y, query), scale**2 * unknown + clean


def _fresh_regression(prompts: Prompts, sizes: Mapping[str, Any]) -> Answered:
    """At every place from the pairs before it; the risk is that of the noisy label of the place."""
    _only("fresh_regression", sizes, law="normal")
    x, y = prompts["x"], prompts["y"]
    dimension, noise = x.shape[-1], sizes["noise"]
    answer = running_ridge(x, y, dimension * noise**2) if noise else running_least_squares(x, y)
    covariance = torch.eye(dimension, dtype=x.dtype).expand(len(x), -1, -1) / dimension
    risks = []
    for place in range(x.shape[1]):
        moved = (covariance @ x[:, place].unsqueeze(-1)).squeeze(-1)
        spread = (moved * x[:, place]).sum(-1).clamp_min(0.0)
        risks.append(spread + noise**2)
        # A direction that is known already teaches nothing; without noise its spread is rounding.
        teaches = spread > 1e-12 * x[:, place].square().sum(-1)
        gain = torch.where(teaches, 1 / (spread + noise**2), 0.0)
        covariance = covariance - gain[:, None, None] * moved.unsqueeze(-1) * moved.unsqueeze(-2)
    return answer, torch.stack(risks, dim=1)


def _regression_mixture(prompts: Prompts, sizes: Mapping[str, Any]) -> Answered:
    x, y, components = prompts["x"], prompts["y"], sizes["components"].to(prompts["x"].dtype)
    noise, prior = sizes["noise"], sizes.get("prior", ())
    answer = running_posterior_mean(x, y, components, noise, prior)
    weights = posterior(running_scores(x, y, components), noise, prior)
    spread = (weights * (x @ components.mT - answer.unsqueeze(-1)).square()).sum(-1)
    return answer, spread + noise**2


def _of_tokens(prompts: Prompts, predict: Callable[[Tensor, Tensor], Tensor]) -> Answered:
    """Log-probabilities of the next token and their entropy at every position."""
    tokens = prompts["tokens"]
    log_law = predict(tokens, torch.zeros(len(tokens), dtype=torch.long))
    return log_law, torch.special.entr(log_law.exp()).sum(-1)


def _dirichlet_chains(prompts: Prompts, sizes: Mapping[str, Any]) -> Answered:
    _only("dirichlet_chains", sizes, start="uniform")
    order, concentration = sizes.get("order", 1), sizes.get("concentration", 1.0)
    return _of_tokens(prompts, markov_posterior(sizes["states"], order, concentration))


def _unigram_chains(prompts: Prompts, sizes: Mapping[str, Any]) -> Answered:
    return _of_tokens(prompts, markov_posterior(sizes["states"], 0, sizes.get("concentration", 1.0)))


def _fixed_chains(prompts: Prompts, sizes: Mapping[str, Any]) -> Answered:
    return _of_tokens(prompts, lambda tokens, _: true_law(prompts["table"], tokens, 1).log())


def _switching_chains(prompts: Prompts, sizes: Mapping[str, Any]) -> Answered:
    vocabulary = sizes.get("states", 2) + 1
    law = switching_posterior(vocabulary, sizes["switch_probability"], sizes.get("concentration", 1.0))
    return _of_tokens(prompts, law)


def _causal_sequences(prompts: Prompts, sizes: Mapping[str, Any]) -> Answered:
    """The law of the token after the last one, for who knows the graph: [batch, states], and its entropy [batch]."""
    _only("causal_sequences", sizes, roots="uniform", stickiness=0.0)
    graph = with_test_token(sizes["parents"])
    law, entropy = _of_tokens(prompts, graph_posterior(sizes["states"], graph, sizes["concentration"]))
    return law[:, -1], entropy[:, -1]


def _several_parent_sequences(prompts: Prompts, sizes: Mapping[str, Any]) -> Answered:
    law, entropy = _of_tokens(prompts, graph_posterior(sizes["states"], sizes["graph"], sizes["concentration"]))
    return law[:, -1], entropy[:, -1]


def _told(prompts: Prompts, sizes: Mapping[str, Any]) -> Answered:
    """The question determines its answer: the targets, at no risk."""
    return prompts["targets"], torch.zeros(prompts["targets"].shape, dtype=torch.float64)


_EXACT: Mapping[str, Callable[[Prompts, Mapping[str, Any]], Answered]] = {
    "linear_regression": _linear_regression,
    "fresh_regression": _fresh_regression,
    "regression_mixture": _regression_mixture,
    "dirichlet_chains": _dirichlet_chains,
    "unigram_chains": _unigram_chains,
    "fixed_chains": _fixed_chains,
    "switching_chains": _switching_chains,
    "causal_sequences": _causal_sequences,
    "several_parent_sequences": _several_parent_sequences,
    "column_window": _told,
    "whole_sum": _told,
    "pointer_prompts": _told,
    "first_token_prompts": _told,
}
