r"""Attention iterated to a fixed point as a mixer (Mathur et al. 2025, after the layer's open re-implementation).

The tokens $x_i$ enter again in every step; with the values $V = x W_V$ computed once (frozen) or from the state (evolving),

$$ f(u) = x + \mathrm{softmax}\Big(\frac{(u W_Q)(u W_K)^\top}{\sqrt{d}\,\tau}\Big) V W_O, \qquad
   u_{k+1} = (1 - \alpha)\, u_k + \alpha f(u_k), \quad u_0 = x . $$

Every head of the stream is such a system of its own. A prompt has arrived when no token moves by more than a share
$\epsilon$ of its
length; it is left alone from then on, so that it does not depend on its company. Where one does not arrive within so
many steps, `parallel` raises and says how far it still moves;
`solve` gives what there is. A token that sees nothing keeps $x_i$.

Under a causal mask the system is triangular: a token's fixed point needs those of earlier tokens only. So there is a recurrent
form with a cache of settled keys and values, which solves for one token at a time and meets the same fixed point. Under a prefix
the tokens of the prefix must be solved for together, and there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.errors import LabError
from lab.models.mixers.interface import Mixer, State, Streams, sequence_mixer
from lab.streams import stream


@dataclass(frozen=True)
class Solved:
    """What an iteration came to.

    Args:
        state: u after the last step of each prompt.
        steps: evaluations of f that each prompt took.
        movement: by which share of its length some token still moved in the last of them.
        arrived: whether that was within the tolerance.
    """

    state: Float[Tensor, "model batch head token size"]
    steps: Int[Tensor, "model batch head"]
    movement: Float[Tensor, "model batch head"]
    arrived: Bool[Tensor, "model batch head"]


class FixedPointAttention(Mixer):
    """See the module; it takes the residual stream alone.

    Args:
        query, key, value, output: $W_Q, W_K, W_V, W_O$ of every model and head; an axis of size 1 serves all.
        damping: $\\alpha$ in (0, 1].
        tolerance: $\\epsilon$.
        most: steps after which it gives up.
        temperature: $\\tau$.
        frozen: values of x; otherwise of the state.

    Raises:
        LabError: a number outside its range.
    """

    streams = {"stream": None}

    def __init__(
        self,
        query: Float[Tensor, "#model #head width size"],
        key: Float[Tensor, "#model #head width size"],
        value: Float[Tensor, "#model #head width size"],
        output: Float[Tensor, "#model #head size width"],
        *,
        damping: float = 0.8,
        tolerance: float = 1e-3,
        most: int = 20,
        temperature: float = 1.0,
        frozen: bool = True,
    ) -> None:
        for name, number, valid, limit in (
            ("damping", damping, 0 < damping <= 1, "in (0, 1]"),
            ("tolerance", tolerance, tolerance > 0, "positive"),
            ("most", most, most >= 1, "at least 1 step"),
            ("temperature", temperature, temperature > 0, "positive"),
        ):
            if not valid:
                raise LabError(f"{name} = {number} of a fixed-point layer must be {limit}; please change it.")
        self.query, self.key, self.value, self.output = (matrix.unsqueeze(1) for matrix in (query, key, value, output))
        self.damping, self.tolerance, self.most = damping, tolerance, most
        self.scale: float | Tensor = 1 / (query.shape[-1] ** 0.5 * temperature)
        self.frozen = frozen

    def step(
        self,
        state: Float[Tensor, "model batch head token width"],
        tokens: Float[Tensor, "model batch head token width"],
        mask: Bool[Tensor, "*pattern token token"],
    ) -> Float[Tensor, "model batch head token width"]:
        """f(u), without damping."""
        values = (tokens if self.frozen else state) @ self.value
        return tokens + self._read(state @ self.query, state @ self.key, values, mask)

    def solve(
        self,
        tokens: Float[Tensor, "model batch head token width"],
        mask: Bool[Tensor, "*pattern token token"],
        start: Float[Tensor, "model batch head token width"] | None = None,
    ) -> Solved:
        """Iterate until every prompt has arrived or ``most`` steps are made; ``start`` is u_0 (default x)."""
        return self._iterate(lambda u: self.step(u, tokens, mask), tokens if start is None else start)

    def parallel(
        self, streams: Streams, mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch head token size"]:
        """The fixed point.

        Raises:
            LabError: it was not reached.
        """
        return self._reached(self.solve(streams["stream"], mask))

    def start(self, streams: Streams) -> State:
        x = streams["stream"]
        return {"settled": x[..., :0, :], "key": (x @ self.key)[..., :0, :], "value": (x @ self.value)[..., :0, :]}

    def write(self, state: State, token: Streams) -> State:
        """Solve for one token more, the earlier ones being settled."""
        x = token["stream"].unsqueeze(-2)
        value = x @ self.value

        def step(u: Tensor) -> Tensor:
            keys = torch.cat((state["key"], u @ self.key), -2)
            values = torch.cat((state["value"], value if self.frozen else u @ self.value), -2)
            visible = torch.ones(1, keys.shape[-2], dtype=torch.bool, device=u.device)
            return x + self._read(u @ self.query, keys, values, visible)

        settled = self._reached(self._iterate(step, x))
        entries = {
            "settled": settled,
            "key": settled @ self.key,
            "value": value if self.frozen else settled @ self.value,
        }
        return {name: torch.cat((held, entries[name]), -2) for name, held in state.items()}

    def read(self, state: State, token: Streams) -> Float[Tensor, "model batch head size"]:
        """The fixed point of the token written last."""
        return state["settled"][..., -1, :]

    def state_size(self, sizes: Mapping[str, int], written: int) -> int:
        return written * (sizes["stream"] + self.key.shape[-1] + self.value.shape[-1])

    def forms(self, mask: Bool[Tensor, "token token"]) -> tuple[str, ...]:
        """Recurrent only where a token sees itself and what came before."""
        causal = mask.ndim == 2 and torch.equal(mask, torch.ones_like(mask).tril())
        return ("parallel", "recurrent") if causal else ("parallel",)

    def reads(self, mask: Bool[Tensor, "token token"]) -> Bool[Tensor, "token token"]:
        """Everything that tokens have heard from each other on the way: the closure of the pattern, and their own x."""
        reached = mask | torch.eye(len(mask), dtype=torch.bool, device=mask.device)
        for _ in range(len(mask).bit_length()):
            reached = (reached.double() @ reached.double()) > 0
        return reached

    def rounding(self, streams: Streams, mask: Bool[Tensor, "token token"]) -> float:
        r"""Of a contraction: either form lies within $\epsilon R / (1 - L)$ of the fixed point, in sequence too."""
        tokens = streams["stream"]
        lipschitz, radius = float(self.lipschitz(tokens).max()), float(self.radius(tokens).max())
        if lipschitz >= 1:
            return torch.inf
        return 2 * (self.tolerance / self.damping) * radius / (1 - lipschitz)

    def radius(self, tokens: Float[Tensor, "model batch head token width"]) -> Float[Tensor, "model batch head"]:
        r"""$R = \max_i |x_i| + |W_O| \max_j |v_j|$: no state with $u_0 = x$ leaves this ball (frozen values)."""
        values = torch.linalg.vector_norm(tokens @ self.value, dim=-1).amax(-1)
        return torch.linalg.vector_norm(tokens, dim=-1).amax(-1) + _norm(self.output) * values

    def lipschitz(self, tokens: Float[Tensor, "model batch head token width"]) -> Float[Tensor, "model batch head"]:
        r"""$L = |W_O|\, \frac{|W_Q W_K^\top|}{\sqrt{d}\,\tau}\, R\, \mathrm{diam}(V)$, a Lipschitz constant of f on that ball.

        In the norm $\max_i |u_i|$, for frozen values, under every mask.
        """
        values = tokens @ self.value
        diameter = torch.cdist(values, values).amax((-1, -2))
        scores = _norm(self.scale * self.query @ self.key.mT)
        return _norm(self.output) * scores * diameter * self.radius(tokens)

    def _read(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        scores = self.scale * query @ key.mT
        empty = ~mask.any(-1, keepdim=True)
        weights = scores.masked_fill(~(mask | empty), -torch.inf).softmax(-1).masked_fill(empty, 0.0)
        return weights @ value @ self.output

    def _iterate(self, step: Callable[[Tensor], Tensor], state: Tensor) -> Solved:
        steps = torch.zeros(state.shape[:3], dtype=torch.int64, device=state.device)
        movement = torch.full(state.shape[:3], torch.inf, dtype=state.dtype, device=state.device)
        arrived = torch.zeros(state.shape[:3], dtype=torch.bool, device=state.device)
        for _ in range(self.most):
            after = (1 - self.damping) * state + self.damping * step(state)
            lengths = torch.linalg.vector_norm(state.detach(), dim=-1).clamp_min(torch.finfo(state.dtype).tiny)
            moved = (torch.linalg.vector_norm((after - state).detach(), dim=-1) / lengths).amax(-1)
            state = torch.where(arrived[..., None, None], state, after)
            steps, movement = steps + ~arrived, torch.where(arrived, movement, moved)
            arrived = arrived | (moved <= self.tolerance)
            if bool(arrived.all()):
                break
        return Solved(state, steps, movement, arrived)

    def _reached(self, solved: Solved) -> Tensor:
        if not bool(solved.arrived.all()):
            lost = ~solved.arrived
            raise LabError(
                f"{int(lost.sum())} of {lost.numel()} prompts have not reached a fixed point: after "
                f"{int(solved.steps[lost].max())} steps a token still moves by {float(solved.movement[lost].max()):.3g} of "
                f"its length, more than the tolerance {self.tolerance:g}; allow more steps, damp more or scale the weights "
                "down."
            )
        return solved.state


def _norm(matrices: Tensor) -> Tensor:
    """Spectral norms."""
    return torch.linalg.matrix_norm(matrices, ord=2)


@sequence_mixer(
    patterns=[{"name": "causal", "length": 6}, {"name": "prefix_lm", "length": 6, "prefix_length": 3}], stream=4
)
def small_fixed_point_attention(scale: float = 0.1) -> FixedPointAttention:
    """Random weights, small enough to contract prompts of normal tokens."""
    rng = stream(0, "fixed-point attention").rng()
    weights = [torch.from_numpy(scale * rng.standard_normal((1, 1, 4, 4))) for _ in range(4)]
    return FixedPointAttention(*weights, tolerance=1e-13, most=400)
