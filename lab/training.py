"""One trainer for many small models at once.

A *model* is one (seed, arm) pair: the seed fixes its initial weights and its data, the arm says what differs
on purpose (usually the attention mask). An *ensemble* is one module whose every parameter carries a leading
model axis. The loss of an ensemble is the sum of its models' losses, so no gradient crosses models, and Adam
and SGD act elementwise, so one fused optimiser over the stacked tensors is one independent optimiser a model.
What is not elementwise (gradient clipping, stopping) is done model by model here.

How the models are grouped is decided by `chunk_size` and changes results by rounding only. For one grouping a
run is reproducible bit for bit, interrupted or not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lab import context, unfinished
from lab.errors import LabError

OPTIMISERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "linear")
REPORT_SECONDS = 0.3
# Numbers one activation may hold over all models of a chunk: 2.4 MB in float32, a core's share of cache.
# Beyond it a fused ensemble leaves the cache and is slower than its models one after the other.
NUMBERS_IN_FLIGHT = 600_000
# Numbers in one model's activation from which a step is bound by arithmetic, so that fusing gains nothing.
COMPUTE_BOUND = 150_000

Batch = dict[str, Tensor]
History = dict[str, np.ndarray]


@runtime_checkable
class Ensemble(Protocol):
    """What is trained: an `nn.Module` with a leading model axis on every parameter, and `select`."""

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
        schedule: what follows the warm-up: "constant", or down to ``floor`` by "cosine" or "linear".
        floor: the rate at which "cosine" and "linear" end, as a share of the peak.
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
    floor: float = 0.0
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
            ("floor", self.floor, 0 <= self.floor <= 1, "a share of the peak between 0 and 1"),
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
    """Rate of update ``step``: peak * (step + 1) / w below w, then peak * decay((step - w) / (steps - w)).

    w = round(warmup * steps) is the length of the warm-up; decay(s) = 1, or floor + (1 - floor) f(s) with
    f(s) = (1 + cos(pi s)) / 2 or 1 - s.

    >>> learning_rate(Optimisation(steps=10, learning_rate=1.0, warmup=0.4), 0)
    0.25
    """
    warm = round(optimisation.warmup * optimisation.steps)
    if step < warm:
        return optimisation.learning_rate * (step + 1) / warm
    passed = (step - warm) / max(1, optimisation.steps - warm)
    fall = {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * passed)), "linear": 1 - passed}
    floor = optimisation.floor
    return optimisation.learning_rate * (floor + (1 - floor) * fall[optimisation.schedule])


def clip_per_model(parameters: Sequence[nn.Parameter], limit: float) -> Float[Tensor, " model"]:
    """Scale the gradient g_e of each model e by min(1, limit / |g_e|), in place; returns the old |g_e|.

    |g_e| is the Euclidean norm over all parameters of model e, the leading axis of every gradient.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]).square().sum(0).sqrt()
    scale = (limit / norms).clamp(max=1.0)  # a vanishing gradient gives infinity, hence 1
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))
    return norms


def in_blocks(draw: Callable[[int, int, int], Batch], size: int, steps: int) -> Callable[[int, int], Batch]:
    """What `train` asks for, drawn several steps at a time, because one call of a generator costs as much as a step.

    Args:
        draw: (seed, number of a block, how many prompts) to that many prompts, along the first axis of every tensor.
        size: prompts a step.
        steps: steps a block.

    Returns:
        (seed, step) to the batch of that step: prompts ``size * (step % steps)`` and on of block ``step // steps``.
    """
    held: dict[int, tuple[int, Batch]] = {}  # the block that each seed is in

    def batch(seed: int, step: int) -> Batch:
        number, place = divmod(step, steps)
        if seed not in held or held[seed][0] != number:
            held[seed] = number, draw(seed, number, steps * size)
        return {name: values[place * size : (place + 1) * size] for name, values in held[seed][1].items()}

    return batch


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
    """Places of ``members`` in chunks of nearly equal length <= size; arms of a seed stand side by side."""
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
        history: "step" [K] and "learning_rate" [K] of the K records, "loss" [K, E] (mean training loss since
            the record before) and what `evaluate` returned [K, E, ...]; NaN after a model has stopped.
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
        return self.module.select(self.indices(name))


class _Run(Generic[M]):
    """The mutable middle of a training: all that a checkpoint must hold, and the three things done to it."""

    def __init__(
        self, ensemble: M, members: tuple[Member, ...], optimisation: Optimisation, every: int, size: int
    ) -> None:
        self.members, self.optimisation, self.every = members, optimisation, every
        self.chunks = plan_chunks(members, size)
        self.ensemble = ensemble  # all models: initial weights, overwritten by the final ones as models finish
        self.trained = np.zeros(len(members), dtype=int)  # final number of updates of each model
        last = optimisation.steps
        steps = np.append(np.arange(every, last, every), last)
        rates = np.array([learning_rate(optimisation, int(step) - 1) for step in steps])
        loss = np.full((len(steps), len(members)), np.nan)
        self.history: History = {"step": steps, "learning_rate": rates, "loss": loss}
        self.whole = False  # False while a change is half done and must not be written
        self.begin(0)

    def begin(self, chunk: int, active: list[int] | None = None) -> None:
        """Start training a chunk of models, those at the places ``active`` (default: all of them)."""
        self.whole = False
        self.chunk, self.step, self.recorded = chunk, 0, 0
        self.active = self.chunks[chunk] if active is None else active
        self.module: M = self.ensemble.select(self.active)
        self.parameters = [parameter for _, parameter in self.module.named_parameters()]
        self.optimiser = _optimiser(self.parameters, self.optimisation)
        like = self.parameters[0]  # losses since the last record, one row a step
        self.losses = torch.zeros(self.every, len(self.active), dtype=like.dtype, device=like.device)
        self.whole = True

    @property
    def present(self) -> tuple[Member, ...]:
        """The models that `module` holds."""
        return tuple(self.members[place] for place in self.active)

    @property
    def done(self) -> float:
        """Share of all updates that is finished."""
        finished = sum(map(len, self.chunks[: self.chunk + 1])) - len(self.active)
        return (finished + len(self.active) * self.step / self.optimisation.steps) / len(self.members)

    @property
    def due(self) -> bool:
        """Whether the latest update is one to record and has not been."""
        return self.step > self.recorded and (self.step % self.every == 0 or self.step == self.optimisation.steps)

    def update(self, batch: Callable[[int, int], Batch], loss: Callable[[M, Batch, tuple[str, ...]], Tensor]) -> None:
        """One step of all active models."""
        present = self.present
        of_seed = {seed: batch(seed, self.step) for seed in dict.fromkeys(member.seed for member in present)}
        stacked = {}
        for key in of_seed[present[0].seed]:
            values = torch.stack([of_seed[member.seed][key] for member in present])
            kind = self.losses.dtype if values.is_floating_point() else values.dtype
            stacked[key] = values.to(self.losses.device, kind)

        losses = loss(self.module, stacked, tuple(member.arm for member in present))
        if losses.shape != (len(present),):
            raise LabError(
                f"The loss has shape {tuple(losses.shape)} but must be one mean for each of {len(present)} "
                "models; average over all axes but the first."
            )
        self.optimiser.zero_grad(set_to_none=True)
        losses.sum().backward()
        if self.optimisation.clip_norm is not None:
            clip_per_model(self.parameters, self.optimisation.clip_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.optimisation, self.step)
        self.whole = False
        self.optimiser.step()
        self.losses[self.step - self.recorded] = losses.detach()
        self.step += 1
        self.whole = True

    def record(
        self,
        evaluate: Callable[[M, tuple[Member, ...]], dict[str, Tensor]] | None,
        stop: Callable[[History], bool] | None,
    ) -> None:
        """Write losses and measurements to the history and let finished models go."""
        self.check_finite()
        # no_grad, not inference_mode: a mask cached during evaluation must remain usable in training.
        with torch.no_grad():
            measured = evaluate(self.module, self.present) if evaluate is not None else {}
        row = math.ceil(self.step / self.every) - 1
        for key, values in measured.items():
            if values.shape[:1] != (len(self.active),) or key in ("step", "learning_rate", "loss"):
                raise LabError(
                    f"Measurement {key!r} of shape {tuple(values.shape)} must have a leading axis of "
                    f"{len(self.active)} models and not be called step, learning_rate or loss; change evaluate."
                )
        mean = self.losses[: self.step - self.recorded].double().mean(0)
        self.whole = False
        for key, values in {**measured, "loss": mean}.items():
            array = values.detach().double().cpu().numpy()
            if key not in self.history:
                shape = (len(self.history["step"]), len(self.members), *array.shape[1:])
                self.history[key] = np.full(shape, np.nan)
            self.history[key][row, self.active] = array
        self.recorded = self.step

        def finished(place: int) -> bool:
            if self.step == self.optimisation.steps or stop is None:
                return self.step == self.optimisation.steps
            shared = ("step", "learning_rate")
            return bool(
                stop({k: v[: row + 1] if k in shared else v[: row + 1, place] for k, v in self.history.items()})
            )

        self.release([position for position, place in enumerate(self.active) if finished(place)])
        self.whole = True

    def release(self, leaving: list[int]) -> None:
        """Move the active models at the positions ``leaving`` to the full ensemble; the others go on alone."""
        if not leaving:
            return
        for position in leaving:
            if not all(bool(torch.isfinite(parameter[position]).all()) for parameter in self.parameters):
                self.fail(self.step - 1, self.members[self.active[position]])
        places = [self.active[position] for position in leaving]
        with torch.no_grad():
            for (_, final), current in zip(self.ensemble.named_parameters(), self.parameters, strict=True):
                final[places] = current[leaving]
        self.trained[places] = self.step
        staying = [position for position in range(len(self.active)) if position not in leaving]
        self.active = [self.active[position] for position in staying]
        if not staying:
            return
        before, optimiser, self.module = self.parameters, self.optimiser, self.module.select(staying)
        self.parameters = [parameter for _, parameter in self.module.named_parameters()]
        self.optimiser, self.losses = (_optimiser(self.parameters, self.optimisation), self.losses[:, staying].clone())
        for old, new in zip(before, self.parameters, strict=True):
            for key, value in optimiser.state[old].items():
                per_model = torch.is_tensor(value) and value.shape == old.shape  # all but the count of steps
                self.optimiser.state[new][key] = value[staying].clone() if per_model else value

    def check_finite(self) -> None:
        """Losses are looked at now and then, not every step, so that a GPU need not be waited for."""
        finite = torch.isfinite(self.losses[: self.step - self.recorded]).cpu().numpy()
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            self.fail(self.recorded + int(row), self.members[self.active[column]])

    def fail(self, step: int, member: Member) -> None:
        rate = learning_rate(self.optimisation, step)
        raise LabError(
            f"Training of seed {member.seed}, arm {member.arm!r} left the finite numbers at step {step} of "
            f"{self.optimisation.steps} with learning rate {rate:.3g}; lower the learning rate or set clip_norm."
        )

    def to_tensors(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Everything a restart needs: where the training stands, and named tensors."""
        tensors = {f"ensemble {key}": parameter.detach() for key, parameter in self.ensemble.named_parameters()}
        tensors |= {f"module {key}": parameter.detach() for key, parameter in self.module.named_parameters()}
        tensors |= {f"history {key}": torch.from_numpy(values) for key, values in self.history.items()}
        tensors |= {"trained": torch.from_numpy(self.trained), "losses": self.losses}
        for number, entries in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser {number} {key}": value for key, value in entries.items() if torch.is_tensor(value)}
        place = {"chunk": self.chunk, "step": self.step, "recorded": self.recorded, "active": self.active}
        return place, tensors

    def from_tensors(self, place: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Continue where `to_tensors` was called."""
        groups: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            group, _, name = key.partition(" ")
            groups.setdefault(group, {})[name] = value
        _load(self.ensemble, groups["ensemble"])
        self.history = {key: value.numpy() for key, value in groups["history"].items()}
        self.trained = tensors["trained"].numpy()
        self.begin(place["chunk"], place["active"] or None)
        self.step, self.recorded, self.active = place["step"], place["recorded"], place["active"]
        if self.active:
            _load(self.module, groups["module"])
            self.losses = tensors["losses"].to(self.losses.device)
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in groups.get("optimiser", {}).items():
                number, _, name = key.partition(" ")
                entries.setdefault(int(number), {})[name] = value
            self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": entries})


def _optimiser(parameters: Sequence[nn.Parameter], optimisation: Optimisation) -> torch.optim.Optimizer:
    rate, decay = optimisation.learning_rate, optimisation.weight_decay
    if optimisation.optimiser == "sgd":
        return torch.optim.SGD(parameters, rate, optimisation.momentum, weight_decay=decay, fused=True)
    kind = torch.optim.Adam if optimisation.optimiser == "adam" else torch.optim.AdamW
    return kind(parameters, rate, optimisation.betas, optimisation.epsilon, decay, fused=True)


def _load(module: Ensemble, values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            parameter.copy_(values[key])


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
    """Train every member; up to rounding, the result depends on (seed, arm) alone, not on its company.

    In a job (`lab.context`) training is kept as a checkpoint until the job is done, and a job that is begun again
    continues or takes over what has the same members, optimisation, initial weights and data; the functions given
    must then be the same too.

    Args:
        build: seeds [E] to an ensemble of E models; the weights of model e depend on ``seeds[e]`` only.
        members: the models to train, all different.
        batch: (seed, step) to the batch of one model (prompts first, then tokens, in every tensor). A pure
            function, asked once a step for each seed, so all arms of a seed see the same data.
        loss: (module, batch stacked on a leading model axis, arms of the models) to the mean losses [E].
        evaluate: (module, members) to measurements [E, ...], for any part of the ensemble, without gradients;
            called every ``evaluate_every`` steps and at the end.
        stop: the history of ONE model so far ("step" [k], "loss" [k], measurements [k, ...]) to whether it is
            finished; asked after each evaluation. A finished model leaves the ensemble with the weights it
            has, and the others go on, so that when a model stops does not depend on its company either.
        dtype: of the weights and of all floating-point data.
        name: of the checkpoint, a file name, unique within a job.
        checkpoint_seconds: time between checkpoints.
        activation_size: numbers in one activation of one model, where `activation_numbers` would misjudge it.

    Raises:
        LabError: no members or the same twice, the name of another training of the job, an empty batch, a loss that is
            not [E], a loss or weight that is not finite.
    """
    members = tuple(members)
    if not members or len(set(members)) < len(members):
        raise LabError(f"The {len(members)} members must be at least one and all different; change them.")
    if evaluate_every < 1:
        raise LabError(f"evaluate_every = {evaluate_every} must be at least 1 step; choose a larger number.")
    ensemble = build([member.seed for member in members]).to(context.device(), dtype)
    first = batch(members[0].seed, 0)
    for key, tensor in first.items():
        if not tensor.numel():
            raise LabError(
                f"The batch of a step holds no numbers under {key!r}, whose shape is {tuple(tensor.shape)}; "
                "ask for at least 1 prompt a step."
            )
    numbers = activation_size or activation_numbers(ensemble, first)
    size = chunk_size(len(members), numbers, context.device())
    run = _Run(ensemble, members, optimisation, min(evaluate_every, optimisation.steps), size)

    facts = (members, optimisation, run.chunks, run.every, dtype, context.device().type, torch.__version__)
    data = {f"batch {key}": tensor for key, tensor in first.items()}
    identity = unfinished.digest({**dict(ensemble.named_parameters()), **data}, repr(facts))
    with context.training(name) as path:
        kept = None if path is None else unfinished.read(path, identity)
        if kept is not None:
            run.from_tensors(*kept)

        saved, reported = time.monotonic(), -math.inf
        try:
            while run.active or run.chunk + 1 < len(run.chunks):
                if not run.active:
                    run.begin(run.chunk + 1)
                elif run.due:
                    run.record(evaluate, stop)
                else:
                    run.update(batch, loss)
                now = time.monotonic()
                if now - reported >= REPORT_SECONDS:
                    run.check_finite()
                    context.report(run.done)
                    reported = now
                if path is not None and now - saved >= checkpoint_seconds:
                    unfinished.write(path, identity, *run.to_tensors())
                    saved = time.monotonic()
        except (KeyboardInterrupt, SystemExit):
            if path is not None and run.whole:
                unfinished.write(path, identity, *run.to_tensors())
            raise
        if path is not None:  # the job may have other trainings before it, and be interrupted in one of them
            unfinished.write(path, identity, *run.to_tensors())
    context.report(1.0)
    records = math.ceil(run.trained.max() / run.every)
    history = {key: values[:records] for key, values in run.history.items()}
    return Trained(ensemble, members, history, run.trained)
