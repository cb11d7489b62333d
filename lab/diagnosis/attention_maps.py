"""The attention weights inside a predictor, while it answers: of this lab's transformer, and of any module of torch.

The lab's transformer notes its weights itself. Of other modules every softmax over a square of tokens is taken, every call of
``scaled_dot_product_attention``, whose weights are computed beside it, and every one of `torch.nn.MultiheadAttention`. That is how
attention is written in plain PyTorch and in Hugging Face models; what computes elsewhere (numpy, JAX) shows none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lab.models.transformer import Transformer

Maps = list[Float[Tensor, "prompt _ token token"]]
"""One tensor a layer, in the order in which they attend, whose heads may differ in number; a row holds the weights with which a
token sees the others."""
SOFTMAXES = frozenset({F.softmax, torch.softmax, Tensor.softmax})


class Watched(TorchFunctionMode):
    """Inside, the attention weights of modules of torch are kept in ``maps``, call after call."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        keywords = keywords or {}
        if function is F.scaled_dot_product_attention:
            self._keep(fused_weights(*arguments, **keywords))
        if function is F.multi_head_attention_forward:
            with_weights = keywords | {"need_weights": True, "average_attn_weights": False}
            output, weights = function(*arguments, **with_weights)
            self._keep(weights)
            return output, weights if keywords.get("need_weights", True) else None
        output = function(*arguments, **keywords)
        if function in SOFTMAXES:
            self._keep(output)
        return output

    def _keep(self, weights: Tensor | None) -> None:
        if weights is not None and weights.dim() in (3, 4) and weights.shape[-1] == weights.shape[-2]:
            by_head = weights if weights.dim() == 4 else weights.unsqueeze(1)
            self.maps.append(by_head.detach().to("cpu", torch.float64))


def fused_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Float[Tensor, "*batch token seen"]:
    """The weights of ``scaled_dot_product_attention``, whose arguments these are; a row that sees nothing is 0."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -torch.inf)
    if attn_mask is not None:
        added = attn_mask.dtype != torch.bool
        scores = scores + attn_mask if added else scores.masked_fill(~attn_mask, -torch.inf)
    return scores.softmax(-1).nan_to_num(0.0)


def watched(predictor: Callable[..., Any], inputs: Sequence[Tensor]) -> Maps:
    """The maps of whatever a predictor computes in torch while it answers; none if it attends nowhere."""
    with Watched() as recorder:
        predictor(*inputs)
    return _by_layer(recorder.maps, len(inputs[0]))


def noted(transformer: Transformer) -> tuple[Transformer, list[Tensor]]:
    """A copy of one model that notes the weights of every layer in the list whenever it is asked."""
    copy, maps = transformer.select([0]), list[Tensor]()

    def before(module: Any, arguments: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, keywords | {"intermediates": {}}

    def after(module: Any, arguments: Any, keywords: dict[str, Any], output: Any) -> None:
        for depth in range(copy.architecture.layers):
            weights = keywords["intermediates"][f"layers.{depth}.attention.weights"][0]
            maps.append(weights.detach().to("cpu", torch.float64))

    copy.register_forward_pre_hook(before, with_kwargs=True)
    copy.register_forward_hook(after, with_kwargs=True)
    return copy, maps


def of_transformer(
    transformer: Transformer, ask: Callable[[Transformer], Callable[..., Any]], inputs: Sequence[Tensor]
) -> Maps:
    """The maps of the lab's transformer.

    Args:
        transformer: one model.
        ask: makes a predictor of it.
        inputs: what that is asked.
    """
    copy, maps = noted(transformer)
    ask(copy)(*inputs)
    return _by_layer(maps, len(inputs[0]))


def _by_layer(maps: Sequence[Tensor], prompts: int) -> Maps:
    """Maps of several calls, each of some of the prompts, put together; none where they are not of all prompts.

    Of every call the layers come one after the other, and there are as many in each.
    """
    rows = sum(len(weights) for weights in maps)
    layers = rows // prompts if prompts else 0
    if layers == 0 or rows % prompts or len(maps) % layers:
        return []
    if len({weights.shape[-1] for weights in maps}) > 1:
        return []
    return [torch.cat(list(maps[layer::layers])) for layer in range(layers)]
