"""What can be said exactly of the start of learning on a latent graph: finite lengths, two symbols, directions of edges.

Notation of `lab.domains.chains.latent_graphs`. The scaled gradient of the first layer at the start is
$G_{ij} = -\\frac{T (i + 1)}{\\beta_0} \\frac{\\partial L}{\\partial A_1[i, j]}$ at $A_1 = 0$, $A_2 = \\beta_0 I$, $\\beta_0 \\to 0$.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy
from jaxtyping import Float
from scipy import special
from torch import Tensor

from lab.domains.chains.latent_graph_prompts import Roots, check_prior, check_roots, check_transition
from lab.domains.chains.latent_graphs import centred_transition, recurrent_law
from lab.errors import LabError


class Entries(NamedTuple):
    """Of one row of the first layer: the entry at the token itself, and at its parent."""

    diagonal: float
    parent: float


# The direction of edges


def irreversibility(transition: Float[Tensor, "*batch states states"]) -> Float[Tensor, "*batch"]:
    r"""$\frac12 \|B - B^T\|_F^2$: by how much $S g$ at the parent exceeds $S g$ at the child.

    $\|B\|^2 - \mathrm{tr}(B^2) = \frac12 \|B - B^T\|^2$, and $B$ is symmetric exactly for reversible chains.

    Raises:
        LabError: see `centred_transition`.
    """
    between = centred_transition(transition)
    return (between - between.mT).square().sum((-1, -2)) / 2


# Two symbols


def binary_signal(transition: Float[Tensor, "*batch states states"], distance: int) -> Float[Tensor, "*batch"]:
    r"""$g = \lambda^{k+1} / 2$ between relatives k steps apart in a line, $\lambda = 1 - \pi(0, 1) - \pi(1, 0)$.

    With two symbols B has the one eigenvalue $\lambda$ that is not 0, and is symmetric: up or down is the same.
    """
    _check_binary(transition)
    return (1 - transition[..., 0, 1] - transition[..., 1, 0]) ** (abs(distance) + 1) / 2


def eigenvalue_moment(order: int, concentration: float) -> float:
    r"""$E\,\lambda^n$ over the prior of two symbols, $\lambda = (\frac12 - a) + (\frac12 - b)$ with a, b ~ Beta(alpha, alpha).

    Odd moments are 0. $E (a - \frac12)^{2i} = \prod_{r < i} \frac{2r + 1}{4 (2 \alpha + 2 r + 1)}$, so that
    $E \lambda^2 = \frac{1}{2 (2 \alpha + 1)}$; at alpha = 1, $E \lambda^{2m} = \frac{2}{(2m + 1)(2m + 2)}$.
    """
    check_prior(2, concentration)

    def central(power: int) -> float:
        if power % 2:
            return 0.0
        steps = np.arange(power // 2)
        return float(np.prod((2 * steps + 1) / (4 * (2 * concentration + 2 * steps + 1))))

    return float(sum(special.comb(order, part) * central(part) * central(order - part) for part in range(order + 1)))


# What counting costs


def risk_of_smoothing(visits: int, states: int, concentration: float, smoothing: float) -> float:
    r"""Risk in nats, after n independent draws from a row, of counts smoothed by another $\lambda$ than the prior's alpha.

    $-S \sum_{c=0}^n \mathrm{BetaBin}(c; n, \alpha, (S-1)\alpha)\, m \log m'$ with $m = (\alpha + c)/(S\alpha + n)$ and $m'$ the
    same with $\lambda$; see `lab.domains.chains.latent_graphs.risk_after_visits` for $\lambda = \alpha$, the least of all.

    Raises:
        LabError: no prior, or a smoothing that is not positive.
    """
    check_prior(states, concentration)
    if not smoothing > 0:
        raise LabError(f"a smoothing of {smoothing} gives a symbol never seen no probability; make it positive")
    counts = np.arange(visits + 1)
    weights = scipy.stats.betabinom.pmf(counts, visits, concentration, (states - 1) * concentration)
    means = (concentration + counts) / (states * concentration + visits)
    predicted = (smoothing + counts) / (states * smoothing + visits)
    return float(-states * np.sum(weights * means * np.log(predicted)))


# What a stationary start tells


def worth_of_a_start(concentration: float, points: int = 60) -> float:
    r"""$\log 2 - E\,H(\mu)$ nats for two symbols: what a stationary first symbol tells at most; see `start_information`.

    At alpha = 1 it is $\pi^2/12 - \log 2$.
    """
    check_prior(2, concentration)
    weights, leave, come = _square(concentration, points, bend=4)
    entropy = -sum(special.xlogy(part / (leave + come), part / (leave + come)) for part in (leave, come))
    return float(np.log(2) - weights @ entropy)


def start_information(length: int, roots: Roots = "stationary", points: int = 60) -> float:
    r"""KL divergence in nats of sequences of a binary chain whose first symbol has the law ``roots`` from a uniform start.

    Of the whole law of ``length`` tokens, with a new transition matrix in every sequence (alpha = 1): by how much the
    best predictor that takes the start for uniform falls short of the one that knows it to be stationary, over all
    tokens together. It grows with the length to `worth_of_a_start`: in the end $\pi$ is known, and the KL divergence
    is the mean of that of $\mu_\pi$ from the uniform law. Sequences are summed by their first symbol and counts.

    Args:
        length: number of tokens, at least 1.
        roots: law of the first symbol.
        points: of the quadrature along each axis.

    Raises:
        LabError: no token, or an unknown law.
    """
    check_roots(roots)
    if length < 1:
        raise LabError(f"a sequence of {length} tokens has no start; give it at least 1")
    weights, leave, come = _square(1.0, points)
    start = np.log(come / (leave + come)) if roots == "stationary" else np.full_like(come, np.log(0.5))
    logs = np.stack([np.log1p(-leave), np.log(leave), np.log(come), np.log1p(-come)])
    total = 0.0
    # By symmetry the first symbol is 0. A sequence with r changes of symbol falls into r + 1 runs.
    for changes in range(length):
        runs_of_zero, runs_of_one, stays = changes // 2 + 1, (changes + 1) // 2, length - 1 - changes
        zeros = np.arange(stays + 1.0) if runs_of_one else np.array([float(stays)])
        number = special.comb(zeros + runs_of_zero - 1, runs_of_zero - 1)
        if runs_of_one:
            number = number * special.comb(stays - zeros + runs_of_one - 1, runs_of_one - 1)
        counts = np.stack([zeros, 0 * zeros + runs_of_one, 0 * zeros + changes // 2, stays - zeros], -1)
        law = np.exp(counts @ logs + start) @ weights
        uniform = (
            special.beta(counts[:, 1] + 1, counts[:, 0] + 1) * special.beta(counts[:, 2] + 1, counts[:, 3] + 1) / 2
        )
        total += 2 * float(np.sum(number * special.xlogy(law, law / uniform)))
    return total


def _square(concentration: float, points: int, bend: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""Weights of the prior and nodes a, b: Gauss-Jacobi on each of the triangles a < b and b < a of the unit square.

    In a triangle the smaller is t times the larger (Duffy), in which $b / (a + b) = 1 / (1 + t)$ is smooth up to the
    corner; with $t = v^n$, n = ``bend``, logarithms of t do little harm.
    """
    power = concentration - 1
    outer, outer_weights = special.roots_jacobi(points, power, 2 * power + 1)
    inner, inner_weights = special.roots_jacobi(points, 0.0, bend * concentration - 1)
    larger, share = np.meshgrid((outer + 1) / 2, ((inner + 1) / 2) ** bend, indexing="ij")
    smaller = larger * share
    weights = np.multiply.outer(outer_weights, inner_weights) * (1 - smaller) ** power
    weights = np.concatenate([weights.ravel(), weights.ravel()])
    nodes = (np.concatenate([smaller.ravel(), larger.ravel()]), np.concatenate([larger.ravel(), smaller.ravel()]))
    return weights / weights.sum(), *nodes


# Finite lengths


def start_gradient_of_a_chain(transition: Float[Tensor, "states states"], nodes: int, row: int) -> Entries:
    """G at the token ``row`` itself and at its parent in a chain of two symbols, exactly, for one matrix.

    The output at the start is the unigram of all tokens, so that only counts matter: laws of the number of ones up to
    the row and after it come from adding one token at a time. No floor stands inside the logarithm.

    Args:
        transition: one matrix with positive entries.
        nodes: tokens of the context; T is one more.
        row: a token with a parent.

    Raises:
        LabError: another alphabet or an entry 0, or a row without a parent.
    """
    _check_binary(transition)
    if not 1 <= row < nodes:
        raise LabError(f"the row {row} of a chain of {nodes} nodes has no parent; take one from 1 to {nodes - 1}")
    matrix = transition.double().numpy()
    law = recurrent_law(transition.double()).numpy()
    length = nodes + 1

    def grow(counts: np.ndarray) -> np.ndarray:
        """From P(state, ones so far) to that one token later [state before, state, ones]."""
        moved = matrix[:, :, None] * np.pad(counts, ((0, 0), (0, 1)))[:, None]
        moved[:, 1] = np.roll(moved[:, 1], 1, -1)
        return moved

    before = np.zeros((2, 2))
    before[0, 0], before[1, 1] = law
    for _ in range(row - 1):
        before = grow(before).sum(0)
    edge = grow(before)  # [parent's symbol, own symbol, ones up to the row]
    up_to_row = edge.sum(0)
    # Ones after the row, given its symbol [state, ones].
    after = np.ones((2, 1))
    for _ in range(nodes - 1 - row):
        shifted = np.stack([np.pad(after[0], (0, 1)), np.pad(after[1], (1, 0))])
        after = matrix @ shifted
    ones = np.arange(up_to_row.shape[1])[:, None] + np.arange(after.shape[1])[None]
    diagonal = parent = mean = 0.0
    for test_token in (0, 1):
        totals = (
            length - 1 - ones + (test_token == 0),
            ones + (test_token == 1),
        )  # of zeros and of ones, the test token included
        present = sum(matrix[test_token, symbol] * (totals[symbol] > 0) for symbol in (0, 1))
        for symbol in (0, 1):
            pull = matrix[test_token, symbol] * length / np.maximum(totals[symbol], 1) - present
            expected = pull @ after[symbol]  # over what comes after
            prefix = np.arange(up_to_row.shape[1])
            occurrences = prefix if test_token == 1 else row + 1 - prefix
            diagonal += (test_token == symbol) * float(up_to_row[symbol] @ expected) / 2
            parent += float(edge[test_token, symbol] @ expected) / 2
            mean += float((up_to_row[symbol] * occurrences / (row + 1)) @ expected) / 2
    return Entries(diagonal - mean, parent - mean)


def limit_of_a_chain(transition: Float[Tensor, "states states"], row: int) -> Entries:
    r"""$g_{ij}$ less its mean over the row, at the token itself and at its parent: the limit of G for a fixed row length."""
    signal = [float(binary_signal(transition.double(), distance)) for distance in range(row + 1)]
    mean = float(np.mean(signal))
    return Entries(signal[0] - mean, signal[1] - mean)


def finite_length_coefficients(transition: Float[Tensor, "states states"], counted: bool = True) -> Entries:
    r"""c in $G = g + c/T + O(T^{-2})$ far from both ends of a chain, at the token itself and at its parent.

    With $Z = \sum_{h \ge 0} (\pi^h - 1 \mu^T)$ and $\sigma_k^2 = \mu_k (2 Z_{kk} - 1 + \mu_k)$, the variance of the
    frequency of k times its number of tokens, expanding $1/f_k$ around $1/\mu_k$ gives
    $c_{ii} = -\frac1S \sum_k \pi(k, k) (1/\mu_k - 1)$ for the token itself (the token's own count and the variance cancel),
    $c_{ip} = \frac1S \sum_{sk} \frac{\pi(s,k)^2 \mu_s}{\mu_k^2} [\sigma_k^2/\mu_k - Z_{kk} - Z_{ks} \mu_k/\mu_s - 1_{s=k} + \mu_k]$
    for the parent, and $c_\infty = -\frac1S \sum_{sk} \pi(s, k) (Z_{sk} \mu_s/\mu_k + Z_{ks})$ for a far token, which is what
    the mean over the row subtracts.

    Args:
        transition: one matrix with positive entries.
        counted: whether the test token is counted in the unigram, as it is; False leaves it out (for a control).
    """
    transition = check_transition(transition, "irreducible")
    matrix, law = transition.numpy(), recurrent_law(transition).numpy()
    states = len(law)
    same = np.eye(states)
    # sum over h of the powers, by the fundamental matrix of Kemeny and Snell.
    sums = np.linalg.inv(same - matrix + law) - law
    variance = law * (2 * sums.diagonal() - 1 + law)
    back = sums.T * law / law[:, None]  # Z_ks mu_k / mu_s at [s, k]
    test = (same - law) if counted else np.zeros_like(same)

    def of(pair: np.ndarray, drift: np.ndarray) -> float:
        """From P(x_j = s, x_i = k) and T E[f_k - mu_k | both]."""
        second = variance / law**3
        return float((matrix * pair * (second - drift / law**2)).sum()) / states

    diagonal = of(same * law, 2 * sums.diagonal() - 1 + law + test)
    parent = of(law[:, None] * matrix, sums.diagonal() + back + test)
    far = of(np.multiply.outer(law, law), 2 * sums.diagonal() - 1 + law + sums + back - (same - law) + test)
    return Entries(diagonal - far, parent - far)


def _check_binary(transition: Tensor) -> None:
    if transition.shape[-1] != 2 or bool((transition <= 0).any()):
        raise LabError(
            f"a transition matrix of {transition.shape[-1]} symbols with the smallest entry {float(transition.min()):.6g} "
            "must have two symbols and positive entries; give such a one"
        )
