"""What theory knows about sequences over a latent causal graph: references, dependence of pairs, gradients.

Notation of `lab.domains.chains.latent_graph_prompts`: S symbols, a forest p on the n context nodes, transition matrix
pi, stationary law mu, test token x_n (so T = n + 1 tokens). Counts are c(s, k) = #{i : x_p(i) = s, x_i = k}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy
import torch
from jaxtyping import Bool, Float, Int
from scipy import special
from torch import Tensor

from lab.contracts import token_predictor
from lab.domains.chains.latent_graph_prompts import (
    ROOT,
    Roots,
    check_forest,
    check_prior,
    check_several_parents,
    check_transition,
    stationary_law,
    tuple_codes,
)
from lab.errors import LabError
from lab.streams import RandomStream

Graph = Sequence[Sequence[int]]


def check_tokens(tokens: Int[Tensor, "*batch length"], states: int) -> None:
    """Refuse symbols outside the alphabet.

    Raises:
        LabError: a token below 0 or at least ``states``.
    """
    outside = tokens[(tokens < 0) | (tokens >= states)]
    if len(outside):
        raise LabError(f"the token {int(outside[0])} lies outside the alphabet 0 .. {states - 1}; use only its symbols")


# Counting and smoothing


def pair_counts(
    first: Int[Tensor, "batch pairs"], second: Int[Tensor, "batch pairs"], rows: int, states: int
) -> Float[Tensor, "batch {rows} {states}"]:
    """c(s, k) = number of pairs (s, k) among (first, second), s < ``rows``, k < ``states``."""
    counts = torch.zeros(len(first), rows * states, dtype=torch.float64, device=first.device)
    codes = first * states + second
    counts.scatter_add_(1, codes, torch.ones_like(codes, dtype=counts.dtype))
    return counts.unflatten(1, (rows, states))


def transition_counts(
    tokens: Int[Tensor, "batch length"], parents: Sequence[int], states: int
) -> Float[Tensor, "batch {states} {states}"]:
    """c(s, k) over the nodes of the forest that have a parent; tokens after the forest are not counted.

    Raises:
        LabError: a token outside the alphabet, a graph that is no forest, or fewer tokens than nodes.
    """
    check_tokens(tokens, states)
    if tokens.shape[1] < len(parents):
        raise LabError(
            f"{tokens.shape[1]} tokens are fewer than the {len(parents)} nodes of the forest; give the forest of these tokens"
        )
    children = [node for node, parent in enumerate(check_forest(parents)) if parent != ROOT]
    return pair_counts(tokens[:, [parents[child] for child in children]], tokens[:, children], states, states)


def several_parent_counts(
    tokens: Int[Tensor, "batch length"], graph: Graph, states: int
) -> Float[Tensor, "batch tuples {states}"]:
    """c(s_1 .. s_k, symbol) over all nodes with parents but the last one of ``graph``, which is to be predicted.

    Raises:
        LabError: a token outside the alphabet, or see `check_several_parents`.
    """
    check_tokens(tokens, states)
    tuples = states ** check_several_parents(graph)
    nodes = [node for node, parents in enumerate(graph[:-1]) if parents]
    if not nodes:
        return torch.zeros(len(tokens), tuples, states, dtype=torch.float64)
    return pair_counts(tuple_codes(tokens, graph, nodes, states), tokens[:, nodes], tuples, states)


def with_test_token(parents: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The forest as a graph of n + 2 nodes: context, test token without parent, and its child to predict.

    >>> with_test_token((-1, 0))
    ((), (0,), (), (2,))
    """
    nodes = tuple(() if parent == ROOT else (parent,) for parent in check_forest(parents))
    return (*nodes, (), (len(nodes),))


def keep_parents(graph: Graph, kept: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The graph in which every node keeps only its parents number ``kept`` (what fewer heads could see).

    >>> keep_parents(((), (), (0, 1)), [1])
    ((), (), (1,))
    """
    return tuple(tuple(parents[number] for number in kept) if parents else () for parents in graph)


def smoothed(counts: Float[Tensor, "*batch states"], concentration: float) -> Float[Tensor, "*batch states"]:
    r"""$(c_k + \alpha) / (\sum_l c_l + S \alpha)$: the mean of a Dirichlet posterior.

    It is the Bayes predictor of the row exactly if the roots do not depend on pi; see `posterior_mean`.

    Raises:
        LabError: a concentration that is not positive, with which a symbol never seen would get no probability.
    """
    if not 0 < concentration < np.inf:
        raise LabError(
            f"the concentration {concentration} that smooths counts must be positive and finite; please change it"
        )
    smooth = counts + concentration
    return smooth / smooth.sum(-1, keepdim=True)


def row_of(rows: Float[Tensor, "batch tuples states"], symbols: Int[Tensor, " batch"]) -> Float[Tensor, "batch states"]:
    """Row ``symbols[b]`` of each matrix b."""
    return rows[torch.arange(len(rows)), symbols]


def unigram(tokens: Int[Tensor, "batch length"], states: int) -> Float[Tensor, "batch {states}"]:
    """(u(k) + 1) / (n + S) from the n context tokens, the test token left out.

    Raises:
        LabError: a token outside the alphabet.
    """
    check_tokens(tokens, states)
    zeros = torch.zeros_like(tokens[:, :-1])
    return smoothed(pair_counts(zeros, tokens[:, :-1], 1, states)[:, 0], 1.0)


def soft_cross_entropy(
    target: Float[Tensor, "*batch states"], prediction: Float[Tensor, "*models states"]
) -> Float[Tensor, "*models"]:
    r"""$-\sum_k y_k \log f_k$ in nats for each sequence, with $0 \log 0 = 0$."""
    return -torch.special.xlogy(target.expand(prediction.shape), prediction).sum(-1)


def posterior_mean(
    source: RandomStream,
    tokens: Int[Tensor, "batch length"],
    parents: Sequence[int],
    states: int,
    concentration: float,
    draws: int,
) -> Float[Tensor, "batch {states}"]:
    r"""$E[\pi[x_n, \cdot] \mid \text{context}]$ when roots follow $\mu_\pi$, by importance sampling.

    The posterior is proportional to $\prod_s \mathrm{Dir}(\pi_s; \alpha + c(s, \cdot)) \prod_{r\ \text{root}}
    \mu_\pi(x_r)$ and not conjugate: matrices are drawn from the first factor and weighted by the second.
    Its error is of order 1/sqrt(draws), and its bias, of order 1/draws, raises its cross entropy.
    """
    check_prior(states, concentration)
    counts = transition_counts(tokens, parents, states)
    shape = (len(tokens), draws, states, states)
    gammas = source.rng().standard_gamma((counts + concentration).unsqueeze(1).expand(shape).numpy())
    # A gamma below the smallest float is 0; the floor keeps a row of such zeros a row of probabilities.
    matrices = torch.from_numpy(np.maximum(gammas, np.finfo(float).tiny))
    matrices = matrices / matrices.sum(-1, keepdim=True)
    roots = [node for node, parent in enumerate(parents) if parent == ROOT]
    visits = pair_counts(torch.zeros_like(tokens[:, roots]), tokens[:, roots], 1, states)
    weights = torch.softmax(torch.special.xlogy(visits, stationary_law(matrices)).sum(-1), dim=-1)
    rows = matrices[torch.arange(len(tokens)), :, tokens[:, -1]]
    return (weights.unsqueeze(-1) * rows).sum(1)


def binary_posterior(
    context: Int[Tensor, "batch nodes"], parents: Sequence[int], concentration: float, roots: Roots, points: int = 60
) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch 2 2"]]:
    r"""Probability of the context and $E[\pi \mid \text{context}]$ for two symbols, by Gauss-Jacobi quadrature.

    With $a = \pi[0, 1]$ and $b = \pi[1, 0]$, both Beta(alpha, alpha), and $\mu = (b, a)/(a + b)$:
    $\int a^{c_{01}} (1-a)^{c_{00}} b^{c_{10}} (1-b)^{c_{11}} \prod_r \mu(x_r)$; exact for uniform roots, where the
    integrand is a polynomial of a degree below 2 ``points``.
    """
    check_prior(2, concentration)
    counts = transition_counts(context, parents, 2)
    nodes, weights = special.roots_jacobi(points, concentration - 1, concentration - 1)
    leave = torch.from_numpy((nodes + 1) / 2)
    rows = torch.stack([1 - leave, leave], -1)
    matrices = torch.stack([rows.unsqueeze(1).expand(-1, points, -1), rows.flip(-1).expand(points, -1, -1)], dim=-2)
    likelihood = torch.special.xlogy(counts[:, None, None], matrices).sum((-1, -2)).exp()
    founders = [node for node, parent in enumerate(parents) if parent == ROOT]
    visits = pair_counts(torch.zeros_like(context[:, founders]), context[:, founders], 1, 2)
    law = stationary_law(matrices) if roots == "stationary" else torch.full((1, 1, 2), 0.5, dtype=leave.dtype)
    likelihood = likelihood * torch.special.xlogy(visits[:, None], law).sum(-1).exp()
    prior = torch.from_numpy(weights / weights.sum())
    posterior = likelihood * prior.unsqueeze(1) * prior
    evidence = posterior.sum((1, 2))
    mean = torch.einsum("buv,uvsk->bsk", posterior, matrices) / evidence[:, None, None]
    return evidence, mean


@token_predictor(
    vocabulary=3, graph=((), (), *(((node - 1) // 2, node - 1) for node in range(2, 13))), concentration=1.0
)
def graph_posterior(vocabulary: int, graph: Graph, concentration: float) -> Callable[[Tensor, Tensor], Tensor]:
    r"""Token predictor: position t predicts node t + 1 by $(c_t(s, k) + \alpha) / (n_t(s) + S \alpha)$.

    s are the symbols of the parents of node t + 1, c_t counts the nodes up to t. Roots are predicted uniform.
    The token after the last one of T needs the parents of node T, so ``graph`` has at least T + 1 entries.
    Exact Bayes prediction where roots are uniform.

    Raises:
        LabError: a token outside the alphabet, a prior or graph that is none, a sequence longer than the graph.
    """
    check_prior(vocabulary, concentration)
    k = check_several_parents(graph)
    nodes = [node for node, parents in enumerate(graph) if parents]

    def predict(tokens: Tensor, prefix_length: Tensor) -> Tensor:
        check_tokens(tokens, vocabulary)
        batch, length = tokens.shape
        if length >= len(graph):
            raise LabError(
                f"{length} tokens and the one to predict exceed the {len(graph)} nodes of the graph; give a larger one"
            )
        counted = [node for node in nodes if node < length]
        predicted = [node for node in nodes if node <= length]
        codes = torch.full((batch, length + 1), vocabulary**k)  # a root has a row of its own, never counted
        codes[:, predicted] = tuple_codes(tokens, graph, predicted, vocabulary)
        events = torch.zeros(batch, length, vocabulary**k + 1, vocabulary, dtype=torch.float64)
        rows, times = torch.arange(batch).unsqueeze(1), torch.tensor(counted, dtype=torch.long)
        events[rows, times, codes[:, counted], tokens[:, counted]] = 1
        counts = events.cumsum(1)[rows, torch.arange(length), codes[:, 1:]]
        return smoothed(counts, concentration).log()

    return predict


# Risks


def oracle_risk(states: int, concentration: float) -> float:
    r"""$E H(\pi_s) = \psi(S \alpha + 1) - \psi(\alpha + 1)$ nats: the loss of who knows pi."""
    check_prior(states, concentration)
    return float(special.digamma(states * concentration + 1) - special.digamma(concentration + 1))


def risk_after_visits(visits: int, states: int, concentration: float) -> float:
    r"""Bayes risk in nats after n independent draws from the row.

    $-S \sum_{c=0}^n \mathrm{BetaBin}(c; n, \alpha, (S-1)\alpha)\, m \log m$ with $m = (\alpha + c)/(S\alpha + n)$;
    $\log S$ at n = 0, and $n\,(\text{risk}_n - \text{risk}_\infty) \to (S - 1)/2$.
    """
    check_prior(states, concentration)
    counts = np.arange(visits + 1)
    weights = scipy.stats.betabinom.pmf(counts, visits, concentration, (states - 1) * concentration)
    means = (concentration + counts) / (states * concentration + visits)
    return float(-states * np.sum(weights * special.xlogy(means, means)))


def pairs_risk(number: int, states: int, concentration: float) -> float:
    r"""Bayes risk of N pairs with uniform inputs: $\sum_j \mathrm{Bin}(j; N, 1/S)\, \text{risk}_j$ in nats."""
    visits = np.arange(number + 1)
    risks = [risk_after_visits(int(count), states, concentration) for count in visits]
    return float(scipy.stats.binom.pmf(visits, number, 1 / states) @ np.array(risks))


# Dependence of pairs of tokens


def recurrent_law(transition: Float[Tensor, "*batch states states"]) -> Float[Tensor, "*batch states"]:
    r"""$\mu$ of matrices under which every symbol comes again and again, so that one may divide by it.

    Raises:
        LabError: see `check_transition`; or a symbol of stationary probability 0.
    """
    law = stationary_law(check_transition(transition, "single"))
    absent = law < torch.finfo(law.dtype).tiny ** 0.5  # products of two such probabilities are 0
    if bool(absent.any()):
        symbol = int(torch.nonzero(absent)[0][-1])
        raise LabError(
            f"the symbol {symbol} has the stationary probability 0 and no dependence can be measured at it; give a "
            "transition matrix under which every symbol is reached again and again"
        )
    return law


def pair_laws(
    transition: Float[Tensor, "*batch states states"], parents: Sequence[int]
) -> Float[Tensor, "*batch nodes nodes states states"]:
    r"""J[j, i][a, b] = P(x_j = a, x_i = b) for all pairs of nodes of a forest with stationary roots.

    $J_{ii} = \mathrm{diag}\,\mu$; a root i is independent of every earlier node; a child inherits,
    $J_{ji} = J_{j p(i)}\, \pi$ for $j < i$; and $J_{ij} = J_{ji}^T$.

    Raises:
        LabError: see `check_transition` (one stationary law) and `check_forest`.
    """
    transition = check_transition(transition, "single")
    law = stationary_law(transition)
    states, nodes = law.shape[-1], len(check_forest(parents))
    product = law.unsqueeze(-1) * law.unsqueeze(-2)
    joint = product[..., None, None, :, :].repeat(*[1] * (law.dim() - 1), nodes, nodes, 1, 1)
    for node, parent in enumerate(parents):
        if parent != ROOT:
            inherited = joint[..., :node, parent, :, :] @ transition.unsqueeze(-3)
            joint[..., :node, node, :, :] = inherited
            joint[..., node, :node, :, :] = inherited.transpose(-1, -2)
        joint[..., node, node, :, :] = law.unsqueeze(-1) * torch.eye(states, dtype=law.dtype)
    return joint


def chi_square_information(joint: Float[Tensor, "*batch states others"]) -> Float[Tensor, "*batch"]:
    r"""$I = \sum_{ab} P(a, b)^2 / (P(a) P(b)) - 1$: 0 for independent tokens, at most S - 1."""
    product = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return ((joint - product).square() / product).sum((-1, -2))


def centred_transition(transition: Float[Tensor, "*batch states states"]) -> Float[Tensor, "*batch states states"]:
    r"""$B = D^{1/2} (\pi - 1 \mu^T) D^{-1/2}$, $D = \mathrm{diag}\,\mu$.

    The information between a node and its ancestor at distance k is $\|B^k\|_F^2$; B is symmetric exactly if the
    chain is reversible.

    Raises:
        LabError: see `recurrent_law`.
    """
    transition = check_transition(transition, "single")
    law = recurrent_law(transition)
    root = law.sqrt()
    return root.unsqueeze(-1) * (transition - law.unsqueeze(-2)) / root.unsqueeze(-2)


def attention_signal(
    transition: Float[Tensor, "*batch states states"], parents: Sequence[int]
) -> Float[Tensor, "*batch nodes nodes"]:
    r"""$g_{ij} = \frac1S \sum_{sk} \frac{\pi(s, k)}{\mu(k)} \left[P(x_j = s, x_i = k) - \mu(s) \mu(k)\right]$ for each pi.

    Its mean over the prior is what gradient descent on the first attention layer sees (row i, column j): the
    scaled gradient is g_ij minus its mean over the j that node i may attend to. At the parent it is
    $I(x_i; x_{p(i)}) / S$, at an ancestor k steps up $\langle B, B^k \rangle / S$, at a child
    $\mathrm{tr}(B^2) / S$.
    """
    transition = check_transition(transition, "single")
    law = recurrent_law(transition)
    excess = pair_laws(transition, parents) - (law.unsqueeze(-1) * law.unsqueeze(-2))[..., None, None, :, :]
    ratio = (transition / law.unsqueeze(-2))[..., None, None, :, :]
    # Rows are the node that attends: J(j, i) stands at [j, i], hence the transposition.
    return (ratio * excess).sum((-1, -2)).transpose(-1, -2) / law.shape[-1]


def centred_rows(
    signal: Float[Tensor, "*batch nodes nodes"], mask: Bool[Tensor, "nodes nodes"]
) -> Float[Tensor, "*batch nodes nodes"]:
    """g_ij minus the mean of row i over the columns that ``mask`` lets it see; 0 elsewhere."""
    mean = (signal * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)
    return (signal - mean) * mask


# The induction head on a known graph, and the gradient of the reduced model


def matches(tokens: Int[Tensor, "batch length"], parents: Sequence[int]) -> Float[Tensor, "batch length"]:
    """z_i: whether the parent of node i equals the test token; for roots and the test token, how often all up to i do.

    That is what the second layer reads if the first attends from a child to its parent and evenly from others.
    """
    equal = (tokens == tokens[:, -1:]).double()
    agreement = equal.cumsum(1) / torch.arange(1, tokens.shape[1] + 1)
    children = [node for node, parent in enumerate(check_forest(parents)) if parent != ROOT]
    agreement[:, children] = equal[:, [parents[child] for child in children]]
    return agreement


def induction_head(
    tokens: Int[Tensor, "batch length"], parents: Sequence[int], states: int, sharpness: float
) -> Float[Tensor, "batch {states}"]:
    r"""$f = \sum_i w_i\, e_{x_i}$, $w = \mathrm{softmax}(\beta z)$ with z of `matches`: attention layers on the graph.

    Args:
        sharpness: $\beta$; infinity averages over the keys that match best.
    """
    check_tokens(tokens, states)
    agreement = matches(tokens, parents)
    if sharpness == np.inf:
        best = (agreement == agreement.amax(-1, keepdim=True)).double()
        weights = best / best.sum(-1, keepdim=True)
    else:
        weights = torch.softmax(sharpness * agreement, -1)
    return torch.zeros(len(tokens), states, dtype=torch.float64).scatter_add_(1, tokens, weights)


def smoothing_head(
    row: Float[Tensor, "*batch states"],
    keys: Float[Tensor, "*batch states"],
    sharpness: float | Float[Tensor, "*sharpness"],
) -> Float[Tensor, "*batch states"]:
    r"""$\frac{(e^\beta - 1)\, c(s, k) + u(k)}{(e^\beta - 1)\, n(s) + N}$: the head when every z_i is 0 or 1.

    Additive smoothing towards the frequencies of the keys, worth $N / (e^\beta - 1)$ observations.

    Args:
        row: c(s, .) of the test token s.
        keys: u, how often each symbol stands among the N keys.
        sharpness: $\beta$.
    """
    gain = torch.as_tensor(sharpness, dtype=row.dtype).expm1()
    mixed = gain * row + keys
    return mixed / mixed.sum(-1, keepdim=True)


def reduced_gradients(
    pattern: Float[Tensor, "length length"],
    score: Float[Tensor, "states states"],
    tokens: Int[Tensor, "batch length"],
    target: Float[Tensor, "batch states"],
    floor: float,
    mask: Bool[Tensor, "length length"],
) -> tuple[Float[Tensor, "length length"], Float[Tensor, "states states"]]:
    r"""Gradients of $-E \sum_k y_k \log(f_k + \varepsilon)$ in the two matrices of the reduced model, by hand.

    With $P = \mathrm{softmax}(A_1)$, $Z = P X$, $a = \mathrm{softmax}(A_2[x_n] \cdot Z)$, $f = a^T X$, $r_k = y_k / (f_k +
    \varepsilon)$, $K_j = A_2[x_n, x_j]$ and $h_i = a_i (r_{x_i} - \sum_k r_k f_k)$:
    $\partial L / \partial A_1[i, j] = -E[h_i P_{ij} (K_j - \sum_l P_{il} K_l)]$ and
    $\partial L / \partial A_2[s] = -E[1\{x_n = s\} \sum_i h_i Z_i]$.

    Args:
        pattern, score: $A_1$ and $A_2$.
        floor: $\varepsilon$.
        mask: who may attend to whom in the first layer.
    """
    states = score.shape[0]
    check_tokens(tokens, states)
    attention = torch.softmax(pattern.masked_fill(~mask, -torch.inf), -1)
    symbols = torch.nn.functional.one_hot(tokens, states).to(pattern.dtype)
    copies = attention @ symbols
    query = score[tokens[:, -1]]
    weights = torch.softmax((copies @ query.unsqueeze(-1))[..., 0], -1)
    output = torch.zeros_like(target).scatter_add_(1, tokens, weights)
    ratio = target / (output + floor)
    pull = weights * (ratio.gather(1, tokens) - (ratio * output).sum(-1, keepdim=True))
    keys = query.gather(1, tokens)
    batch = len(tokens)
    gain = pull.T @ keys / batch - (pull * (keys @ attention.T)).mean(0).unsqueeze(-1)
    rows = (pull.unsqueeze(-1) * copies).sum(1)
    by_query = torch.zeros_like(score).index_add_(0, tokens[:, -1], rows)
    return -attention * gain, -by_query / batch
