"""Several arms of one network, trained on the same prompts and then asked anything under any mask.

    study = Study(build=networks, arms={"prefix": one_mask, "causal": other_mask}, encode=encode, loss=loss)
    fitted = study.fit(seeds, draw, Optimisation(steps=1000, learning_rate=1e-3))
    fitted.ask(tests, loss)                              # [seed, arm], each arm under its own mask
    fitted.ask(tests, loss, read={"prefix": "causal"})   # the prefix networks read under the causal mask

A *loss* and a *metric* are one kind of function: (module, batch, mask) to numbers [model, ...], where every tensor
of the batch has a leading model axis. Which arm is told what, and sees what, has been settled before they are called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from lab import context
from lab.domains.regression.prompts import RegressionPrompts, pair_tokens
from lab.errors import LabError
from lab.evaluation import as_regression_predictor, as_token_predictor, last_coordinate
from lab.labels import labelled
from lab.predictors import RegressionPredictor, TokenPredictor
from lab.training import Batch, History, M, Member, Optimisation, in_blocks, train

Mask = Any
"""What an arm sees: a boolean tensor [token, token] or [prompt, token, token]; a function of one model's batch that
gives one; or None or anything else that the loss makes something of."""
Metric = Callable[[M, Batch, Any], Tensor]
"""(module, batch, mask) to numbers [model, ...]. The masks of the models arrive stacked, [model, token, token] or
[model, prompt, token, token]; values that are no tensors arrive as a tuple, one a model."""


@dataclass(frozen=True)
class Arm:
    """An arm that is told something else than the others.

    Args:
        mask: as of any other arm.
        encode: prompts to this arm's batch, with the names and shapes that the study's own ``encode`` gives.
    """

    mask: Mask
    encode: Callable[[Any], Batch]


@dataclass(frozen=True)
class Study(Generic[M]):
    """What is trained, and in which arms.

    Args:
        build: seeds [E] to an ensemble of E models; the weights of model e depend on ``seeds[e]`` only.
        arms: name to its mask, or to an `Arm`; the order is that of everything that comes back.
        encode: prompts, as ``draw`` of `fit` gives them, to the tensors of a batch (prompts first, then tokens);
            None takes the tensors among the fields of the prompts themselves.
        loss: (module, batch, mask) to the mean losses [E].

    Raises:
        LabError: no arms.
    """

    build: Callable[[Sequence[int]], M]
    arms: Mapping[str, Mask | Arm]
    encode: Callable[[Any], Batch] | None
    loss: Metric[M]

    def __post_init__(self) -> None:
        if not self.arms:
            raise LabError("A study has 0 arms but needs at least 1; name one and its mask.")

    def fit(
        self,
        seeds: Sequence[int],
        draw: Callable[..., Any],
        optimisation: Optimisation,
        *,
        blocks: tuple[int, int] | None = None,
        measure: Callable[[Networks[M]], Mapping[str, Tensor]] | None = None,
        measure_every: int = 100,
        axes: Mapping[str, Mapping[str, Sequence[Any] | None]] | None = None,
        stop: Callable[[History], bool] | None = None,
        dtype: torch.dtype = torch.float32,
        name: str = "train",
        activation_size: int | None = None,
    ) -> Fitted[M]:
        """Train every arm of every seed on the same prompts (`lab.training.train`); a job keeps the networks.

        Args:
            seeds: roots of initial weights and data.
            draw: (seed, step) to the prompts of that update; with ``blocks``, (seed, number of a block, count) to
                ``count`` prompts. Called once for all arms of a seed.
            blocks: (prompts an update, updates a block) where prompts are drawn for several updates at once.
            measure: the networks that are under way to numbers [model, ...] by name, every ``measure_every`` updates
                and at the end; `Networks.numbers` does most of it.
            axes: by name of a measured quantity with more axes than the model's: their names and labels (None: bare).
            stop, dtype, activation_size: as in `lab.training.train`.
            name: of the training within its measurement; that of the file in which the networks are kept.

        Raises:
            LabError: as `train`; a measured quantity whose further axes are not all named.
        """
        members = tuple(Member(seed, arm) for seed in seeds for arm in self.arms)
        named = axes or {}

        def batch(seed: int, *place: int) -> Batch:
            return self._encoded(draw(seed, *place))

        held: dict[tuple[str, ...], Any] = {}  # the stacked masks of the arms in company, where they do not vary

        def loss(module: M, batch: Batch, arms: tuple[str, ...]) -> Tensor:
            chosen = self._chosen(batch, arms)
            if arms in held:
                return self.loss(module, chosen, held[arms])
            masks = [self._mask(arm) for arm in arms]
            stacked = _stacked(masks, chosen)
            if not any(callable(mask) for mask in masks):
                held[arms] = stacked
            return self.loss(module, chosen, stacked)

        def evaluate(module: M, present: tuple[Member, ...]) -> dict[str, Tensor]:
            assert measure is not None
            measured = dict(measure(Networks(self, module, present)))
            for key, values in measured.items():
                _check_axes(key, values, named.get(key, {}))
            return measured

        trained = train(
            self.build,
            members,
            in_blocks(batch, *blocks) if blocks is not None else batch,
            loss,
            optimisation,
            evaluate=None if measure is None else evaluate,
            evaluate_every=measure_every,
            stop=stop,
            dtype=dtype,
            name=name,
            activation_size=activation_size,
        )
        _keep(name, trained.module, members)
        shape = (len(members) // len(self.arms), len(self.arms))
        labels: dict[str, Sequence[Any]] = {
            "seed": list(dict.fromkeys(member.seed for member in members)),
            "arm": list(self.arms),
        }
        return Fitted(
            self,
            trained.module,
            members,
            _history(trained.history, shape, labels, named),
            labelled(trained.steps.reshape(shape), **labels),
        )

    def untrained(self, seeds: Sequence[int], dtype: torch.dtype = torch.float32) -> Networks[M]:
        """All arms of every seed with the weights that a training starts with, to be asked like trained ones."""
        members = tuple(Member(seed, arm) for seed in seeds for arm in self.arms)
        return Networks(self, self.build([member.seed for member in members]).to(context.device(), dtype), members)

    def _kinds(self) -> list[Callable[[Any], Batch] | None]:
        """The different ways to encode prompts among the arms."""
        return list(dict.fromkeys(arm.encode if isinstance(arm, Arm) else self.encode for arm in self.arms.values()))

    def _encoded(self, prompts: Any) -> Batch:
        """The batch of one seed: of every kind there is, under "kind name" where there are several."""
        kinds = self._kinds()
        batches = [_tensors(prompts) if encode is None else dict(encode(prompts)) for encode in kinds]
        if len(kinds) == 1:
            return batches[0]
        return {f"{place} {key}": values for place, batch in enumerate(batches) for key, values in batch.items()}

    def _chosen(self, batch: Batch, arms: Sequence[str]) -> Batch:
        """Of the batch of all kinds [E, ...], what each model is told."""
        kinds = self._kinds()
        if len(kinds) == 1:
            return batch
        chosen = [self.arms[arm] for arm in arms]
        places = [kinds.index(arm.encode if isinstance(arm, Arm) else self.encode) for arm in chosen]
        names = [key.removeprefix("0 ") for key in batch if key.startswith("0 ")]
        return {name: torch.stack([batch[f"{kind} {name}"][row] for row, kind in enumerate(places)]) for name in names}

    def _mask(self, arm: str) -> Mask:
        if arm not in self.arms:
            raise LabError(f"There is no arm {arm!r} in this study; choose one of {', '.join(self.arms)}.")
        definition = self.arms[arm]
        return definition.mask if isinstance(definition, Arm) else definition

    def _read(self, arm: str, read: Mapping[str, Mask] | Mask | None) -> Mask:
        """The mask under which an arm is read: its own, another arm's by name, or a mask itself."""
        if isinstance(read, Mapping):
            for named in read:
                self._mask(named)  # refuses an arm that there is not
            read = read.get(arm)
        if read is None:
            read = arm
        return self._mask(read) if isinstance(read, str) else read


@dataclass(frozen=True)
class Networks(Generic[M]):
    """Networks of a study at some moment, in training or after it.

    Args:
        study: what they are.
        module: all of them as one ensemble.
        members: which network stands at which place of the model axis.
    """

    study: Study[M]
    module: M
    members: tuple[Member, ...]

    def numbers(
        self, prompts: Any, metric: Metric[M], *, read: Mapping[str, Mask] | Mask | None = None
    ) -> Float[Tensor, "model ..."]:
        """What ``metric`` gives for every network, without gradients, on the CPU.

        Args:
            prompts: a mapping of each seed to its prompts, or the same prompts for all.
            metric: (module, batch, mask) to [model, ...].
            read: arm to the mask under which it is read here (the name of another arm, or a mask); arms that are not
                mentioned keep their own. What is no mapping is the mask of all.
        """
        seeds = list(dict.fromkeys(member.seed for member in self.members))
        batches = {seed: self.study._encoded(_of_seed(prompts, seed)) for seed in (seeds if _by_seed(prompts) else [0])}
        parameter = next(values for _, values in self.module.named_parameters())

        def placed(values: Tensor) -> Tensor:
            return values.to(parameter.device, parameter.dtype if values.is_floating_point() else values.dtype)

        rows = [batches[member.seed if _by_seed(prompts) else 0] for member in self.members]
        if all(row is rows[0] for row in rows):  # a view instead of copies
            batch = {key: placed(values).expand(len(rows), *values.shape) for key, values in rows[0].items()}
        else:
            batch = {key: placed(torch.stack([row[key] for row in rows])) for key in rows[0]}
        arms = [member.arm for member in self.members]
        batch = self.study._chosen(batch, arms)
        masks = _stacked([self.study._read(arm, read) for arm in arms], batch)
        # no_grad, not inference_mode: a mask cached during evaluation must remain usable in training.
        with torch.no_grad():
            return metric(self.module, batch, masks).detach().cpu()

    def place(self, seed: int, arm: str) -> int:
        """Place of a network on the model axis."""
        if Member(seed, arm) not in self.members:
            known = ", ".join(f"({member.seed}, {member.arm})" for member in self.members)
            raise LabError(f"No network (seed {seed}, arm {arm!r}) was trained; choose one of {known}.")
        return self.members.index(Member(seed, arm))

    def of(self, *, seeds: Sequence[int] | None = None, arms: Sequence[str] | None = None) -> Networks[M]:
        """Some of the networks (default: of all seeds, of all arms), with a copy of their weights."""
        seeds = self.seeds if seeds is None else seeds
        arms = list(dict.fromkeys(member.arm for member in self.members)) if arms is None else arms
        members = tuple(Member(seed, arm) for seed in seeds for arm in arms)
        places = [self.place(member.seed, member.arm) for member in members]
        return Networks(self.study, self.module.select(places), members)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in order."""
        return tuple(dict.fromkeys(member.seed for member in self.members))

    def ask(
        self,
        prompts: Any,
        metric: Metric[M],
        *,
        read: Mapping[str, Mask] | Mask | None = None,
        arms: Sequence[str] | None = None,
        **axes: Sequence[Any] | None,
    ) -> xr.DataArray:
        """What ``metric`` gives, seed by seed, [seed, arm, ...]; all arms of a seed are asked the same.

        Args:
            prompts, metric, read: as in `Networks.numbers`.
            arms: which to ask; None asks all.
            axes: names of what follows the model axis of the metric, with their labels (None: bare positions).

        Raises:
            LabError: an unknown arm, or an axis without a name.
        """
        chosen = list(self.study.arms) if arms is None else list(arms)
        answers = []
        for seed in self.seeds:
            part = self.of(seeds=[seed], arms=chosen)
            values = part.numbers(_of_seed(prompts, seed), metric, read=read)
            _check_axes("of the metric", values, axes)
            answers.append(values.numpy())
        return labelled(np.stack(answers), seed=self.seeds, arm=chosen, **axes)


@dataclass(frozen=True)
class Fitted(Networks[M]):
    """The trained networks of a study; members are all arms of the first seed, then of the next.

    Args:
        history: "loss" (mean training loss since the record before) and everything measured on the way,
            [seed, arm, update, ...], NaN after a network has stopped; "learning_rate" stands along "update".
        updates: [seed, arm] the number of updates of each network.
    """

    history: xr.Dataset
    updates: xr.DataArray

    def start(self, arm: str | None = None) -> Callable[[Sequence[int]], M]:
        """A ``build`` for another study that begins where this one ended.

        Args:
            arm: whose weights all its networks of a seed begin with; None for a study with the same arms, each of
                which goes on with its own.
        """
        names = list(self.study.arms) if arm is None else [arm]

        def build(seeds: Sequence[int]) -> M:
            return self.module.select([self.place(seed, names[row % len(names)]) for row, seed in enumerate(seeds)])

        return build

    def predictor(
        self,
        arm: str,
        seed: int | None = None,
        read: Mask | None = None,
        *,
        encode: Callable[[Tensor, Tensor, Tensor], Tensor] = pair_tokens,
        decode: Callable[[Tensor, int, int], Tensor] = last_coordinate,
    ) -> RegressionPredictor | TokenPredictor:
        """An arm as any other predictor: of tokens where the network has a vocabulary, otherwise of regression.

        Args:
            arm: whose networks answer.
            seed: the one network to ask; None asks those of all seeds, and answers have a leading seed axis.
            read: another arm, or a mask, instead of the arm's own. A function gets what the arm's ``encode`` makes of
                the prompts (regression), or "tokens" and "prefix_length".
            encode, decode: of regression, as in `lab.evaluation.as_regression_predictor`.
        """
        part = self.of(seeds=None if seed is None else [seed], arms=[arm])
        mask, member = self.study._read(arm, read), None if seed is None else 0
        if not (callable(mask) or isinstance(mask, Tensor)):
            raise LabError(f"The arm {arm!r} has no mask to ask it under; give one as read=.")
        definition = self.study.arms[arm]
        encoder = definition.encode if isinstance(definition, Arm) else self.study.encode

        def answer(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
            pattern = mask
            if callable(mask):
                blank = (torch.zeros_like(x_query[..., 0]), torch.zeros_like(x_query[:, 0]))
                prompts = RegressionPrompts(x_context, y_context, x_query, *blank)
                pattern = mask(_tensors(prompts) if encoder is None else encoder(prompts))
            pattern = pattern.unsqueeze(0) if pattern.dim() == 3 else pattern  # one a prompt, the same for all models
            ask = as_regression_predictor(part.module, pattern, encode=encode, decode=decode, member=member)
            return ask(x_context, y_context, x_query)

        def law(tokens: Tensor, prefix_length: Tensor) -> Tensor:
            pattern = mask({"tokens": tokens, "prefix_length": prefix_length}) if callable(mask) else mask
            return as_token_predictor(part.module, lambda *_: pattern, member=member)(tokens, prefix_length)

        vocabulary = getattr(getattr(part.module, "architecture", part.module), "vocabulary", None)
        return answer if vocabulary is None else law


def _by_seed(prompts: Any) -> bool:
    return isinstance(prompts, Mapping) and all(isinstance(key, int) for key in prompts)


def _of_seed(prompts: Any, seed: int) -> Any:
    if not _by_seed(prompts):
        return prompts
    if seed not in prompts:
        raise LabError(f"There are no prompts for seed {seed}; give some for each seed, or the same for all.")
    return prompts[seed]


def _tensors(prompts: Any) -> Batch:
    """The tensors among the fields of prompts."""
    if dataclasses.is_dataclass(prompts):
        fields: Mapping[str, Any] = {field.name: getattr(prompts, field.name) for field in dataclasses.fields(prompts)}
    else:
        fields = prompts if isinstance(prompts, Mapping) else prompts._asdict()
    return {key: values for key, values in fields.items() if isinstance(values, Tensor)}


def _stacked(masks: Sequence[Mask], batch: Batch) -> Any:
    """The models' masks as one tensor; what is no tensor as a tuple."""
    patterns = [
        mask({key: values[row] for key, values in batch.items()}) if callable(mask) else mask
        for row, mask in enumerate(masks)
    ]
    if not all(isinstance(pattern, Tensor) for pattern in patterns):
        return tuple(patterns)
    stacked = torch.stack(torch.broadcast_tensors(*patterns))
    return stacked.to(next(iter(batch.values())).device)


def _check_axes(quantity: str, values: Tensor, axes: Mapping[str, Sequence[Any] | None]) -> None:
    sizes = [None if labels is None else len(labels) for labels in axes.values()]
    shape = list(values.shape[1:])
    if len(sizes) != len(shape) or any(size not in (None, length) for size, length in zip(sizes, shape, strict=True)):
        raise LabError(
            f"The numbers {quantity} have the shape {shape} for each model but {len(axes)} named axes of the lengths "
            f"{sizes}; name each axis and give it as many labels as it has places, or None."
        )


def _history(
    history: History,
    shape: tuple[int, int],
    labels: Mapping[str, Sequence[Any]],
    axes: Mapping[str, Mapping[str, Sequence[Any] | None]],
) -> xr.Dataset:
    steps, arrays = history["step"], {}
    for key, values in history.items():
        if key not in ("step", "learning_rate"):
            moved = np.moveaxis(values.reshape(len(steps), *shape, *values.shape[2:]), 0, 2)
            arrays[key] = labelled(moved, **labels, update=steps.tolist(), **axes.get(key, {}))
    return xr.Dataset(arrays).assign_coords(learning_rate=("update", history["learning_rate"]))


def _keep(name: str, module: Any, members: Sequence[Member]) -> None:
    """Hand the networks to the job; `lab.models.checkpoint.load_model` reads those of the lab's transformer."""
    header: dict[str, object] = {"members": [[member.seed, member.arm] for member in members]}
    architecture = getattr(module, "architecture", None)
    if dataclasses.is_dataclass(architecture) and not isinstance(architecture, type):
        header["architecture"] = dataclasses.asdict(architecture)
    context.keep(name, dict(module.named_parameters()), header)
