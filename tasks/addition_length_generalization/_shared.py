"""What the parts share: column machines, how they are trained and asked, and how right their tables are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from lab.domains.addition.column_adder import answer_table
from lab.domains.addition.column_addition import (
    FIRST_WINDOWS,
    SUMS,
    WINDOWS,
    accuracy_law,
    exact_table,
    right_by_columns,
)
from lab.domains.addition.prompts import NO_TARGET, WINDOW_LENGTH, WINDOW_PROMPT, WINDOW_VOCABULARY, column_window
from lab.labels import Label, labelled
from lab.models.masks import causal, prefix_lm
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream
from lab.study import Fitted, Networks, Study
from lab.training import Batch, History, Optimisation

SLUG, PAPER = "addition-length-generalization", "patriota-2024-addition"
INPUT = WINDOW_LENGTH - 1  # the last token of a window is never an input
PREFIX = WINDOW_PROMPT + 1  # the prompt and the token that starts the answer
ARMS = ("prefix", "causal")
MASKS = {"prefix": prefix_lm(INPUT, PREFIX), "causal": causal(INPUT)}
# How many previous sums, 0 included, each way of drawing windows shows.
SHOWN_SUMS = {"all-sums": SUMS, "sums-of-digits": SUMS - 1, "one-digit-sums": 10}


@dataclass(frozen=True)
class Machine:
    """A column machine and how it is trained."""

    width: int = 32
    """size of the residual stream"""
    layers: int = 2
    """blocks"""
    heads: int = 2
    """attention heads"""
    initial_scale: float | None = 0.1
    """standard deviation of initial matrices and tables; None for 1 / sqrt(rows)"""
    batch: int = 64
    """windows a step"""
    steps: int = 800
    """most updates"""
    learning_rate: float = 5e-3
    """peak of AdamW's learning rate"""
    schedule: str = "cosine"
    """of the learning rate"""
    evaluate_every: int = 50
    """steps between enumerations of all windows"""

    def architecture(self, dropout: float = 0.0, attention_dropout: float = 0.0) -> Architecture:
        return Architecture(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            vocabulary=WINDOW_VOCABULARY,
            output_size=WINDOW_VOCABULARY,
            positions="learned",
            maximum_length=WINDOW_LENGTH,
            initial_scale=self.initial_scale,
            dropout=dropout,
            attention_dropout=attention_dropout,
        )

    @property
    def enumerations(self) -> np.ndarray:
        """After how many updates all windows are asked."""
        return np.append(np.arange(self.evaluate_every, self.steps, self.evaluate_every), self.steps)


SMOKE_MACHINE = Machine(width=8, batch=16, steps=6, evaluate_every=3)
PAPER_MACHINE = Machine(
    width=64, initial_scale=None, batch=512, steps=40_000, learning_rate=5e-4, schedule="constant", evaluate_every=1_000
)


@dataclass(frozen=True)
class Sampled:
    """Sums that the loop is tested on."""

    digits: int = 1000
    """longest sums"""
    number: int = 400
    """sums"""

    @property
    def lengths(self) -> np.ndarray:
        """The numbers of digits at which accuracy is read."""
        points = np.array([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000])
        return np.append(points[points < self.digits], self.digits)

    def accuracy(self, tables: Mapping[int, Tensor]) -> xr.DataArray:
        """Share of right sums of each length, [seed, digits]: the loop walks over sums drawn afresh for each seed."""
        shares = []
        for seed, table in tables.items():
            digits = torch.from_numpy(stream(seed, "sampled").rng().integers(0, 10, (2, self.number, self.digits)))
            right = right_by_columns(table, digits[0], digits[1])
            shares.append(right[..., self.lengths - 1].double().mean(-2).numpy())
        return labelled(shares, seed=list(tables), digits=self.lengths.tolist())


def answer_loss(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Cross-entropy of the tokens of the answers, a mean over tokens."""
    dropped = batch["dropped"][:, 0] if "dropped" in batch else None
    logits, answer = module(batch["tokens"], mask, dropout=dropped), batch["answer"]
    surprise = F.cross_entropy(
        logits[:, :, WINDOW_PROMPT:].flatten(0, 2), answer.flatten(), ignore_index=NO_TARGET, reduction="none"
    )
    return surprise.view(len(answer), -1).sum(1) / (answer != NO_TARGET).flatten(1).sum(1)


def answers_of(networks: Networks[Transformer]) -> dict[str, Tensor]:
    """The answers to all windows, [model, window], each arm under its own mask."""
    answers = torch.zeros(len(networks.members), WINDOWS, dtype=torch.int64)
    for arm in dict.fromkeys(member.arm for member in networks.members):
        places = [place for place, member in enumerate(networks.members) if member.arm == arm]
        mask = MASKS["causal" if arm == "causal" else "prefix"]
        answers[places] = answer_table(networks.module.select(places), mask)
    return {"answers": answers}


def windows_of(machine: Machine, sampling: str) -> Callable[[int, int], Batch]:
    """(seed, step) to the windows of an update."""

    def sample(seed: int, step: int) -> Batch:
        windows = column_window(stream(seed, "column", step), machine.batch, sampling=sampling)
        return {"tokens": windows.tokens[:, :INPUT], "answer": windows.targets[:, WINDOW_PROMPT:INPUT]}

    return sample


def train_machines(
    machine: Machine, seeds: Sequence[int], arms: Sequence[str], sampling: str, few: int = 0
) -> tuple[Fitted[Transformer], dict[str, xr.DataArray]]:
    """Train one machine a seed and arm without dropout until at most ``few`` of the windows shown are wrong.

    Returns:
        The networks; and their ``loss`` and ``answers`` at every enumeration, [seed, arm, update, ...], where a machine that
        has stopped keeps its last ones, and how many ``updates`` each took.
    """
    shown = FIRST_WINDOWS + 100 * SHOWN_SUMS[sampling]

    def finished(history: History) -> bool:
        return int((history["answers"][-1] != exact_table().numpy())[:shown].sum()) <= few

    study = Study(
        partial(Transformer, machine.architecture()),
        arms={arm: MASKS[arm] for arm in arms},
        encode=None,
        loss=answer_loss,
    )
    fitted = study.fit(
        seeds,
        windows_of(machine, sampling),
        optimisation(machine),
        measure=answers_of,
        measure_every=machine.evaluate_every,
        axes={"answers": {"window": None}},
        stop=finished,
        name=f"{sampling}-{few}",
    )
    return fitted, history_of(fitted, machine)


def optimisation(machine: Machine) -> Optimisation:
    """How a machine is trained."""
    return Optimisation(
        machine.steps, machine.learning_rate, schedule=machine.schedule, optimiser="adamw", weight_decay=0.01
    )


def history_of(fitted: Fitted[Transformer], machine: Machine) -> dict[str, xr.DataArray]:
    """Loss, answers and numbers of updates of trained machines."""
    answers = kept_to_the_end(fitted, "answers", machine).astype(np.int16)
    return {"answers": answers, "loss": kept_to_the_end(fitted, "loss", machine), "updates": fitted.updates}


def train_with_and_without_dropout(
    machine: Machine, seeds: Sequence[int], dropout: float, attention_dropout: float
) -> dict[str, xr.DataArray]:
    """Train two machines a seed on the published windows for all updates, from the same weights: one with dropout, one without.

    Args:
        dropout: share dropped from the embedding and from what blocks add.
        attention_dropout: share of the attention weights dropped.

    Returns:
        The history of `train_machines`, with "dropout" and "none" along "arm".
    """
    windows, histories = windows_of(machine, "sums-of-digits"), []

    def sample(seed: int, step: int) -> Batch:
        # One number a seed and step decides what is dropped.
        return windows(seed, step) | {"dropped": torch.tensor([seed * machine.steps + step])}

    for arm, shares in (("dropout", (dropout, attention_dropout)), ("none", (0.0, 0.0))):
        study = Study(
            partial(Transformer, machine.architecture(*shares)),
            arms={arm: MASKS["prefix"]},
            encode=None,
            loss=answer_loss,
        )
        fitted = study.fit(
            seeds,
            sample if any(shares) else windows,
            optimisation(machine),
            measure=answers_of,
            measure_every=machine.evaluate_every,
            axes={"answers": {"window": None}},
            name=f"published-{arm}",
        )
        histories.append(history_of(fitted, machine))
    return {
        name: xr.concat([history[name] for history in histories], "arm").transpose("seed", "arm", ...)
        for name in histories[0]
    }


def kept_to_the_end(fitted: Fitted[Transformer], name: str, machine: Machine) -> xr.DataArray:
    """A part of the history at all enumerations: from where a machine stopped, what it had then."""
    values = fitted.history[name]
    # At each enumeration the latest record that the machine took part in.
    last = np.searchsorted(machine.enumerations, fitted.updates.values)[..., None]
    record = np.minimum(np.arange(len(machine.enumerations)), last)
    kept = np.take_along_axis(values.values, record.reshape(*record.shape, *[1] * (values.ndim - 3)), axis=2)
    return labelled(kept, **labels_of(values) | {"update": machine.enumerations.tolist()})


def labels_of(values: xr.DataArray) -> dict[str, list[Label] | None]:
    """The axes of an array with their labels."""
    return {axis: values[axis].values.tolist() if axis in values.coords else None for axis in map(str, values.dims)}


def wrong(answers: xr.DataArray) -> xr.DataArray:
    """Which of the windows are answered wrongly."""
    return answers != xr.DataArray(exact_table().numpy(), dims="window")


def wrong_windows(answers: xr.DataArray) -> xr.DataArray:
    """How many of the 2,100 windows are answered wrongly."""
    return wrong(answers).sum("window")


def wrong_after(answers: xr.DataArray) -> xr.DataArray:
    """How many of the 100 windows after each previous sum are answered wrongly, along "previous_sum"."""
    later = wrong(answers).isel(window=slice(FIRST_WINDOWS, None)).transpose(..., "window")
    counts = later.values.reshape(*later.shape[:-1], SUMS, 100).sum(-1)
    return labelled(counts, **labels_of(later.isel(window=0)), previous_sum=range(SUMS))


def laws_of(tables: xr.DataArray, columns: int) -> xr.DataArray:
    """The probability that each table adds n-digit numbers correctly, along "digits" for n = 1 .. ``columns``."""
    tables = tables.transpose(..., "window")
    laws = accuracy_law(torch.from_numpy(tables.values.astype(np.int64)), columns).numpy()
    return labelled(laws, **labels_of(tables.isel(window=0)), digits=range(1, columns + 1))
