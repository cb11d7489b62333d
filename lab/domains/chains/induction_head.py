r"""Two attention layers with explicit weights that put out in-context transition frequencies: an induction head.

A sequence x_0 .. x_{T-1} becomes T + 1 tokens of the residual stream (`stream_of`), the first one a sentinel
without symbol. Coordinates of a token:

    symbol    S      one-hot x_i, 0 for the sentinel
    value     S      the same, but the uniform law for the sentinel
    copy      S      what layer 1 copied here
    position  T + 1  one-hot
    constant  1      always 1
    sentinel  1      1 for the sentinel
    copied    1      1 where layer 1 copied from the sentinel
    answer    S      what layer 2 puts out

*Causal* (`causal_head`): layer 1 copies the symbol before (token i attends to i - 1), layer 2 compares the copy with
the current symbol and reads the symbol that followed. *Prefix* (`prefix_head`, every token sees every token): layer 1
copies the symbol after (token i attends to i + 1), layer 2 compares the symbol itself and reads the copy. Either
way the score of a match is beta, and

    f_t = [(e^beta - 1) C_t(s, .) + u_t] / [(e^beta - 1) C_t(s) + t],     s = x_t,

with counts C_t of transitions and u_t of the symbols x_1 .. x_t. Keys without a partner (the first symbol in the
causal wiring, the last one, which asks, in the prefix wiring) are ruled out by their "copied" flag.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.domains.chains.latent_graphs import check_tokens
from lab.errors import LabError
from lab.models.transformer import Architecture, Transformer

# exp(-HARD) is far below the rounding of 1, so that an attention weight of that size changes no sum.
HARD = 120.0
PARTS = ("symbol", "value", "copy", "position", "constant", "sentinel", "copied", "answer")


def places(states: int, length: int) -> dict[str, slice]:
    """Where each part of the residual stream stands."""
    sizes = (states, states, states, length + 1, 1, 1, 1, states)
    slices, begin = {}, 0
    for name, size in zip(PARTS, sizes, strict=True):
        slices[name] = slice(begin, begin + size)
        begin += size
    return slices


def stream_of(tokens: Int[Tensor, "batch length"], states: int) -> Float[Tensor, "1 batch length+1 width"]:
    """The residual stream that enters layer 1: the sentinel, then one token for each symbol.

    Raises:
        LabError: a token outside the alphabet.
    """
    check_tokens(tokens, states)
    batch, length = tokens.shape
    at = places(states, length)
    residual = torch.zeros(1, batch, length + 1, at["answer"].stop, dtype=torch.float64)
    symbols = torch.nn.functional.one_hot(tokens, states).double()
    residual[0, :, 1:, at["symbol"]] = symbols
    residual[0, :, 1:, at["value"]] = symbols
    residual[0, :, 0, at["value"]] = 1 / states
    residual[..., at["position"]] = torch.eye(length + 1, dtype=torch.float64)
    residual[..., at["constant"]] = 1
    residual[0, :, 0, at["sentinel"]] = 1
    return residual


def causal_head(states: int, length: int, sharpness: float) -> Transformer:
    r"""The wiring for causal masks; position t of T puts out $f_t$ of the module's formula, uniform at t = 0.

    Layer 1: token i copies the symbol of token i - 1 (the sentinel copies itself). Layer 2: query = own symbol,
    key = copy, value = own symbol.

    Args:
        states: S.
        length: T, symbols of a sequence.
        sharpness: $\beta$, at most `HARD`; from about 40 on $f_t$ is C_t(s, .) / C_t(s) to rounding.

    Raises:
        LabError: a sharpness outside [0, HARD].
    """
    source = torch.arange(length + 1).sub(1).clamp_min(0)
    # The sentinel's key is at -HARD, that of x_0 lower still: asked at t = 0, it answers with the sentinel's value.
    return _head(states, length, sharpness, source, "copy", "value", sentinel=HARD, copied=-2 * HARD)


def prefix_head(states: int, length: int, sharpness: float, exclude_query: bool = True) -> Transformer:
    r"""The wiring for full masks; the last position, which asks, puts out $f_{T-1}$ of the module's formula.

    Layer 1: token i copies the symbol of token i + 1 (the last one copies the sentinel). Layer 2: query = own
    symbol, key = own symbol, value = copy.

    Args:
        states, length, sharpness: see `causal_head`.
        exclude_query: rule out the key of the last token, which matches its own query and has no successor.

    Raises:
        LabError: a sharpness outside [0, HARD].
    """
    source = torch.arange(1, length + 2)
    source[-1] = 0
    copied = -HARD if exclude_query else 0.0
    return _head(states, length, sharpness, source, "symbol", "copy", sentinel=-HARD, copied=copied)


def _head(
    states: int,
    length: int,
    sharpness: float,
    source: Int[Tensor, " tokens"],
    key: str,
    value: str,
    sentinel: float,
    copied: float,
) -> Transformer:
    """Layer 1 copies from ``source``, layer 2 matches the symbol with the part ``key`` and reads the part ``value``.

    Args:
        sentinel, copied: what the flags of these names add to the score of a key.
    """
    if not 0 <= sharpness <= HARD:
        raise LabError(
            f"sharpness = {sharpness} of an induction head must lie between 0 and {HARD:g}; please change it"
        )
    at = places(states, length)
    width, size = at["answer"].stop, max(length + 1, states + 1)
    architecture = Architecture(
        width=width, layers=2, head_size=size, mlp_ratio=0, norm="none", bias=False, output_size=states
    )
    root = size**0.5  # attention divides scores by it
    symbols, tokens = torch.arange(states), torch.arange(length + 1)
    weights = {}
    for layer in range(2):
        for part, shape in (("query", (width, size)), ("key", (width, size)), ("value", (width, size))):
            weights[f"layers.{layer}.attention.{part}.weight"] = torch.zeros(shape, dtype=torch.float64)
        weights[f"layers.{layer}.attention.output.weight"] = torch.zeros(size, width, dtype=torch.float64)

    def entry(layer: int, matrix: str) -> Tensor:
        return weights[f"layers.{layer}.attention.{matrix}.weight"]

    def rows(part: str) -> Tensor:
        return torch.arange(at[part].start, at[part].stop)

    entry(0, "query")[rows("position"), source] = HARD * root
    entry(0, "key")[rows("position"), tokens] = 1
    entry(0, "value")[rows("symbol"), symbols] = 1
    entry(0, "value")[rows("sentinel"), states] = 1
    entry(0, "output")[symbols, rows("copy")] = 1
    entry(0, "output")[states, rows("copied")] = 1

    entry(1, "query")[rows("symbol"), symbols] = sharpness * root
    entry(1, "query")[rows("constant"), states] = root
    entry(1, "key")[rows(key), symbols] = 1
    entry(1, "key")[rows("sentinel"), states] = sentinel
    entry(1, "key")[rows("copied"), states] = copied
    entry(1, "value")[rows(value), symbols] = 1
    entry(1, "output")[symbols, rows("answer")] = 1
    weights["read_out.weight"] = torch.zeros(width, states, dtype=torch.float64)
    weights["read_out.weight"][rows("answer"), symbols] = 1
    return Transformer.from_weights(architecture, weights)


def frequencies(
    head: Transformer, tokens: Int[Tensor, "batch length"], mask: Bool[Tensor, "stream stream"]
) -> Float[Tensor, "batch length states"]:
    """Output of an induction head after each symbol: a law of the next one (no softmax follows).

    Args:
        head: of `causal_head` or `prefix_head`, made for T symbols.
        tokens: x_0 .. x_{T-1}.
        mask: over the T + 1 tokens of `stream_of`.
    """
    assert head.architecture.output_size is not None
    with torch.no_grad():
        return head(stream_of(tokens, head.architecture.output_size), mask)[0, :, 1:]


def attention_maps(
    head: Transformer, tokens: Int[Tensor, "batch length"], mask: Bool[Tensor, "stream stream"]
) -> Float[Tensor, "2 batch stream stream"]:
    """Attention weights of both layers, rows asking."""
    assert head.architecture.output_size is not None
    intermediates: dict[str, Tensor] = {}
    with torch.no_grad():
        head(stream_of(tokens, head.architecture.output_size), mask, intermediates=intermediates)
    return torch.stack([intermediates[f"layers.{layer}.attention.weights"][0, :, 0] for layer in range(2)])
