r"""A transformer with explicit weights that computes the posterior mean of a mixture of regressions exactly.

Tokens are $x_1, y_1, x_2, y_2, \dots, x_n$, one row each, behind m *memory rows* which hold the components $w^*_j$ and
which every row sees. Three attention layers, each followed by one function of the row (Pathak et al. 2024, Theorem 1,
has the same steps in five layers):

1. softmax attention to the row before copies $x_i$ onto the row of $y_i$; an MLP with m hidden units and the square as
   its activation makes $r_{ij} = (y_i - w^*_j \cdot x_i)^2$ of it, 0 on every other row;
2. attention of weight 1 to every visible row (linear attention) adds them up: the row of $x_{k+1}$ holds
   $S_{kj} = \sum_{i \le k} r_{ij}$;
3. softmax attention to the memory rows alone, query $-S_{kj}/(2\sigma^2)$, key $e_j$, value $w^*_j$, writes
   $\hat w_k = \sum_j p_{kj} w^*_j$; a product of two parts of the row puts out $\hat w_k \cdot x_{k+1}$.

The square, the softmax and the product are the only nonlinearities. Coordinates of a row:

    input     d   x_i, 0 on rows of labels and memory
    label     1   y_i, 0 elsewhere
    position  T   one-hot over all T = m + 2 n - 1 rows
    constant  1   always 1
    slot      m   one-hot j on memory row j, 0 elsewhere
    value     d   w*_j on memory row j, 0 elsewhere
    copy      d   what layer 1 copied here
    residual  m   r_ij
    score     m   S_kj
    estimate  d   what layer 3 read: the weights
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lab.domains.regression.mixture_prompts import prior_law
from lab.domains.regression.mixtures import posterior, running_scores
from lab.errors import LabError
from lab.models.transformer import Architecture, Transformer
from lab.statistics import rounding_bound

# exp(-HARD) is far below the rounding of 1, so that an attention weight of that size changes no sum.
HARD = 120.0


def places(components: int, dimension: int, length: int) -> dict[str, slice]:
    """Where each part of a row stands, for m components in d dimensions and n inputs."""
    sizes = {
        "input": dimension,
        "label": 1,
        "position": components + 2 * length - 1,
        "constant": 1,
        "slot": components,
        "value": dimension,
        "copy": dimension,
        "residual": components,
        "score": components,
        "estimate": dimension,
    }
    slices, begin = {}, 0
    for name, size in sizes.items():
        slices[name] = slice(begin, begin + size)
        begin += size
    return slices


@dataclass(frozen=True)
class PosteriorNetwork:
    """The three layers, for one set of components and one length.

    Args:
        components: the set w*_1 .. w*_m.
        length: n inputs.
        copying, adding, reading: one attention layer each, as ensembles of one model.
        hidden: weights of the squares' hidden units, [width, m].
    """

    components: Float[Tensor, "component dimension"]
    length: int
    copying: Transformer
    adding: Transformer
    reading: Transformer
    hidden: Float[Tensor, "width component"]

    def __call__(
        self, x: Float[Tensor, "batch place dimension"], y: Float[Tensor, "batch place"], mask: Bool[Tensor, "row row"]
    ) -> Float[Tensor, "batch place"]:
        """What the rows of the inputs put out: at place k (from 0) the posterior mean given the first k pairs.

        Args:
            x, y: n inputs and their labels (the last label has no row).
            mask: over the 2 n - 1 rows x_1, y_1, .., x_n, such as `lab.models.masks.causal`.

        Raises:
            LabError: prompts of another length or dimension than the network was made for.
        """
        memory, dimension = self.components.shape
        if x.shape[1:] != (self.length, dimension):
            raise LabError(
                f"Prompts have {x.shape[1]} inputs of dimension {x.shape[2]}, but the network was made for {self.length} "
                f"of dimension {dimension}; build one of these sizes."
            )
        at = places(memory, dimension, self.length)
        rows, visible = self.rows(x, y), with_memory(mask, memory)
        only_memory = (torch.arange(len(visible)) < memory).expand(len(visible), -1)
        with torch.no_grad():
            rows = self.copying(rows, visible)
            rows[..., at["residual"]] = (rows @ self.hidden).square()
            rows = self.adding(rows, visible)
            rows = self.reading(rows, only_memory)
        answers = (rows[0, ..., at["estimate"]] * rows[0, ..., at["input"]]).sum(-1)
        return answers[:, memory::2]

    def rows(
        self, x: Float[Tensor, "batch place dimension"], y: Float[Tensor, "batch place"]
    ) -> Float[Tensor, "1 batch row width"]:
        """The rows that enter layer 1: memory first, then x_1, y_1, .., x_n."""
        memory, dimension = self.components.shape
        at = places(memory, dimension, self.length)
        width, count = at["estimate"].stop, at["position"].stop - at["position"].start
        rows = torch.zeros(1, len(x), count, width, dtype=torch.float64)
        rows[0, :, :memory, at["slot"]] = torch.eye(memory, dtype=torch.float64)
        rows[0, :, :memory, at["value"]] = self.components
        rows[0, :, memory::2, at["input"]] = x
        rows[0, :, memory + 1 :: 2, at["label"]] = y[:, :-1, None]
        rows[..., at["position"]] = torch.eye(count, dtype=torch.float64)
        rows[..., at["constant"]] = 1
        return rows


def posterior_network(
    components: Float[Tensor, "component dimension"],
    length: int,
    noise: float,
    prior: Sequence[float] = (),
    *,
    average: bool = False,
    own_input: bool = False,
) -> PosteriorNetwork:
    r"""The network of this module.

    Args:
        components: the set, in float64.
        length: n inputs of a prompt.
        noise: $\sigma$ > 0.
        prior: $\pi$ with all entries above 0; empty for uniform.
        average: layer 2 averages over the visible rows instead of adding (softmax of equal scores).
        own_input: the hidden units also read the input of their own row, so that rows of inputs get residuals too.

    Raises:
        LabError: no input, a noise or a prior that is not above 0.
    """
    memory, dimension = components.shape
    if length < 1:
        raise LabError(f"length is {length} but a prompt needs at least 1 input; raise length.")
    if not noise > 0:
        raise LabError(f"noise is {noise} but must be above 0; the network has no limit without noise.")
    law = prior_law(prior, memory)
    if not bool((law > 0).all()):
        raise LabError(f"The prior {tuple(prior)} excludes a component; leave that one out of the set instead.")
    at = places(memory, dimension, length)
    width, count = at["estimate"].stop, at["position"].stop - at["position"].start

    def part(name: str) -> Tensor:
        return torch.arange(at[name].start, at[name].stop)

    def layer(size: int, kind: str, entries: dict[str, list[tuple[Tensor, Tensor, Tensor | float]]]) -> Transformer:
        weights = {}
        for matrix, blocks in entries.items():
            shape = (size, width) if matrix == "output" else (width, size)
            weight = torch.zeros(shape, dtype=torch.float64)
            for rows, columns, values in blocks:
                weight[rows, columns] = torch.as_tensor(values, dtype=torch.float64)
            weights[f"layers.0.attention.{matrix}.weight"] = weight
        architecture = Architecture(
            width=width, layers=1, head_size=size, attention=kind, mlp_ratio=0, norm="none", bias=False
        )
        return Transformer.from_weights(architecture, weights)

    inputs, slots, first = torch.arange(dimension), torch.arange(memory), torch.zeros(1, dtype=torch.int64)
    before = torch.arange(count).sub(1).clamp_min(0)
    copying = layer(
        max(count, dimension),
        "softmax",
        {
            "query": [(part("position"), before, HARD * max(count, dimension) ** 0.5)],
            "key": [(part("position"), torch.arange(count), 1.0)],
            "value": [(part("input"), inputs, 1.0)],
            "output": [(inputs, part("copy"), 1.0)],
        },
    )
    adding = layer(
        memory,
        "softmax" if average else "linear",
        {
            "query": [(part("constant"), first, 0.0 if average else 1.0)],
            "key": [(part("constant"), first, 1.0)],
            "value": [(part("residual"), slots, 1.0)],
            "output": [(slots, part("score"), 1.0)],
        },
    )
    size = max(memory + 1, dimension)
    reading = layer(
        size,
        "softmax",
        {
            "query": [
                (part("score"), slots, -(size**0.5) / (2 * noise**2)),
                (part("constant").expand(memory), slots, size**0.5 * law.log()),
            ],
            "key": [(part("slot"), slots, 1.0)],
            "value": [(part("value"), inputs, 1.0)],
            "output": [(inputs, part("estimate"), 1.0)],
        },
    )
    hidden = torch.zeros(width, memory, dtype=torch.float64)
    hidden[at["label"]] = 1
    hidden[at["copy"]] = -components.T
    if own_input:
        hidden[at["input"]] = -components.T
    return PosteriorNetwork(components, length, copying, adding, reading, hidden)


def with_memory(mask: Bool[Tensor, "row row"], memory: int) -> Bool[Tensor, "all all"]:
    """``mask`` behind ``memory`` rows that all rows see, and that see one another only."""
    count = memory + len(mask)
    extended = torch.zeros(count, count, dtype=torch.bool)
    extended[:, :memory] = True
    extended[memory:, memory:] = mask
    return extended


def posterior_rounding(
    x: Float[Tensor, "batch place dimension"],
    y: Float[Tensor, "batch place"],
    components: Float[Tensor, "component dimension"],
    noise: float,
    prior: Sequence[float] = (),
) -> float:
    r"""How much two correct computations of the running posterior mean may differ, to first order.

    An exponent $e_j = S_j/(2\sigma^2)$ comes out with an error of at most $\gamma_N M_j$,
    $M_j = \sum_i (|y_i| + |w_j|\cdot|x_i|)^2/(2\sigma^2)$, and moves the weights by
    $|\Delta p_j| \le p_j (|\Delta e_j| + \sum_i p_i |\Delta e_i|)$. So the prediction moves by at most
    $2 \gamma_N \max_j(|w_j|\cdot|x|)\,(1 + \sum_j p_j M_j)$; N counts the longest chain of both computations together.
    """
    memory, dimension = components.shape
    length = x.shape[1]
    weights = posterior(running_scores(x, y, components), noise, prior)
    # |y| + |w| . |x| is a residual of the components -|w| on absolute values.
    sizes = running_scores(x.abs(), y.abs(), -components.abs()) / (2 * noise**2)
    reach = (x.abs() @ components.abs().mT).amax(-1)
    scale = 2 * reach * (1 + (weights * sizes).sum(-1))
    operations = 2 * (2 * dimension + 2 * length + 2 * memory + 20)
    return rounding_bound(operations, float(scale.max()))
