"""What every generator, predictor and task must be, as checks that can be run on any of them.

    for check in generator_checks(linear_regression, dimension=3, context_length=5, query_length=2):
        check.run()            # raises BrokenContract with the offending values

A generator, a predictor or a sequence mixer of the library or of a user's task file registers itself with a decorator that
names example sizes; the suite runs all checks on everything registered, and ``lab check FILE`` on a user's.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab.contracts import Registered, registered
from lab.errors import LabError, described
from lab.models.mask_patterns import mask as pattern_mask
from lab.models.mixers.interface import FORMS, Mixer, at
from lab.streams import stream
from lab.tasks import Task


class BrokenContract(AssertionError):
    """A property that every part of its kind must have does not hold."""


@dataclass(frozen=True)
class Check:
    """One property; ``run`` raises BrokenContract where it does not hold."""

    name: str
    run: Callable[[], None]


def checks(registered: Registered) -> Iterator[Check]:
    """All checks of what was registered, by its kind."""
    example = registered.example
    if registered.kind == "generator":
        yield from generator_checks(registered.part, **example)
    elif registered.kind == "regression":
        yield from regression_predictor_checks(registered.part(**example))
    elif registered.kind == "mixer":
        yield from mixer_checks(registered.part(**example["arguments"]), example["patterns"], example["sizes"])
    else:
        sizes = {name: example[name] for name in ("vocabulary", "length") if name in example}
        arguments = {name: value for name, value in example.items() if name != "length"}
        yield from token_predictor_checks(registered.part(**arguments), **sizes)


def require_contracts(task: Task) -> None:
    """Run all checks of what the file of ``task`` registers, and of what modules beside it register that it imports.

    Raises:
        LabError: one of them does not hold, or what it checks raises.
    """
    for part in [part for module in _modules_of(task) for part in registered(module)]:
        try:
            for check in checks(part):
                about = f"{task.file.name}: {part.part.__name__} does not keep its contract ({check.name})"
                try:
                    check.run()
                except BrokenContract as broken:
                    raise LabError(f"{about}: {broken}; mend it, or do not register it") from broken
        except LabError:
            raise
        except Exception as error:
            name = part.part.__name__
            raise LabError(
                f"{name} cannot be checked on the sizes it registered: {described(error, task.file)}"
            ) from error


def _modules_of(task: Task) -> list[ModuleType]:
    """The module of ``task``, and those beside its file whose names stand in it."""
    module = sys.modules[task.module]
    named = [
        value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None) or "")
        for value in vars(module).values()
    ]
    beside = [neighbour for neighbour in named if neighbour is not None and _folder(neighbour) == task.file.parent]
    return list(dict.fromkeys([module, *beside]))


def _folder(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve().parent if file else None


def fields(prompts: Any) -> dict[str, Tensor]:
    """The tensors of a batch, by name."""
    if dataclasses.is_dataclass(prompts):
        items = {field.name: getattr(prompts, field.name) for field in dataclasses.fields(prompts)}
    else:
        items = dict(prompts)
    return {name: value for name, value in items.items() if isinstance(value, Tensor)}


def no_tensor(answer: Any) -> str:
    """What to say of an answer that is no tensor."""
    hint = (
        "; if it makes a predictor, name one that it made, as NAME = function(...) in the file"
        if callable(answer)
        else ""
    )
    return f"it returned {type(answer).__name__}, not a tensor{hint}"


def require(holds: bool, message: str) -> None:
    """Raise BrokenContract with ``message`` unless ``holds``."""
    if not holds:
        raise BrokenContract(message)


def generator_checks(sample: Callable[..., Any], **sizes: Any) -> Iterator[Check]:
    """The properties of a generator ``sample(stream, batch, **sizes)``."""

    def draw(seed: int = 0, batch: int = 5) -> dict[str, Tensor]:
        return fields(sample(stream(seed, "contract"), batch, **sizes))

    def same_seed() -> None:
        first, second = draw(), draw()
        for name in first:
            require(torch.equal(first[name], second[name]), f"{name} differs between two draws from one stream")

    def other_seed() -> None:
        first, second = draw(0), draw(1)
        require(any(not torch.equal(first[name], second[name]) for name in first), "two seeds give the same batch")

    def prefix() -> None:
        many, few = draw(batch=5), draw(batch=3)
        for name in many:
            require(torch.equal(many[name][:3], few[name]), f"{name} of the first prompts depends on later ones")

    def shapes() -> None:
        for name, value in draw().items():
            require(value.ndim > 0 and len(value) == 5, f"{name} has shape {tuple(value.shape)}, not batch first")
            require(bool(torch.isfinite(value).all()), f"{name} holds values that are not finite")

    def global_state() -> None:
        before = _global_state()
        draw()
        require(_global_state() == before, "global random state is used")

    def loss_mask() -> None:
        tensors = draw()
        if "loss_mask" in tensors:
            mask = tensors["loss_mask"]
            require(mask.dtype == torch.bool, f"loss_mask has dtype {mask.dtype}, not bool")
            require(bool(mask.flatten(1).any(1).all()), "a prompt has no scored position")
            if "targets" in tensors:
                require(mask.shape == tensors["targets"].shape, "loss_mask and targets differ in shape")
                scored = tensors["targets"] >= 0
                require(torch.equal(scored, mask), "loss_mask is not exactly the positions with a target")

    yield Check("the same stream gives the same batch", same_seed)
    yield Check("another seed gives another batch", other_seed)
    yield Check("the first prompts do not change when later ones do", prefix)
    yield Check("every field has the batch first and finite values", shapes)
    yield Check("global random state is untouched", global_state)
    yield Check("the loss mask covers exactly the scored positions", loss_mask)


def _global_state() -> tuple[bytes, int, bytes]:
    _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
    return np.asarray(keys).tobytes(), int(position), torch.get_rng_state().numpy().tobytes()


def regression_predictor_checks(
    predictor: Callable[[Tensor, Tensor, Tensor], Tensor], dimension: int = 3, context: int = 7, seed: int = 0
) -> Iterator[Check]:
    """The properties of a regression predictor, on ``context`` examples in ``dimension`` dimensions."""
    rng = stream(seed, "contract").rng()
    x = torch.from_numpy(rng.standard_normal((4, context, dimension)))
    y = torch.from_numpy(rng.standard_normal((4, context)))
    queries = torch.from_numpy(rng.standard_normal((4, 3, dimension)))

    def shape() -> None:
        predictions = predictor(x, y, queries)
        require(isinstance(predictions, Tensor), no_tensor(predictions))
        require(
            tuple(predictions.shape) == (4, 3),
            f"it returned shape {tuple(predictions.shape)} for 4 prompts of 3 queries",
        )
        bad = int((~torch.isfinite(predictions)).sum())
        require(bad == 0, f"{bad} of {predictions.numel()} predictions are not finite")

    def inputs_kept() -> None:
        inputs = copy.deepcopy((x, y, queries))
        predictor(*inputs)
        for name, before, after in zip(("x_context", "y_context", "x_query"), (x, y, queries), inputs, strict=True):
            require(torch.equal(before, after), f"it changed its input {name}")

    def no_state() -> None:
        first = predictor(x, y, queries)
        predictor(2 * x, y + 1, queries)
        _close(first, predictor(x, y, queries), "it keeps state between calls: the same prompts got other predictions")

    def prompts_apart() -> None:
        changed, labels = x.clone(), y.clone()
        changed[2:] += 1
        labels[2:] += 1
        _close(
            predictor(x, y, queries)[:2],
            predictor(changed, labels, queries)[:2],
            "the prediction for one prompt depends on another prompt",
        )

    def queries_apart() -> None:
        changed = queries.clone()
        changed[:, 1:] += 1
        _close(
            predictor(x, y, queries)[:, 0],
            predictor(x, y, changed)[:, 0],
            "the prediction for one query depends on another query",
        )

    yield Check("one finite prediction a query", shape)
    yield Check("inputs are not modified", inputs_kept)
    yield Check("no state is kept between calls", no_state)
    yield Check("prompts do not influence each other", prompts_apart)
    yield Check("queries do not influence each other", queries_apart)


def token_predictor_checks(
    predictor: Callable[[Tensor, Tensor], Tensor], vocabulary: int, length: int = 12, seed: int = 0
) -> Iterator[Check]:
    """The properties of a token predictor over ``vocabulary`` symbols, on sequences of ``length`` tokens."""
    tokens = torch.from_numpy(stream(seed, "contract").rng().integers(0, vocabulary, (4, length)))
    prefix_length = torch.full((4,), length // 3)

    def normalised() -> None:
        log_probabilities = predictor(tokens, prefix_length)
        require(isinstance(log_probabilities, Tensor), no_tensor(log_probabilities))
        expected = (4, length, vocabulary)
        require(
            tuple(log_probabilities.shape) == expected,
            f"it returned shape {tuple(log_probabilities.shape)}, not {expected}",
        )
        total = torch.logsumexp(log_probabilities.double(), -1)
        require(
            bool((total.abs() < 1e-4).all()),
            f"its probabilities sum to between {float(total.exp().min()):.6g} and {float(total.exp().max()):.6g}",
        )

    def inputs_kept() -> None:
        inputs = tokens.clone(), prefix_length.clone()
        predictor(*inputs)
        require(torch.equal(inputs[0], tokens) and torch.equal(inputs[1], prefix_length), "it changed its inputs")

    def no_state() -> None:
        first = predictor(tokens, prefix_length)
        predictor(tokens.flip(1), prefix_length)
        _close(first, predictor(tokens, prefix_length), "it keeps state between calls")

    def never_looks_ahead() -> None:
        start = length // 2
        changed = tokens.clone()
        changed[:, start + 1 :] = (changed[:, start + 1 :] + 1) % vocabulary
        _close(
            predictor(tokens, prefix_length)[:, length // 3 : start + 1],
            predictor(changed, prefix_length)[:, length // 3 : start + 1],
            "a prediction beyond the prefix depends on later tokens: it looks at the answer",
        )

    def prompts_apart() -> None:
        changed = tokens.clone()
        changed[2:] = (changed[2:] + 1) % vocabulary
        _close(
            predictor(tokens, prefix_length)[:2],
            predictor(changed, prefix_length)[:2],
            "the prediction for one sequence depends on another sequence",
        )

    yield Check("normalised log-probabilities at every position", normalised)
    yield Check("inputs are not modified", inputs_kept)
    yield Check("no state is kept between calls", no_state)
    yield Check("it never looks at the answer", never_looks_ahead)
    yield Check("sequences do not influence each other", prompts_apart)


def mixer_checks(
    mixer: Mixer, patterns: Sequence[Mapping[str, Any]], sizes: Mapping[str, int], seed: int = 0
) -> Iterator[Check]:
    """The properties of a sequence mixer under each of the patterns, on generic streams of these sizes."""
    rng = stream(seed, "contract").rng()

    def draw(name: str, length: int) -> Tensor:
        drawn = (2, 2, 2, length, sizes[name])
        allowed = mixer.streams[name]
        if allowed is None:
            return torch.from_numpy(rng.standard_normal(drawn))
        low, high = allowed
        return torch.from_numpy(low + (min(high, low + 1.0) - low) * (1 - rng.random(drawn)))

    for pattern in patterns:
        mask = pattern_mask(**pattern)
        length = len(mask)
        streams = {name: draw(name, length) for name in mixer.streams}
        runs: list[tuple[str, int | None]] = [(form, None) for form in mixer.forms(mask) if form != "chunked"]
        runs += [
            ("chunked", chunk) for chunk in sorted({1, 2, 3, length, length + 1}) if "chunked" in mixer.forms(mask)
        ]
        under = f"under {pattern['name']}"
        arguments = (mixer, streams, mask, runs)
        yield Check(
            f"one finite output a token by every form, its streams as they were, {under}", partial(_runs, *arguments)
        )
        yield Check(f"all forms agree to rounding {under}", partial(_forms_agree, *arguments))
        yield Check(f"a form that it does not have is refused {under}", partial(_refuses, mixer, streams, mask))
        yield Check(f"the Jacobian has the declared zeros {under}", partial(_reads, *arguments))
        yield Check(f"models, prompts and heads do not influence each other {under}", partial(_apart, *arguments))
        if "recurrent" in mixer.forms(mask) and type(mixer).write is not Mixer.write:
            yield Check(f"the state is as large as declared {under}", partial(_state, mixer, streams, sizes))


Runs = Sequence[tuple[str, int | None]]


def _called(form: str, chunk: int | None) -> str:
    return f"the {form} form" + (f" in chunks of {chunk}" if chunk else "")


def _runs(mixer: Mixer, streams: Mapping[str, Tensor], mask: Tensor, runs: Runs) -> None:
    leading = (2, 2, 2, len(mask))
    for form, chunk in runs:
        copies = {name: value.clone() for name, value in streams.items()}
        output = mixer.run(form, copies, mask, chunk)
        require(
            tuple(output.shape[:4]) == leading and output.ndim == 5,
            f"{_called(form, chunk)} gave {tuple(output.shape)}",
        )
        require(bool(output.isfinite().all()), f"{_called(form, chunk)} gave numbers that are not finite")
        changed = [name for name in streams if not torch.equal(copies[name], streams[name])]
        require(not changed, f"{_called(form, chunk)} changed its stream {', '.join(changed)}")


def _forms_agree(mixer: Mixer, streams: Mapping[str, Tensor], mask: Tensor, runs: Runs) -> None:
    expected = mixer.parallel(streams, mask)
    if len(runs) > 1 and type(mixer).rounding is Mixer.rounding:
        require(False, "it has several forms and no bound of their difference; write its `rounding`")
    for form, chunk in runs[1:]:
        difference = float((mixer.run(form, streams, mask, chunk) - expected).abs().max())
        bound = mixer.rounding(streams, mask)
        require(
            difference <= bound,
            f"{_called(form, chunk)} differs from the parallel one by {difference:.3g}, above the bound {bound:.3g}",
        )


def _refuses(mixer: Mixer, streams: Mapping[str, Tensor], mask: Tensor) -> None:
    for form in set(FORMS) - set(mixer.forms(mask)):
        try:
            mixer.run(form, streams, mask, 2)
        except LabError:
            continue
        require(False, f"the {form} form is not among {', '.join(mixer.forms(mask))} and runs")


def _reads(mixer: Mixer, streams: Mapping[str, Tensor], mask: Tensor, runs: Runs) -> None:
    leaves = {name: value[:1, :1, :1].clone().requires_grad_() for name, value in streams.items()}
    for form, chunk in runs:
        output = mixer.run(form, {name: value.clone() for name, value in leaves.items()}, mask, chunk)[0, 0, 0]
        rows = []
        for row in output:
            generic = (row * torch.arange(1.0, len(row) + 1, dtype=row.dtype).sqrt()).sum()
            parts = torch.autograd.grad(generic, list(leaves.values()), retain_graph=True, allow_unused=True)
            magnitudes = [gradient[0, 0, 0].abs().amax(-1) for gradient in parts if gradient is not None]
            rows.append(torch.stack(magnitudes).amax(0))
        flow, declared = torch.stack(rows), mixer.reads(mask)
        # A fast transform mixes all and cancels; only the parallel form must be zero to the last bit.
        largest = 0.0 if form == "parallel" else 1e-12 * float(flow.max())
        wrong = ((flow > largest) != declared).nonzero().tolist()
        require(
            not wrong,
            f"{_called(form, chunk)}: output i depends on token j at {len(wrong)} other pairs than declared, first "
            f"{tuple(wrong[0]) if wrong else ''}",
        )


def _apart(mixer: Mixer, streams: Mapping[str, Tensor], mask: Tensor, runs: Runs) -> None:
    # Another draw in one model, one prompt and one head; the streams roll so that their ranges are kept.
    changed = {name: value.clone() for name, value in streams.items()}
    for name, value in streams.items():
        changed[name][1, 1, 1] = value[0, 0, 0]
    for form, chunk in runs:
        first, second = mixer.run(form, streams, mask, chunk).clone(), mixer.run(form, changed, mask, chunk)
        first[1, 1, 1] = second[1, 1, 1]
        _close(first, second, f"{_called(form, chunk)}: an output depends on another model, prompt or head")


def _state(mixer: Mixer, streams: Mapping[str, Tensor], sizes: Mapping[str, int]) -> None:
    state = mixer.start(streams)
    for written in range(len(streams[next(iter(streams))][0, 0, 0]) + 1):
        held = sum(value[0, 0, 0].numel() for value in state.values())
        declared = mixer.state_size(sizes, written)
        require(held == declared, f"the state holds {held} numbers after {written} tokens, not {declared}")
        if written < streams[next(iter(streams))].shape[-2]:
            state = mixer.write(state, at(streams, written))


def _close(first: Tensor, second: Tensor, message: str) -> None:
    # Other batches may be summed in another order; anything above rounding is influence.
    tolerance = 1e-4 if first.dtype == torch.float32 else 1e-9
    scale = float(first[torch.isfinite(first)].abs().max()) if bool(torch.isfinite(first).any()) else 1.0
    same = (first == second) | ((first - second).abs() <= tolerance * max(scale, 1.0))
    require(bool(same.all()), message)


def task_checks(task: Task) -> Iterator[Check]:
    """The properties of a task: its presets are what they say, and its measurements are pure functions."""

    def presets_frozen() -> None:
        for name, config in task.presets.items():
            require(
                type(config).__dataclass_params__.frozen,
                f"the configuration of preset {name} is not a frozen dataclass",
            )

    def claims_have_documents() -> None:
        for claim in task.claims.values():
            require(len(claim.statement) > 20, f"{claim.id} has no statement that can be read alone")

    yield Check("configurations are frozen", presets_frozen)
    yield Check("every claim can be read alone", claims_have_documents)
    for measurement in task.measurements.values():
        yield Check(f"{measurement.name} is a pure function", partial(_pure, task, measurement.name))


def _pure(task: Task, name: str) -> None:
    measurement = task.measurements[name]
    config = task.presets["smoke"]
    seeds = measurement.chunks(range(max(measurement.seeds(config), 1)))[0]
    case = next(reversed(list(measurement.cases)), "")  # the main case, which comes first, may be by far the largest
    first, second = measurement.measure(config, seeds, case), measurement.measure(config, seeds, case)
    for field in first:
        require(np.array_equal(first[field], second[field], equal_nan=True), f"{field} differs between two calls")
