"""One trainer for many small models at once.

A *model* is one (seed, arm) pair: the seed fixes its initial weights and its data, the arm says what differs on
purpose (usually the attention mask). An *ensemble* is one module whose every parameter carries a leading model
axis. The loss of an ensemble is the sum of its models' losses, so no gradient crosses models, and Adam and SGD
act elementwise, so one fused optimiser over the stacked tensors is exactly one independent optimiser a model.
What is not elementwise (gradient clipping, stopping) is done model by model here.

How the models are grouped is decided by `chunk_size` and changes results by rounding only. For one grouping a
run is reproducible bit for bit, interrupted or not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lab import context
from lab.errors import LabError

log = logging.getLogger("lab")

OPTIMISERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "linear")
REPORT_SECONDS = 0.3
# Numbers one activation may hold over all models of a chunk: 2.4 MB in float32, about a core's share of cache.
# Beyond it a fused ensemble leaves the cache and is slower than its models one after the other.
NUMBERS_IN_FLIGHT = 600_000
# Numbers in one model's activation from which a step is bound by arithmetic, so that fusing gains nothing.
COMPUTE_BOUND = 150_000

Batch = dict[str, Tensor]
History = dict[str, np.ndarray]


@runtime_checkable
class Ensemble(Protocol):
    """What the trainer needs: an `nn.Module` whose every parameter has a leading model axis, with `select`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def to(self, device: torch.device, dtype: torch.dtype) -> Any: ...

    def select(self, indices: Sequence[int]) -> Any:
        """The models at these places of the model axis, as an ensemble of the same class."""


M = TypeVar("M", bound=Ensemble)


@dataclass(frozen=True)
class Member:
    """One model of an ensemble: ``seed`` fixes initial weights and data, ``arm`` what differs on purpose."""

    seed: int
    arm: str


@dataclass(frozen=True)
class Optimisation:
    """How a model is optimised.

    Args:
        steps: number of updates.
        learning_rate: the peak of the schedule.
        warmup: share of the steps (0 to 1) over which the rate rises linearly from 0.
        schedule: what follows the warm-up: "constant", or down to 0 by "cosine" or "linear".
        optimiser: "adam" (weight decay as an L2 penalty), "adamw" (decoupled weight decay) or "sgd".
        betas, epsilon: of Adam and AdamW.
        weight_decay: of all three.
        momentum: of SGD.
        clip_norm: largest global gradient norm of one model; None does not clip.

    Raises:
        LabError: a value outside its range.
    """

    steps: int
    learning_rate: float
    warmup: float = 0.0
    schedule: str = "constant"
    optimiser: str = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        limits = (
            ("steps", self.steps, self.steps >= 1, "at least 1"),
            ("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "positive and finite"),
            ("warmup", self.warmup, 0 <= self.warmup <= 1, "a share of the steps between 0 and 1"),
            ("schedule", self.schedule, self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            ("optimiser", self.optimiser, self.optimiser in OPTIMISERS, f"one of {', '.join(OPTIMISERS)}"),
            ("betas", self.betas, all(0 <= beta < 1 for beta in self.betas), "two numbers in [0, 1)"),
            ("epsilon", self.epsilon, self.epsilon > 0, "positive"),
            ("weight_decay", self.weight_decay, self.weight_decay >= 0, "at least 0"),
            ("momentum", self.momentum, 0 <= self.momentum < 1, "in [0, 1)"),
            ("clip_norm", self.clip_norm, self.clip_norm is None or self.clip_norm > 0, "positive or None"),
        )
        for name, value, valid, limit in limits:
            if not valid:
                raise LabError(f"{name} = {value!r} of an optimisation must be {limit}; please change it.")


def learning_rate(optimisation: Optimisation, step: int) -> float:
    """Rate of update ``step`` (0, ..., steps - 1): peak * min((step + 1) / w, decay((step - w) / (steps - w))).

    w = round(warmup * steps) is the length of the warm-up, decay(s) = 1, (1 + cos(pi s)) / 2 or 1 - s.

    >>> learning_rate(Optimisation(steps=10, learning_rate=1.0, warmup=0.4), 0)
    0.25
    """
    warm = round(optimisation.warmup * optimisation.steps)
    if step < warm:
        return optimisation.learning_rate * (step + 1) / warm
    passed = (step - warm) / max(1, optimisation.steps - warm)
    decay = {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * passed)), "linear": 1 - passed}
    return optimisation.learning_rate * decay[optimisation.schedule]


def clip_per_model(parameters: Sequence[nn.Parameter], limit: float) -> Float[Tensor, " model"]:
    """Scale the gradient g_e of each model e by min(1, limit / |g_e|), in place; returns the norms |g_e| before.

    |g_e| is the Euclidean norm over all parameters of model e, the leading axis of every gradient.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = (
        torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]).square().sum(0).sqrt()
    )
    scale = (limit / norms).clamp(max=1.0)  # a vanishing gradient gives infinity, hence 1
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))
    return norms


def activation_numbers(module: Ensemble, batch: Batch) -> int:
    """Numbers in one activation of one model, positions of its batch times width of the model.

    Positions are the product of the first two axes (prompts, tokens) of the largest such tensor of ``batch``;
    the width is ``module.width``, or the longest last axis of its parameters where it has none.
    """
    positions = max(math.prod(tensor.shape[:2]) for tensor in batch.values())
    width = getattr(module, "width", None)
    return positions * int(width or max(p.shape[-1] for _, p in module.named_parameters() if p.dim() > 1))


def chunk_size(models: int, numbers: int, device: torch.device) -> int:
    """How many of ``models`` models to train as one, each with activations of ``numbers`` numbers.

    On a CPU, fusing saves the cost of calling small kernels: worth it while one model's step is smaller than
    that cost (numbers <= COMPUTE_BOUND) and while chunk * numbers <= NUMBERS_IN_FLIGHT stays in cache.
    Other devices are filled best by all models at once.

    >>> chunk_size(8, 320 * 16, torch.device("cpu")), chunk_size(8, 3200 * 64, torch.device("cpu"))
    (8, 1)
    """
    if device.type != "cpu":
        return models
    return 1 if numbers > COMPUTE_BOUND else max(1, min(models, NUMBERS_IN_FLIGHT // max(1, numbers)))


def plan_chunks(members: Sequence[Member], size: int) -> list[list[int]]:
    """Places of ``members`` in chunks of nearly equal length <= size; the arms of a seed stand side by side."""
    rank: dict[int, int] = {}
    for member in members:
        rank.setdefault(member.seed, len(rank))
    order = sorted(range(len(members)), key=lambda place: rank[members[place].seed])
    return [part.tolist() for part in np.array_split(order, math.ceil(len(order) / size))]


@dataclass(frozen=True)
class Trained(Generic[M]):
    """A trained ensemble; the model axis of everything follows ``members``.

    Args:
        module: all models.
        members: which model stands at which place.
        history: "step" [K] and "learning_rate" [K] of the K records, "loss" [K, E] (mean training loss since the
            record before) and what `evaluate` returned [K, E, ...]; NaN after a model has stopped.
        steps: [E] the number of updates of each model.
    """

    module: M
    members: tuple[Member, ...]
    history: History
    steps: np.ndarray

    def index(self, seed: int, arm: str) -> int:
        """Place of the model (seed, arm) on the model axis."""
        if Member(seed, arm) not in self.members:
            known = ", ".join(f"({member.seed}, {member.arm})" for member in self.members)
            raise LabError(f"No model (seed {seed}, arm {arm!r}) was trained; choose one of {known}.")
        return self.members.index(Member(seed, arm))

    def indices(self, arm: str) -> list[int]:
        """Places of all models of an arm, in the order of ``members``."""
        places = [place for place, member in enumerate(self.members) if member.arm == arm]
        if not places:
            arms = ", ".join(sorted({member.arm for member in self.members}))
            raise LabError(f"No model of arm {arm!r} was trained; choose one of {arms}.")
        return places

    def arm(self, name: str) -> M:
        """The models of one arm as an ensemble of their own."""
        return self.module.select(self.indices(name))  # type: ignore[no-any-return]


@dataclass
class _State(Generic[M]):
    """What a restart needs. ``whole`` is False while an update is half done and must not be written."""

    ensemble: M  # all models: initial weights, overwritten by the final ones as models finish
    history: History
    steps: np.ndarray
    chunk: int = -1
    step: int = 0
    recorded: int = 0
    active: list[int] = field(default_factory=list)  # places (in members) of the models of `module`
    module: M | None = None
    optimiser: torch.optim.Optimizer | None = None
    losses: Tensor | None = None  # [steps since the last record, active models]
    whole: bool = True


def train(
    build: Callable[[Sequence[int]], M],
    members: Sequence[Member],
    batch: Callable[[int, int], Batch],
    loss: Callable[[M, Batch, tuple[str, ...]], Tensor],
    optimisation: Optimisation,
    *,
    evaluate: Callable[[M, tuple[Member, ...]], dict[str, Tensor]] | None = None,
    evaluate_every: int = 100,
    stop: Callable[[History], bool] | None = None,
    dtype: torch.dtype = torch.float32,
    name: str = "train",
    checkpoint_seconds: float = 20.0,
    activation_size: int | None = None,
) -> Trained[M]:
    """Train every member; the result depends on (seed, arm) alone, up to rounding, not on who trains beside it.

    Args:
        build: seeds [E] to an ensemble of E models; the weights of model e depend on ``seeds[e]`` only.
        members: the models to train, all different.
        batch: (seed, step) to the batch of one model (prompts first, then tokens, in every tensor). A pure
            function, asked once a step for each seed, so all arms of a seed see the same data.
        loss: (module, batch stacked on a leading model axis, arms of these models) to the mean loss of each, [E].
        evaluate: (module, members) to measurements [E, ...], for any part of the ensemble, without gradients;
            called every ``evaluate_every`` steps and at the end.
        stop: the history of ONE model so far ("step" [k], "loss" [k], measurements [k, ...]) to whether it is
            finished. A finished model leaves the ensemble with the weights it has; the others go on.
        dtype: of the weights and of all floating-point data.
        name: of the checkpoint, unique within a job.
        checkpoint_seconds: time between checkpoints.
        activation_size: numbers in one activation of one model, where `activation_numbers` would misjudge it.

    Raises:
        LabError: no members or the same twice, a loss that is not [E], a loss or weight that is not finite.
    """
    members = tuple(members)
    if not members or len(set(members)) < len(members):
        raise LabError(
            f"An ensemble of {len(members)} members needs at least one, all different; remove repeats."
        )
    if evaluate_every < 1:
        raise LabError(f"evaluate_every = {evaluate_every} must be at least 1 step; choose a larger number.")
    device = context.device()
    ensemble = build([member.seed for member in members]).to(device, dtype)
    first = batch(members[0].seed, 0)
    size = chunk_size(len(members), activation_size or activation_numbers(ensemble, first), device)
    chunks = plan_chunks(members, size)
    every = min(evaluate_every, optimisation.steps)
    state = _State(
        ensemble, _empty_history(optimisation, every, len(members)), np.zeros(len(members), dtype=int)
    )

    path = context.checkpoint(name)
    configuration = (
        optimisation,
        members,
        chunks,
        every,
        stop is None,
        str(dtype),
        device.type,
        torch.__version__,
    )
    run = _digest(
        {**dict(ensemble.named_parameters()), **{f"batch {key}": t for key, t in first.items()}},
        configuration,
    )
    if path is not None and path.exists():
        _resume(path, run, state, optimisation)

    saved, reported = time.monotonic(), -math.inf
    try:
        while state.active or state.chunk + 1 < len(chunks):
            if not state.active:
                _begin(state, chunks[state.chunk + 1], state.chunk + 1, optimisation, every)
            if state.step > state.recorded and (state.step % every == 0 or state.step == optimisation.steps):
                _record(state, members, optimisation, every, evaluate, stop)
            else:
                _update(state, members, batch, loss, optimisation, device, dtype)
            now = time.monotonic()
            if now - reported >= REPORT_SECONDS:
                _check_finite(state, members, optimisation)
                finished = sum(len(chunk) for chunk in chunks[: state.chunk + 1]) - len(state.active)
                done = finished + len(state.active) * state.step / optimisation.steps
                context.report(done / len(members))
                reported = now
            if path is not None and now - saved >= checkpoint_seconds:
                _save(path, run, state)
                saved = time.monotonic()
    except (KeyboardInterrupt, SystemExit):
        if path is not None and state.whole:
            _save(path, run, state)
        raise
    if path is not None:
        path.unlink(missing_ok=True)
    context.report(1.0)
    records = math.ceil(state.steps.max() / every)
    history = {key: values[:records] for key, values in state.history.items()}
    return Trained(ensemble, members, history, state.steps)


def _empty_history(optimisation: Optimisation, every: int, models: int) -> History:
    steps = np.append(np.arange(every, optimisation.steps, every), optimisation.steps)
    rates = np.array([learning_rate(optimisation, int(step) - 1) for step in steps])
    return {"step": steps, "learning_rate": rates, "loss": np.full((len(steps), models), np.nan)}


def _parameters(module: Ensemble | None) -> list[nn.Parameter]:
    assert module is not None
    return [parameter for _, parameter in module.named_parameters()]


def _optimiser(parameters: Sequence[nn.Parameter], optimisation: Optimisation) -> torch.optim.Optimizer:
    rate, decay = optimisation.learning_rate, optimisation.weight_decay
    if optimisation.optimiser == "sgd":
        return torch.optim.SGD(parameters, rate, optimisation.momentum, weight_decay=decay, fused=True)
    kind = torch.optim.Adam if optimisation.optimiser == "adam" else torch.optim.AdamW
    return kind(parameters, rate, optimisation.betas, optimisation.epsilon, decay, fused=True)


def _begin(state: _State[M], places: list[int], number: int, optimisation: Optimisation, every: int) -> None:
    """Start training the models at ``places``."""
    state.whole = False
    state.module = state.ensemble.select(places)
    parameters = _parameters(state.module)
    state.optimiser = _optimiser(parameters, optimisation)
    state.losses = torch.zeros(every, len(places), dtype=parameters[0].dtype, device=parameters[0].device)
    state.chunk, state.step, state.recorded, state.active = number, 0, 0, places
    state.whole = True


def _update(
    state: _State[M],
    members: Sequence[Member],
    batch: Callable[[int, int], Batch],
    loss: Callable[[M, Batch, tuple[str, ...]], Tensor],
    optimisation: Optimisation,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """One step of all active models."""
    assert state.module is not None and state.optimiser is not None and state.losses is not None
    present = [members[place] for place in state.active]
    of_seed = {seed: batch(seed, state.step) for seed in dict.fromkeys(member.seed for member in present)}
    stacked = {}
    for key in of_seed[present[0].seed]:
        values = torch.stack([of_seed[member.seed][key] for member in present])
        stacked[key] = values.to(device, dtype if values.is_floating_point() else values.dtype)

    losses = loss(state.module, stacked, tuple(member.arm for member in present))
    if losses.shape != (len(present),):
        raise LabError(
            f"The loss has shape {tuple(losses.shape)} but must be one mean for each of {len(present)} models; "
            "average over all axes but the first."
        )
    state.optimiser.zero_grad(set_to_none=True)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    if optimisation.clip_norm is not None:
        clip_per_model(_parameters(state.module), optimisation.clip_norm)
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(optimisation, state.step)
    state.whole = False
    state.optimiser.step()
    state.losses[state.step - state.recorded] = losses.detach()
    state.step += 1
    state.whole = True


def _check_finite(state: _State[M], members: Sequence[Member], optimisation: Optimisation) -> None:
    """Losses are looked at now and then, not every step, so that a device need not be waited for."""
    if state.losses is None:
        return
    finite = torch.isfinite(state.losses[: state.step - state.recorded]).cpu().numpy()
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        _raise_diverged(state.recorded + int(row), members[state.active[column]], optimisation)


def _raise_diverged(step: int, member: Member, optimisation: Optimisation) -> None:
    rate = learning_rate(optimisation, step)
    raise LabError(
        f"Training of seed {member.seed}, arm {member.arm!r} left the finite numbers at step {step} of "
        f"{optimisation.steps} with learning rate {rate:.3g}; lower the learning rate or set clip_norm."
    )


def _record(
    state: _State[M],
    members: Sequence[Member],
    optimisation: Optimisation,
    every: int,
    evaluate: Callable[[M, tuple[Member, ...]], dict[str, Tensor]] | None,
    stop: Callable[[History], bool] | None,
) -> None:
    """Write losses and measurements to the history and let finished models go."""
    assert state.module is not None and state.losses is not None
    _check_finite(state, members, optimisation)
    present = tuple(members[place] for place in state.active)
    # no_grad, not inference_mode: a mask or encoding cached during evaluation must remain usable in training.
    with torch.no_grad():
        measured = evaluate(state.module, present) if evaluate is not None else {}
    row = math.ceil(state.step / every) - 1
    state.whole = False
    mean = state.losses[: state.step - state.recorded].double().mean(0)
    for key, values in {"loss": mean, **measured}.items():
        if values.shape[:1] != (len(present),) or (
            key in measured and key in ("step", "learning_rate", "loss")
        ):
            raise LabError(
                f"Measurement {key!r} of shape {tuple(values.shape)} must have a leading axis of {len(present)} models "
                "and a name other than step, learning_rate and loss; change evaluate."
            )
        array = values.detach().double().cpu().numpy()
        if key not in state.history:
            shape = (len(state.history["step"]), len(members), *array.shape[1:])
            state.history[key] = np.full(shape, np.nan)
        state.history[key][row, state.active] = array

    def finished(place: int) -> bool:
        if state.step == optimisation.steps:
            return True
        per_step = ("step", "learning_rate")
        past = {k: v[: row + 1] if k in per_step else v[: row + 1, place] for k, v in state.history.items()}
        return stop is not None and bool(stop(past))

    state.recorded = state.step
    leaving = [position for position, place in enumerate(state.active) if finished(place)]
    if leaving:
        _release(state, leaving, members, optimisation)
    state.whole = True


def _release(
    state: _State[M], leaving: list[int], members: Sequence[Member], optimisation: Optimisation
) -> None:
    """Move the models at the positions ``leaving`` of the active ones to the full ensemble for good."""
    assert state.module is not None and state.optimiser is not None and state.losses is not None
    for position in leaving:
        if not all(
            bool(torch.isfinite(parameter[position]).all()) for parameter in _parameters(state.module)
        ):
            _raise_diverged(state.step - 1, members[state.active[position]], optimisation)
    places = [state.active[position] for position in leaving]
    with torch.no_grad():
        for final, current in zip(_parameters(state.ensemble), _parameters(state.module), strict=True):
            final[places] = current[leaving]
    state.steps[places] = state.step

    staying = [position for position in range(len(state.active)) if position not in leaving]
    state.active = [state.active[position] for position in staying]
    if staying:
        before, state.module = _parameters(state.module), state.module.select(staying)
        after = _parameters(state.module)
        optimiser = _optimiser(after, optimisation)
        for old, new in zip(before, after, strict=True):
            for key, value in state.optimiser.state[old].items():
                follows = torch.is_tensor(value) and value.shape == old.shape  # all but the count of steps
                optimiser.state[new][key] = value[staying].clone() if follows else value
        state.optimiser, state.losses = optimiser, state.losses[:, staying].clone()


def _digest(tensors: dict[str, Tensor], *facts: object) -> str:
    """SHA-256 of named tensors (names, types, shapes and bits) and of the text of ``facts``."""
    digest = hashlib.sha256(repr(facts).encode())
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _save(path: Path, run: str, state: _State[M]) -> None:
    """Write ``state`` in one atomic replacement; a disk that refuses costs the checkpoint, not the training."""
    tensors = {f"ensemble {key}": parameter.detach() for key, parameter in state.ensemble.named_parameters()}
    tensors |= {f"history {key}": torch.from_numpy(values) for key, values in state.history.items()}
    tensors["steps"] = torch.from_numpy(state.steps)
    if state.active:
        assert state.module is not None and state.optimiser is not None and state.losses is not None
        tensors["losses"] = state.losses
        tensors |= {f"module {key}": parameter.detach() for key, parameter in state.module.named_parameters()}
        for number, entries in state.optimiser.state_dict()["state"].items():
            tensors |= {
                f"optimiser {number} {key}": value for key, value in entries.items() if torch.is_tensor(value)
            }
    position = {"chunk": state.chunk, "step": state.step, "recorded": state.recorded, "active": state.active}
    # Clones, because safetensors refuses tensors that share memory, as views made by `select` may.
    tensors = {key: value.cpu().contiguous().clone() for key, value in tensors.items()}
    text = json.dumps({"run": run, "position": position})
    content = safetensors.torch.save(tensors, {"lab": text, "sha256": _digest(tensors, text)})
    unfinished = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        os.replace(unfinished, path)
    except OSError as error:
        log.warning("Checkpoint %s could not be written (%s); training goes on without it.", path, error)


def _resume(path: Path, run: str, state: _State[M], optimisation: Optimisation) -> None:
    """Bring ``state`` to where the checkpoint left it; one that is damaged or of another run is ignored."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:  # type: ignore[no-untyped-call]
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        text = metadata.get("lab", "")
        if metadata.get("sha256") != _digest(tensors, text):
            raise ValueError("its content was changed")
        found = json.loads(text)
        if found["run"] != run:
            raise ValueError("it belongs to another run")
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        log.warning("Checkpoint %s is ignored (%s); training starts afresh.", path, error)
        return
    position = found["position"]
    state.chunk, state.step, state.recorded = position["chunk"], position["step"], position["recorded"]
    state.active = position["active"]
    state.steps = tensors["steps"].numpy()
    state.history = {
        key.removeprefix("history "): t.numpy() for key, t in tensors.items() if key.startswith("history ")
    }
    _load(state.ensemble, "ensemble", tensors)
    if state.active:
        state.module = state.ensemble.select(state.active)
        _load(state.module, "module", tensors)
        parameters = _parameters(state.module)
        state.losses = tensors["losses"].to(parameters[0].device)
        state.optimiser = _optimiser(parameters, optimisation)
        saved: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser "):
                _, number, entry = key.split(" ")
                saved.setdefault(int(number), {})[entry] = value
        state.optimiser.load_state_dict({**state.optimiser.state_dict(), "state": saved})


def _load(module: Ensemble, prefix: str, tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            parameter.copy_(tensors[f"{prefix} {key}"])
