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

JUDGED_AT_ONCE = 400  # graphs
HALF = "half: no matter which of the two comes first"
MOST = "half of all trainings"


@dataclass(frozen=True)
class Size:
    """A size of graph: d arms of l nodes (start included) out of N labels; and how graphs are written."""

    arms: int = 2
    """d"""
    length: int = 4
    """l"""
    labels: int = 7
    """N"""
    format: str = "compact"
    """one token an edge ("compact"), or the tokens of the authors' code ("authors")"""

    def resized(self, *, arms: int | None = None, length: int | None = None) -> Size:
        """Another size, with more labels where it needs them."""
        arms, length = arms or self.arms, length or self.length
        return replace(self, arms=arms, length=length, labels=max(self.labels, arms * (length - 1) + 1))

    @property
    def edges(self) -> int:
        return self.arms * (self.length - 1)

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return self.edges + 2 if self.format == "compact" else 3 * self.edges + 3

    @property
    def start(self) -> int:
        """Position of the last token of the prompt, which predicts the first target."""
        return self.prompt - 1

    @property
    def answers(self) -> int:
        """Targets: the nodes after the start; the authors' first target is a copy of the start."""
        return self.length - 1 if self.format == "compact" else self.length

    @property
    def copied(self) -> int:
        """Targets before the first step."""
        return self.answers - (self.length - 1)

    @property
    def steps(self) -> range:
        """Steps of the answer that are targets; step 0 is the start."""
        return range(1 - self.copied, self.length)

    @property
    def time(self) -> int:
        """Tokens a network reads: the prompt and all but the last node of the answer."""
        return self.prompt + self.answers - 1

    @property
    def outputs(self) -> int:
        """Tokens that can be an answer."""
        return self.labels if self.format == "compact" else vocabulary_size(self.labels, self.format)

    @property
    def masks(self) -> dict[str, Tensor]:
        """Who may look at whom [T, T]; the prefix is the prompt."""
        return {"causal": causal(self.time), "prefix": prefix_lm(self.time, self.prompt)}

    def sample(self, source: RandomStream, graphs: int) -> PathStars:
        """Graphs of this size."""
        return path_star(source, graphs, arms=self.arms, length=self.length, labels=self.labels)


@dataclass(frozen=True)
class Training:
    """A network, and how it is trained and judged; nothing of it differs between objectives."""

    width: int = 16
    """size of the residual stream"""
    layers: int = 3
    """layers; l - 1 suffice"""
    heads: int = 1
    """attention heads"""
    mlp_ratio: float = 0.0
    """hidden size of the MLP over the width, 0 for attention alone"""
    bias: bool = False
    """biases"""
    initial_scale: float | None = None
    """deviation of normal initial weights; None draws them uniformly between -1 and 1 over the root of the inputs"""
    embedding_scale: float = 5.0
    """factor on the one-hot tokens of the compact form"""
    steps: int = 10_000
    """updates every objective may use"""
    batch: int = 16
    """graphs an update"""
    block: int = 100
    """updates whose graphs are drawn at once"""
    learning_rate: float = 6e-3
    """peak rate of Adam"""
    warmup_steps: int = 40
    """updates of linear warm-up"""
    betas: tuple[float, float] = (0.6, 0.99)
    """beta_1 and beta_2 of Adam"""
    level: float = 0.9
    """share of the validation graphs that must be answered right, at two checks in a row, to end a training"""
    validation: int = 128
    """graphs on which progress is checked"""
    test: int = 1200
    """graphs on which a trained network is judged"""
    evaluate_every: int = 50
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

    def architecture(self, size: Size, heads: int = 1) -> Architecture:
        """The transformer for graphs of a size, with so many linear heads, of which the first names the next node.

        Graphs as the authors write them are read by the authors' network: learned positions, and one table to read and to
        write tokens (where there is one head to tie it to).
        """
        authors = size.format == "authors"
        return Architecture(
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            input_size=None if authors else feature_count(size.labels, size.length),
            vocabulary=size.outputs if authors else None,
            output_size=heads * size.outputs,
            positions="learned" if authors else "none",
            maximum_length=size.time if authors else None,
            tie_embedding=authors and heads == 1,
            mlp_ratio=self.mlp_ratio,
            bias=self.bias,
            initialisation="fan_in_uniform" if self.initial_scale is None else "normal",
            initial_scale=self.initial_scale,
        )


SMOKE_TRAINING = Training(steps=12, validation=16, test=32, evaluate_every=6, warmup_steps=2, batch=8, width=8, block=4)
PAPER_SIZE = Size(arms=2, length=5, labels=50, format="authors")
PAPER_POOL = 200_000
PAPER_TRAINING = Training(
    width=384,
    layers=6,
    heads=6,
    mlp_ratio=4.0,
    bias=True,
    initial_scale=0.02,
    steps=78_000,
    batch=256,
    block=1,
    learning_rate=1e-4,
    warmup_steps=100,
    betas=(0.9, 0.999),
    validation=2_000,
    test=20_000,
    evaluate_every=1_000,
)


@functools.cache
def encoding(objective: str, size: Size, heads: int = 1) -> Callable[[PathStars], Batch]:
    """What an objective makes of graphs: "tokens" [B, T], "targets" [B, l - 1, heads], true "answer" and "asked" [B, l - 1].

    All heads but the first look further ahead; the target -1 is "not trained", "asked" says which nodes must be right for
    the task to be solved. (The authors' form has l targets.) Cached, so that arms of one objective share a batch.
    """

    def encode(graphs: PathStars) -> Batch:
        order = "reversed" if objective == "reversed" else "forward"
        sequences = write(graphs, size.labels, format=size.format, order=order)
        answer = sequences.targets[:, size.start : size.start + size.answers]
        if objective in ONE_PASS:
            sequences = hide_answer(sequences, blank_token(size.labels, size.format))
        targets = torch.full((*answer.shape, heads), NO_TARGET)
        targets[..., 0] = answer
        required = torch.ones_like(answer, dtype=torch.bool)
        first = size.copied
        if objective == "multi-token":
            targets = look_ahead(answer, heads)
        elif objective == "first-step":
            targets[:, first + 1 :] = NO_TARGET
            required[:, first + 1 :] = False
        elif objective == "shuffled":
            # Graphs of a batch are independent, so that the neighbour's labels are a shuffle; the first step is asked.
            targets[:, first + 1 : -1, 0] = answer.roll(1, dims=0)[:, first + 1 : -1]
            required[:, first + 1 :] = False
        return {"tokens": sequences.tokens[:, :-1], "targets": targets, "answer": answer, "asked": required}

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
    pool: int = 0
    """graphs of a fixed set that all batches are taken from; 0 for fresh ones at every update"""

    @property
    def heads(self) -> int:
        """Linear heads: one, or as many as look ahead."""
        return self.size.length - 1 if "multi-token" in self.objectives else 1

    def study(self, read_as: str | None = None) -> Study[Transformer]:
        """An arm for each objective and mask; all of them are given what the objective ``read_as`` reads, if named."""
        patterns = self.size.masks
        return Study(
            build=lambda seeds: Transformer(self.training.architecture(self.size, self.heads), seeds),
            arms={
                f"{objective}, {mask}": Arm(patterns[mask], encoding(read_as or objective, self.size, self.heads))
                for objective, mask in product(self.objectives, self.masks)
            },
            encode=None,
            loss=self.loss,
        )

    def logits(self, module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
        """Outputs [E, B, l - 1, heads, N] at the places that answer."""
        size, tokens = self.size, batch["tokens"]
        if size.format == "compact":
            x = features(tokens, labels=size.labels, edges=size.edges, length=size.length)
            tokens = x * self.training.embedding_scale
        outputs: Tensor = module(tokens, mask).unflatten(-1, (self.heads, size.outputs))
        return outputs[:, :, size.start :]

    def loss(self, module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
        """Mean over the targets [E]."""
        losses = cross_entropies(self.logits(module, batch, mask), batch["targets"]).flatten(1)
        return losses.sum(1) / (batch["targets"] != NO_TARGET).flatten(1).sum(1)

    def named(self, module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
        """Most likely next nodes [E, B, l - 1], given what the objective reads; a metric has floating-point values."""
        return self.logits(module, batch, mask)[..., 0, :].argmax(-1).double()

    def progress(self, module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
        """Mean loss of the next nodes, share of graphs with all asked nodes right, share right of each step: [E, 2 + l - 1].

        Greedy writing is right throughout exactly where every node is, given the true ones before it.
        """
        logits = self.logits(module, batch, mask)[..., 0, :]
        right = logits.argmax(-1) == batch["answer"]
        solved = (right | ~batch["asked"]).all(-1).double().mean(1)
        loss = cross_entropies(logits, batch["answer"]).double().mean((1, 2))
        return torch.cat([loss[:, None], solved[:, None], right.double().mean(1)], dim=1)

    def fit(self, seeds: Sequence[int], name: str, examined: bool = True) -> dict[str, xr.DataArray]:
        """Train every arm for every seed: arrays [seed, objective, mask, ...].

        "escaped" says whether at least ``level`` of the validation graphs were answered right at two checks in a row,
        which ends a training, and "updates" how many it took, or the budget. "curve" [..., update], "steps over training"
        [..., update, step] and "loss" [..., update] are the share answered right, of each step given what the objective
        reads, and the loss of the next node, all on validation graphs; a finished training keeps its last value. With
        ``examined``, what `examine` finds on test graphs at the end of the training is added.
        """
        size, training = self.size, self.training
        sources = {seed: stream(seed, "path-star trainings") for seed in seeds}
        fixed = {seed: size.sample(sources[seed].child("pool"), self.pool) for seed in seeds if self.pool}

        def sample(seed: int, block: int, count: int) -> PathStars:
            if self.pool:
                return sample_from_pool(fixed[seed], sources[seed].child("rows", block), count)
            return size.sample(sources[seed].child("data", block), count)

        validation = {seed: size.sample(sources[seed].child("validation"), training.validation) for seed in seeds}

        def measure(networks: Networks[Transformer]) -> dict[str, Tensor]:
            progress = networks.numbers(validation, self.progress)
            return {"validation loss": progress[:, 0], "right": progress[:, 1], "steps": progress[:, 2:]}

        def finished(history: History) -> bool:
            last = history["right"][-2:]
            return len(last) == 2 and bool((last >= training.level).all())

        fitted = self.study().fit(
            seeds,
            sample,
            training.optimisation,
            blocks=(training.batch, training.block),
            measure=measure,
            measure_every=training.evaluate_every,
            axes={"steps": {"step": list(size.steps)}},
            stop=finished,
            name=name,
        )
        shape: dict[str, Sequence[Any]] = {"seed": seeds, "objective": self.objectives, "mask": self.masks}
        arms = [len(labels) for labels in shape.values()]
        measured = {}
        for key, quantity in (
            ("curve", "right"),
            ("steps over training", "steps"),
            ("loss", "validation loss"),
            ("training loss", "loss"),
        ):
            axes: dict[str, Sequence[Any]] = {"update": training.checks}
            axes |= {"step": list(size.steps)} if quantity == "steps" else {}
            carried = self._carried_on(fitted.history[quantity].values).astype(np.float32)
            measured[key] = labelled(carried.reshape(*arms, *carried.shape[2:]), **shape, **axes)
        history = fitted.history["right"].values.reshape(*arms, -1)
        recorded = np.where(np.isnan(history), -1.0, history)
        number = (recorded >= 0).sum(-1, keepdims=True)
        last = [np.take_along_axis(recorded, np.maximum(number - back, 0), -1)[..., 0] for back in (1, 2)]
        escaped = (np.minimum(*last) >= training.level) & (number[..., 0] > 1)
        measured["escaped"] = labelled(escaped, **shape)
        measured["updates"] = labelled(fitted.updates.values.reshape(arms).astype(float), **shape)
        if examined:
            test = {seed: size.sample(sources[seed].child("test"), training.test) for seed in seeds}
            for key, means in self.examine(fitted, test).items():
                coordinates = shape | ({"step": list(size.steps)} if means.dim() == 2 else {})
                measured[key] = labelled(
                    means.numpy().reshape([len(labels) for labels in coordinates.values()]), **coordinates
                )
        return measured

    def examine(self, fitted: Fitted[Transformer], graphs: Mapping[int, PathStars]) -> dict[str, Tensor]:
        """What trained networks do on test graphs, means [E, ...] over them.

        "exact": the written answer is right. "step accuracy" [E, l - 1]: each step is right when the network is fed what
        it was trained on. "any arm but its end": what is written from start to goal follows some arm of the graph to the
        node before its leaf. "any arm or goal": it does, and the last node is that leaf or the goal.
        """
        values: dict[str, list[Tensor]] = {}
        nodes_after_the_start = slice(self.size.copied, None)
        encode = {
            member.arm: encoding(member.arm.partition(",")[0], self.size, self.heads) for member in fitted.members
        }
        for begin in range(0, self.training.test, JUDGED_AT_ONCE):
            rows = slice(begin, begin + JUDGED_AT_ONCE)
            part = {seed: PathStars(drawn.arms[rows], drawn.edges[rows]) for seed, drawn in graphs.items()}
            nodes = torch.stack([part[member.seed].arms for member in fitted.members])
            truth = torch.stack([encode[member.arm](part[member.seed])["answer"] for member in fitted.members])
            named = fitted.numbers(part, self.named)
            written = self.written(fitted, part, named)
            along = written[..., nodes_after_the_start]
            same = along.unsqueeze(2) == nodes[..., 1:]
            goal = (written[..., -1] == truth[..., -1]).unsqueeze(2)
            measured = {
                "exact": (written == truth).all(-1),
                "step accuracy": named == truth,
                "any arm but its end": same[..., :-1].all(-1).any(-1),
                "any arm or goal": (same[..., :-1].all(-1) & (same[..., -1] | goal)).any(-1),
            }
            for key, value in measured.items():
                values.setdefault(key, []).append(value.double())
        return {key: torch.cat(parts, dim=1).mean(1) for key, parts in values.items()}

    def written(self, fitted: Fitted[Transformer], graphs: Mapping[int, PathStars], named: Tensor) -> Tensor:
        """Nodes [E, B, l - 1] that networks write greedily, reading what they wrote; in one pass it is what they name."""
        answers, size = named.clone(), self.size
        for objective, mask in product(self.objectives, self.masks):
            if objective in ONE_PASS:
                continue
            arm, encode = f"{objective}, {mask}", encoding(objective, size, self.heads)
            networks = fitted.of(arms=[arm])
            prompts = torch.stack([encode(graphs[seed])["tokens"][:, : size.prompt] for seed in networks.seeds])
            device = next(networks.module.parameters()).device
            with torch.no_grad():
                reader = by_tokens(networks.module, self.training.embedding_scale, size)
                continuation = decode(reader, prompts.to(device), size.masks[mask].to(device), size.answers)
            answers[[fitted.place(seed, arm) for seed in networks.seeds]] = continuation.tokens.cpu().double()
        return answers

    def _carried_on(self, history: np.ndarray) -> np.ndarray:
        """A history [seed, arm, update, ...] at every check there can be; a finished training keeps its last value."""
        moved = np.moveaxis(history, 2, 0)
        kept = pd.DataFrame(moved.reshape(len(moved), -1)).ffill().to_numpy()
        padded = np.pad(kept, ((0, len(self.training.checks) - len(kept)), (0, 0)), mode="edge")
        return np.moveaxis(padded.reshape(-1, *moved.shape[1:]), 0, 2)


def by_tokens(module: Transformer, embedding_scale: float, size: Size) -> Transformer:
    """The same networks (first head) as a function of token ids, which a decoder feeds.

    The linear map that reads an edge, a node and a place is the same thing as a table of token embeddings that are sums
    of two rows, plus a table of positions; the two tables are written out here.
    """
    if size.format == "authors":
        return module if module.architecture.output_size == size.outputs else first_head(module, size)
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


def first_head(module: Transformer, size: Size) -> Transformer:
    """Networks that read token ids, with the first of several linear heads alone."""
    weights = {name: value.detach() for name, value in module.named_parameters()}
    weights["read_out.weight"] = weights["read_out.weight"][..., : size.outputs]
    architecture = replace(module.architecture, output_size=size.outputs)
    built = Transformer.from_weights(architecture, weights, module.models, torch.float32)
    return built.to(next(module.parameters()).device)


def sooner(earlier: xr.Dataset, later: xr.Dataset, decided: bool = False, within: int | None = None) -> Evidence:
    """In most pairs of one seed ``earlier`` escapes within the budget (or ``within`` so many updates), ``later`` later or not.

    Pairs of which neither escapes count against it, or (``decided``) are left out, as ties are in a sign test.
    """
    earlier_gone, later_gone = (
        arm["escaped"] & (arm["updates"] <= (np.inf if within is None else within)) for arm in (earlier, later)
    )
    first = earlier_gone & (~later_gone | (earlier["updates"] < later["updates"]))
    pairs = int((earlier_gone | later_gone).sum()) if decided else first.size
    return Evidence.proportion(int(first.sum()), max(pairs, 1), ">", 0.5, HALF)


def most(happened: xr.DataArray) -> Evidence:
    """It happened in more than half of the trainings [seed]."""
    return Evidence.proportion(int(happened.sum()), happened.size, ">", 0.5, MOST)


def gone(trainings: xr.Dataset, checks: Sequence[int]) -> xr.DataArray:
    """Which trainings have escaped by each check [seed, update], as numbers."""
    updates = xr.DataArray(list(checks), dims="update", coords={"update": list(checks)})
    done: xr.DataArray = (trainings["escaped"] & (trainings["updates"] <= updates)).astype(float)
    return done.transpose("seed", "update")
