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
# # Softmax, heads, and layer norm
#
# Softmax weights are positive and sum to one: a head returns an average of values, which for small scores is
# $\bar y + \mathrm{cov}(y, x)^\top M x_q$. The gradient step is the second term; the first is in the way. Two
# heads with nearly equal scores and opposite outputs cancel the offset and keep a difference, so two should do
# what one cannot, if they find each other. Until a head has found something the loss stands on a plateau, that
# of predicting zero.
#
# A layer norm in front of linear attention has the opposite trouble: it keeps sizes of tokens from the layer.
# It costs accuracy within the training range and tames what happens outside of it.


# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lab import Evidence, Task, control
from lab.domains.regression.optimal_steps import optimal_step
from lab.domains.regression.prompts import tokens
from lab.figures import THEORY, Drawing, label, panels
from lab.models import masks
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from lab.training import Member, Optimisation, train
from tasks.icl_gradient_descent._shared import (
    INPUT_SCALES,
    LAW,
    LOOKS,
    LOSS,
    PAPER,
    VARIANCE,
    ZERO,
    Experiment,
    answered,
    answers,
    attention_only,
    curve,
    evaluate_every,
    fed,
    fresh_batches,
    gradient_weights,
    half_error,
    input_scale_law,
    longer,
    mask_difference,
    optimal_half_loss,
    prompts,
    query_loss,
    tiny,
    weight_seeds,
)


@dataclass(frozen=True)
class Config(Experiment):
    """Sizes of the trainings of softmax attention of one and two heads, and of linear attention behind a layer norm."""

    batch: int = 16
    """prompts a step"""
    optimisation: Optimisation = Optimisation(
        steps=400, learning_rate=1e-2, warmup=0.1, schedule="cosine", betas=(0.9, 0.98), clip_norm=1e-3
    )
    trainings: int = 16
    """independent trainings a kind of layer"""
    test_prompts: int = 1000
    """prompts of the test"""


CI = Config()
TASK = Task("icl-gradient-descent", PAPER, {"smoke": tiny(CI), "ci": CI, "paper": longer(CI, initial_scale=0.0135)})


KINDS: dict[str, dict] = {
    "one head": {"attention": "softmax"},
    "two heads": {"attention": "softmax", "heads": 2},
    "layer norm": {"norm": "pre"},
    "linear": {},
}


class Update(nn.Module):
    """What one layer adds to its tokens, before any norm of the stream."""

    def __init__(self, layer: Transformer) -> None:
        super().__init__()
        self.layer, self.width = layer, layer.width

    def forward(self, given: Tensor, mask: Tensor) -> Tensor:
        if self.layer.architecture.norm == "none":
            return self.layer(given, mask) - given
        record: dict[str, Tensor] = {}
        self.layer(given, mask, record=record)
        return record["layers.0.attention.output"]

    def select(self, models: Sequence[int]) -> Update:
        """The models at these places of the model axis."""
        return Update(self.layer.select(models))


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=16)
def softmax_heads(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Softmax attention of one and two heads, linear attention with and without a layer norm before it: losses
    [seeds, kinds, ...]."""
    name = "softmax heads, layer norm"
    context, d = config.context_length, config.dimension
    patterns = {"prefix": masks.in_context_prefix(context, config.queries)}
    batch = fresh_batches(lambda source, count: fed(prompts(config, source, count)), name, config.batch)
    tests = [prompts(config, stream(seed, name, "test"), config.test_prompts, queries=2) for seed in seeds]
    step, wanted = optimal_step(context, d, **LAW), torch.stack([test.y_query for test in tests])
    found: dict[str, list] = {key: [] for key in ("history", "input scale", "mask difference", "opposed")}

    def initial(chosen: Sequence[int]) -> list[int]:
        # Apart from the initial weights of the other measurements.
        return weight_seeds([10_000 + seed for seed in chosen])

    for kind, changes in KINDS.items():
        architecture = attention_only(d + 1, config, **changes)
        trained = train(
            lambda chosen, architecture=architecture: Update(Transformer(architecture, initial(chosen))),  # type: ignore[misc]
            [Member(seed, "prefix") for seed in seeds],
            batch,
            query_loss(patterns, context),
            config.optimisation,
            evaluate_every=evaluate_every(config),
            name=kind,
        )
        found["history"].append(trained.history["loss"].T)
        given = torch.stack([tokens(test) for test in tests])
        losses = [
            half_error(answered(trained.module, scale * given, context), scale * wanted) for scale in INPUT_SCALES
        ]
        found["input scale"].append(torch.stack(losses, -1).numpy())
        found["mask difference"].append(mask_difference(trained.module, given[:, :100], context))
        # What each head writes into the label slot from labels, as the product of two heads' over the larger squared.
        weights = {
            key.split(".")[-2]: value.detach()
            for key, value in trained.module.named_parameters()
            if "attention." in key
        }
        value, output = (
            weights["value"][:, -1].unflatten(-1, (-1, architecture.size_of_head)),
            weights["output"][..., -1],
        )
        entry = (value * output.unflatten(-1, (-1, architecture.size_of_head))).sum(-1)
        found["opposed"].append((entry[:, 0] * entry[:, -1] / entry.abs().amax(-1).square()).numpy())
    descent = [
        half_error(answers(gradient_weights(test.x_context, test.y_context, step), test.x_query), test.y_query).numpy()
        for test in tests
    ]
    arrays = {key: np.swapaxes(np.array(values), 0, 1) for key, values in found.items()}
    steps = np.tile(trained.history["step"], (len(seeds), 1))
    return {**arrays, "descent": np.array(descent), "steps": steps}


@TASK.figure
def heads_and_norms(results: Results) -> Drawing:
    """Loss of softmax heads along training, and of heads and a layer norm away from the training range."""
    found, config = results[softmax_heads], results.config
    figure, axes = panels(1, 2, width=5.0, height=3.8)
    (left, right), steps = axes[0], found["steps"][0]
    rows: list[dict] = []
    for place, (kind, looks) in enumerate(zip(KINDS, LOOKS, strict=False)):
        text = f"softmax, {kind}" if "head" in kind else {"linear": "linear attention"}.get(kind, kind)
        values = found["history"][:, place]
        if kind != "layer norm":
            thin = looks | {"linewidth": 1.0, "markevery": 4, "markersize": 3}
            left.plot(steps, values.T, **thin, label=[text] + [""] * (len(values) - 1))
        rows += [
            {"quantity": f"half loss, {kind}, seed {seed}", "x": a, "value": b}
            for seed, one in enumerate(values)
            for a, b in zip(steps[4::5], one[4::5], strict=True)
        ]
        curve(rows, right, INPUT_SCALES, found["input scale"][:, place], text, f"loss by input scale, {kind}", **looks)
    left.axhline(
        optimal_half_loss(config.context_length, config.dimension), **THEORY, label="one gradient step, closed form"
    )
    left.axhline(config.dimension * VARIANCE / 2, **ZERO)
    left.set_ylim(0.1, 0.46)
    left.legend(loc="lower left", ncols=2)
    label(left, "one softmax head is behind the step", "training step", LOSS)
    step, grid = optimal_step(config.context_length, config.dimension, **LAW), np.linspace(0.5, 2, 40)
    law = [input_scale_law(config, step, scale) for scale in grid]
    right.plot(grid, law, **THEORY, label="one gradient step, closed form")
    right.set_yscale("log")
    right.legend()
    label(
        right,
        "none of them breaks as the plain step does",
        r"inputs uniform on $[-\alpha/2, \alpha/2]$: $\alpha$",
        LOSS,
    )
    return Drawing(figure, pd.DataFrame(rows))


CLOSE = 0.9
NOT_CLOSE = "a tenth, five times the two per cent that count as the same loss"


def closeness(results: Results, kind: str) -> np.ndarray:
    """Loss of the gradient step over that of a trained layer on the same prompts, by seed: 1 is the step, 0.49 predicts 0."""
    found = results[softmax_heads]
    return found["descent"] / found["input scale"][:, list(KINDS).index(kind), INPUT_SCALES.index(1.0)]


@TASK.claim(
    "icl-gradient-descent/P3",
    where="Figure 12",
    kind="training",
    statement="One softmax head does not match the gradient step after a training in which linear attention comes near it: the "
    "step's loss is less than nine tenths of its loss.",
    controls=[control("linear attention, trained alike", kind="linear")],
)
def one_softmax_head_is_not_enough(results: Results, kind: str = "one head") -> Evidence:
    return Evidence.over_seeds(closeness(results, kind), "<", CLOSE, NOT_CLOSE)


@TASK.claim(
    "icl-gradient-descent/P3.two",
    where="Figure 12",
    kind="training",
    statement=(
        "Two softmax heads come closer to the gradient step than one head does from the same seeds on the same prompts "
        "(loss of the step over loss of the layer)."
    ),
    controls=[control("the two exchanged", better="one head", worse="two heads")],
)
def two_softmax_heads_do_better(results: Results, better: str = "two heads", worse: str = "one head") -> Evidence:
    gain = closeness(results, better) - closeness(results, worse)
    return Evidence.over_seeds(gain, ">", 0.0, f"no gain over {worse}")


@TASK.claim(
    "icl-gradient-descent/P3.heads",
    where="Figure 14",
    kind="training",
    statement="The two softmax heads write labels with opposite signs.",
    controls=[control("signs left out", signed=False)],
)
def heads_are_opposed(results: Results, signed: bool = True) -> Evidence:
    opposed = results[softmax_heads]["opposed"][:, list(KINDS).index("two heads")]
    return Evidence.over_seeds(
        opposed if signed else np.abs(opposed),
        "<",
        0.0,
        "no preference for a sign (product of both over the larger squared)",
    )


@TASK.claim(
    "icl-gradient-descent/P3.norm",
    where="Figure 12, layer norm",
    kind="training",
    statement=(
        r"Linear attention behind a layer norm does not match the gradient step in the training range (the step's loss is less "
        r"than nine tenths of its loss) and is better at twice the range ($\alpha = 2$)."
    ),
    controls=[
        control("linear attention in the training range, trained alike", kind="linear"),
        control("the training range for twice the range", scale=1.0),
    ],
)
def layer_norm_is_worse_and_safer(results: Results, kind: str = "layer norm", scale: float = 2.0) -> Evidence:
    found, config = results[softmax_heads], results.config
    law = input_scale_law(config, optimal_step(config.context_length, config.dimension, **LAW), scale)
    far = law / found["input scale"][:, list(KINDS).index("layer norm"), INPUT_SCALES.index(scale)]
    return Evidence.weakest(
        Evidence.over_seeds(closeness(results, kind), "<", CLOSE, NOT_CLOSE, parts=2),
        Evidence.over_seeds(far, ">", 1.0, "the step's loss at that range, closed form, over the layer's", parts=2),
    )


@TASK.claim(
    "icl-gradient-descent/P4",
    where="Figure 15",
    kind="phenomenon",
    statement=(
        "Half-way into the training a single softmax head is still nearer to the loss of predicting 0 than to that of the "
        "gradient step, and two heads from the same seeds on the same prompts are ahead of it."
    ),
    controls=[control("the two exchanged", slow="two heads", fast="one head")],
)
def plateau_of_one_head(results: Results, slow: str = "one head", fast: str = "two heads") -> Evidence:
    history, config = results[softmax_heads]["history"], results.config
    middle = history[:, :, history.shape[-1] // 2 - 1]
    losses = {kind: middle[:, place] for place, kind in enumerate(KINDS)}
    between = (optimal_half_loss(config.context_length, config.dimension) + config.dimension * VARIANCE / 2) / 2
    return Evidence.weakest(
        Evidence.over_seeds(losses[slow] - losses[fast], ">", 0.0, "no difference between the losses", parts=2),
        Evidence.over_seeds(losses[slow], ">", between, "half-way between the step and predicting 0", parts=2),
    )


# %%
TASK.show(heads_and_norms)
TASK.show(one_softmax_head_is_not_enough)
TASK.show(two_softmax_heads_do_better)
TASK.show(heads_are_opposed)
TASK.show(layer_norm_is_worse_and_safer)
TASK.show(plateau_of_one_head)

# %%
TASK.show()
