# ---
# jupyter:
#   jupytext:
#     comment_magics: false
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Copy, then learn
#
# Now inputs and labels are separate tokens, $(x_1), (y_1), (x_2), \ldots$, with positions in slots of their own,
# and the network has two layers. A gradient step needs $x_j$ and $y_j$ in one place, so something must first
# bring them together. With softmax in the first layer this is learned: the loss waits on a plateau near that of
# predicting zero, then drops towards one gradient step. What the first layer has learned is read off by
# differentiating its output at a token with respect to the content of that token, its neighbours and all
# others.
#
# **The mask.** Under the prefix mask $x_j$ may fetch $y_j$ from its right, or $y_j$ may fetch $x_j$ from its
# left, or both; under the causal mask only the second is possible: the previous-token head of induction
# circuits. Both arms are trained. A third arm has linear attention in the first layer as well (prefix mask).
# It is said not to learn, although it can represent the copy exactly.
#
# CI uses fewer dimensions, fewer examples and one-hot positions; `paper` has the paper's ten of each and
# sinusoidal ones.


# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lab import Evidence, Task, control
from lab.domains.regression.optimal_steps import UNIFORM_KURTOSIS, one_step_error, optimal_step
from lab.domains.regression.prompts import RegressionPrompts
from lab.figures import ARMS, THEORY, Drawing, label, panels
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import Stream, stream
from lab.training import Batch, Member, Optimisation, train
from tasks.icl_gradient_descent._shared import (
    FORTY_THOUSAND,
    LOOKS,
    LOSS,
    PAPER,
    PATTERNS,
    ZERO,
    Experiment,
    attention_only,
    curve,
    evaluate_every,
    fresh_batches,
    longer,
    prompts,
    query_loss,
    tiny,
    weight_seeds,
)


@dataclass(frozen=True)
class Config(Experiment):
    """Sizes of the trainings of two layers on alternating tokens of inputs and labels."""

    dimension: int = 2
    """dimension d of the inputs, uniform on [-half_width, half_width]^d"""
    half_width: float = 1.0
    """half the side of the cube of inputs"""
    context_length: int = 4
    """examples N"""
    queries: int = 4
    """queries a prompt"""
    batch: int = 16
    """prompts a step"""
    initial_scale: float = 0.2
    """standard deviation of all initial weights of attention"""
    head_ratio: int = 2
    """size of a head over size of a token"""
    optimisation: Optimisation = Optimisation(
        steps=600, learning_rate=1e-2, warmup=0.05, schedule="cosine", betas=(0.9, 0.98), clip_norm=1.0
    )
    trainings: int = 12
    """independent trainings an arm"""
    position_size: int = 0
    """size of the sinusoidal positions of alternating tokens; 0 for one-hot positions"""


CI = Config()
PAPER_SIZES = longer(
    CI,
    dimension=10,
    half_width=0.5,
    context_length=10,
    initial_scale=0.02,
    optimisation=FORTY_THOUSAND,
    records=80,
    position_size=10,
)
TASK = Task("icl-gradient-descent", PAPER, {"smoke": tiny(CI), "ci": CI, "paper": PAPER_SIZES})


class TwoKinds(nn.Module):
    """One layer of one kind of attention, then one of linear attention."""

    def __init__(self, first: Transformer, second: Transformer) -> None:
        super().__init__()
        self.first, self.second, self.width = first, second, first.width

    def forward(self, given: Tensor, mask: Tensor) -> Tensor:
        return self.second(self.first(given, mask), mask)

    def select(self, models: Sequence[int]) -> TwoKinds:
        """The models at these places of the model axis."""
        return TwoKinds(self.first.select(models), self.second.select(models))


def alternating(config: Config, given: RegressionPrompts) -> Tensor:
    """Tokens (x_1), (y_1), ..., (x_N), (y_N), then queries (x): [batch, 2 N + queries, positions + d + 1], label slot last."""
    batch, context, d = given.x_context.shape
    length, queries = 2 * context, given.x_query.shape[1]
    places = torch.cat([torch.arange(length), torch.full((queries,), length)])
    positions = torch.eye(length + 1)[places]
    if config.position_size:
        frequencies = 10_000.0 ** -(torch.arange(0, config.position_size, 2) / config.position_size)
        angles = places[:, None] * frequencies
        positions = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
    content = torch.zeros(batch, length + queries, d + 1)
    content[:, 0:length:2, :d], content[:, 1:length:2, d] = given.x_context, given.y_context
    content[:, length:, :d] = given.x_query
    return torch.cat([positions.expand(batch, -1, -1), content], dim=-1)


COPY_ARMS = ("prefix", "causal", "linear first layer")
NEIGHBOURS = ("own", "left", "right", "all others")


def first_layer_reach(module: TwoKinds, given: Tensor, mask: Tensor, context: int, d: int) -> Tensor:
    """Norms of the mean of d (first layer's output at x | y) / d (content of which token) over prompts: [E, 2, 4]."""
    models, length = module.first.models, 2 * context
    found = torch.zeros(models, 2, len(NEIGHBOURS), dtype=torch.float64)
    seen = given[None].expand(models, *given.shape).clone().requires_grad_()
    for kind, place in enumerate((2 * (context // 2), 2 * (context // 2) + 1)):
        with torch.enable_grad():
            output = module.first(seen, mask)[:, :, place].sum(1)
            rows = [torch.autograd.grad(one.sum(), seen, retain_graph=True)[0] for one in output.unbind(-1)]
        jacobian = torch.stack(rows, dim=3)[:, :, :length, :, -d - 1 :].double().mean(1)
        size = torch.nn.functional.pad(jacobian.flatten(2).norm(dim=-1), (0, 1))
        others = [token for token in range(length) if abs(token - place) > 1]
        found[:, kind] = torch.stack(
            [size[:, place], size[:, place - 1], size[:, place + 1], size[:, others].sum(1)], -1
        )
    return found


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=12)
def copying(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Two layers on alternating tokens in three arms: losses and reach of the first layer along training."""
    name = "inputs and labels apart"
    context, d = 2 * config.context_length, config.dimension
    patterns = {arm: pattern(context, config.queries) for arm, pattern in PATTERNS.items()}
    patterns["linear first layer"] = patterns["prefix"]
    size = d + 1 + (config.position_size or context + 1)
    loss = query_loss(patterns, context, sign=1.0)

    def draw(source: Stream, count: int) -> Batch:
        given = prompts(config, source, count)
        return {"tokens": alternating(config, given), "labels": given.y_query}

    probe = draw(stream(0, name, "probe"), 64)["tokens"]
    tests = [draw(stream(seed, name, "test"), config.test_prompts) for seed in seeds]

    def evaluate(module: TwoKinds, present: tuple[Member, ...]) -> dict[str, Tensor]:
        mask = torch.stack([patterns[member.arm] for member in present])
        return {"reach": first_layer_reach(module, probe, mask, config.context_length, d)}

    found: dict[str, list[np.ndarray]] = {key: [] for key in ("history", "reach", "loss", "loss, strangers")}
    for arms, kind in ((COPY_ARMS[:2], "softmax"), (COPY_ARMS[2:], "linear")):

        def build(chosen: Sequence[int], kind: str = kind) -> TwoKinds:
            layers = (attention_only(size, config, attention=one) for one in (kind, "linear"))
            seeds_of = ([2 * seed + layer for seed in weight_seeds(chosen)] for layer in (0, 1))
            return TwoKinds(*map(Transformer, layers, seeds_of))

        members = [Member(seed, arm) for seed in seeds for arm in arms]
        trained = train(
            build,
            members,
            fresh_batches(draw, name, config.batch),
            loss,
            config.optimisation,
            evaluate=evaluate,
            evaluate_every=evaluate_every(config),
            name=f"copying {kind}",
        )
        test = {key: torch.stack([one[key] for one in tests for _ in arms]) for key in ("tokens", "labels")}
        with torch.no_grad():
            named = tuple(member.arm for member in members)
            final = loss(trained.module, test, named)
            strangers = loss(trained.module, test | {"labels": test["labels"].roll(1, 1)}, named)
        for key, values in {
            "history": trained.history["loss"].T,
            "reach": np.moveaxis(trained.history["reach"], 0, 1),
            "loss": final.double().numpy(),
            "loss, strangers": strangers.double().numpy(),
        }.items():
            found[key].append(values.reshape(len(seeds), len(arms), *values.shape[1:]))
    steps = np.tile(trained.history["step"], (len(seeds), 1))
    return {key: np.concatenate(values, 1) for key, values in found.items()} | {"steps": steps}


def copying_levels(config: Experiment) -> tuple[float, float]:
    """Half-losses of predicting zero and of one gradient step, exactly."""
    law = {"input_variance": config.half_width**2 / 3, "kurtosis": UNIFORM_KURTOSIS}
    step = optimal_step(config.context_length, config.dimension, **law)
    one = one_step_error(step, config.context_length, config.dimension, **law) / 2
    return config.dimension * law["input_variance"] / 2, one


@TASK.figure
def copy_then_learn(results: Results) -> Drawing:
    """Loss along training by arm, and whose content the first layer's output depends on."""
    found, config = results[copying], results.config
    figure, axes = panels(1, 3, width=4.4, height=3.8)
    steps, (zero, one), left = found["steps"][0], copying_levels(config), axes[0, 0]
    rows: list[dict] = []
    styles: list[dict[str, Any]] = [*ARMS.values(), LOOKS[4]]
    for place, (arm, looks) in enumerate(zip(COPY_ARMS, styles, strict=True)):
        values = found["history"][:, place]
        left.plot(steps, values.mean(0), label=arm, markevery=2, **looks)
        left.fill_between(steps, values.min(0), values.max(0), color=looks["color"], alpha=0.15, linewidth=0)
        rows += [
            {"quantity": f"half loss, {arm}, seed {seed}", "x": a, "value": b}
            for seed, each in enumerate(values)
            for a, b in zip(steps[4::5], each[4::5], strict=True)
        ]
    left.axhline(zero, **ZERO)
    left.axhline(one, **THEORY, label="one gradient step, closed form")
    left.set_ylim(0, 0.6)
    label(left, "a plateau, then a drop (mean, least and greatest)", "training step", LOSS)
    for place, arm in enumerate(PATTERNS):
        panel = axes[0, 1 + place]
        for kind, (token, line) in enumerate((("x", "-"), ("y", "--"))):
            for column, looks in zip((1, 2, 3), LOOKS, strict=False):
                text = f"at {token}: {NEIGHBOURS[column]}"
                values = found["reach"][:, place, :, kind, column]
                curve(
                    rows,
                    panel,
                    steps,
                    values,
                    text,
                    f"reach, {arm}, {text}",
                    **(looks | {"linestyle": line, "markevery": 2}),
                )
        label(panel, f"{arm}: what the first layer copies", "training step", "norm of the mean derivative")
        panel.set_ylim(0, 1.9)
    for panel in axes[0]:
        panel.legend(fontsize=7, ncols=2, loc="upper right")
    return Drawing(figure, pd.DataFrame(rows))


def way_to_one_step(results: Results, arm: str, strangers: bool) -> np.ndarray:
    """Which share of the way from predicting 0 to one gradient step a training has gone, by its loss on test prompts."""
    found = results[copying]["loss, strangers" if strangers else "loss"][:, COPY_ARMS.index(arm)]
    zero, one = copying_levels(results.config)
    return (zero - found) / (zero - one)


PLATEAU = "the loss of predicting 0, closed form (share of the way from it to one gradient step)"


@TASK.claim(
    "icl-gradient-descent/P2",
    where="Figure 5",
    kind="training",
    statement=(
        "On alternating tokens two layers, softmax in the first, learn to answer under the prefix mask: the mean loss over "
        "trainings gets below the plateau of predicting 0."
    ),
    controls=[control("judged on the labels of other prompts", strangers=True)],
)
def copying_is_learned(results: Results, strangers: bool = False) -> Evidence:
    return Evidence.over_seeds(way_to_one_step(results, "prefix", strangers), ">", 0.0, PLATEAU)


@TASK.claim(
    "icl-gradient-descent/P2.causal",
    where="Figure 5, under the other mask (derived)",
    kind="training",
    statement="They also learn to answer under the causal mask, where only the label's token can fetch its input.",
    controls=[control("judged on the labels of other prompts", strangers=True)],
)
def copying_is_learned_causally(results: Results, strangers: bool = False) -> Evidence:
    return Evidence.over_seeds(way_to_one_step(results, "causal", strangers), ">", 0.0, PLATEAU)


@TASK.claim(
    "icl-gradient-descent/P2.linear",
    where="Appendix A.6",
    kind="training",
    statement=(
        "With linear attention in the first layer as well, alternating tokens are not learned: the mean loss over trainings "
        "does not get below that of predicting 0."
    ),
    expected="refuted",
    condition=(
        "only at other sizes, if at all: with one-hot positions and weights that do not start tiny, the linear first layer learns"
    ),
    controls=[control("judged on the labels of other prompts", strangers=True)],
)
def linear_first_layer_never_learns(results: Results, strangers: bool = False) -> Evidence:
    gone = way_to_one_step(results, "linear first layer", strangers)
    return Evidence.over_seeds(gone, "<", 0.0, PLATEAU)


@TASK.claim(
    "icl-gradient-descent/P2.copy",
    where="Figure 5, sensitivities",
    kind="training",
    statement=(
        "Under the causal mask the trained first layer's output at a label's token depends more on the input to its left "
        "than on all tokens that are not its neighbours together."
    ),
    controls=[control("at the input's token, whose left neighbour is a stranger", kind=0)],
)
def first_layer_copies(results: Results, record: int = -1, kind: int = 1) -> Evidence:
    reach = results[copying]["reach"][:, COPY_ARMS.index("causal"), record, kind]
    return Evidence.over_seeds(np.log(reach[:, 1] / reach[:, 3]), ">", 0.0, "no preference (log ratio)")


# %%
TASK.show(copy_then_learn)
TASK.show(copying_is_learned)
TASK.show(copying_is_learned_causally)
TASK.show(linear_first_layer_never_learns)
TASK.show(first_layer_copies)

# %%
TASK.show()
