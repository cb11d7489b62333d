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
# # What the gradient of the first layer measures, and why the parent wins
#
# The *reduced* model keeps two matrices: $P = \mathrm{softmax}(A_1)$ over positions, $Z = P X$ the averaged copies, $a =
# \mathrm{softmax}(A_2[s] \cdot Z)$, $f = a^T X$. Both gradients can be written by hand; the check compares with automatic
# differentiation.

# %%
from __future__ import annotations

from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control, statistics
from lab.domains.chains.latent_graph_prompts import ROOT, causal_sequences, chain, pairs, random_forest
from lab.domains.chains.latent_graphs import (
    attention_signal,
    centred_rows,
    centred_transition,
    chi_square_information,
    pair_laws,
    reduced_gradients,
    row_of,
    soft_cross_entropy,
)
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.disentangled import reduced_law
from lab.results import Results
from lab.streams import stream
from proofs_check.causal_structure._shared import FLOOR, PAPER, graphs, log_slope, prior_draws


@dataclass(frozen=True)
class Config:
    """Sizes of what is sampled; identities need none."""

    draws: int = 8
    """independent repetitions of every sampled number"""
    sequences: int = 12_000
    """sequences a repetition"""
    matrices: int = 4_000
    """transition matrices behind a mean over the prior"""
    lengths: tuple[int, ...] = (10, 20, 40, 80)
    """numbers of tokens at which the gradient is compared with its limit"""
    length_draws: int = 16
    """independent repetitions of that comparison, a slope of small differences"""


PROOFS = Task(
    "causal-structure",
    paper=PAPER,
    presets={
        "smoke": Config(draws=3, sequences=500, matrices=200, lengths=(8, 16), length_draws=3),
        "ci": Config(),
        "paper": Config(16, 60_000, 20_000, (12, 40, 80, 160)),
    },
)

# %%
GRADIENT_LENGTH, GRADIENT_SEQUENCES, GRADIENT_FLOOR = 9, 64, 1e-2


@PROOFS.cases(own_floor={}, other_floor={"assumed_floor": 2e-2})
def gradient_errors(config: Config, *, assumed_floor: float = GRADIENT_FLOOR) -> LabelledArrays:
    """Largest difference of gradients written by hand, with a floor of ``assumed_floor``, from automatic ones."""
    states, length = 3, GRADIENT_LENGTH
    data = causal_sequences(stream(0, "G1", "data"), GRADIENT_SEQUENCES, states, pairs(length - 1), 1.0)
    rng = stream(0, "G1", "weights").rng()
    pattern = torch.from_numpy(rng.standard_normal((length, length))).requires_grad_()
    score = torch.from_numpy(rng.standard_normal((states, states))).requires_grad_()
    mask = masks.causal(length)
    attention = torch.softmax(pattern.masked_fill(~mask, -torch.inf), -1)
    law = reduced_law(data.tokens[None], attention[None], score[None])[0]
    loss = soft_cross_entropy(data.target, law + GRADIENT_FLOOR).mean()
    automatic = torch.autograd.grad(loss, (pattern, score))
    by_hand = reduced_gradients(pattern.detach(), score.detach(), data.tokens, data.target, assumed_floor, mask)
    return {"error": labelled(max((left - right).abs().max() for left, right in zip(automatic, by_hand, strict=True)))}


@PROOFS.claim(
    "causal-structure/G1",
    where="Gradients of the reduced model",
    kind="identity",
    statement=r"With $h_i = a_i(r_{x_i} - \sum_k r_k f_k)$, $r = y/(f+\varepsilon)$: $\partial L/\partial A_1[i,j] = "
    r"-E[h_i P_{ij}(K_j - \sum_l P_{il}K_l)]$ and $\partial L/\partial A_2[s] = -E[1\{x_n=s\}\sum_i h_i Z_i]$.",
    controls=[control("another floor inside the logarithm", case="other_floor")],
)
def gradients_by_hand(results: Results, case: str = "own_floor") -> Evidence:
    # Quotients up to 1 / floor, means over the sequences, softmax over the tokens.
    bound = statistics.rounding_bound(GRADIENT_SEQUENCES + 4 * GRADIENT_LENGTH, 1 / GRADIENT_FLOOR)
    return Evidence.exact(
        results[gradient_errors]["error"].sel(case=case), "<=", bound, "rounding of terms up to 1/floor"
    )


# %% [markdown]
# At the start, $A_1 = 0$ and $A_2 = \beta_0 I$ with a small $\beta_0$. The output is then the unigram of the context;
# moving one score moves it by $\frac1T (e_{x_i} - u/T)$; and $u/T \to \mu$. What remains is
# $$-\frac{\partial L}{\partial A_1[i,j]} = \frac{\beta_0}{T(i+1)}\Bigl(g_{ij} - \operatorname*{mean}_{j' \le i}
# g_{ij'}\Bigr), \qquad
# g_{ij} = \frac1S\,E_\pi \sum_{s,k}\frac{\pi(s,k)}{\mu(k)}\bigl[P(x_j = s, x_i = k) - \mu(s)\mu(k)\bigr].$$
# Write $B = D^{1/2}(\pi - 1\mu^T)D^{-1/2}$. Then $S g$ is, matrix by matrix,
#
# | node $j$ seen from $i$ | $S g_{ij}$ | information $I(x_i; x_j)$ |
# | --- | --- | --- |
# | parent | $\lVert B\rVert^2$ | $\lVert B\rVert^2$ |
# | ancestor $k$ steps up | $\langle B, B^k\rangle$ | $\lVert B^k\rVert^2$ |
# | child | $\mathrm{tr}(B^2)$ | $\lVert B\rVert^2$ |
# | itself | $\mathrm{tr}(\pi) - 1$ | $S - 1$ |
# | another tree | 0 | 0 |
#
# so $g$ is the information at the parent and *only* there; elsewhere Cauchy-Schwarz bounds it by
# $\sqrt{I(x_i;x_j)\,I(x_i;x_p)}$.


# %%
FAMILY = (ROOT, 0, 1, 2, 1, ROOT, 5)  # 3 has a parent, a grandparent, a great-grandparent; 5 starts another tree
QUOTIENTS = "rounding of quotients by mu >= min pi"


def quotient_bound(measured: xr.Dataset) -> float:
    """Rounding of quotients by the smallest entry of a transition matrix, ``smallest``."""
    return statistics.rounding_bound(60, 1 / float(measured["smallest"].min()))


@PROOFS.cases(claimed={}, information={"information": True})
def family_signals(config: Config, *, information: bool = False) -> LabelledArrays:
    """Largest error over 200 matrices of S g by kinship, and the range of the chi-square information of FAMILY.

    Args:
        information: take the information itself where an ancestor's inner product belongs.
    """
    transition = prior_draws(0, 200)
    between = centred_transition(transition)
    signal = 3 * attention_signal(transition, FAMILY)
    facts = chi_square_information(pair_laws(transition, FAMILY))
    square, cube = between @ between, between @ between @ between

    def inner(power: Tensor) -> Tensor:
        return (power * (power if information else between)).sum((-1, -2))

    wanted = {
        "parent": (3, 2, inner(between)),
        "information of the parent": (3, 2, facts[:, 3, 2]),
        "grandparent": (3, 1, inner(square)),
        "great-grandparent": (3, 0, inner(cube)),
        "itself": (3, 3, transition.diagonal(dim1=-2, dim2=-1).sum(-1) - 1),
        "another tree": (6, 3, torch.zeros(200, dtype=torch.float64)),
    }
    errors = [(signal[:, i, j] - value).abs().max() for i, j, value in wanted.values()]
    of_itself = facts.diagonal(dim1=1, dim2=2)
    return {
        "error": labelled(torch.stack(errors), kin=list(wanted)),
        "most_information": labelled(facts.max()),
        "own_information": labelled([float(of_itself.min()), float(of_itself.max())], end=("least", "most")),
        "smallest": labelled(transition.min()),
    }


@PROOFS.claim(
    "causal-structure/G2",
    where="Gradient of the first layer at the start",
    kind="identity",
    statement=r"For every $\pi$, $S g_{ij}$ is the chi-square information $I(x_i;x_j) = \lVert B\rVert^2$ if $j$ is "
    r"the parent of $i$, "
    r"$\langle B,B^k\rangle$ if it is an ancestor $k$ steps up, $\mathrm{tr}\,\pi - 1$ if $j = i$, and 0 in another tree.",
    controls=[control("the information itself, also off the parent", case="information")],
)
def signal_by_kinship(results: Results, case: str = "claimed") -> Evidence:
    measured = results[family_signals].sel(case=case)
    return Evidence.exact(measured["error"].max(), "<=", quotient_bound(measured), QUOTIENTS)


@PROOFS.claim(
    "causal-structure/G2.most",
    where="derived; the data processing inequality for the gradient",
    kind="identity",
    statement=r"No two tokens of a forest have more chi-square information than $S - 1$, and a token has just that of itself "
    r"(200 matrices, $S = 3$).",
    controls=[control("S - 2 instead of S - 1", most=1)],
)
def information_is_bounded(results: Results, most: int = 2) -> Evidence:
    measured = results[family_signals].sel(case="claimed")
    bound = quotient_bound(measured)
    return Evidence.all(
        Evidence.exact(measured["most_information"] - most, "<=", bound, QUOTIENTS),
        Evidence.exact(abs(measured["own_information"] - most).max(), "<=", bound, QUOTIENTS),
    )


@PROOFS.measurement(seeds=lambda config: config.length_draws)
def finite_length(config: Config, seed: int) -> LabelledArrays:
    """Scaled gradient at the start against its limit, on chains of growing length.

    ``bias``: mean over rows of the diagonal's deviation; ``parent``: the same at the parents; ``information``: that of
    the diagonal if the limit is taken to be the information.
    """
    bias, parent, wrong = [], [], []
    for length in config.lengths:
        parents = chain(length - 1)
        data = causal_sequences(stream(seed, "finite", length), config.sequences // 2, 3, parents, 1.0)
        mask = masks.causal(length)
        start = 1e-3
        gradient, _ = reduced_gradients(
            torch.zeros(length, length, dtype=torch.float64),
            start * torch.eye(3, dtype=torch.float64),
            data.tokens,
            data.target,
            FLOOR,
            mask,
        )
        scaled = -length / start * gradient * mask.sum(-1, keepdim=True)
        # In a chain g depends on the distance alone; twelve steps up nothing is left of it.
        steps = min(12, length - 2)
        between = centred_transition(data.transition)
        limit, power = torch.zeros(length - 1, dtype=torch.float64), between
        limit[0] = data.transition.diagonal(dim1=-2, dim2=-1).sum(-1).mean() - 1
        information = torch.zeros_like(limit)
        information[0] = 2.0
        for distance in range(1, steps + 1):
            limit[distance] = (between * power).sum((-1, -2)).mean()
            information[distance] = (power * power).sum((-1, -2)).mean()
            power = power @ between
        gap = torch.arange(length - 1).unsqueeze(1) - torch.arange(length - 1)
        rows = slice(length // 4, length - 1)  # early rows see few tokens, and the mean over them is noisy

        def deviation(by_distance: Tensor, gap: Tensor = gap, mask: Tensor = mask, scaled: Tensor = scaled) -> Tensor:
            table = torch.where(gap >= 0, by_distance[gap.clamp_min(0)], 0.0) / 3
            return scaled[:-1, :-1] - centred_rows(table, mask[:-1, :-1])

        off = deviation(limit)
        bias.append(float(off.diagonal()[rows].mean()))
        parent.append(float(off.diagonal(-1)[rows.start - 1 :].mean()))
        wrong.append(float(deviation(information).diagonal()[rows].mean()))
    deviations = {"bias": bias, "parent": parent, "information": wrong}
    return {name: labelled(values, length=config.lengths) for name, values in deviations.items()}


@PROOFS.claim(
    "causal-structure/G2.limit",
    where="Gradient of the first layer at the start, finite length",
    kind="rate",
    statement=r"At every finite $T$ tried the scaled gradient differs from its limit more where $j = i$ than at the parent, "
    r"because a token is part of its own context unigram; the difference at $j = i$ vanishes like $1/T$ (slope within a "
    r"quarter of $-1$).",
    controls=[control("the limit is taken to be the information", limit="information")],
)
def bias_vanishes(results: Results, limit: str = "bias") -> Evidence:
    measured = results[finite_length]
    lead = (abs(measured[limit]) - abs(measured["parent"])).min("length")
    return Evidence.all(
        Evidence.equals(log_slope(measured[limit]), -1, 0.25, "exponent -1 from u/T - mu = O(1/T)"),
        Evidence.over_seeds(lead, ">", 0, "as far from the limit at the parent"),
    )


# %% [markdown]
# ## Why the parent wins
#
# Two conditions make the parent the largest entry of row $i$. *Data processing*: no earlier token knows more about
# $x_i$ than its parent, $I(x_i; x_j) \le I(x_i; x_{p(i)})$. *A prior without preference*, $E\pi = 11^T/S$: it makes
# $g_{ii} = (E\,\mathrm{tr}\,\pi - 1)/S$ vanish, which data processing does not ($I(x_i; x_i) = S - 1$ is as large as
# can be). With a sticky prior, $\pi \leftarrow 0.4\,\pi + 0.6\,I$, every node is most attracted to itself.


# %%
def rival_margins(signal: Tensor, parents: tuple[int, ...], mask: Tensor) -> Tensor:
    """g at the parent minus the best other entry that the node may attend to, for each node with a parent."""
    children = [node for node, parent in enumerate(parents) if parent != ROOT]
    their_parents = [parents[child] for child in children]
    rivals = signal.masked_fill(~mask, -torch.inf)[children]
    at_parent = rivals[range(len(children)), their_parents].clone()
    rivals[range(len(children)), their_parents] = -torch.inf
    return at_parent - rivals.amax(-1)


@PROOFS.measurement(seeds=lambda config: config.draws)
def exact_signals(config: Config, seed: int) -> LabelledArrays:
    """Smallest margin of the parent over random forests of 11 nodes (a new one a draw), from exact pair laws.

    ``margin`` for two priors; the others are how far two inequalities, and the first one turned round, are missed.
    """
    forest = random_forest(stream(seed, "graph"), 11, 0.2)
    uniform = prior_draws(seed, config.matrices)
    sticky = 0.4 * uniform + 0.6 * torch.eye(3, dtype=torch.float64)
    mask = masks.causal(11)
    margins = [
        rival_margins(attention_signal(transition, forest).mean(0), forest, mask).min()
        for transition in (uniform, sticky)
    ]
    few = uniform[:500]
    facts = chi_square_information(pair_laws(few, forest))
    parents = torch.tensor(forest)
    child = torch.nonzero(parents >= 0).flatten()
    at_parent = facts[:, child, parents[child]].unsqueeze(-1)
    signal = 3 * attention_signal(few, forest)[:, child]
    earlier = torch.arange(11) < child.unsqueeze(1)
    differences = {
        "processing": facts[:, child] - at_parent,
        "turned": at_parent - facts[:, child],
        "schwarz": signal - (facts[:, child] * at_parent).sqrt(),
    }
    return {
        "margin": labelled(torch.stack(margins), prior=("uniform", "sticky")),
        **{name: labelled(torch.where(earlier, values, -1.0).max()) for name, values in differences.items()},
        "smallest": labelled(few.min()),
    }


@PROOFS.claim(
    "causal-structure/G3",
    where="Data processing inequality for the gradient",
    kind="ordering",
    statement=r"For symmetric Dirichlet priors the largest entry of row $i$ of $g$ is its parent, among all $j \le i$, in "
    r"random forests of 11 nodes: the smallest margin over the rows is positive.",
    controls=[control("a sticky prior, E pi not constant", prior="sticky")],
)
def parent_attracts_most(results: Results, prior: str = "uniform") -> Evidence:
    return Evidence.over_seeds(results[exact_signals]["margin"].sel(prior=prior), ">", 0, "the parent is the argmax")


@PROOFS.claim(
    "causal-structure/G3.bound",
    where="Data processing inequality for the gradient",
    kind="identity",
    statement=r"For every $\pi$ and $j < i$: $S g_{ij} \le \sqrt{I(x_i;x_j)\,I(x_i;x_{p(i)})} \le I(x_i;x_{p(i)})$.",
    controls=[control("the second inequality turned round", turned=True)],
)
def processing_bounds(results: Results, turned: bool = False) -> Evidence:
    measured = results[exact_signals]
    names = ("turned",) if turned else ("processing", "schwarz")
    return Evidence.exact(max(float(measured[name].max()) for name in names), "<=", quotient_bound(measured), QUOTIENTS)


# %% [markdown]
# The same from sampled sequences of finite length, where the gradient is what an optimiser would see. Its control is the
# *shuffled target*: asked for a row that has nothing to do with the test token, the signal disappears. (The argmax alone
# is a poor test there: the diagonal is biased downwards by the finite length, so that chance finds the parent too often.
# The value at the parent is what vanishes.)


# %%
@PROOFS.measurement(seeds=lambda config: config.draws)
def sampled_gradients(config: Config, seed: int) -> LabelledArrays:
    """Scaled gradients at the start: smallest margin and value at a parent over four graphs of 15 nodes."""
    length, start = 16, 1e-3
    mask = masks.causal(length)
    every = graphs(length - 1, stream(seed, "gradients", "graphs"))
    settings = ("uniform", "sticky", "shuffled")
    margins: dict[str, list[Tensor]] = {setting: [] for setting in settings}
    at_parents: dict[str, list[Tensor]] = {setting: [] for setting in settings}
    for name in ("chain", "pairs", "forest", "sparse forest"):
        parents = every[name]
        for setting in settings:
            data = causal_sequences(
                stream(seed, "gradients", name),
                config.sequences,
                3,
                parents,
                1.0,
                stickiness=0.6 if setting == "sticky" else 0.0,
            )
            other = torch.from_numpy(stream(seed, "other").rng().integers(0, 3, config.sequences))
            gradient, _ = reduced_gradients(
                torch.zeros(length, length, dtype=torch.float64),
                start * torch.eye(3, dtype=torch.float64),
                data.tokens,
                row_of(data.transition, other) if setting == "shuffled" else data.target,
                FLOOR,
                mask,
            )
            scaled = (-length / start * gradient * mask.sum(-1, keepdim=True))[:-1, :-1]
            margins[setting].append(rival_margins(scaled, parents, mask[:-1, :-1]).min())
            # Centring takes up to half of g away in a row of two entries, so long rows stand for the value.
            children = [node for node, parent in enumerate(parents) if parent != ROOT and node >= 4]
            at_parents[setting].append(scaled[children, [parents[child] for child in children]].min())
    return {
        name: labelled([min(map(float, values[setting])) for setting in settings], setting=settings)
        for name, values in (("margin", margins), ("value", at_parents))
    }


@PROOFS.claim(
    "causal-structure/G3.sampled",
    where="Gradient of the first layer at the start",
    kind="ordering",
    statement=r"In sampled sequences ($S = 3$, $T = 16$; chain, pairs, two random forests) the gradient of every node "
    r"with a parent "
    r"is largest at the parent, and at least 0.05 there from the fifth row on ($E I/S = 0.10$).",
    controls=[
        control("a sticky prior", setting="sticky"),
        control("the target is the row of an independent token", setting="shuffled"),
    ],
)
def sampled_gradient_finds_parents(results: Results, setting: str = "uniform") -> Evidence:
    measured = results[sampled_gradients].sel(setting=setting)
    return Evidence.all(
        Evidence.over_seeds(measured["margin"], ">", 0, "the parent is the argmax of every row"),
        Evidence.over_seeds(measured["value"], ">", 0.05, "half of E I/S, the value in the limit"),
    )


# %% [markdown]
# ## What a prefix mask changes
#
# Let the context be read in both directions. Then a node sees its children too, and
# $S g_{i,\text{child}} = \mathrm{tr}(B^2)$. By Schur's inequality $\mathrm{tr}(B^2) \le \lVert B\rVert^2$ with
# equality exactly for symmetric $B$, that is for
# *reversible* chains. The
# parent still wins, but by irreversibility alone; and with two symbols, where every chain is reversible, it does not win
# at all: at the start, pairs of tokens do not tell the direction of an edge. Roots, which a causal mask leaves alone, are
# pulled to their children.


# %%
@PROOFS.cases(
    two_symbols={"states": 2, "matrices": 200, "seed": 1},
    three_symbols={"states": 3, "matrices": 200, "seed": 1},
    schur={"states": 3, "matrices": 500, "seed": 2},
)
def both_directions(config: Config, *, states: int, matrices: int, seed: int) -> LabelledArrays:
    """How S g at the parent exceeds that at the child of a node in a chain, by matrix, and the child's error as tr(B^2)."""
    transition = prior_draws(seed, matrices, states)
    signal = states * attention_signal(transition, chain(5))
    between = centred_transition(transition)
    trace = (between * between.transpose(-1, -2)).sum((-1, -2))
    lead = signal[:, 2, 1] - signal[:, 2, 3]
    return {
        "lead": labelled([float(lead.min()), float(lead.max())], end=("least", "most")),
        "trace_error": labelled((signal[:, 2, 3] - trace).abs().max()),
        "smallest": labelled(transition.min()),
    }


@PROOFS.claim(
    "causal-structure/P1",
    where="derived: the same gradient under a mask that is bidirectional over the context",
    kind="identity",
    statement=r"With two symbols the gradient at a child equals the gradient at the parent for every $\pi$ "
    r"($\mathrm{tr}(B^2) = \lVert B\rVert^2$, all chains being reversible): read in both directions, an edge has no direction.",
    controls=[control("three symbols, where chains are not reversible", case="three_symbols")],
)
def edges_without_direction(results: Results, case: str = "two_symbols") -> Evidence:
    measured = results[both_directions].sel(case=case)
    return Evidence.exact(abs(measured["lead"]).max(), "<=", quotient_bound(measured), QUOTIENTS)


@PROOFS.claim(
    "causal-structure/P1.schur",
    where="derived: the same gradient under a mask that is bidirectional over the context",
    kind="identity",
    statement=r"For every $\pi$, $S g_{i,\mathrm{child}} = \mathrm{tr}(B^2) \le \lVert B\rVert^2 = S "
    r"g_{i,\mathrm{parent}}$: under a prefix mask the "
    r"parent remains the stronger of the two ($S = 3$).",
    controls=[control("child and parent exchanged", exchanged=True)],
)
def parent_beats_child(results: Results, exchanged: bool = False) -> Evidence:
    measured = results[both_directions].sel(case="schur")
    lead, bound = measured["lead"], quotient_bound(measured)
    return Evidence.all(
        Evidence.exact(measured["trace_error"], "<=", bound, QUOTIENTS),
        Evidence.exact(lead.sel(end="most") if exchanged else -lead.sel(end="least"), "<=", bound, QUOTIENTS),
    )


# %%
PROOFS.show()
