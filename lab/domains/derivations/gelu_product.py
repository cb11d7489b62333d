r"""A product of two numbers by four hidden units.

With $G(x) = x \Phi(x)$, the activation GELU,
$$f_\ell(a, b) = \frac{\sqrt{2 \pi}\, \ell^2}{8} \left[G\!\left(\tfrac{a+b}{\ell}\right) + G\!\left(-\tfrac{a+b}{\ell}\right)
- G\!\left(\tfrac{a-b}{\ell}\right) - G\!\left(-\tfrac{a-b}{\ell}\right)\right].$$

$G(x) + G(-x) = x\, \mathrm{erf}(x / \sqrt 2) = \sqrt{2/\pi}\,(x^2 - x^4/6 + \dots)$, so the squares give $a b$ and the
fourth powers the error $-a b (a^2 + b^2) / (3 \ell^2)$. The remainder $r(x) = \sqrt{2/\pi}\, x^2 - x\, \mathrm{erf}(x/\sqrt 2)$
has $0 \le r'(x) \le \sqrt{2/\pi}\, \tfrac23 x^3$ for x >= 0: with $u = x^2/2$ its second derivative is
$\sqrt{2/\pi}\,(2 - 2 (1 - u) e^{-u})$, and $1 - 2 u \le (1 - u) e^{-u} \le 1$. Hence for every $\ell > 0$
$$|f_\ell - a b| \le \frac{|a b| (a^2 + b^2)}{3 \ell^2} \le \frac{2 M^4}{3 \ell^2}, \qquad |a|, |b| \le M.$$

The approximation of GELU by tanh, which most released code uses, has $2 (c^2/3 - 0.044715) \approx 0.33498$,
$c^2 = 2/\pi$, in place of 1/3. Rounding of the bracket, whose terms are of size M / l, is multiplied by l^2: it grows as
$\ell M$ times the unit roundoff.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lab.errors import LabError
from lab.models.transformer import Architecture, Transformer

UNITS = 4
CONSTANTS = {"gelu": 1 / 3, "gelu_tanh": 2 * (2 / math.pi / 3 - 0.044715)}
r"""c in the leading error $-c\, a b (a^2 + b^2) / \ell^2$, by activation."""


def product_transformer(scale: float, *, activation: str = "gelu", dtype: torch.dtype = torch.float64) -> Transformer:
    r"""The lab's transformer whose only layer multiplies channels 0 and 1 of every token into channel 2.

    With ``relu`` the four units give $c\,(|a + b| - |a - b|)$, no product at any scale: the best factor, $c = \sqrt 2 - 1$, leaves
    the error $c^2 = 0.172$ on $[-1, 1]^2$.

    Args:
        scale: l > 0.
        activation: of the lab's transformer.
        dtype: of the weights.

    Raises:
        LabError: a scale that is not positive and finite.
    """
    if not 0 < scale < math.inf:
        raise LabError(f"The scale {scale} of a product must be positive and finite; raise it for a smaller error.")
    directions = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, -1.0, -1.0, 1.0], [0.0] * 4], dtype=torch.float64)
    share = scale * (math.sqrt(2) - 1) if activation == "relu" else math.sqrt(2 * math.pi) * scale**2 / 8
    out = torch.zeros(UNITS, 3, dtype=torch.float64)
    out[:, 2] = share * torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    architecture = Architecture(
        width=3, layers=1, heads=1, mlp_ratio=UNITS / 3, activation=activation, norm="none", bias=False
    )
    weights = {"layers.0.mlp.hidden.weight": directions / scale, "layers.0.mlp.output.weight": out}
    return Transformer.from_weights(architecture, weights, dtype=dtype)


def multiply(
    a: Float[Tensor, " pair"],
    b: Float[Tensor, " pair"],
    scale: float,
    *,
    activation: str = "gelu",
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, " pair"]:
    """What the network makes of pairs of numbers."""
    module = product_transformer(scale, activation=activation, dtype=dtype)
    tokens = torch.stack([a, b, torch.zeros_like(a)], 1).to(dtype)
    mask = torch.ones(1, 1, dtype=torch.bool)
    with torch.no_grad():
        answers: Tensor = module(tokens[None, :, None], mask)
    return answers[0, :, 0, 2]


def error_bound(size: float, scale: float, activation: str = "gelu") -> float:
    r"""$2 c M^4 / \ell^2$ with the constant of the activation (for "gelu" a bound at every l; otherwise its leading term)."""
    return 2 * CONSTANTS[activation] * size**4 / scale**2


def rounding(size: float, scale: float, dtype: torch.dtype = torch.float64) -> float:
    r"""A bound of the rounding error: 20 operations, amplified by $\sqrt{2 \pi} \ell^2 / 8$, on four terms of at most $2 M / \ell$."""
    return 20 * torch.finfo(dtype).eps / 2 * math.sqrt(2 * math.pi) * scale**2 / 8 * 4 * (2 * size / scale)
