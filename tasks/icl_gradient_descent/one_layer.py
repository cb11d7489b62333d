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
# # Do transformers find gradient descent? One layer, two layers, softmax, curves, and tokens that must first be joined
#
# `proofs_check/icl_gradient_descent` shows what linear attention *can* do with $N$ examples $(x_j, y_j)$
# and a query: one layer can take one gradient step, and the best such layer takes the step
# $s^* = 1/(v(N + d - 2 + \kappa))$ on the sum over examples. Here networks are *trained* from small random
# weights, and the question is what they find:
#
# 1. one layer of linear attention (this part): the same loss, the same predictions and, after rescaling, the
#    same matrices as one gradient step, also on inputs it was not trained on;
# 2. two layers (`two_layers`): better than two gradient steps, because the first layer reshapes the inputs for
#    the second (GD++);
# 3. a layer applied again and again (`repeated_layer`), where damping decides how long that goes well;
# 4. softmax (`softmax_heads`): one head cannot do it, and what a second head and a layer norm change;
# 5. a nonlinear front end (`sine_curves`): gradient descent on learned features fits sine curves;
# 6. inputs and labels in separate tokens (`separate_tokens`): the first layer must first copy;
# 7. what one layer cannot do (`limits_of_one_layer`), seen over all trainings.
#
# **The two masks.** With one layer after the embedding, a query that sees all examples gets the same answer
# under a prefix mask (examples see each other) and under a causal mask (an example sees earlier ones):
# nothing that an example's own row computes is ever read. So in parts 1, 4 and 5 the two arms are one
# function, which is checked (T3.mask) and not assumed. In parts 2, 3 and 6 the mask decides, and both arms
# are trained.
#
# Losses are **half** the mean squared error, inputs uniform on $[-\frac12, \frac12]^d$ ($v = 1/12$,
# $\kappa = 1.8$), weights $w \sim N(0, I)$, no label noise, predictions **minus** the label slot of the
# query. Curves called exact or closed form are not sampled.
#
# **How verdicts are reached.** Every sampled claim is about the mean over independent trainings or draws, never
# about the best of them. Thresholds are the values of closed forms wherever the sentence allows it (no
# difference, the loss of predicting 0, the loss of a gradient step); "has the loss of" means within 2 %.
#
# **Sizes.** $N = d = 10$ are the paper's own sizes. CI trains shorter, with a larger and decaying rate, and asks
# several queries of every prompt instead of drawing more prompts. All seeds and arms of a measurement are trained
# as one ensemble; arms share initial weights and prompts.
#
# ## One layer of linear attention
#
# All four matrices $Q, K, V, P$ are free. (In `paper` a head is as large as a token, $d + 1$; in CI it is four
# times that, because products of square matrices can wait long where a direction starts with the wrong sign.) One
# layer's answer to a query $(x_q, 0)$ is linear in $x_q$: with $S = \sum_j z_j z_j^\top$ over the examples it
# is $-e_y^\top P V\, S\, K^\top Q\, (x_q, 0)$. So everything about a trained layer is in its two products
# $K^\top Q$ and $PV$, and its sensitivity $\partial \hat y_q / \partial x_q$ can be compared with the weights
# $s^* X^\top y$ of the gradient step prompt by prompt.
#
# The best step depends on $N$, so a layer is trained for each of several $N$, side by side: prompts hold as
# many examples as the longest needs and the mask hides the rest. One more arm is a control: the labels of the
# context are shifted by one place, so that no input keeps its own. Nothing can be learned then, and the best
# loss is $d v / 2$, that of predicting zero.


# %%
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.prompts import RegressionPrompts
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from lab.study import Arm, Networks, Study
from tasks.icl_gradient_descent._shared import (
    INPUT_SCALES,
    LOSS,
    PAPER,
    SAME,
    Arrays,
    Experiment,
    Products,
    answers,
    attention_only,
    by_member,
    descent_loss,
    encode,
    fit,
    for_each_seed,
    longer,
    loss_of,
    mask_difference,
    sample_prompts,
    step_weights,
    tiny,
    training_loss,
    weight_seeds,
)


@dataclass(frozen=True)
class Config(Experiment):
    """Sizes of the training of one layer."""

    lengths: tuple[int, ...] = (5, 10)
    """numbers of examples at which one layer is trained, `context_length` among them"""


CI = Config(trainings=10)
TASK = Task(
    "icl-gradient-descent",
    PAPER,
    {
        "smoke": tiny(CI),
        "ci": CI,
        "paper": longer(CI, initial_scale=0.0135, lengths=(2, 5, 10, 20, 30, 40, 50)),  # sqrt(0.002 / 11)
    },
)
POSITIVE = (1e-9, np.inf)  # what a logarithmic axis can show
KEPT, SHIFTED = "labels kept", "labels shifted"


def arm_of(length: int) -> str:
    """The arm that is trained for this number of examples."""
    return f"{length} examples"


def first_examples(prompts: RegressionPrompts, length: int) -> RegressionPrompts:
    """The same prompts with fewer examples."""
    return replace(prompts, x_context=prompts.x_context[:, :length], y_context=prompts.y_context[:, :length])


def shifted(prompts: RegressionPrompts, length: int) -> RegressionPrompts:
    """The labels of the first examples moved by one place."""
    labels = prompts.y_context
    return replace(prompts, y_context=torch.cat([labels[:, :length].roll(1, -1), labels[:, length:]], dim=1))


def scaled(prompts: RegressionPrompts, scale: float) -> RegressionPrompts:
    """The same prompts with larger inputs, and labels that follow."""
    return replace(
        prompts, **{name: scale * getattr(prompts, name) for name in ("x_context", "y_context", "x_query", "y_query")}
    )


def towards_the_step(layer: Products, step_size: float) -> Products:
    """The layer half-way between a trained one, rescaled, and the construction."""
    inputs = torch.eye(layer.score.shape[-1], dtype=layer.score.dtype)
    inputs[-1, -1] = 0
    label_only = torch.zeros_like(inputs)
    label_only[-1, -1] = -step_size
    score, value = layer.rescaled()
    return Products((score + inputs) / 2, (value + label_only) / 2)


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=10)
def one_layer(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """One layer at every length, and with shifted labels: curves along training, products, and losses on test prompts."""
    name, longest, length = "one layer, several lengths", max(config.lengths), config.context_length
    sizes = replace(config, context_length=longest)
    visible = masks.in_context_prefix(longest, config.queries)
    sees = {length: visible & (torch.arange(len(visible)) < length) for length in config.lengths}
    study = Study(
        build=lambda chosen: Transformer(attention_only(config.dimension + 1, config), weight_seeds(chosen)),
        arms={arm_of(length): mask for length, mask in sees.items()}
        | {SHIFTED: Arm(sees[length], lambda prompts: encode(shifted(prompts, length)))},
        encode=encode,
        loss=training_loss,
    )
    probe = sample_prompts(config, stream(0, name, "probe"), 300)
    reference = step_weights(probe.x_context, probe.y_context, config.best_step())

    def measure(networks: Networks) -> dict[str, Tensor]:
        weights = Products.of(networks.module).weights(probe.x_context, probe.y_context)
        return {
            "probe": loss_of(weights, probe),
            "cosine": torch.cosine_similarity(weights, reference, dim=-1).mean(-1),
            "sensitivity": (weights - reference).norm(dim=-1).mean(-1),
            "difference": answers(weights - reference, probe.x_query).abs().mean((-2, -1)),
        }

    fitted = fit(study, config, seeds, name, partial(sample_prompts, sizes), measure=measure, name="one layer")
    layers = Products.of(fitted.module)
    tests = sample_prompts(config, stream(0, name, "masks"), config.test_prompts)

    def test(seed: int) -> Arrays:
        prompts = sample_prompts(sizes, stream(seed, name, "test"), config.test_prompts, queries=2)
        return losses_on(prompts, config, {arm: layers.at(fitted.place(seed, arm)) for arm in study.arms})

    def looked_at(array: xr.DataArray) -> xr.DataArray:
        return array.sel(arm=[arm_of(length), SHIFTED]).assign_coords(arm=[KEPT, SHIFTED])

    return {
        **{key: looked_at(fitted.history[key]) for key in ("probe", "cosine", "sensitivity", "difference")},
        "score": looked_at(by_member(fitted, layers.score, row=None, column=None)),
        "value": looked_at(by_member(fitted, layers.value, row=None, column=None)),
        **for_each_seed(seeds, test),
        "mask difference": mask_difference(fitted, tests, length, [arm_of(length)]).sel(arm=arm_of(length)),
    }


def layer_loss(layer: Products, prompts: RegressionPrompts) -> float:
    """The loss of one layer on these prompts."""
    return float(loss_of(layer.weights(prompts.x_context, prompts.y_context), prompts))


def losses_on(prompts: RegressionPrompts, config: Config, layers: Mapping[str, Products]) -> Arrays:
    """Losses on one seed's test prompts of every length's layer, step and midpoint, and by the size of the inputs."""
    losses: dict[str, list[float]] = {"loss": [], "descent": [], "midpoint": []}
    for length in config.lengths:
        examples, layer, step_size = first_examples(prompts, length), layers[arm_of(length)], config.best_step(length)
        losses["loss"].append(layer_loss(layer, examples))
        losses["descent"].append(descent_loss(examples, step_size))
        losses["midpoint"].append(layer_loss(towards_the_step(layer, step_size), examples))
    length = config.context_length
    examples = first_examples(prompts, length)
    resized = [scaled(examples, scale) for scale in INPUT_SCALES]
    layers_by_arm = {KEPT: layers[arm_of(length)], SHIFTED: layers[SHIFTED]}
    return {
        **{key: labelled(values, length=config.lengths) for key, values in losses.items()},
        "shifted loss": layer_loss(layers[SHIFTED], shifted(examples, length)),
        "descent of twice the length": descent_loss(examples, config.best_step(2 * length)),
        "loss by scale": labelled(
            [[layer_loss(layer, larger) for larger in resized] for layer in layers_by_arm.values()],
            arm=list(layers_by_arm),
            scale=INPUT_SCALES,
        ),
        "descent by scale": labelled(
            [descent_loss(larger, config.best_step()) for larger in resized], scale=INPUT_SCALES
        ),
    }


@TASK.figure
def loss_and_alignment(results: Results) -> Sheet:
    """Loss, and alignment of predictions and sensitivities with one gradient step, along training."""
    history, config = results[one_layer], results.config
    trained = history.sel(arm=KEPT)
    sheet = Sheet(columns=2, width=5.0, height=3.6)
    panel = sheet.panel("a trained layer ends at one gradient step", x="update", y=LOSS, ylim=(0.15, 0.62))
    panel.curve(trained["probe"], over="update", name="trained")
    panel.curve(history["probe"].sel(arm=SHIFTED), over="update", name=SHIFTED)
    panel.level(config.step_loss(), f"one gradient step, closed form {config.step_loss():.4f}")
    panel.level(config.zero_loss, "predicting 0")
    panel = sheet.panel(
        "and its answers become the step's", x="update", y="distance from the gradient step", scale=("linear", "log")
    )
    panel.curve(1 - trained["cosine"], over="update", name="1 - cosine of sensitivities", within=POSITIVE)
    panel.curve(trained["sensitivity"], over="update", name="distance of sensitivities", within=POSITIVE)
    panel.curve(trained["difference"], over="update", name="distance of predictions", within=POSITIVE)
    return sheet


@TASK.figure
def trained_matrices(results: Results) -> Sheet:
    """The two products of the first network after rescaling."""
    score, value = products_of(results, KEPT).at(0).rescaled()
    sheet = Sheet(columns=2, width=4.6, height=4.0)
    panel = sheet.panel(
        r"$K^\top Q$ becomes the identity on inputs", x="coordinate of the query", y="coordinate of the key"
    )
    panel.heat(score, signed=True, low=-1.1, high=1.1, bar="entry", of="the first of the trained networks")
    panel = sheet.panel(
        rf"and $PV$ ends in {float(value[-1, -1]):.3f} (theory {-results.config.best_step():.3f})",
        x="coordinate of the example",
        y="coordinate written",
    )
    panel.heat(value, signed=True, low=-1.1, high=1.1, bar="entry", of="the first of the trained networks")
    return sheet


@TASK.figure
def lengths_and_ranges(results: Results) -> Sheet:
    """Loss of one layer against the number of examples it was trained for, and on inputs of another size."""
    losses, config = results[one_layer], results.config
    sheet = Sheet(columns=2, width=5.0, height=3.6)
    panel = sheet.panel("a layer trained for each length finds its step", x="examples N", y=LOSS)
    lengths = range(1, max(config.lengths) + 3)
    panel.theory(lengths, [config.step_loss(length) for length in lengths], name="one gradient step, closed form")
    panel.points(losses["loss"], over="length", name="trained layer")
    panel.points(losses["midpoint"], over="length", name="half-way to the construction")
    panel = sheet.panel(
        "larger inputs break both alike",
        x=r"inputs uniform on $[-\alpha/2, \alpha/2]$: $\alpha$",
        y=LOSS,
        scale=("linear", "log"),
    )
    scales = np.linspace(0.5, 2, 60)
    panel.theory(scales, [config.step_loss_at(scale) for scale in scales], name="one gradient step, closed form")
    panel.theory(scales, config.step_loss() * scales**2, name="step tuned again for each scale")
    panel.points(losses["loss by scale"].sel(arm=KEPT), over="scale", name="trained layer")
    return sheet


def products_of(results: Results, arm: str) -> Products:
    """The products of one arm's layers of all seeds."""
    matrices = results[one_layer].sel(arm=arm)
    return Products(*(torch.from_numpy(matrices[name].values) for name in Products._fields))


def off_by(results: Results, trained: str, reference: str) -> xr.DataArray:
    """How far a loss is from another one, as a share of it, at the number of examples that is looked at."""
    losses = results[one_layer].sel(length=results.config.context_length)
    return abs(losses[trained] / losses[reference] - 1)


@TASK.claim(
    "icl-gradient-descent/T3",
    where="Figure 2, loss",
    kind="training",
    statement=(
        r"One trained layer of linear attention ($N = d = 10$) has the loss of one gradient step with the "
        r"best step size, to within 2 % on the same test prompts."
    ),
    controls=[
        control("labels of the context shifted by one place", trained="shifted loss"),
        control("the step of a context twice as long", reference="descent of twice the length"),
    ],
)
def one_layer_reaches_the_step(results: Results, trained: str = "loss", reference: str = "descent") -> Evidence:
    return Evidence.over_seeds(off_by(results, trained, reference), "<=", 0.02, SAME)


@TASK.claim(
    "icl-gradient-descent/T3.lengths",
    where="Figure 3, loss by number of examples",
    kind="training",
    statement=(
        "A layer trained for each of several numbers of examples $N$ has the loss of that length's best gradient step, to "
        "within 2 %."
    ),
    controls=[control("the layer of the next length in the list", shift=1)],
)
def every_length_has_its_step(results: Results, shift: int = 0) -> Evidence:
    losses = results[one_layer]
    off = abs(losses["loss"].roll(length=shift) / losses["descent"] - 1)
    return Evidence.all(
        *(Evidence.over_seeds(off.sel(length=length), "<=", 0.02, SAME) for length in results.config.lengths)
    )


@TASK.claim(
    "icl-gradient-descent/T3.direction",
    where="Figure 2, alignment",
    kind="training",
    statement=(
        r"The sensitivity $\partial \hat y_q / \partial x_q$ of a trained layer has a mean cosine above $0.99$ with the "
        r"weights of the gradient step."
    ),
    controls=[control("labels of the context shifted by one place", arm=SHIFTED)],
)
def sensitivities_align(results: Results, arm: str = KEPT) -> Evidence:
    cosine = results[one_layer]["cosine"].sel(arm=arm).isel(update=-1)
    return Evidence.over_seeds(cosine, ">", 0.99, "0.99, what counts as aligned")


@TASK.claim(
    "icl-gradient-descent/T3.weights",
    where="Section 3, weights after rescaling",
    kind="training",
    statement=(
        r"Rescaled so that the first $d$ diagonal entries of $K^\top Q$ have mean 1, the entry of $PV$ that writes labels "
        r"from labels is $-s^*$ to within 3 %, and what acts on the query, $K^\top Q$ on inputs and the last row of $PV$, has a "
        r"cosine above $0.99$ with the construction's."
    ),
    controls=[
        control("labels of the context shifted by one place", arm=SHIFTED),
        control("the step of a context twice as long", longer=2),
    ],
)
def weights_are_the_construction(results: Results, arm: str = KEPT, longer: int = 1) -> Evidence:
    config, (score, value) = results.config, products_of(results, arm).rescaled()
    written_by_labels = value[:, -1, -1] / -config.best_step(longer * config.context_length)
    reads, writes = score[:, :, :-1], value[:, -1]
    inputs = reads.diagonal(dim1=1, dim2=2).sum(1) / (np.sqrt(config.dimension) * reads.norm(dim=(1, 2)))
    cosine = torch.minimum(inputs, -writes[:, -1] / writes.norm(dim=1))
    return Evidence.all(
        Evidence.over_seeds((written_by_labels - 1).abs(), "<=", 0.03, "three per cent of the step"),
        Evidence.over_seeds(cosine, ">", 0.99, "0.99, what counts as aligned"),
    )


@TASK.claim(
    "icl-gradient-descent/T3.midpoint",
    where="Figure 3, interpolated weights",
    kind="training",
    statement=(
        "The layer half-way between the rescaled trained one and the construction has the loss of the gradient step, to "
        "within 2 %."
    ),
    controls=[control("the step of a context twice as long", reference="descent of twice the length")],
)
def midpoint_has_the_same_loss(results: Results, reference: str = "descent") -> Evidence:
    return Evidence.over_seeds(off_by(results, "midpoint", reference), "<=", 0.02, SAME)


@TASK.claim(
    "icl-gradient-descent/T3.range",
    where="Figure 2, right, and Figure 8",
    kind="training",
    statement=(
        r"On inputs scaled by $\alpha = \frac12, \frac32, 2$ the loss of the trained layer is nearer to that of the gradient "
        r"step that keeps its $s^*$, on the same prompts, than to that of the step tuned again to the scale."
    ),
    controls=[
        control("the step tuned again for the step that is kept", tuned_again=True),
        control("labels of the context shifted by one place", arm=SHIFTED),
    ],
)
def trained_layer_breaks_like_the_step(results: Results, arm: str = KEPT, tuned_again: bool = False) -> Evidence:
    config, scales = results.config, [0.5, 1.5, 2.0]
    losses = results[one_layer].sel(arm=arm, scale=scales)
    kept = labelled([config.step_loss_at(scale) for scale in scales], scale=scales)
    apart = np.log(kept / (config.step_loss() * kept["scale"] ** 2))
    distance = np.log(losses["loss by scale"] / losses["descent by scale"])
    return Evidence.over_seeds(
        (2 * abs(distance + apart if tuned_again else distance) / apart).max("scale"),
        "<",
        1.0,
        "half of the log ratio of the two closed forms, largest of three scales",
    )


# %%
TASK.show(loss_and_alignment)
TASK.show(one_layer_reaches_the_step)
TASK.show(sensitivities_align)
TASK.show(trained_matrices)
TASK.show(weights_are_the_construction)
TASK.show(midpoint_has_the_same_loss)
TASK.show(lengths_and_ranges)
TASK.show(every_length_has_its_step)
TASK.show(trained_layer_breaks_like_the_step)

# %%
TASK.show()
