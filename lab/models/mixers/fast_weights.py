r"""Fast weights that correct what they hold: the delta rule and recursive least squares.

A memory S (values by keys) answers a query with S q. Linear attention without feature map or normaliser adds
$v_t k_t^\top$ to it. The two mixers here write what is still wrong, $e_t = v_t - S_{t-1} k_t$:

- the delta rule $S_t = S_{t-1} + b_t\, e_t k_t^\top$, one step of online gradient descent of size $b_t$ on
  $\frac12 \|S k_t - v_t\|^2$. In parallel $U = (I + \mathrm{tril}(\mathrm{diag}(b) K K^\top, -1))^{-1} \mathrm{diag}(b) V$ holds what
  is written, $b_t e_t$, and $y_i = \sum_{j \le r_i} (q_i \cdot k_j) u_j$;
- recursive least squares, in which the matrix $P_{t-1} / (1 + k_t^\top P_{t-1} k_t)$, $P_0 = I / \lambda$, stands for $b_t$: its
  answer is that of ridge regression on all that was written, which is its parallel form.

r_i is the number of tokens that are written before token i is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.errors import LabError
from lab.models.mixers.interface import Mixer, State, Streams, between, reach, sequence_mixer
from lab.models.mixers.linear import PATTERNS
from lab.statistics import rounding_bound


@sequence_mixer(
    patterns=[*PATTERNS, {"name": "sliding_window", "length": 6, "window": 3}], query=3, key=3, value=2, rate=1
)
class DeltaRule(Mixer):
    """Online gradient descent as a mixer, with a rate for each token and head; it diverges where b |k|^2 exceeds 2."""

    streams: ClassVar = {"query": None, "key": None, "value": None, "rate": (0.0, math.inf)}

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        written = corrections(streams["key"], streams["value"], streams["rate"])
        scores = streams["query"] @ streams["key"].transpose(-1, -2)
        return scores.masked_fill(~mask, 0.0) @ written

    def start(self, streams: Streams) -> State:
        key, value = streams["key"], streams["value"]
        return {"memory": key.new_zeros(*key.shape[:3], value.shape[-1], key.shape[-1])}

    def write(self, state: State, token: Streams) -> State:
        memory, key = state["memory"], token["key"]
        wrong = token["value"] - _answer(memory, key)
        return {"memory": memory + (token["rate"] * wrong).unsqueeze(-1) * key.unsqueeze(-2)}

    def read(self, state: State, token: Streams) -> Float[Tensor, "model batch head size"]:
        return _answer(state["memory"], token["query"])

    def state_size(self, sizes: Mapping[str, int], written: int) -> int:
        return sizes["key"] * sizes["value"]

    def chunked(
        self, streams: Streams, mask: Bool[Tensor, "token token"], chunk: int
    ) -> Float[Tensor, "model batch head token size"]:
        """The parallel form inside a chunk, on values of which the memory's own answers are taken away."""
        reached, length, outputs = reach(mask).tolist(), len(mask), []
        memory, written = self.start(streams)["memory"], 0
        for first in range(0, length, chunk):
            end = min(first + chunk, length)
            part = between(streams, written, reached[end - 1])
            key = part["key"]
            added = corrections(key, part["value"] - key @ memory.transpose(-1, -2), part["rate"])
            query = streams["query"][..., first:end, :]
            scores = (query @ key.transpose(-1, -2)).masked_fill(~mask[first:end, written : reached[end - 1]], 0.0)
            outputs.append(query @ memory.transpose(-1, -2) + scores @ added)
            memory, written = memory + added.transpose(-1, -2) @ key, reached[end - 1]
        return torch.cat(outputs, dim=-2)

    def reads(self, mask: Bool[Tensor, "token token"]) -> Bool[Tensor, "token token"]:
        """What is written at a token depends on all tokens before it, whether they are seen or not."""
        before = torch.ones_like(mask).tril()
        return super().reads(mask) | (mask.double() @ before.double() > 0)

    def rounding(self, streams: Streams, mask: Bool[Tensor, "token token"]) -> float:
        r"""Errors of a triangular solve, $|\delta U| \le \gamma\, |T^{-1}| (|T| |U| + |b V|)$ (Higham, Theorem 8.5), read by $|Q K^\top|$.

        The recurrence solves the same system by forward substitution, an entry of $T$ being a product of D terms; it keeps
        its sums in the order of the features, so absolute values stand for every inner product.
        """
        query, key, value, rate = (streams[name] for name in ("query", "key", "value", "rate"))
        system = _system(key, rate)
        absolute = torch.eye(len(mask)).to(key) + (rate * (key.abs() @ key.abs().transpose(-1, -2))).tril(-1)
        written = corrections(key, value, rate)
        inverse = torch.linalg.inv(system).abs()
        error = inverse @ (absolute @ written.abs() + (rate * value).abs())
        visible = mask.any(-2) | mask.flip(-1).cummax(-1).values.flip(-1)
        scores = (query.abs() @ key.abs().transpose(-1, -2)).masked_fill(~visible, 0.0)
        operations = 2 * (2 * key.shape[-1] + 2 * len(mask) + 6)
        return 2 * rounding_bound(operations) * float((scores @ (error + written.abs())).max())


@sequence_mixer(patterns=[*PATTERNS, {"name": "sliding_window", "length": 6, "window": 3}], query=3, key=3, value=2)
class RecursiveLeastSquares(Mixer):
    r"""Ridge regression of the values on the keys that are written, of penalty $\lambda$, as a mixer.

    Raises:
        LabError: a penalty that is not positive, with which $P_0 = I / \lambda$ is not defined.
    """

    def __init__(self, penalty: float = 1.0) -> None:
        if not penalty > 0:
            raise LabError(f"penalty = {penalty} of recursive least squares must be above 0; please raise it.")
        self.penalty = penalty

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        return self._ridge(streams, mask, streams["query"], 0.0, 0.0)

    def start(self, streams: Streams) -> State:
        key, value = streams["key"], streams["value"]
        memory = key.new_zeros(*key.shape[:3], value.shape[-1], key.shape[-1])
        return {
            "memory": memory,
            "gain": (torch.eye(key.shape[-1]).to(key) / self.penalty).expand(*key.shape[:3], -1, -1),
        }

    def write(self, state: State, token: Streams) -> State:
        memory, gain, key = state["memory"], state["gain"], token["key"]
        moved = _answer(gain, key)
        step = moved / (1 + (key * moved).sum(-1, keepdim=True))
        wrong = token["value"] - _answer(memory, key)
        return {
            "memory": memory + wrong.unsqueeze(-1) * step.unsqueeze(-2),
            "gain": gain - step.unsqueeze(-1) * moved.unsqueeze(-2),
        }

    def read(self, state: State, token: Streams) -> Float[Tensor, "model batch head size"]:
        return _answer(state["memory"], token["query"])

    def state_size(self, sizes: Mapping[str, int], written: int) -> int:
        return sizes["key"] * (sizes["value"] + sizes["key"])

    def chunked(
        self, streams: Streams, mask: Bool[Tensor, "token token"], chunk: int
    ) -> Float[Tensor, "model batch head token size"]:
        """Carries the sums K^T K and K^T V, and solves for each token of a chunk."""
        reached, length, outputs = reach(mask).tolist(), len(mask), []
        key = streams["key"]
        gram = key.new_zeros(*key.shape[:3], 1, key.shape[-1], key.shape[-1])
        moments = key.new_zeros(*key.shape[:3], 1, key.shape[-1], streams["value"].shape[-1])
        written = 0
        for first in range(0, length, chunk):
            end = min(first + chunk, length)
            part = between(streams, written, reached[end - 1])
            visible = mask[first:end, written : reached[end - 1]]
            outputs.append(self._ridge(part, visible, streams["query"][..., first:end, :], gram, moments))
            gram = gram + (part["key"].transpose(-1, -2) @ part["key"]).unsqueeze(-3)
            moments = moments + (part["key"].transpose(-1, -2) @ part["value"]).unsqueeze(-3)
            written = reached[end - 1]
        return torch.cat(outputs, dim=-2)

    def rounding(self, streams: Streams, mask: Bool[Tensor, "token token"]) -> float:
        r"""An error of P or S made at token s reaches token t through $P_t P_s^{-1} = P_s^{1/2} X P_s^{-1/2}$ with
        $\|X\| \le 1$ (P only shrinks), whose norm is at most $\sqrt\kappa$, $\kappa = (\lambda + \|K\|^2) / \lambda$.

        P errs by N steps of $\gamma_{4D} \kappa / \lambda$ (it is multiplied from both sides), S by N steps of that error times
        what is still wrong, and by its own rounding; the solve errs by $\gamma \kappa$ alone. Norms are those of Frobenius.
        """
        key, value = streams["key"].flatten(0, 2), streams["value"].flatten(0, 2)
        length, size = key.shape[-2:]
        norms = torch.linalg.matrix_norm(key, ord=2)
        condition = float((1 + norms.square() / self.penalty).max())
        keys = float(torch.linalg.vector_norm(key, dim=-1).max())
        values = float(torch.linalg.vector_norm(value, dim=-1).max())
        queries = float(torch.linalg.vector_norm(streams["query"], dim=-1).max())
        memory = math.sqrt(length) * values / (2 * math.sqrt(self.penalty))  # |V^T K (K^T K + penalty)^-1|, see its SVD
        wrong = values + memory * keys
        of_gain = length * size * condition / self.penalty
        of_memory = (
            length * math.sqrt(condition) * (of_gain * keys * wrong + size * (memory + wrong * keys / self.penalty))
        )
        return 2 * rounding_bound(4 * size + length + 8) * queries * (of_memory + condition * memory)

    def _ridge(
        self, streams: Streams, mask: Tensor, query: Tensor, gram: Tensor | float, moments: Tensor | float
    ) -> Tensor:
        """For every row, $(\\sum k k^\\top + \\lambda I)^{-1} \\sum k v^\\top$ over what it sees, added to the given sums."""
        key, value = streams["key"], streams["value"]
        visible = mask.to(key)
        gram = gram + torch.einsum("...ij,...ja,...jb->...iab", visible, key, key)
        moments = moments + torch.einsum("...ij,...ja,...jm->...iam", visible, key, value)
        solved = torch.linalg.solve(gram + self.penalty * torch.eye(key.shape[-1]).to(key), moments)
        return (query.unsqueeze(-2) @ solved).squeeze(-2)


def corrections(
    key: Float[Tensor, "*lead token size"],
    value: Float[Tensor, "*lead token out"],
    rate: Float[Tensor, "*lead token one"],
) -> Float[Tensor, "*lead token out"]:
    """What the delta rule writes at each token, b_t (v_t - S_{t-1} k_t), from S_0 = 0."""
    return torch.linalg.solve_triangular(_system(key, rate), rate * value, upper=False, unitriangular=True)


def _system(key: Tensor, rate: Tensor) -> Tensor:
    below = (rate * (key @ key.transpose(-1, -2))).tril(-1)
    return below + torch.eye(key.shape[-2]).to(key)


def _answer(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
