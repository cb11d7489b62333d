r"""What theory knows about in-context Markov chains: Bayes predictors, losses, and one trainable model solved.

Notation of `lab.domains.chains.markov_prompts`: S symbols, order m, a table of $S^m$ rows. After x_0 .. x_t let
$C_t(s, b) = \#\{i \le t : \text{context before } x_i = s,\ x_i = b\}$, $C_t(s) = \sum_b C_t(s, b)$. Token predictors
map (tokens [B, T], prefix_length [B]) to log-probabilities [B, T, S]; position t predicts x_{t+1} from x_0 .. x_t.
All losses are in nats. Risks of rows drawn from the prior (`oracle_risk`, `risk_after_visits`), the chi-square
information of a pair and the head that smooths towards frequencies stand in `lab.domains.chains.latent_graphs`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy
import torch
from jaxtyping import Float, Int
from scipy import special
from torch import Tensor

from lab.contracts import token_predictor
from lab.domains.chains.latent_graph_prompts import check_prior, check_transition, stationary_law
from lab.domains.chains.latent_graphs import check_tokens, smoothed, smoothing_head
from lab.domains.chains.markov_prompts import check_length
from lab.errors import LabError

TokenPredictor = Callable[[Tensor, Tensor], Tensor]

# Counting


def context_numbers(tokens: Int[Tensor, "batch length"], states: int, order: int) -> Int[Tensor, "batch windows"]:
    """Number of each context of m symbols, the oldest most significant; window w ends before x_{w + m}.

    There are T - m + 1 of them, the last one being the context of the token after the sequence.

    >>> context_numbers(torch.tensor([[1, 0, 1]]), states=2, order=2).tolist()
    [[2, 1]]

    Raises:
        LabError: a token outside the alphabet, or fewer tokens than the order.
    """
    check_tokens(tokens, states)
    check_length(tokens.shape[1] + 1, order)
    windows = tokens.shape[1] - order + 1
    codes = torch.zeros_like(tokens[:, :1]).expand(-1, windows)
    for lag in range(order):
        codes = codes * states + tokens[:, lag : lag + windows]
    return codes


def running_counts(
    tokens: Int[Tensor, "batch length"], states: int, order: int, stretch: Int[Tensor, "batch windows"] | None = None
) -> Float[Tensor, "batch windows {states}"]:
    """Row C(s, .) of the context s = window w, from the tokens before the one it predicts: w = 0 .. T - m.

    Windows of one context are brought together, in order, and counted up; memory is linear in the length.

    Args:
        stretch: number of the stretch each window belongs to; only earlier windows of its own stretch count for a
            window. None counts all of them.
    """
    codes = context_numbers(tokens, states, order)
    if stretch is not None:
        codes = codes + stretch * states**order
    codes, windows = codes.sort(dim=1, stable=True)
    symbols = torch.nn.functional.one_hot(tokens[:, order:], states).double()
    symbols = torch.nn.functional.pad(symbols, (0, 0, 0, 1))  # nothing follows the last window
    places = windows.unsqueeze(-1).expand(-1, -1, states)
    symbols = symbols.gather(1, places)
    before = symbols.cumsum(1) - symbols
    # The place at which the context of each window begins; what is counted up to there belongs to other contexts.
    begins = torch.arange(codes.shape[1], device=codes.device).expand_as(codes).clone()
    begins[:, 1:][codes[:, 1:] == codes[:, :-1]] = 0
    begins = begins.cummax(1).values.unsqueeze(-1).expand_as(places)
    counts = before - before.gather(1, begins)
    return torch.empty_like(counts).scatter_(1, places, counts)


@token_predictor(vocabulary=3, order=2, concentration=0.5)
def markov_posterior(vocabulary: int, order: int, concentration: float) -> TokenPredictor:
    r"""Token predictor $(C_t(s, b) + \alpha) / (C_t(s) + S \alpha)$, s the last m symbols; uniform before x_{m-1}.

    Order 0 is the unigram $(u_t(b) + \alpha) / (t + 1 + S \alpha)$, which counts x_t as well. Exactly Bayes for
    rows $\mathrm{Dirichlet}(\alpha)$ and m uniform first tokens, since $\alpha$ is conjugate.

    Raises:
        LabError: one symbol, a concentration that is not positive, an order below 0, a token out of range.
    """
    check_prior(vocabulary, concentration)
    check_length(order + 1, order)

    def predict(tokens: Tensor, prefix_length: Tensor) -> Tensor:
        batch, length = tokens.shape
        law = torch.full((batch, length + 1, vocabulary), 1 / vocabulary, dtype=torch.float64)
        if length >= order:
            law[:, order:] = smoothed(running_counts(tokens, vocabulary, order), concentration)
        else:
            check_tokens(tokens, vocabulary)
        return law[:, 1:].log()

    return predict


@token_predictor(vocabulary=3)
def uniform_guess(vocabulary: int) -> TokenPredictor:
    """Token predictor 1 / S: what is known before anything is learnt, with loss log S.

    Raises:
        LabError: one symbol, or a token out of range.
    """
    check_prior(vocabulary, 1.0)

    def predict(tokens: Tensor, prefix_length: Tensor) -> Tensor:
        check_tokens(tokens, vocabulary)
        return torch.full((*tokens.shape, vocabulary), -np.log(vocabulary), dtype=torch.float64)

    return predict


@token_predictor(vocabulary=3, switch_probability=0.2, concentration=1.0)
def switching_posterior(vocabulary: int, switch_probability: float, concentration: float) -> TokenPredictor:
    r"""Bayes predictor of `switching_chains`: $\rho$ for the sign, $(1 - \rho)$ times counts since the last sign.

    Args:
        vocabulary: S + 1, symbols and the sign.

    Raises:
        LabError: a prior that is none, or a probability outside (0, 1).
    """
    states = vocabulary - 1
    check_prior(states, concentration)
    if not 0 < switch_probability < 1:
        raise LabError(f"switch_probability = {switch_probability} must lie between 0 and 1; please change it")

    def predict(tokens: Tensor, prefix_length: Tensor) -> Tensor:
        sign = tokens == states
        stretch = sign.cumsum(1)
        # Window w of order 1 is token w; its successor, token w + 1, is a sign or belongs to the same stretch.
        counts = running_counts(tokens, vocabulary, 1, stretch)[..., :states]
        counts = torch.where(sign.unsqueeze(-1), 0.0, counts)
        law = torch.full((*tokens.shape, vocabulary), switch_probability, dtype=torch.float64)
        law[..., :states] = (1 - switch_probability) * smoothed(counts, concentration)
        return law.log()

    return predict


def true_law(
    table: Float[Tensor, "batch contexts states"], tokens: Int[Tensor, "batch length"], order: int
) -> Float[Tensor, "batch length states"]:
    """Law of x_{t+1} for who knows the table; uniform where fewer than m tokens are there.

    Raises:
        LabError: a table that has not one row for each context of m symbols, or a token outside the alphabet.
    """
    contexts, states = table.shape[-2:]
    if contexts != states**order:
        raise LabError(
            f"a table of {contexts} rows does not fit order {order} of {states} symbols; give it {states**order} rows"
        )
    law = torch.full((*tokens.shape, states), 1 / states, dtype=table.dtype)
    if tokens.shape[1] >= order:
        codes = context_numbers(tokens, states, order)[:, 1 if order == 0 else 0 :]
        rows = table.gather(1, codes.unsqueeze(-1).expand(-1, -1, states))
        law[:, max(order - 1, 0) :] = rows
    return law


def log_evidence(
    tokens: Int[Tensor, "batch length"], states: int, order: int, concentration: float
) -> Float[Tensor, " batch"]:
    r"""Log-probability of a whole sequence under `dirichlet_chains`, the tables integrated out.

    $-m \log S + \sum_s \left[\log \frac{\Gamma(S\alpha)}{\Gamma(S\alpha + C(s))}
    + \sum_b \log \frac{\Gamma(\alpha + C(s, b))}{\Gamma(\alpha)}\right]$.
    """
    check_prior(states, concentration)
    codes = context_numbers(tokens, states, order)[:, :-1]
    cells = codes * states + tokens[:, order:]
    counts = torch.zeros(len(tokens), states ** (order + 1), dtype=torch.float64)
    counts = counts.scatter_add_(1, cells, torch.ones_like(cells, dtype=torch.float64))
    counts = counts.unflatten(1, (-1, states))
    alpha = torch.tensor(concentration, dtype=torch.float64)
    rows = torch.lgamma(states * alpha) - torch.lgamma(states * alpha + counts.sum(-1))
    entries = torch.lgamma(alpha + counts) - torch.lgamma(alpha)
    return rows.sum(-1) + entries.sum((-1, -2)) - order * np.log(states)


def smoothed_frequencies(
    tokens: Int[Tensor, "batch length"], states: int, sharpness: float
) -> Float[Tensor, "batch length {states}"]:
    r"""$\frac{(e^\beta - 1)\, C_t(s, \cdot) + u_t}{(e^\beta - 1)\, C_t(s) + t}$, s = x_t, u over x_1 .. x_t; uniform at t = 0.

    What an induction head of sharpness $\beta$ puts out: additive smoothing towards the unigram.
    $\beta = \infty$ gives C_t(s, .) / C_t(s), and the unigram for a symbol that has had no successor.
    """
    counts = running_counts(tokens, states, 1)
    unigram = torch.nn.functional.one_hot(tokens, states).double().cumsum(1)
    unigram = unigram - unigram[:, :1]
    if sharpness == np.inf:
        total = torch.where(counts.sum(-1, keepdim=True) > 0, counts, unigram)
        law = total / total.sum(-1, keepdim=True)
    else:
        law = smoothing_head(counts, unigram, sharpness)
    law[:, 0] = 1 / states
    return law


# Entropies


def entropy(law: Float[Tensor, "*batch states"]) -> Float[Tensor, "*batch"]:
    r"""$H(p) = -\sum_b p_b \log p_b$, with $0 \log 0 = 0$."""
    return torch.special.entr(law).sum(-1)


def entropy_rate(transition: Float[Tensor, "*batch states states"]) -> Float[Tensor, "*batch"]:
    r"""$h = \sum_s \mu_s H(P_s)$: the limit loss of who knows, or has learnt, the transition matrix.

    Raises:
        LabError: a matrix that is not stochastic, or reducible.
    """
    transition = check_transition(transition, "irreducible")
    return (stationary_law(transition) * entropy(transition)).sum(-1)


def stationary_entropy(transition: Float[Tensor, "*batch states states"]) -> Float[Tensor, "*batch"]:
    r"""$H(\mu)$: the limit loss of who counts symbols only.

    Raises:
        LabError: a matrix that is not stochastic, or reducible.
    """
    return entropy(stationary_law(check_transition(transition, "irreducible")))


def adjacent_information(transition: Float[Tensor, "*batch states states"]) -> Float[Tensor, "*batch"]:
    r"""$I(X_t; X_{t+1}) = \sum_{ab} \mu_a P_{ab} \log (P_{ab} / \mu_b)$, what the unigram leaves on the table.

    Raises:
        LabError: a matrix that is not stochastic, or reducible.
    """
    transition = check_transition(transition, "irreducible")
    law = stationary_law(transition)
    joint = law.unsqueeze(-1) * transition
    return torch.special.xlogy(joint, transition / law.unsqueeze(-2)).sum((-1, -2))


def smoothing_divergence(law: Float[np.ndarray, " states"], visits: int, concentration: float) -> float:
    r"""$E\,\mathrm{KL}(p \| \hat p)$ of add-alpha smoothing after n draws from a law p, exact.

    $\sum_b p_b \log p_b - \sum_b p_b\, E_{c \sim \mathrm{Bin}(n, p_b)} \log \frac{c + \alpha}{n + S \alpha}$;
    about (S - 1) / (2 n).

    Args:
        law: p; ``visits``: n; ``concentration``: alpha.
    """
    check_prior(len(law), concentration)
    counts = np.arange(visits + 1)
    logs = np.log((counts + concentration) / (visits + len(law) * concentration))
    expected = scipy.stats.binom.pmf(counts, visits, law[:, None]) @ logs
    return float(special.xlogy(law, law).sum() - law @ expected)


# One attention layer on a fixed binary chain, reduced to three numbers (Makkuva et al.)


def canonical_slope(embedding: Float[Tensor, "*shape"], attention: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""$s = e^2 (1 + 2 w |w|)$: by how much the current token moves the logit, from 0 to 1."""
    return embedding**2 * (1 + 2 * attention * attention.abs())


def canonical_loss(
    embedding: Float[Tensor, "*shape"],
    attention: Float[Tensor, "*shape"],
    bias: Float[Tensor, "*shape"],
    p: float,
    q: float,
) -> Float[Tensor, "*shape"]:
    r"""Cross entropy of logit(x) = s x + b - e^2/2 with the next token of the stationary `binary_kernel` (p, q).

    $-\pi_1 [q \log\sigma(-f_1) + (1-q) \log\sigma(f_1)] - \pi_0 [p \log\sigma(f_0) + (1-p) \log\sigma(-f_0)]$,
    $f_0 = b - e^2/2$, $f_1 = f_0 + s$. A single layer with tied embedding and symmetric rank-one start stays in
    this family.

    Args:
        embedding: e; ``attention``: w; ``bias``: b.
    """
    logit_zero = bias - embedding**2 / 2
    logit_one = logit_zero + canonical_slope(embedding, attention)
    log_sigmoid = torch.nn.functional.logsigmoid
    after_one = q * log_sigmoid(-logit_one) + (1 - q) * log_sigmoid(logit_one)
    after_zero = p * log_sigmoid(logit_zero) + (1 - p) * log_sigmoid(-logit_zero)
    return -(p * after_one + q * after_zero) / (p + q)


def optimal_bias(
    embedding: Float[Tensor, "*shape"], attention: Float[Tensor, "*shape"], p: float, q: float
) -> Float[Tensor, "*shape"]:
    r"""$b^* = e^2/2 + \log \frac{p - q + \sqrt{(p-q)^2 + 4 p q E}}{2 q E}$, $E = e^s$: the b of least loss."""
    growth = canonical_slope(embedding, attention).exp()
    root = ((p - q) ** 2 + 4 * p * q * growth).sqrt()
    # Of the two forms of this root of a quadratic, the one that adds numbers of one sign.
    odds = (p - q + root) / (2 * q * growth) if p >= q else 2 * p / (q - p + root)
    return embedding**2 / 2 + odds.log()


def kernel_slope(p: float, q: float) -> float:
    r"""$s^* = \log \frac{(1-p)(1-q)}{pq}$: the slope of all global minima; positive iff p + q < 1.

    Raises:
        LabError: p or q not strictly between 0 and 1, where no finite slope is best.
    """
    if not (0 < p < 1 and 0 < q < 1):
        raise LabError(
            f"p = {p} and q = {q} must both lie strictly between 0 and 1 for a finite best slope; please change them"
        )
    return float(np.log((1 - p) * (1 - q) / (p * q)))


def trap_curvature(attention: Float[Tensor, "*shape"], p: float, q: float) -> Float[Tensor, "*shape"]:
    r"""$\partial^2 L / \partial e^2 = -2 (1 + 2 w |w|)\, \pi_0 \pi_1 (1 - p - q)$ at e = 0, b = log(p/q).

    There the model is the unigram and its gradient vanishes: a local minimum iff this is positive.
    """
    weight = p * q / (p + q) ** 2
    return -2 * (1 + 2 * attention * attention.abs()) * weight * (1 - p - q)


def canonical_flow(
    embedding: Float[Tensor, "*shape"], attention: Float[Tensor, "*shape"], p: float, q: float
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    r"""$(\dot e, \dot w) = -\nabla L(e, w, b^*(e, w))$.

    L depends on the slope alone: $\partial L/\partial s = \pi_1 (\sigma(f_1) - (1 - q))$, $with
    $\partial s/\partial e = 2 e (1 + 2 w|w|)$ and $\partial s/\partial w = 4 e^2 |w|$.
    """
    slope = canonical_slope(embedding, attention)
    logit_one = optimal_bias(embedding, attention, p, q) - embedding**2 / 2 + slope
    pull = p / (p + q) * (torch.sigmoid(logit_one) - (1 - q))
    gain = 1 + 2 * attention * attention.abs()
    return -pull * 2 * embedding * gain, -pull * 4 * embedding**2 * attention.abs()


def conserved_energy(embedding: Float[Tensor, "*shape"], attention: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""$e^2 - w^2 - \mathrm{sign}(w) \log |w|$, constant along `canonical_flow` whatever p and q."""
    return embedding**2 - attention**2 - attention.sign() * attention.abs().log()


def basin_edge(attention: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""$w^2 + \mathrm{sign}(w) \log |w| - (1 + \log 2)/2$, the edge between two fates.

    The curve of equal energy through the point e = 0, $w = -1/\sqrt 2$, where the trap changes sign, parts them: for
    p + q < 1 starts with $w < -1/\sqrt 2$, for p + q > 1 starts with $-1/\sqrt 2 < w < 0$ are trapped where e^2 lies below it
    and escape where it lies above.
    """
    return attention**2 + attention.sign() * attention.abs().log() - (1 + np.log(2)) / 2
