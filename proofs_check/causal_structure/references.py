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
# # References, and when they are exact
#
# Counts smoothed by $\alpha$ are the posterior mean if the roots carry no information on $\pi$. Here roots follow
# $\mu_\pi$, so they carry some: the posterior is not conjugate, and smoothed counts lose a little, most where there
# are most roots. With two symbols everything can be enumerated and integrated.

# %%
from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control, statistics
from lab.domains.chains.latent_graph_prompts import ROOT, Roots, causal_sequences, chain, pairs, star
from lab.domains.chains.latent_graph_start import risk_of_smoothing, start_information, worth_of_a_start
from lab.domains.chains.latent_graphs import (
    binary_posterior,
    oracle_risk,
    pair_counts,
    pairs_risk,
    posterior_mean,
    risk_after_visits,
    row_of,
    smoothed,
    soft_cross_entropy,
    transition_counts,
)
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream
from proofs_check.causal_structure._shared import PAPER, last_row


@dataclass(frozen=True)
class Config:
    """Sizes of what is sampled; identities need none."""

    draws: int = 20  # 4 of them added later, since fresh seeds must give every verdict again
    """independent repetitions of every sampled number"""
    sequences: int = 12_000
    """sequences a repetition"""


PROOFS = Task(
    "causal-structure",
    paper=PAPER,
    root=2026,
    presets={"smoke": Config(6, 500), "ci": Config(), "paper": Config(32, 60_000)},
)


# %%
@PROOFS.cases(uniform={}, stationary={"roots": "stationary"})
def six_binary_nodes(config: Config, *, roots: Roots = "uniform") -> LabelledArrays:
    """Smoothed counts against the posterior mean over all contexts of 6 nodes (S = 2, alpha = 1), for three graphs.

    ``error``: largest difference of a probability; ``excess``: mean loss above that of the posterior mean, in nats.
    """
    contexts = torch.tensor(list(itertools.product((0, 1), repeat=6)))
    errors, excess = [], []
    for graph in (chain(6), pairs(6), star(6)):
        evidence, mean = binary_posterior(contexts, graph, 1.0, roots)
        approximate = smoothed(transition_counts(contexts, graph, 2), 1.0)
        divergence = (mean * (mean / approximate).log()).sum(-1).mean(-1)
        errors.append((mean - approximate).abs().max())
        excess.append((evidence * divergence).sum())
    names = ("chain", "pairs", "star")
    return {"error": labelled(torch.stack(errors), graph=names), "excess": labelled(torch.stack(excess), graph=names)}


@PROOFS.claim(
    "causal-structure/B1",
    where="Reference predictors",
    kind="identity",
    statement=r"$(c(s,k)+\alpha)/(n(s)+S\alpha)$ is the posterior mean of $\pi(s,k)$ if roots are uniform (all "
    r"contexts of 6 nodes, $S = 2$, "
    r"chain, pairs and star).",
    controls=[control("roots follow the stationary law", case="stationary")],
)
def smoothing_is_bayes(results: Results, case: str = "uniform") -> Evidence:
    error = results[six_binary_nodes]["error"].sel(case=case).max()
    bound = statistics.rounding_bound(60**2 + 60)
    return Evidence.exact(error, "<=", bound, "rounding of a sum over 60 x 60 quadrature points")


@PROOFS.claim(
    "causal-structure/B1.rate",
    where="Reference predictors",
    kind="rate",
    statement=r"The risk of counts smoothed by the prior is $\log S$ before the first visit, and $n\,(\mathrm{risk}_n - L_*) \to "
    r"(S-1)/2$ in the number $n$ of visits, $L_*$ being the loss of who knows the row: the distance to the limit is at most "
    r"$S \log n / n$ ($S = 3$, $\alpha = 1$, $n$ = 100, 1,000 and 3,000).",
    controls=[control("counts smoothed by ten times the prior's concentration", smoothing=10.0)],
)
def risk_falls_with_visits(results: Results, smoothing: float = 1.0) -> Evidence:
    visits = np.array([100, 1_000, 3_000])
    excess = np.array([risk_of_smoothing(int(n), 3, 1.0, smoothing) for n in visits]) - oracle_risk(3, 1.0)
    distance = np.abs(visits * excess - 1) * visits / (3 * np.log(visits))
    start = abs(risk_after_visits(0, 3, 1.0) - np.log(3))
    same = max(abs(risk_of_smoothing(int(n), 3, 1.0, smoothing) - risk_after_visits(int(n), 3, 1.0)) for n in visits)
    return Evidence.all(
        Evidence.exact(distance.max(), "<=", 1, "distance to the limit in units of S log n / n"),
        Evidence.exact(start, "<=", statistics.rounding_bound(10, np.log(3)), "rounding of one product"),
        Evidence.exact(same, "<=", statistics.rounding_bound(3_100, 10), "rounding of a sum over up to 3,000 counts"),
    )


def difference(first: Tensor, second: Tensor, target: Tensor) -> float:
    """By how much the first law's loss exceeds the second's, in nats."""
    return float((soft_cross_entropy(target, first) - soft_cross_entropy(target, second)).mean())


@PROOFS.measurement(seeds=lambda config: config.draws)
def loss_on_pairs(config: Config, seed: int) -> LabelledArrays:
    """Loss of smoothed counts above the oracle on 7 pairs with uniform roots (S = 3, alpha = 1)."""
    data = causal_sequences(stream(seed, "pairs"), config.sequences, 3, pairs(14), 1.0, "uniform")
    counted = smoothed(last_row(data.tokens, pairs(14), 3), 1.0)
    return {"excess": labelled(difference(counted, data.target, data.target))}


@PROOFS.claim(
    "causal-structure/B1.risk",
    where="Reference predictors",
    kind="identity",
    statement=r"With uniform roots, $N$ pairs and $S$ symbols, the Bayes risk is $\sum_j \mathrm{Bin}(j; N, "
    r"1/S)\,\mathrm{risk}_j$, where "
    r"$\mathrm{risk}_n = -S\sum_c \mathrm{BetaBin}(c; n, \alpha, (S-1)\alpha)\, m\log m$ and $m = "
    r"(\alpha+c)/(S\alpha+n)$ (here 7 pairs, $S=3$, $\alpha=1$).",
    controls=[control("one pair fewer", number=6)],
)
def risk_of_pairs(results: Results, number: int = 7) -> Evidence:
    excess = pairs_risk(number, 3, 1.0) - oracle_risk(3, 1.0)
    return Evidence.equals(results[loss_on_pairs]["excess"], excess, 0.03, "excess over the oracle in closed form")


@PROOFS.measurement(seeds=lambda config: config.draws)
def loss_to_the_posterior(config: Config, seed: int) -> LabelledArrays:
    """Loss of smoothed counts above that of the posterior mean that takes roots for stationary (15 nodes in pairs, S = 3).

    ``excess`` [roots]: where roots are stationary, so that it is exact; and where they are uniform, so that smoothed
    counts are.
    """
    excess, graph = [], pairs(15)
    laws: tuple[Roots, ...] = ("stationary", "uniform")
    for roots in laws:
        data = causal_sequences(stream(seed, "exact", roots), config.sequences // 20, 3, graph, 1.0, roots)
        exact = posterior_mean(stream(seed, "weights", roots), data.tokens, graph, 3, 1.0, 100)
        excess.append(difference(smoothed(last_row(data.tokens, graph, 3), 1.0), exact, data.target))
    return {"excess": labelled(excess, roots=laws)}


QUOTED = {"chain": 0.0052, "pairs": 0.0194, "star": 0.0099}


@PROOFS.claim(
    "causal-structure/B2",
    where="derived: the reference with roots from the stationary law",
    kind="ordering",
    statement=r"If roots follow $\mu_\pi$, smoothed counts lose to the exact posterior: by 0.0052 nats on a chain of six nodes, 0.0194 "
    r"on three pairs and 0.0099 on a star (two symbols, enumerated, $\alpha = 1$), and strictly on seven pairs and a root with three "
    r"symbols (sampled).",
    controls=[control("roots are uniform", roots="uniform")],
)
def roots_inform(results: Results, roots: Roots = "stationary") -> Evidence:
    enumerated = results[six_binary_nodes]["excess"].sel(case=roots)
    sampled = results[loss_to_the_posterior]["excess"].sel(roots=roots)
    return Evidence.all(
        *[
            Evidence.exact(abs(enumerated.sel(graph=graph) - value), "<=", 5e-5, f"{value} to four digits ({graph})")
            for graph, value in QUOTED.items()
        ],
        Evidence.over_seeds(sampled, ">", 0, "strictly suboptimal"),
    )


# %% [markdown]
# ### What a stationary start is worth
#
# How much can a root tell at most? Take a binary chain with $\alpha = 1$ and compare the law of the whole sequence
# with that of the same chain started uniformly: the divergence is what the ordinary predictor (smoothed counts) loses
# over all tokens together. It grows with the length, because the first symbol is a hint on $\mu_\pi$ that the later
# ones confirm; in the limit $\pi$ is known, and it is $E\,KL(\mu_\pi \| \text{uniform}) = \log 2 - E\,H(\mu)$. With $u = \mu_0/\mu_1$,
# $$E\,H = \int_0^1 \Bigl[\log(1+u) - \frac{u \log u}{1+u}\Bigr]\,du = 2\log 2 - \frac{\pi^2}{12},$$
# because $b/a$ has the density 1/2 on $(0, 1)$ and is as often above. So the start is worth at most $\pi^2/12 - \log 2 =
# 0.1293$ nats, however long the sequence. Finite lengths are summed by first symbol and counts, each probability by
# Gauss quadrature on two triangles, where the integrand is smooth.


# %%
DOUBLED = (5, 10, 20, 40, 80)


@PROOFS.cases(stationary={}, uniform={"roots": "uniform"}, other_prior={"concentration": 2.0})
def worth_of_the_start(config: Config, *, roots: Roots = "stationary", concentration: float = 1.0) -> LabelledArrays:
    """Divergence from a uniform start by length (alpha = 1), and its limit for a concentration."""
    return {
        "information": labelled([start_information(length, roots) for length in DOUBLED], length=DOUBLED),
        "limit": labelled(worth_of_a_start(concentration)),
    }


@PROOFS.claim(
    "causal-structure/B5",
    where="derived: what roots from the stationary law tell",
    kind="identity",
    statement=r"In a binary chain with $\alpha = 1$ a stationary start tells $\pi^2/12 - \log 2 = 0.1293$ nats at most: the "
    r"divergence from a uniform start is below that and grows at $T$ = 5, 10, 20, 40, 80, where less than a tenth of it is "
    r"left to come.",
    controls=[control("the prior has alpha = 2", case="other_prior"), control("the start is uniform", case="uniform")],
)
def start_is_worth_little(results: Results, case: str = "stationary") -> Evidence:
    measured = results[worth_of_the_start].sel(case=case)
    constant = float(np.pi**2 / 12 - np.log(2))
    information = measured["information"]
    bound = statistics.rounding_bound(60**2 + 60)
    return Evidence.all(
        Evidence.exact(
            abs(measured["limit"] - constant), "<=", bound, "rounding of a sum over 60 x 60 quadrature points"
        ),
        Evidence.exact(information.diff("length").min(), ">", 0, "grows with the length"),
        Evidence.exact(information.max(), "<", constant, "the limit"),
        Evidence.exact(
            information.sel(length=max(DOUBLED)), ">", 0.9 * constant, "nine tenths of the limit at 80 tokens"
        ),
    )


@PROOFS.figure
def worth_of_a_stationary_start(results: Results) -> Sheet:
    """What a stationary start tells of a binary chain, in nats over the whole sequence, against its length (alpha = 1)."""
    measured = results[worth_of_the_start].sel(case="stationary")
    sheet = Sheet()
    limit = float(measured["limit"])
    panel = sheet.panel(
        f"a stationary start is worth at most {limit:.4f} nats",
        x="tokens $T$",
        y="divergence (nats)",
        scale=("log2", "linear"),
    )
    panel.line(list(DOUBLED), measured["information"].values, name="from a uniform start", of="exact")
    panel.level(limit, r"$\pi^2/12 - \log 2$")
    return sheet


@PROOFS.measurement(seeds=lambda config: config.draws)
def loss_of_wrapped_roots(config: Config, seed: int) -> LabelledArrays:
    """Loss above that of smoothed counts if every root is taken for a child of the last context token (S = 10)."""
    excess = []
    for name, graph, share in (("chain", chain(19), 4), ("pairs", pairs(19), 4), ("long chain", chain(399), 16)):
        data = causal_sequences(stream(seed, "code", name), config.sequences // share, 10, graph, 0.1)
        wrapped = [len(graph) - 1 if parent == ROOT else parent for parent in graph]
        counts = pair_counts(data.tokens[:, wrapped], data.tokens[:, :-1], 10, 10)
        law = smoothed(row_of(counts, data.tokens[:, -1]), 0.1)
        excess.append(difference(law, smoothed(last_row(data.tokens, graph, 10), 0.1), data.target))
    return {"excess": labelled(excess, graph=("chain", "pairs", "long chain"))}


@PROOFS.claim(
    "causal-structure/B3",
    where="The dashed reference of the figures, as computed by the authors' code",
    kind="ordering",
    statement=r"A reference that indexes parents with $-1$ for roots, and so counts every root as a child of the last "
    r"context token, is "
    r"worse than smoothed counts by more than 0.003 nats on chain and pairs ($S=10$, $\alpha=0.1$, $T=20$).",
    controls=[control("a chain of 400 tokens, in which one wrong transition drowns", graphs=("long chain",))],
)
def roots_counted_as_children(results: Results, graphs: tuple[str, ...] = ("chain", "pairs")) -> Evidence:
    excess = results[loss_of_wrapped_roots]["excess"]
    return Evidence.all(
        *[
            Evidence.over_seeds(excess.sel(graph=name), ">", 0.003, "more than a line's width in the figure")
            for name in graphs
        ]
    )


@PROOFS.measurement(seeds=lambda config: config.draws)
def loss_of_the_stationary_law(config: Config, seed: int) -> LabelledArrays:
    """Loss of the true stationary law at a uniformly chosen row above that of the uniform law, for two priors."""
    excess = []
    for name, states, concentration in (("sparse", 10, 0.1), ("dense", 3, 1.0)):
        data = causal_sequences(stream(seed, "unigram", name), config.sequences // 4, states, (ROOT,), concentration)
        rows = soft_cross_entropy(data.transition, data.stationary.unsqueeze(1).expand(-1, states, -1))
        excess.append(float(rows.mean()) - float(np.log(states)))
    return {"excess": labelled(excess, prior=("sparse", "dense"))}


@PROOFS.claim(
    "causal-structure/B4",
    where="derived: the unigram as reference",
    kind="ordering",
    statement=r"For $S=10$, $\alpha=0.1$ the true stationary law predicts a uniformly chosen row worse than the "
    r"uniform law does: its loss "
    r"exceeds $\log 10$.",
    controls=[control("three symbols with alpha = 1", prior="dense")],
)
def stationary_law_misleads(results: Results, prior: str = "sparse") -> Evidence:
    excess = results[loss_of_the_stationary_law]["excess"].sel(prior=prior)
    return Evidence.over_seeds(excess, ">", 0, "the uniform law")


# %%
PROOFS.show(worth_of_a_stationary_start)

# %%
PROOFS.show()
