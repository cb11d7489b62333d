"""What the parts share: sizes of graphs, the network and its training, what an objective makes of graphs, and how the
answers of a trained network are judged.

An edge is one token, a sum of a row for its source and a row for its target, so that the network need not first find
out which two labels belong together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from lab import Evidence
from lab.decoding import decode
from lab.domains.graphs.path_star_prompts import (
    NO_TARGET,
    PathStars,
    feature_count,
    features,
    hide_answer,
    look_ahead,
    path_star,
    sample_from_pool,
    vocabulary_size,
    write,
)
from lab.domains.graphs.path_star_prompts import blank as blank_token
from lab.labels import labelled
from lab.models.masks import causal, prefix_lm
from lab.models.transformer import Architecture, Transformer
from lab.streams import RandomStream, stream
from lab.study import Arm, Fitted, Networks, Study
from lab.training import Batch, History, Optimisation

SLUG, PAPER = "next-token-pitfalls", "bachmann-2024-pitfalls"
MASKS = ("causal", "prefix")
ONE_PASS = ("teacherless", "shuffled")  # objectives that answer without reading what they wrote

SOLVES = 0.98
SOLVED_ORIGIN = "the threshold of a solved task, fixed beforehand"
MARGIN = 1 / 7  # of the way from a guess 1/d to a solution 1, so that 1/2 means 0.43 to 0.57
JUDGED_AT_ONCE = 400  # graphs


@dataclass(frozen=True)
class Size:
    """A size of graph: d arms of l nodes (start included) out of N labels."""

    arms: int = 2
    """d"""
    length: int = 4
    """l"""
    labels: int = 8
    """N"""

    def resized(self, *, arms: int | None = None, length: int | None = None) -> Size:
        """Another size, with more labels where it needs them."""
        arms, length = arms or self.arms, length or self.length
        return Size(arms, length, max(self.labels, arms * (length - 1) + 1))

    @property
    def edges(self) -> int:
        return self.arms * (self.length - 1)

    @property
    def start(self) -> int:
        """Position of the last token of the prompt, which predicts the first target."""
        return self.edges + 1

    @property
    def time(self) -> int:
        """Tokens a network reads: the prompt and all but the last node of the answer."""
        return self.edges + self.length

    @property
    def masks(self) -> dict[str, Tensor]:
        """Who may look at whom [T, T]; the prefix is the prompt."""
        return {"causal": causal(self.time), "prefix": prefix_lm(self.time, self.start + 1)}

    def sample(self, source: RandomStream, graphs: int) -> PathStars:
        """Graphs of this size."""
        return path_star(source, graphs, arms=self.arms, length=self.length, labels=self.labels)


@dataclass(frozen=True)
class Training:
    """A network, and how it is trained and judged; nothing of it differs between objectives."""

    width: int = 32
    """size of the residual stream"""
    layers: int = 4
    """layers; l - 1 suffice"""
    heads: int = 4
    """attention heads"""
    mlp_ratio: float = 0.0
    """hidden size of the MLP over the width, 0 for attention alone"""
    activation: str = "relu"
    """nonlinearity of the MLP"""
    embedding_scale: float = 5.0
    """factor on the one-hot tokens"""
    steps: int = 320
    """updates every objective may use"""
    batch: int = 32
    """graphs an update"""
    learning_rate: float = 6e-3
    """peak rate of Adam"""
    warmup_steps: int = 40
    """updates of linear warm-up"""
    betas: tuple[float, float] = (0.6, 0.99)
    """beta_1 and beta_2 of Adam"""
    solved: float = 1.0
    """share of the validation graphs answered right at which a training is finished"""
    validation: int = 256
    """graphs on which progress is checked"""
    test: int = 1200
    """graphs on which a trained network is judged"""
    evaluate_every: int = 40
    """updates between two checks"""

    @property
    def optimisation(self) -> Optimisation:
        return Optimisation(
            steps=self.steps,
            learning_rate=self.learning_rate,
            warmup=min(1.0, self.warmup_steps / self.steps),
            betas=self.betas,
        )

    @property
    def checks(self) -> list[int]:
        """Updates after which progress is checked."""
        return [*range(self.evaluate_every, self.steps, self.evaluate_every), self.steps]

    def architecture(self, size: Size) -> Architecture:
        """The transformer for graphs of a size: l - 1 linear heads, of which most objectives use the first."""
        return Architecture(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            input_size=feature_count(size.labels, size.length),
            output_size=(size.length - 1) * size.labels,
            mlp_ratio=self.mlp_ratio,
            activation=self.activation,
            bias=False,
            initialisation="fan_in_uniform",
        )


SMOKE_TRAINING = Training(steps=12, validation=16, test=32, evaluate_every=6, warmup_steps=2, batch=8, width=16)
PAPER_SIZE = Size(arms=2, length=5, labels=50)
PAPER_TRAINING = Training(
    width=384,
    layers=6,
    heads=6,
    mlp_ratio=4.0,
    activation="gelu",
    steps=80_000,
    batch=256,
    learning_rate=1e-4,
    warmup_steps=100,
    betas=(0.9, 0.999),
    validation=2_000,
    test=20_000,
    evaluate_every=1_000,
)


@dataclass(frozen=True)
class Seeding:
    """Where the randomness of training s comes from: its graphs and its initial weights."""

    root: str = "path-star trainings, second draw"
    """first name of all streams of graphs"""
    weights: int = 1000
    """training s starts from the weights of seed ``weights`` + s"""


@functools.cache
def encoding(objective: str, size: Size) -> Callable[[PathStars], Batch]:
    """What an objective makes of graphs: "tokens" [B, T], "targets" [B, l - 1, heads] and true "answer" [B, l - 1].

    All heads but the first look further ahead; -1 is "not asked". Cached, so that arms of one objective share a batch.
    """

    def encode(graphs: PathStars) -> Batch:
        order = "reversed" if objective == "reversed" else "forward"
        sequences = write(graphs, size.labels, format="compact", order=order)
        answer = sequences.targets[:, size.start : -1]
        if objective in ONE_PASS:
            sequences = hide_answer(sequences, blank_token(size.labels, "compact"))
        targets = torch.full((*answer.shape, size.length - 1), NO_TARGET)
        targets[..., 0] = answer
        if objective == "multi-token":
            targets = look_ahead(answer, size.length - 1)
        elif objective == "first-step":
            targets[:, 1:] = NO_TARGET
        elif objective == "shuffled":
            # Graphs of a batch are independent, so that the neighbour's labels are a shuffle.
            targets[:, 1:-1, 0] = answer.roll(1, dims=0)[:, 1:-1]
        return {"tokens": sequences.tokens[:, :-1], "targets": targets, "answer": answer}

    return encode


def cross_entropies(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss of every target, 0 where there is none, for logits [..., N] and targets [...]."""
    flat = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=NO_TARGET, reduction="none")
    return flat.view(targets.shape)


@dataclass(frozen=True)
class Comparison:
    """Objectives under masks: the same architecture, initial weights, graphs and budget for all of them."""

    objectives: tuple[str, ...]
    masks: tuple[str, ...]
    size: Size
    training: Training
    seeding: Seeding = Seeding()
    pool: int = 0
    """graphs of a fixed set that all batches are taken from; 0 for fresh ones at every update"""

    def study(self, read_as: str | None = None) -> Study[Transformer]:
        """An arm for each objective and mask; all of them are given what the objective ``read_as`` reads, if named."""
        patterns = self.size.masks
        return Study(
            build=lambda seeds: Transformer(
                self.training.architecture(self.size), [self.seeding.weights + seed for seed in seeds]
            ),
            arms={
                f"{objective}, {mask}": Arm(patterns[mask], encoding(read_as or objective, self.size))
                for objective, mask in product(self.objectives, self.masks)
            },
            encode=None,
            loss=self.loss,
        )

    def logits(self, module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
        """Outputs [E, B, l - 1, heads, N] at the places that answer."""
        size = self.size
        x = features(batch["tokens"], labels=size.labels, edges=size.edges, length=size.length)
        outputs: Tensor = module(x * self.training.embedding_scale, mask).unflatten(-1, (size.length - 1, size.labels))
        return outputs[:, :, size.start :]

    def loss(self, module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
        """Mean over the targets [E]."""
        losses = cross_entropies(self.logits(module, batch, mask), batch["targets"]).flatten(1)
        return losses.sum(1) / (batch["targets"] != NO_TARGET).flatten(1).sum(1)

    def named(self, module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
        """Most likely next nodes [E, B, l - 1], given what the objective reads; a metric has floating-point values."""
        return self.logits(module, batch, mask)[..., 0, :].argmax(-1).double()

    def all_right(self, module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
        """Share of graphs whose every node is named [E]; greedy writing is right throughout exactly there."""
        return (self.named(module, batch, mask) == batch["answer"]).all(-1).double().mean(1)

    def next_node_losses(self, module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
        """Mean loss of the next node [E, B]."""
        return cross_entropies(self.logits(module, batch, mask)[..., 0, :], batch["answer"]).mean(-1)

    def fit(self, seeds: Sequence[int], name: str) -> dict[str, xr.DataArray]:
        """Train every arm for every seed and judge it: arrays [seed, objective, mask, ...].

        To what `examine` finds on test graphs are added "updates", how many the training took (an accuracy of
        ``solved`` on validation graphs ends it), and "curve" and "training loss" [..., update], the validation
        accuracy and the loss at the checks on the way; a finished training keeps its last value.
        """
        size, training = self.size, self.training
        sources = {seed: stream(seed, self.seeding.root) for seed in seeds}
        fixed = {seed: size.sample(sources[seed].child("pool"), self.pool) for seed in seeds if self.pool}

        def sample(seed: int, step: int) -> PathStars:
            if self.pool:
                return sample_from_pool(fixed[seed], sources[seed].child("rows", step), training.batch)
            return size.sample(sources[seed].child("data", step), training.batch)

        validation = {seed: size.sample(sources[seed].child("validation"), training.validation) for seed in seeds}

        def finished(history: History) -> bool:
            return bool(history["accuracy"][-1] >= training.solved)

        fitted = self.study().fit(
            seeds,
            sample,
            training.optimisation,
            measure=lambda networks: {"accuracy": networks.numbers(validation, self.all_right)},
            measure_every=training.evaluate_every,
            stop=finished,
            name=name,
        )
        test = {seed: size.sample(sources[seed].child("test"), training.test) for seed in seeds}
        values = {key: means.numpy() for key, means in self.examine(fitted, test).items()}
        values["updates"] = fitted.updates.values.astype(float)
        values["curve"] = self._carried_on(fitted.history["accuracy"])
        values["training loss"] = self._carried_on(fitted.history["loss"])
        axes: dict[str, dict[str, Sequence[Any]]] = {
            **dict.fromkeys(("step accuracy", "fed the truth"), {"step": range(1, size.length)}),
            **dict.fromkeys(("curve", "training loss"), {"update": training.checks}),
        }
        shape: dict[str, Sequence[Any]] = {"seed": seeds, "objective": self.objectives, "mask": self.masks}
        measured = {}
        for key, array in values.items():
            own = shape | axes.get(key, {})
            measured[key] = labelled(array.reshape([len(labels) for labels in own.values()]), **own)
        return measured

    def examine(self, fitted: Fitted[Transformer], graphs: Mapping[int, PathStars]) -> dict[str, Tensor]:
        """What trained networks do on test graphs, means [E, ...] over them.

        "exact": the written answer is right. "step accuracy" [E, l - 1]: each step is right when the network is fed what
        it was trained on. "fed the truth" [E, l - 1]: the same when all are fed the true answer from the start on (the
        first graphs only). "test loss": of the next node. "any arm but its end": what is written from start to goal
        follows some arm of the graph to the node before its leaf. "any arm or goal": it does, and the last node is that
        leaf or the goal.
        """
        values: dict[str, list[Tensor]] = {}
        objectives = [member.arm.partition(",")[0] for member in fitted.members]
        backwards = torch.tensor([objective == "reversed" for objective in objectives])[:, None, None]
        for begin in range(0, self.training.test, JUDGED_AT_ONCE):
            rows = slice(begin, begin + JUDGED_AT_ONCE)
            part = {seed: PathStars(drawn.arms[rows], drawn.edges[rows]) for seed, drawn in graphs.items()}
            nodes = torch.stack([part[member.seed].arms for member in fitted.members])
            truth = torch.where(backwards, nodes[:, :, 0].flip(-1), nodes[:, :, 0])[..., 1:]
            named = fitted.numbers(part, self.named)
            written = self.written(fitted, part, named)
            same = written.unsqueeze(2) == nodes[..., 1:]
            goal = (written[..., -1] == truth[..., -1]).unsqueeze(2)
            measured = {
                "exact": (written == truth).all(-1),
                "step accuracy": named == truth,
                "test loss": fitted.numbers(part, self.next_node_losses),
                "any arm but its end": same[..., :-1].all(-1).any(-1),
                "any arm or goal": (same[..., :-1].all(-1) & (same[..., -1] | goal)).any(-1),
            }
            if begin == 0:
                readers = Networks(self.study(read_as="standard"), fitted.module, fitted.members)
                measured["fed the truth"] = readers.numbers(part, self.named) == nodes[:, :, 0, 1:]
            for key, value in measured.items():
                values.setdefault(key, []).append(value.double())
        return {key: torch.cat(parts, dim=1).mean(1) for key, parts in values.items()}

    def written(self, fitted: Fitted[Transformer], graphs: Mapping[int, PathStars], named: Tensor) -> Tensor:
        """Nodes [E, B, l - 1] that networks write greedily, reading what they wrote; in one pass it is what they name."""
        answers, size = named.clone(), self.size
        for objective, mask in product(self.objectives, self.masks):
            if objective in ONE_PASS:
                continue
            arm, encode = f"{objective}, {mask}", encoding(objective, size)
            networks = fitted.of(arms=[arm])
            prompts = torch.stack([encode(graphs[seed])["tokens"][:, : size.start + 1] for seed in networks.seeds])
            device = next(networks.module.parameters()).device
            with torch.no_grad():
                reader = by_tokens(networks.module, self.training.embedding_scale, size)
                continuation = decode(reader, prompts.to(device), size.masks[mask].to(device), size.length - 1)
            answers[[fitted.place(seed, arm) for seed in networks.seeds]] = continuation.tokens.cpu().double()
        return answers

    def _carried_on(self, history: xr.DataArray) -> np.ndarray:
        """A history [seed, arm, update] at every check there can be; a finished training keeps its last value."""
        kept = pd.DataFrame(history.values.reshape(-1, history.sizes["update"])).ffill(axis=1).to_numpy()
        return np.pad(kept, ((0, 0), (0, len(self.training.checks) - kept.shape[1])), mode="edge")


def by_tokens(module: Transformer, embedding_scale: float, size: Size) -> Transformer:
    """The same networks (first head) as a function of compact token ids, which a decoder feeds.

    The linear map that reads an edge, a node and a place is the same thing as a table of token embeddings that are sums
    of two rows, plus a table of positions; the two tables are written out here.
    """
    vocabulary = vocabulary_size(size.labels, "compact")
    ids = torch.arange(vocabulary)
    # An edge position has no place, so that one token alone in it is its row; a token after the edges adds one.
    rows = features(ids[:, None], labels=size.labels, edges=1, length=size.length)[:, 0]
    blanks = torch.full((1, size.time), blank_token(size.labels, "compact"))
    shown = features(blanks, labels=size.labels, edges=size.edges, length=size.length)[0]
    places = shown - shown[0]
    weights = {name: value.detach() for name, value in module.named_parameters()}
    table = weights.pop("read_in.weight")
    scaled = embedding_scale * torch.stack(
        [F.pad(part, (0, 0, 0, vocabulary - len(part))) for part in (rows, places)]
    ).to(table)
    weights["embedding"] = scaled[0] @ table
    weights["positions"] = (scaled[1] @ table)[:, : size.time]
    weights["read_out.weight"] = weights["read_out.weight"][..., : size.labels]
    architecture = replace(
        module.architecture,
        input_size=None,
        vocabulary=vocabulary,
        output_size=size.labels,
        positions="learned",
        maximum_length=size.time,
    )
    built = Transformer.from_weights(architecture, weights, module.models, torch.float32)
    return built.to(table.device)


def is_near(samples: xr.DataArray, value: float, arms: int) -> Evidence:
    """Accuracy [seed] within the margin of a value."""
    origin = f"{value:.3g} to within a seventh of the way from a guess, 1/{arms}, to a solution"
    return Evidence.equals(samples, value, MARGIN * (1 - 1 / arms), origin, absolute=True)


def is_a_guess(samples: xr.DataArray, arms: int) -> Evidence:
    """Accuracy [seed] within the margin of 1/d."""
    return is_near(samples, 1 / arms, arms)
