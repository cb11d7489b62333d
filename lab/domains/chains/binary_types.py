r"""Binary chains by the type of a sequence: sequences of equal transition counts are equally probable, so few terms sum all.

A sequence of T tokens that starts with 0 and changes its symbol k times has $\lfloor k/2 \rfloor + 1$ runs of 0 and
$\lceil k/2 \rceil$ runs of 1; with $n_{00}$ and $n_{11}$ stays there are $\binom{n_{00} + \lfloor k/2 \rfloor}{\lfloor k/2 \rfloor}
\binom{n_{11} + \lceil k/2 \rceil - 1}{\lceil k/2 \rceil - 1}$ of them (Whittle 1955): about $T^2/2$ types for $2^{T-1}$ sequences.
Sequences that start with 1 are the same with the symbols exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from lab.errors import LabError


@dataclass(frozen=True)
class BinaryTypes:
    """Types of the sequences that start with 0: how often each transition occurs in them, and how many there are.

    Args:
        stay_zero, leave_zero, leave_one, stay_one: numbers of the transitions 00, 01, 10 and 11.
        log_number: logarithm of the number of sequences of a type.
    """

    stay_zero: Int[np.ndarray, " types"]
    leave_zero: Int[np.ndarray, " types"]
    leave_one: Int[np.ndarray, " types"]
    stay_one: Int[np.ndarray, " types"]
    log_number: Float[np.ndarray, " types"]

    @property
    def last(self) -> Int[np.ndarray, " types"]:
        """The last symbol."""
        return self.leave_zero - self.leave_one

    def log_probability(self, p: float, q: float) -> Float[np.ndarray, " types"]:
        """Of one sequence of each type under `binary_kernel` (p, q), given that it starts with 0."""
        return (
            special.xlog1py(self.stay_zero, -p)
            + special.xlogy(self.leave_zero, p)
            + special.xlogy(self.leave_one, q)
            + special.xlog1py(self.stay_one, -q)
        )


def binary_types(length: int) -> BinaryTypes:
    """All types of binary sequences of ``length`` tokens that start with 0.

    >>> types = binary_types(4)
    >>> float(np.exp(types.log_number).sum())
    8.0

    Raises:
        LabError: fewer than one token.
    """
    if length < 1:
        raise LabError(f"length = {length} leaves no sequence; use at least 1 token")
    switches, stay_zero = (grid.ravel() for grid in np.meshgrid(np.arange(length), np.arange(length), indexing="ij"))
    stay_one = length - 1 - switches - stay_zero
    # Without a change there is no run of 1 to stay in.
    possible = (stay_one >= 0) & ((switches > 0) | (stay_one == 0))
    switches, stay_zero, stay_one = switches[possible], stay_zero[possible], stay_one[possible]
    leave_one, leave_zero = switches // 2, (switches + 1) // 2
    number = _log_choose(stay_zero + leave_one, leave_one) + np.where(
        switches > 0, _log_choose(stay_one + np.maximum(leave_zero, 1) - 1, np.maximum(leave_zero, 1) - 1), 0.0
    )
    return BinaryTypes(stay_zero, leave_zero, leave_one, stay_one, number)


def binary_excess(p: float, q: float, read: int, concentration: float = 1.0) -> float:
    r"""$E\,\mathrm{KL}$ of the smoothed bigram predictor after ``read`` tokens of the stationary chain (p, q), exact.

    About $S (S - 1)/(2 t)$ = 1/t, as each row costs $(S - 1)/(2 n)$ after n visits (`smoothing_divergence`).

    Raises:
        LabError: no token, or p or q not strictly between 0 and 1.
    """
    if not (0 < p < 1 and 0 < q < 1):
        raise LabError(f"p = {p} and q = {q} must both lie strictly between 0 and 1; please change them")
    types, total = binary_types(read), 0.0
    # Sequences that start with 1 are those that start with 0 under (q, p).
    for leave, back in ((p, q), (q, p)):
        weight = np.exp(types.log_number + types.log_probability(leave, back)) * back / (leave + back)
        moved = np.where(types.last == 0, types.leave_zero, types.leave_one)
        stayed = np.where(types.last == 0, types.stay_zero, types.stay_one)
        truth = np.where(types.last == 0, leave, back)
        guess = (moved + concentration) / (moved + stayed + 2 * concentration)
        cost = special.rel_entr(truth, guess) + special.rel_entr(1 - truth, 1 - guess)
        total += float(weight @ cost)
    return total


def _log_choose(total: Int[np.ndarray, " types"], part: Int[np.ndarray, " types"]) -> Float[np.ndarray, " types"]:
    logarithms: Float[np.ndarray, " types"] = (
        special.gammaln(total + 1) - special.gammaln(part + 1) - special.gammaln(total - part + 1)
    )
    return logarithms


def worth_of_a_stationary_start() -> float:
    r"""$\pi^2/12 - \log 2$: what a stationary first symbol tells of a binary chain whose rows are uniform, in nats.

    The supremum over T of the divergence of the mixture with a stationary start from the one with a uniform start. It is
    $\log 2 - E\,H(\mu)$. With $u = p/q$, by symmetry uniform on [0, 1],
    $E\,H(\mu) = \int_0^1 [\log(1 + u) - \frac{u \log u}{1 + u}]\,du = 2 \log 2 - \pi^2/12$.
    """
    return float(np.pi**2 / 12 - np.log(2))
