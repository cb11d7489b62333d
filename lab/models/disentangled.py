r"""The disentangled transformer, whose residual stream is concatenated, and its reduced two-matrix form.

In an additive residual stream the parts of a representation overlap; here every layer appends what its heads
read, $h \leftarrow [h, \mathrm{attn}_1(h), \dots, \mathrm{attn}_m(h)]$ with
$\mathrm{attn}(h; A) = \mathrm{softmax}(\mathrm{mask}(h A h^T))\, h$, so that each block of a weight matrix has a
meaning that can be read off: *which part of the query meets which part of the key*. There are no value
matrices, MLPs, norms or scales. (Nichani, Damian, Lee 2024, section 2; Friedman et al. 2023.)

Both models are ensembles: every parameter has a leading model axis, and models differ by their mask at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lab.errors import LabError
from lab.streams import stream


def widths(vocabulary: int, length: int, heads: Sequence[int]) -> list[int]:
    """Width of the stream before each layer and after the last: S + T, multiplied by 1 + heads at each layer.

    >>> widths(3, 5, [1, 1])
    [8, 16, 32]
    """
    stream_widths = [vocabulary + length]
    for number in heads:
        stream_widths.append(stream_widths[-1] * (1 + number))
    return stream_widths


class Disentangled(nn.Module):
    """E attention-only transformers with a concatenated residual stream, read out at every token.

    Args:
        attention: A_l [E, m_l, d_l, d_l] of each layer l, for its m_l heads; d_0 = S + T, d_{l+1} = d_l (1 + m_l).
        readout: W [E, d_L, S].

    Raises:
        LabError: matrices whose sizes do not fit together.
    """

    def __init__(self, attention: Sequence[Tensor], readout: Tensor) -> None:
        super().__init__()
        self.vocabulary = readout.shape[-1]
        self.length = attention[0].shape[-1] - self.vocabulary
        expected = widths(self.vocabulary, self.length, [matrix.shape[1] for matrix in attention])
        actual = [matrix.shape[-1] for matrix in attention] + [readout.shape[-2]]
        if self.length < 1 or actual != expected:
            raise LabError(f"matrices of widths {actual} must have the widths {expected}; build them with `zeros`")
        self.attention = nn.ParameterList([nn.Parameter(matrix.clone()) for matrix in attention])
        self.readout = nn.Parameter(readout.clone())

    @classmethod
    def zeros(cls, models: int, vocabulary: int, length: int, heads: Sequence[int] = (1, 1)) -> Disentangled:
        """Models that attend evenly and predict the uniform law: where training starts from."""
        return cls.normal([0] * models, vocabulary, length, heads, 0.0)

    @classmethod
    def normal(
        cls, seeds: Sequence[int], vocabulary: int, length: int, heads: Sequence[int], scale: float
    ) -> Disentangled:
        """Attention matrices N(0, scale^2), so that heads of one layer differ; the read-out is zero."""
        sizes = widths(vocabulary, length, heads)
        attention = [
            np.stack([stream(seed, "weights", layer).rng().standard_normal((m, d, d)) for seed in seeds])
            for layer, (m, d) in enumerate(zip(heads, sizes[:-1], strict=True))
        ]
        matrices = [torch.from_numpy(scale * matrix) for matrix in attention]
        return cls(matrices, torch.zeros(len(seeds), sizes[-1], vocabulary, dtype=torch.float64))

    def select(self, indices: Sequence[int]) -> Disentangled:
        """The models at these places, with their own copy of the weights."""
        places = list(indices)
        return Disentangled([matrix.detach()[places] for matrix in self.attention], self.readout.detach()[places])

    def forward(
        self, tokens: Int[Tensor, "#model batch token"], mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch token states"]:
        """Logits h_t W at every token t; ``mask`` is [T, T], one a model [E, T, T] or one a prompt [E, B, T, T]."""
        return self._logits(tokens, mask, 0)

    def final(
        self, tokens: Int[Tensor, "#model batch token"], mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch states"]:
        """Logits at the last token alone, without the last layer's other rows."""
        return self._logits(tokens, mask, tokens.shape[-1] - 1)[:, :, 0]

    def patterns(self, mask: Bool[Tensor, "*pattern token token"]) -> Float[Tensor, "model heads token token"]:
        """softmax(mask(A_1)) of the position block: whom each position of the first layer attends to, tokens apart."""
        block = self.attention[0][:, :, self.vocabulary :, self.vocabulary :]
        return torch.softmax(block.masked_fill(~_per_model(mask), -torch.inf), -1)

    def _logits(self, tokens: Tensor, mask: Tensor, first: int) -> Tensor:
        """Logits [model, batch, token, states] of the tokens from ``first`` on."""
        visible = _visible(mask)
        symbols = _one_hot(tokens, self.length, self.readout)
        last = len(self.attention) - 1
        places = torch.eye(self.length, dtype=symbols.dtype, device=symbols.device)
        rows = keys = torch.cat([symbols, places.unsqueeze(-1).expand(len(symbols), -1, -1, symbols.shape[-1])], 1)
        for layer, matrix in enumerate(self.attention):
            rows = keys[:, :, first if layer == last else 0 :]
            queries = matrix.transpose(2, 3).flatten(1, 2) @ rows.flatten(2)
            queries = queries.view(*matrix.shape[:3], *rows.shape[2:])
            # Whatever stands in the stream, its positions are the identity: they need no product.
            if layer == 0:
                scores = _products(queries[:, :, : self.vocabulary], symbols)
                scores = scores + queries[:, :, self.vocabulary :].transpose(2, 3)
            else:
                scores = _products(queries, keys)
            weights = torch.softmax(scores.masked_fill(~visible[..., -rows.shape[2] :, :, :], -torch.inf), 3)
            if layer == 0:
                read = torch.cat([_averages(weights, symbols), weights.transpose(2, 3)], 2)
            else:
                read = _averages(weights, keys)
            keys = torch.cat([rows, read.flatten(1, 2)], 1)
        logits = self.readout.transpose(1, 2) @ keys.flatten(2)
        return logits.unflatten(2, keys.shape[2:]).permute(0, 3, 2, 1)


class Reduced(nn.Module):
    r"""E reduced models: $f = a^T X$, $a = \mathrm{softmax}(A_2[x_t] \cdot P X)$, $P = \mathrm{softmax}(\mathrm{mask}(A_1))$.

    $X$ are the one-hot tokens: the first layer looks at positions alone, the second compares the symbol of the
    query with the averages that the first has copied, and the output is a law, without another softmax.

    Args:
        pattern: $A_1$ [E, T, T] divided by ``row_scale``.
        score: $A_2$ [E, S, S].
        row_scale: [E, T], fixed; gradient descent with rate r on ``pattern`` moves row i of $A_1$ at the rate
            r * row_scale_i^2, which is how the small gradients of late rows are made up for.
    """

    row_scale: Tensor

    def __init__(self, pattern: Tensor, score: Tensor, row_scale: Tensor) -> None:
        super().__init__()
        self.vocabulary, self.length = score.shape[-1], pattern.shape[-1]
        self.pattern = nn.Parameter(pattern.clone())
        self.score = nn.Parameter(score.clone())
        self.register_buffer("row_scale", row_scale.clone())

    @classmethod
    def start(cls, vocabulary: int, sharpness: float, row_scale: Float[Tensor, "models length"]) -> Reduced:
        r"""$A_1 = 0$, $A_2 = \beta I$."""
        models, length = row_scale.shape
        score = sharpness * torch.eye(vocabulary, dtype=torch.float64).expand(models, -1, -1)
        return cls(torch.zeros(models, length, length, dtype=torch.float64), score, row_scale)

    def select(self, indices: Sequence[int]) -> Reduced:
        """The models at these places, with their own copy of the weights."""
        places = list(indices)
        return Reduced(self.pattern.detach()[places], self.score.detach()[places], self.row_scale[places])

    def forward(
        self, tokens: Int[Tensor, "#model batch token"], mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch token states"]:
        """log f at every token, each as the query; ``mask`` is [T, T] or one a model [E, T, T]."""
        symbols = _one_hot(tokens, self.length, self.score)
        queries = (self.score.transpose(1, 2) @ symbols.flatten(2)).view(symbols.shape)
        agreement = _products(queries.unsqueeze(1), symbols)[:, 0]  # [model, query, copied token, prompt]
        scores = (self.patterns(mask) @ agreement).unsqueeze(1)
        weights = torch.softmax(scores.masked_fill(~_visible(mask), -torch.inf), 3)
        return _averages(weights, symbols)[:, 0].log().permute(0, 3, 2, 1)

    def final(
        self, tokens: Int[Tensor, "#model batch token"], mask: Bool[Tensor, "*pattern token token"]
    ) -> Float[Tensor, "model batch states"]:
        """The law f of the child of the last token."""
        return reduced_law(tokens, self.patterns(mask)[:, 0], self.score)

    def patterns(self, mask: Bool[Tensor, "*pattern token token"]) -> Float[Tensor, "model 1 token token"]:
        """P of the one head of the first layer."""
        logits = (self.pattern * self.row_scale.unsqueeze(-1)).unsqueeze(1)
        return torch.softmax(logits.masked_fill(~_per_model(mask), -torch.inf), -1)


def reduced_law(
    tokens: Int[Tensor, "#model batch token"],
    attention: Float[Tensor, "model token token"],
    score: Float[Tensor, "model states states"],
) -> Float[Tensor, "model batch states"]:
    """Output law at the last token from P and A_2; hand in either one detached to freeze it."""
    symbols = _one_hot(tokens, attention.shape[-1], score)
    query = score.transpose(1, 2) @ symbols[:, :, -1]
    keys = (symbols * query.unsqueeze(2)).sum(1)
    weights = torch.softmax(attention @ keys, 1)
    return (weights.unsqueeze(1) * symbols).sum(2).transpose(1, 2)


# In all that follows the prompts are the last axis: [model, head, feature or query, token, prompt]. The other
# axes are so short that a matrix product or a softmax along them would be most of the cost of a training step.


def _one_hot(tokens: Tensor, length: int, like: Tensor) -> Float[Tensor, "model states token batch"]:
    """The tokens of every model, symbol by symbol, in the type of the weights ``like`` [model, ..., states]."""
    vocabulary = like.shape[-1]
    if tokens.shape[-1] != length:
        raise LabError(f"sequences of {tokens.shape[-1]} tokens must have {length}; build a model of their length")
    if tokens.numel() and not (int(tokens.min()) >= 0 and int(tokens.max()) < vocabulary):
        worst = int(tokens.max()) if int(tokens.max()) >= vocabulary else int(tokens.min())
        raise LabError(f"the token {worst} lies outside the alphabet 0 .. {vocabulary - 1}; use only its symbols")
    alphabet = torch.arange(vocabulary, device=tokens.device).view(1, -1, 1, 1)
    symbols = (tokens.transpose(1, 2).unsqueeze(1) == alphabet).to(like.dtype)
    return symbols.expand(len(like), *symbols.shape[1:])


def _products(
    queries: Float[Tensor, "model head feature query batch"], keys: Float[Tensor, "model feature token batch"]
) -> Float[Tensor, "model head query token batch"]:
    return (queries.unsqueeze(4) * keys[:, None, :, None]).sum(2)


def _averages(
    weights: Float[Tensor, "model head query token batch"], values: Float[Tensor, "model feature token batch"]
) -> Float[Tensor, "model head feature query batch"]:
    return (weights.unsqueeze(2) * values[:, None, :, None]).sum(4)


def _visible(mask: Tensor) -> Bool[Tensor, "model head query token batch"]:
    """The mask [T, T], [E, T, T] or [E, B, T, T] with all axes, of size 1 where it does not vary."""
    if mask.dim() == 4:
        return mask.permute(0, 2, 3, 1).unsqueeze(1)
    return _per_model(mask).unsqueeze(-1)


def _per_model(mask: Tensor) -> Bool[Tensor, "model head query token"]:
    """A mask that does not vary with the prompt, [T, T] or [E, T, T]."""
    return mask[None, None] if mask.dim() == 2 else mask.unsqueeze(1)
