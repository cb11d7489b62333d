"""Models of other conventions as predictors: token modules, a prediction at every place, language models, arrays.

Every query is asked in a sequence of its own, so that no query can influence another. A module is put into evaluation mode
first, and what was done to it is said (`Adapted.done`). A wrong place, coordinate or type of an answer is one sentence.

    from lab.diagnosis import adapt
    mine = adapt.module(gpt, "interleaved")         # in a file of your own; then: lab diagnose FILE.py:mine
    lab diagnose FILE.py:gpt --adapter interleaved  # the same
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lab.errors import LabError, nearest
from lab.models import masks
from lab.models.checkpoint import StoredModel

Layout = Literal["interleaved", "paired", "flagged"]
Label = Literal["first", "last"]
MODES = "it was in training mode, where dropout draws at random; its .eval() was called"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Adapted:
    """A predictor made of something that answers in another way.

    Args:
        answer: of a protocol of `lab.predictors`.
        module: what computes, where that is a module.
        done: what was done to it, a sentence each.
    """

    answer: Callable[..., Tensor]
    module: nn.Module | None = None
    done: tuple[str, ...] = ()

    def __call__(self, *inputs: Tensor) -> Tensor:
        return self.answer(*inputs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.answer)


def evaluated(model: Any) -> tuple[str, ...]:
    """Put a module into evaluation mode; what was done, in words: nothing, if it was in it or is no module."""
    if not isinstance(model, nn.Module) or not any(submodule.training for submodule in model.modules()):
        return ()
    model.eval()
    return (MODES,)


def module(
    model: Callable[..., Any],
    layout: str = "interleaved",
    *,
    label: str = "first",
    place: int = -1,
    read: int = -1,
    dtype: str = "",
    batch: int = 0,
) -> Adapted:
    """A regression predictor of a model over tokens, [sequence, time, width] to [sequence, time] or [sequence, time, outputs].

    Args:
        model: a module, or any function of the tokens.
        layout: what a token is. "interleaved": x_1, y_1, x_2, y_2, ..., x_query, each d wide, y in the coordinate that
            ``label`` says; "paired": (x_j, y_j) and last (x_query, 0), d + 1 wide; "flagged": (x_j, y_j, 0) and a query token
            of its own kind (x_query, 0, 1), d + 2 wide.
        label: of interleaved tokens: "first" puts y into the first of d coordinates; "last" makes tokens d + 1 wide, (x, 0) and
            (0, y).
        place: of the output that holds the prediction; -1 is the query's.
        read: coordinate of it that is the prediction, where outputs have several.
        dtype: of the tokens: float16, bfloat16, float32 or float64; that of the first parameter if left out.
        batch: the most sequences of one call; 0 for no limit.

    Raises:
        LabError: an unknown layout, label or dtype, or a negative limit; when asked, an output that has no such place or
            coordinate, or is no tensor of real numbers.
    """
    for name, value, known in (("layout", layout, get_args(Layout)), ("label", label, get_args(Label))):
        if value not in known:
            raise LabError(f"the {name} {value!r} is unknown{nearest(value, known)}; choose one of {', '.join(known)}")
    chosen = _dtype(dtype, model)
    _check_batch(batch)

    def answer(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        tokens = LAYOUTS[layout](*apart(x_context, y_context, x_query), label).to(chosen)
        predictions = in_parts(lambda part: numbers(_output(model(part)), part, place, read), batch, tokens)
        return predictions.view(x_query.shape[:2])

    return _adapted(answer, model)


def positions(model: Callable[..., Any], *, place: int = -1, dtype: str = "", batch: int = 0) -> Adapted:
    """A regression predictor of a model that predicts at every place, ``(xs [B, n+1, d], ys [B, n+1]) -> [B, n+1]``.

    Prediction i is of x_i from the examples before it. The query comes last, with label 0, which no such model may read.

    Args:
        model: a module or a function.
        place, dtype, batch: as in `module`.

    Raises:
        LabError: as `module`.
    """
    chosen = _dtype(dtype, model)
    _check_batch(batch)

    def answer(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        x, y, query = apart(x_context, y_context, x_query)
        xs, ys = torch.cat([x, query], 1).to(chosen), torch.cat([y, torch.zeros_like(y[:, :1])], 1).to(chosen)
        predictions = in_parts(
            lambda some, labels: numbers(_output(model(some, labels)), some, place, -1), batch, xs, ys
        )
        return predictions.view(x_query.shape[:2])

    return _adapted(answer, model)


def causal_lm(
    model: Callable[..., Any], *, symbols: Sequence[int] = (), start: int | None = None, batch: int = 0
) -> Adapted:
    """A token predictor of a causal language model: its logits become log-probabilities, and it keeps no cache.

    Args:
        model: ``model(input_ids=...)`` with a field ``logits``, as Hugging Face has them, or a module that maps ids to logits.
        symbols: the ids that stand for the symbols 0, 1, ..., where they are others; laws are over these alone.
        start: an id that every sequence begins with.
        batch: as in `module`.

    Raises:
        LabError: a negative limit; when asked, logits of another shape, or no real numbers.
    """
    _check_batch(batch)
    ids = torch.tensor(list(symbols), dtype=torch.long)
    names = _parameters(model)
    keywords = {"use_cache": False} if "use_cache" in names else {}

    def logits(input_ids: Int[Tensor, "batch time"]) -> Tensor:
        output = model(input_ids=input_ids, **keywords) if "input_ids" in names else model(input_ids)
        output = real(_output(output))
        if output.dim() != 3 or output.shape[:2] != input_ids.shape:
            raise LabError(
                f"its logits have shape {list(output.shape)} for tokens {list(input_ids.shape)}; they must be [batch, time, ids]"
            )
        return output

    def answer(tokens: Tensor, prefix_length: Tensor) -> Tensor:
        input_ids = ids.to(tokens.device)[tokens] if len(ids) else tokens
        if start is not None:
            input_ids = torch.cat([torch.full_like(input_ids[:, :1], start), input_ids], dim=1)
        token_logits = in_parts(logits, batch, input_ids)[:, input_ids.shape[1] - tokens.shape[1] :]
        token_logits = token_logits[..., ids.to(token_logits.device)] if len(ids) else token_logits
        return (
            token_logits.float().log_softmax(-1)
            if token_logits.dtype != torch.float64
            else token_logits.log_softmax(-1)
        )

    return _adapted(answer, model)


class LanguageModel(nn.Module):
    """A stored transformer of token ids as a causal language model, [batch, time] to logits [batch, time, ids].

    Raises:
        LabError: it reads no token ids, or sees what comes later.
    """

    def __init__(self, stored: StoredModel) -> None:
        super().__init__()
        if stored.transformer.architecture.vocabulary is None or stored.mask != "causal":
            raise LabError(
                f"a language model reads token ids under the causal mask, and this checkpoint has the vocabulary "
                f"{stored.transformer.architecture.vocabulary} and the mask {stored.mask!r}; leave --adapter out"
            )
        self.transformer = stored.transformer.eval()

    def forward(self, input_ids: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time ids"]:
        """Logits at every place."""
        mask = masks.causal(input_ids.shape[1]).to(input_ids.device)
        with torch.no_grad():
            return self.transformer(input_ids[None], mask)[0]


class Embedded(nn.Module):
    """A Hugging Face backbone over embeddings as a module over tokens: read in, backbone, read out.

    Args:
        backbone: a model or a causal LM that takes ``inputs_embeds``; of a causal LM what lies below its head.
        read_in: [..., token] to [..., width of the backbone].
        read_out: [..., width] to [..., 1] or more.
    """

    def __init__(self, backbone: nn.Module, read_in: nn.Module, read_out: nn.Module) -> None:
        super().__init__()
        self.backbone: nn.Module = getattr(backbone, "base_model", backbone)
        self.read_in, self.read_out = read_in, read_out

    def forward(self, tokens: Float[Tensor, "batch time token"]) -> Float[Tensor, "batch time output"]:
        """What is read out at every place."""
        output = self.backbone(inputs_embeds=self.read_in(tokens), use_cache=False)
        return self.read_out(output.last_hidden_state)


def arrays(function: Callable[..., Any], *, dtype: str = "") -> Adapted:
    """A predictor of a function of numpy arrays, which JAX takes too; it has the arguments of the protocol.

    Args:
        function: arrays to an array, of numpy, JAX or anything that numpy can read.
        dtype: of the real arguments; float64 if left out.

    Raises:
        LabError: an unknown dtype, or one that numpy does not have; when asked, an answer that is no array of numbers.
    """
    chosen = _dtype(dtype or "float64", function)
    if chosen == torch.bfloat16:
        raise LabError("numpy has no bfloat16; choose float16, float32 or float64")

    def convert(tensor: Tensor) -> np.ndarray:
        return (tensor.to(chosen) if tensor.is_floating_point() else tensor).cpu().numpy()

    def answer(first: Tensor, second: Tensor, *third: Tensor) -> Tensor:
        returned = function(*map(convert, (first, second, *third)))
        try:
            values = np.array(returned)
            kind = values.dtype.kind
        except (TypeError, ValueError) as error:
            raise LabError(
                f"it returned {type(returned).__name__}, which numpy cannot read; return an array"
            ) from error
        if kind != "f":
            raise LabError(f"it returned {type(returned).__name__} of {values.dtype}; return an array of real numbers")
        return torch.from_numpy(values)

    return Adapted(answer)


# What adapters share


def apart(
    x_context: Float[Tensor, "batch context dimension"],
    y_context: Float[Tensor, "batch context"],
    x_query: Float[Tensor, "batch query dimension"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Every query with a copy of its prompt: [batch * query, ...], one query each."""
    count = x_query.shape[1]
    return (
        x_context.repeat_interleave(count, 0),
        y_context.repeat_interleave(count, 0),
        x_query.flatten(0, 1)[:, None],
    )


def interleaved(x: Tensor, y: Tensor, query: Tensor, label: Label) -> Float[Tensor, "batch time width"]:
    """x_1, y_1, x_2, y_2, ..., x_query (see `module`)."""
    x, query = (torch.nn.functional.pad(inputs, (0, int(label == "last"))) for inputs in (x, query))
    labels = torch.zeros_like(x)
    labels[..., 0 if label == "first" else -1] = y
    return torch.cat([torch.stack([x, labels], dim=2).flatten(1, 2), query], dim=1)


def paired(x: Tensor, y: Tensor, query: Tensor, label: Label = "first") -> Float[Tensor, "batch time width"]:
    """(x_j, y_j), then (x_query, 0)."""
    return torch.cat([torch.cat([x, y[..., None]], -1), torch.nn.functional.pad(query, (0, 1))], dim=1)


def flagged(x: Tensor, y: Tensor, query: Tensor, label: Label = "first") -> Float[Tensor, "batch time width"]:
    """(x_j, y_j, 0), then (x_query, 0, 1)."""
    tokens = torch.nn.functional.pad(paired(x, y, query), (0, 1))
    tokens[:, -1, -1] = 1
    return tokens


LAYOUTS: dict[str, Callable[..., Tensor]] = {"interleaved": interleaved, "paired": paired, "flagged": flagged}


def in_parts(call: Callable[..., Tensor], batch: int, *inputs: Tensor) -> Tensor:
    """``call`` on at most ``batch`` rows at a time; 0 for all at once."""
    size = batch or max(len(inputs[0]), 1)
    return torch.cat([call(*part) for part in zip(*(tensor.split(size) for tensor in inputs), strict=True)])


def numbers(outputs: Any, tokens: Tensor, place: int, read: int) -> Float[Tensor, " sequence"]:
    """The prediction of every sequence, read off the outputs of a model.

    Raises:
        LabError: outputs without this place or coordinate, or that are no real numbers.
    """
    outputs = real(outputs)
    if outputs.dim() not in (2, 3) or len(outputs) != len(tokens):
        raise LabError(
            f"its output has shape {list(outputs.shape)} for {len(tokens)} sequences; it must be [sequence, time] or "
            "[sequence, time, outputs]"
        )
    for name, index, size in (("place", place, outputs.shape[1]), ("read", read, outputs.shape[-1])):
        if (name == "place" or outputs.dim() == 3) and not -size <= index < size:
            raise LabError(
                f"{name} {index} does not exist in its output of shape {list(outputs.shape)}; choose another {name}"
            )
    picked = outputs[:, place] if outputs.dim() == 2 else outputs[:, place, read]
    return picked if picked.dtype == torch.float64 else picked.float()


def real(returned: Any) -> Tensor:
    """A tensor of real numbers.

    Raises:
        LabError: it is none.
    """
    if not isinstance(returned, Tensor):
        raise LabError(f"it returned {type(returned).__name__}, not a tensor; return one, or choose another adapter")
    if not returned.is_floating_point():
        raise LabError(f"it returned {str(returned.dtype).removeprefix('torch.')}, but a prediction is a real number")
    return returned


def _output(returned: Any) -> Any:
    """The tensor in what a model returns: itself, its logits or last hidden state, or the first of several."""
    for name in ("logits", "last_hidden_state"):
        if getattr(returned, name, None) is not None:
            return getattr(returned, name)
    return returned[0] if isinstance(returned, tuple | list) and returned else returned


def _adapted(answer: Callable[..., Tensor], model: Any) -> Adapted:
    return Adapted(answer, model if isinstance(model, nn.Module) else None, evaluated(model))


def _parameters(function: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(getattr(function, "forward", function)).parameters)
    except (TypeError, ValueError):
        return frozenset()


def _dtype(name: str, model: Any) -> torch.dtype:
    if name:
        if name not in DTYPES:
            raise LabError(f"the dtype {name!r} is unknown{nearest(name, DTYPES)}; choose one of {', '.join(DTYPES)}")
        return DTYPES[name]
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return next((parameter.dtype for parameter in parameters if parameter.is_floating_point()), torch.float32)


def _check_batch(batch: int) -> None:
    if batch < 0:
        raise LabError(f"the limit of {batch} sequences a call must be at least 0, which is none; change --batch")


@dataclass(frozen=True)
class Convention:
    """How a model is called, as the command line names it.

    Args:
        adapter: the model and the options it reads, to a predictor.
        arguments: of the model; those of the protocol if empty.
        options: of the command line that it reads.
    """

    adapter: Callable[..., Adapted]
    arguments: tuple[str, ...]
    options: tuple[str, ...]


_TOKENS = ("place", "read", "dtype", "batch")
CONVENTIONS: dict[str, Convention] = {
    "interleaved": Convention(partial(module, layout="interleaved"), ("tokens",), ("label", *_TOKENS)),
    "paired": Convention(partial(module, layout="paired"), ("tokens",), _TOKENS),
    "flagged": Convention(partial(module, layout="flagged"), ("tokens",), _TOKENS),
    "positions": Convention(positions, ("xs", "ys"), ("place", "dtype", "batch")),
    "causal-lm": Convention(causal_lm, ("input_ids",), ("symbols", "start", "batch")),
    "arrays": Convention(arrays, (), ("dtype",)),
}


def adapted(model: Any, convention: str, **options: Any) -> Any:
    """The model under a convention of `CONVENTIONS`; itself where that is empty.

    Args:
        options: those that were given; what was left out has the adapter's default.

    Raises:
        LabError: an unknown convention, or an option that it does not read; see the adapters.
    """
    if not convention:
        if options:
            raise LabError(f"--{next(iter(options))} belongs to an adapter; name one with --adapter")
        return model
    if convention not in CONVENTIONS:
        known = ", ".join(CONVENTIONS)
        raise LabError(
            f"the adapter {convention!r} is unknown{nearest(convention, CONVENTIONS)}; choose one of {known}"
        )
    chosen = CONVENTIONS[convention]
    if isinstance(model, StoredModel):
        if convention != "causal-lm":
            raise LabError(
                f"a checkpoint is asked as its own tokens are written, so that the adapter {convention} has no place; leave "
                "--adapter out, or take causal-lm for a network of token ids"
            )
        model = LanguageModel(model)
    for name in options:
        if name not in chosen.options:
            raise LabError(f"--{name} is no option of the adapter {convention}; it reads {', '.join(chosen.options)}")
    return chosen.adapter(model, **options)
