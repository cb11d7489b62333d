r"""Markov chains as languages: the law of the next symbol depends on the last m symbols alone.

A *table* gives, for each of the S^m contexts (x_{t-m+1}, .., x_t), the law of x_{t+1}; the oldest symbol of a
context is the most significant digit of its number. Ensembles differ by how the table of a sequence arises:

    dirichlet_chains          S^m rows Dirichlet(alpha, .., alpha), new for each sequence
    doubly_stochastic_chains  order 1, rows and columns sum to 1: symbols alone are uninformative
    unigram_chains            order 1, all rows equal: transitions are uninformative
    fixed_chains              one given matrix for all sequences: it is learnt in the weights
    switching_chains          a sign announces that the table is drawn anew

(Edelman, Tsilivis, Edelman, Malach, Goel 2024; Makkuva et al. 2025.) The first m symbols are uniform unless said
otherwise: then the smoothed counts of `lab.domains.chains.markov` are exactly Bayes. Each field is drawn from a
stream of its own, for all sequences at once; only the walk along a chain is a loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lab.contracts import generator
from lab.domains.chains.latent_graph_prompts import (
    check_prior,
    check_rows,
    check_transition,
    dirichlet_rows,
    stationary_law,
)
from lab.errors import LabError
from lab.streams import RandomStream

Start = Literal["uniform", "stationary"]
REJECTED_UP_TO = 6  # symbols up to which doubly stochastic matrices are drawn by rejection
TRIED = 1 << 16  # matrices that rejection draws at once
SWEEPS = 40  # of hit-and-run beyond that, S^2 moves each


@dataclass(frozen=True)
class MarkovSequences:
    """Sequences and their tables.

    Args:
        tokens: x_0 .. x_{T-1} of each sequence.
        table: law of the next symbol for each context, S^m rows of S probabilities.
    """

    tokens: Int[Tensor, "batch length"]
    table: Float[Tensor, "batch contexts states"]


@dataclass(frozen=True)
class SwitchingSequences:
    """Sequences whose table changes at a sign.

    Args:
        tokens: symbols 0 .. S - 1 and the sign S.
        next_law: law of the token after each position, for who knows the table of the moment.
    """

    tokens: Int[Tensor, "batch length"]
    next_law: Float[Tensor, "batch length tokens"]


def check_length(length: int, order: int) -> None:
    """Refuse sequences without a prediction.

    Raises:
        LabError: an order below 0, or no more tokens than the order.
    """
    if order < 0 or length <= order:
        raise LabError(f"length = {length} and order = {order} leave no token to predict; choose 0 <= order < length")


def binary_kernel(p: float, q: float) -> Float[Tensor, "2 2"]:
    """[[1 - p, p], [q, 1 - q]]: p is the probability of leaving symbol 0, q of leaving symbol 1.

    >>> binary_kernel(0.2, 0.3).tolist()
    [[0.8, 0.2], [0.3, 0.7]]

    Raises:
        LabError: p or q outside [0, 1].
    """
    for name, value in (("p", p), ("q", q)):
        if not 0 <= value <= 1:
            raise LabError(
                f"{name} = {value} of a binary chain must be a probability between 0 and 1; please change it"
            )
    return torch.tensor([[1 - p, p], [q, 1 - q]], dtype=torch.float64)


def birkhoff_matrices(source: RandomStream, batch: int, states: int) -> Float[Tensor, "batch {states} {states}"]:
    r"""Doubly stochastic matrices, uniform over all of them (the polytope of Birkhoff, of dimension $(S - 1)^2$).

    Up to 6 symbols by rejection, which is exact: the first S - 1 rows are uniform laws, the last one is what is missing to
    columns of sum 1, and a matrix is kept where nothing is negative. The rows are linear coordinates of the polytope, so what
    is kept is uniform on it; a share of 1 (S = 2), .5, .21, .075, .024 is. Beyond 6 symbols by hit-and-run: two rows and two
    columns are chosen, and a uniform amount is moved round their four entries, of all that leave none negative; 40 S^2 moves
    from the flat matrix.

    Raises:
        LabError: fewer than two symbols, or fewer than one matrix.
    """
    check_prior(states, 1.0)
    if batch < 1:
        raise LabError(f"{batch} doubly stochastic matrices show nothing; ask for a batch of at least 1")
    if states > REJECTED_UP_TO:
        return _hit_and_run(source, batch, states)
    kept: list[np.ndarray] = []
    while sum(map(len, kept)) < batch:
        rows = source.child("tries", len(kept)).rng().dirichlet(np.ones(states), (TRIED // states, states - 1))
        last = 1 - rows.sum(1, keepdims=True)
        kept.append(np.concatenate([rows, last], 1)[(last >= 0).all((1, 2))])
    return torch.from_numpy(np.concatenate(kept)[:batch])


def _hit_and_run(source: RandomStream, batch: int, states: int) -> Float[Tensor, "batch {states} {states}"]:
    rng, every = source.rng(), np.arange(batch)
    matrices = np.full((batch, states, states), 1 / states)
    for _ in range(SWEEPS * states**2):
        first, other = rng.integers(states, size=(2, batch)), rng.integers(1, states, size=(2, batch))
        other = (first + other) % states
        (row, column), (below, right) = first, other
        gaining = np.minimum(matrices[every, row, right], matrices[every, below, column])
        losing = np.minimum(matrices[every, row, column], matrices[every, below, right])
        amount = rng.random(batch) * (gaining + losing) - losing
        matrices[every, row, column] += amount
        matrices[every, below, right] += amount
        matrices[every, row, right] -= amount
        matrices[every, below, column] -= amount
    return torch.from_numpy(matrices.clip(min=0.0))


def walk(
    uniform: Float[np.ndarray, "batch length"],
    table: Float[Tensor, "batch contexts states"],
    first: Int[Tensor, "batch order"],
) -> Int[Tensor, "batch length"]:
    """Tokens by inverting cumulative laws: x_{t+1} is the k with F(k - 1) <= u < F(k), F of the context's row.

    Args:
        uniform: u, independent and uniform on [0, 1); those of the first m tokens are not used.
        table: law of the next symbol for each context.
        first: the first m tokens.
    """
    batch, length = uniform.shape
    contexts, states = table.shape[1:]
    order = first.shape[1]
    # The last edge is 1 up to rounding and is left out, so that no u falls beyond the alphabet.
    edges = table.cumsum(-1)[..., :-1].reshape(batch * contexts, states - 1).numpy()
    tokens = np.empty((length, batch), dtype=np.int64)
    tokens[:order] = first.numpy().T
    code = np.zeros(batch, dtype=np.int64)
    for digit in tokens[:order]:
        code = code * states + digit
    offset, draws = contexts * np.arange(batch), np.ascontiguousarray(uniform.T)
    for time in range(order, length):
        row = edges[offset + code]
        token = row[:, 0] <= draws[time]
        token = token.astype(np.int64)
        for edge in range(1, states - 1):
            token += row[:, edge] <= draws[time]
        tokens[time] = token
        code = (code * states + token) % contexts
    return torch.from_numpy(np.ascontiguousarray(tokens.T))


def sample_chains(
    source: RandomStream, table: Float[Tensor, "batch contexts states"], length: int, start: Start = "uniform"
) -> MarkovSequences:
    """One sequence of each table.

    Args:
        source: randomness; one uniform number a token.
        length: T, tokens of a sequence.
        start: law of the first m tokens: uniform and independent, or (order 1) stationary.

    Raises:
        LabError: see `check_rows`, `check_transition` and `check_length`; a number of contexts that is no power of S; a
            stationary start of another order than 1; or an unknown start.
    """
    if start not in get_args(Start):
        raise LabError(f"start = {start!r} must be one of {', '.join(get_args(Start))}; please change it")
    batch, contexts, states = table.shape
    order = round(np.log(contexts) / np.log(states)) if states > 1 else 0
    if states > 1 and states**order != contexts:
        raise LabError(
            f"{contexts} contexts are no power of the {states} symbols; give one row for each context of m symbols"
        )
    check_length(length, order)
    table = check_rows(table)
    uniform = source.rng().random((batch, length))
    if start == "uniform":
        first = torch.from_numpy((uniform[:, :order] * states).astype(np.int64).clip(max=states - 1))
    elif order == 1:
        edges = stationary_law(check_transition(table, "irreducible")).cumsum(-1)[..., :-1]
        first = (torch.from_numpy(uniform[:, :1]).unsqueeze(-1) >= edges.unsqueeze(1)).sum(-1)
    else:
        raise LabError(
            f"a stationary start is offered for chains of order 1 only, not of order {order}; start uniformly"
        )
    return MarkovSequences(walk(uniform, table, first), table)


@generator(states=3, length=9, order=2)
def dirichlet_chains(
    source: RandomStream,
    batch: int,
    *,
    states: int,
    length: int,
    order: int = 1,
    concentration: float = 1.0,
    start: Start = "uniform",
) -> MarkovSequences:
    r"""Each sequence has a table of $S^m$ rows $\mathrm{Dirichlet}(\alpha, \dots, \alpha)$ of its own.

    Args:
        source: randomness; children "table" and "tokens".
        batch: number of sequences.
        states: S; ``length``: T; ``order``: m; ``concentration``: $\alpha$.
        start: see `sample_chains`.

    Raises:
        LabError: fewer than two symbols, a concentration that is not positive, or see `sample_chains`.
    """
    check_length(length, order)
    table = dirichlet_rows(source.child("table"), batch, states**order, states, concentration)
    if start == "stationary":
        # Rows are drawn to the rounding of 1: below it the last entries are 0, as if their symbols were never reached.
        table = table.clamp_min(torch.finfo(table.dtype).eps)
    return sample_chains(source.child("tokens"), table, length, start)


@generator(states=3, length=9)
def doubly_stochastic_chains(source: RandomStream, batch: int, *, states: int, length: int) -> MarkovSequences:
    """Order 1, transition matrices uniform over the doubly stochastic ones (`birkhoff_matrices`).

    Every symbol is equally frequent: the uniform start is the stationary one, and counting symbols tells nothing about
    the next. With two symbols the probability of leaving either is uniform on [0, 1].

    Raises:
        LabError: see `birkhoff_matrices` and `check_length`.
    """
    check_length(length, 1)
    table = birkhoff_matrices(source.child("table"), batch, states)
    return sample_chains(source.child("tokens"), table, length)


@generator(states=3, length=9)
def unigram_chains(
    source: RandomStream, batch: int, *, states: int, length: int, concentration: float = 1.0
) -> MarkovSequences:
    """Order 1 with all rows equal: independent symbols of an unknown law, the first one included.

    Raises:
        LabError: see `dirichlet_chains`.
    """
    law = dirichlet_rows(source.child("table"), batch, 1, states, concentration)
    drawn = sample_chains(source.child("tokens"), law, length)
    return MarkovSequences(drawn.tokens, law.expand(-1, states, -1))


@generator(transition=((0.5, 0.5, 0.0), (0.0, 0.25, 0.75), (1.0, 0.0, 0.0)), length=9)
def fixed_chains(
    source: RandomStream,
    batch: int,
    *,
    transition: tuple[tuple[float, ...], ...] | np.ndarray | Float[Tensor, "states states"],
    length: int,
    start: Start = "stationary",
) -> MarkovSequences:
    """All sequences of one transition matrix, which a model can only learn in its weights.

    Its rows may sum to 1 at the precision they are given in.

    Raises:
        LabError: a matrix that is not stochastic, or reducible where the start is stationary.
    """
    matrix = check_rows(torch.as_tensor(transition if isinstance(transition, Tensor) else np.asarray(transition)))
    return sample_chains(source.child("tokens"), matrix.expand(batch, *matrix.shape), length, start)


@generator(states=2, length=9, switch_probability=0.2)
def switching_chains(
    source: RandomStream,
    batch: int,
    *,
    states: int = 2,
    length: int,
    switch_probability: float,
    concentration: float = 1.0,
) -> SwitchingSequences:
    r"""Before every token the sign S comes with probability $\rho$; after it the table is new and the start uniform.

    Between signs the tokens are a chain of order 1 with rows $\mathrm{Dirichlet}(\alpha, \dots, \alpha)$.

    Args:
        source: randomness; children "signs", "table" and "tokens".
        states: S; the sign is token S.
        switch_probability: $\rho$.

    Raises:
        LabError: a probability outside [0, 1), or see `dirichlet_chains`.
    """
    if not 0 <= switch_probability < 1:
        raise LabError(f"switch_probability = {switch_probability} must be at least 0 and below 1; please change it")
    check_length(length, 1)
    signs = source.child("signs").rng().random((batch, length)) < switch_probability
    rows = dirichlet_rows(source.child("table"), batch, length * states, states, concentration)
    tables = rows.unflatten(1, (length, states)).numpy()  # the k-th of them serves after the k-th sign
    serving: np.ndarray = np.cumsum(signs, 1) - signs[:, :1]
    uniform = source.child("tokens").rng().random((batch, length))
    law = np.full((batch, length + 1, states), 1 / states)
    tokens = np.empty((batch, length), dtype=np.int64)
    every = np.arange(batch)
    for time in range(length):
        drawn = (uniform[:, time, None] >= law[:, time, :-1].cumsum(-1)).sum(-1)
        tokens[:, time] = np.where(signs[:, time], states, drawn)
        following = tables[every, serving[:, time], drawn]
        law[:, time + 1] = np.where(signs[:, time, None], 1 / states, following)
    full = np.full((batch, length, states + 1), switch_probability)
    full[..., :-1] = (1 - switch_probability) * law[:, 1:]
    return SwitchingSequences(torch.from_numpy(tokens), torch.from_numpy(full))
