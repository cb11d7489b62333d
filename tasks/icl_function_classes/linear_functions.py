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
# # Linear functions learned in context
#
# Train a transformer on prompts $(x_1, f(x_1)), \dots, (x_k, f(x_k)), x_q$ where every prompt has a function $f$ of its
# own, drawn from one class. Nothing about $f$ can be stored in the weights; what can be learned is an **estimator** for
# the class. This folder has four parts:
#
# 1. here: linear functions, in the training law and away from it;
# 2. `other_classes.py`: sparse functions, decision trees and two-layer networks, beside the rules made for them;
# 3. `interleaved_tokens.py`: the paper's own tokens, curriculum and loss at every position;
# 4. `an_equation.py`: the same idea for dynamics, the states of an equation with hidden coefficients.
#
# What can be computed without training is in `proofs_check/icl_function_classes/`.
#
# ## What a network has to beat
#
# For linear functions $f(x) = w\cdot x$, $w, x \sim N(0, I_d)$, the best rule is least squares of least norm, and its error is
# known for every number of examples: $E(\hat y - y)^2/d = \max(0, 1 - k/d)$. Averaging, $\hat w = \frac1k \sum_i y_i x_i$, has
# error $(d+1)/k$, worse than predicting 0 until $k > d + 1$; but it is a gradient step of a bad size. **One gradient step
# from zero of the best size**, $\hat w = \frac1{k+d+1} \sum_i y_i x_i$, has
#
# $$ \frac{E(\hat y - y)^2}{d} = \frac{d+1}{k+d+1}: $$
#
# the error of a step $s$ is $d\,(1 - 2sk + s^2 k (k + d + 1))$, least at $s = 1/(k+d+1)$. This is below predicting 0 and below
# averaging for *every* $k \ge 1$. So only a network below this curve has learned more than one gradient step.

# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.function_class_prompts import FunctionPrompts, Shift, shifted_prompts
from lab.domains.regression.function_classes import expected_averaging_error
from lab.domains.regression.least_squares import least_squares_weights, predict
from lab.domains.regression.optimal_steps import one_step_error, optimal_step
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from lab.study import Networks
from lab.training import Optimisation
from tasks.icl_function_classes._shared import (
    ARM_NAMES,
    PAPER,
    PILOT,
    SLUG,
    UNRELATED,
    Experiment,
    errors_by_examples,
    predictions,
    sample_prompts,
    test_prompts,
    tiny,
    train,
    with_other_labels,
)

# %% [markdown]
# ## Set-up
#
# The paper's decoder reads inputs and labels in turn, at $d = 20$, with a curriculum and half a million updates. Here an
# example is one token $(x_i, y_i)$, a query is $(x_q, 0)$, and $d$ is small. Pairing input and label in one token spares the
# network a layer that would only carry $x_i$ to $y_i$; several queries can share a context, since no token sees a query;
# and with few dimensions the long plateau at the beginning, which the curriculum is there to shorten, is over within a
# few hundred updates. The `paper` preset has the paper's sizes in this form; the paper's own form is in
# `interleaved_tokens.py`.
#
# Prompts show $k = 0, \dots, n$ examples in equal numbers. The **causal** arm lets example $i$ see examples $1..i$, as in
# the paper; the **prefix** arm, which is ours, lets the $k$ examples of a prompt see each other. Queries see the $k$
# examples in both, so that the two arms get the same information and the same loss.


# %%
@dataclass(frozen=True)
class Config(Experiment):
    """Linear functions."""

    records: int = 10
    """records along a training"""


CI = Config(
    dimension=2,
    context_length=6,
    batch=35,
    optimisation=replace(Config.optimisation, steps=1500),
    test_prompts=2000,
    trainings=15,  # 3 of them added later, since fresh seeds must give every verdict again
)
TASK = Task(
    SLUG,
    PAPER,
    {
        "smoke": tiny(CI, records=2),
        "ci": CI,
        # 41 points of dimension 20, 12 layers of width 256, 500 001 updates of Adam at 1e-4: days on one GPU.
        "paper": replace(
            CI,
            dimension=20,
            context_length=40,
            width=256,
            layers=12,
            heads=8,
            batch=82,
            optimisation=Optimisation(steps=500_001, learning_rate=1e-4),
            test_prompts=1280,
            records=50,
        ),
    },
    root=2027,
)
STREAM = "linear functions in context"


def best_step_error(config: Config) -> np.ndarray:
    r"""Error of one gradient step of the best size, over d: $(d + 1)/(k + d + 1)$ for k = 0 to n."""
    d = config.dimension
    of_steps = [one_step_error(optimal_step(k, d), k, d) / d for k in config.counts[1:]]
    return np.array([1.0, *of_steps])


def least_squares_error(config: Config) -> np.ndarray:
    r"""$\max(0, 1 - k/d)$ for k = 0 to n."""
    return np.maximum(0.0, 1 - np.array(config.counts) / config.dimension)


def least_squares_answers(prompts: FunctionPrompts, lengths: Sequence[int]) -> Tensor:
    """Of least squares of least norm to the queries of each prompt, which shows its first examples: [prompt, query]."""
    rows = []
    for place, k in enumerate(lengths):
        x, y = prompts.x_context[place : place + 1, :k].double(), prompts.y_context[place : place + 1, :k].double()
        rows.append(predict(least_squares_weights(x, y), prompts.x_query[place : place + 1].double()))
    return torch.cat(rows)


# %% [markdown]
# ## Away from the training law
#
# The trained networks are also asked about prompts of other laws. Least squares does not care about the law of the inputs:
# its error over the mean squared label is unchanged when inputs or labels are scaled, or examples confined to one orthant;
# it is exactly 1 for queries orthogonal to all examples (of which nothing can be known) and exactly 0 for a query that is one
# of them. A trained network was never asked for any of that. "Other prompts" are a second draw of a law, for controls.

# %%
LAWS: dict[str, tuple[Shift, float]] = {
    "training law": ("none", 1.0),
    "training law, other prompts": ("none", 1.0),
    "examples of one orthant": ("quadrant", 1.0),
    "orthogonal queries": ("orthogonal", 1.0),
    "queries among the examples": ("overlapping", 1.0),
    "skewed inputs": ("skewed", 1.0),
    "inputs / 3": ("inputs", 1 / 3),
    "inputs x 2": ("inputs", 2.0),
    "inputs x 3": ("inputs", 3.0),
    "labels x 2": ("labels", 2.0),
}
BY_LENGTH = ("orthogonal", "overlapping")  # queries that depend on how many examples there are


def prompts_of_law(config: Config, seed: int, law: str, examples: int) -> FunctionPrompts:
    """Prompts of a law with so many examples, filled up with empty ones that no token will see."""
    shift, scale = LAWS[law]
    other = ("again",) if law.endswith("other prompts") else ()
    drawn = shifted_prompts(
        stream(seed, STREAM, "shifted", *other),
        config.test_prompts,
        shift=shift,
        scale=scale,
        dimension=config.dimension,
        context_length=examples,
        query_length=config.queries,
        dtype=torch.float32,
    )
    missing = config.context_length - examples
    x_context = torch.nn.functional.pad(drawn.x_context, (0, 0, 0, missing))
    return replace(drawn, x_context=x_context, y_context=torch.nn.functional.pad(drawn.y_context, (0, missing)))


def errors_of_law(networks: Networks[Transformer], config: Config, law: str) -> xr.DataArray:
    """Normalised errors [seed, arm, examples] for 1 to n examples; NaN where a law has no such prompts."""
    counts, shift = config.counts[1:], LAWS[law][0]
    if shift not in BY_LENGTH:
        prompts = {seed: prompts_of_law(config, seed, law, config.context_length) for seed in networks.seeds}
        return errors_by_examples(networks, config, prompts, counts)
    known = [k for k in counts if shift != "orthogonal" or k < config.dimension]
    errors = [
        errors_by_examples(
            networks, config, {seed: prompts_of_law(config, seed, law, k) for seed in networks.seeds}, [k]
        )
        for k in known
    ]
    return xr.concat(errors, "examples").reindex(examples=list(counts))


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=12)
def regression(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Errors over the mean squared label by number of examples: in training's law (``error``), with the labels of another
    prompt (``unrelated``), under other laws (``shifted``); ``distance``, the mean squared distance to least squares over d
    during training, over k >= 1."""
    lengths = [place % (config.context_length + 1) for place in range(config.batch)]
    watched = {seed: sample_prompts(config, stream(seed, STREAM, "watched"), config.batch) for seed in seeds}
    goals = {seed: least_squares_answers(prompts, lengths) for seed, prompts in watched.items()}
    some = torch.tensor(lengths) > 0

    def distance(networks: Networks[Transformer]) -> dict[str, Tensor]:
        answers = networks.numbers(watched, predictions).double()
        goal = torch.stack([goals[member.seed] for member in networks.members])
        return {"distance": (answers - goal)[:, some].square().mean((1, 2)) / config.dimension}

    fitted = train(
        config, seeds, STREAM, measure=distance, measure_every=max(1, config.optimisation.steps // config.records)
    )
    test = test_prompts(config, seeds, STREAM)
    shifted = [errors_of_law(fitted, config, law) for law in LAWS]
    values = np.stack([errors.values for errors in shifted], 2)
    return {
        "error": errors_by_examples(fitted, config, test, config.counts),
        "unrelated": errors_by_examples(fitted, config, with_other_labels(test), config.counts),
        "shifted": labelled(values, seed=seeds, arm=ARM_NAMES, law=list(LAWS), shown=config.counts[1:]),
        "distance": fitted.history["distance"],
    }


# %% [markdown]
# ## In the training law


# %%
@TASK.figure
def error_by_examples(results: Results) -> Sheet:
    """Error by number of examples beside the closed forms, and the way of training towards least squares."""
    measured, config = results[regression], results.config
    counts, d = np.array(config.counts), config.dimension
    sheet = Sheet(columns=2, width=5.2, height=4.0)
    by_count = sheet.panel(
        "better than any one gradient step, not yet least squares",
        x="examples k",
        y="mean squared error / mean squared label",
        ylim=(0, 1.6),
        xticks=counts,
        legend="upper right",
    )
    by_update = sheet.panel(
        "still on the way to least squares",
        x="update",
        y="squared distance to least squares / d",
        scale=("linear", "log"),
    )
    for arm in ARM_NAMES:
        by_count.curve(measured["error"].sel(arm=arm), over="examples", arm=arm)
        by_update.curve(measured["distance"].sel(arm=arm), over="update", arm=arm)
    by_count.theory(counts, least_squares_error(config), name="least squares, max(0, 1 - k/d)")
    by_count.line(counts, best_step_error(config), name="best gradient step, (d+1)/(k+d+1)", marks=False, of="exact")
    averaging = [expected_averaging_error(k, d) / d for k in config.counts[1:]]
    by_count.line(counts[1:], averaging, name="averaging, (d+1)/k", marks=False, of="exact")
    by_count.level(1.0, "predicting 0")
    return sheet


OTHER_LABELS = control(f"examples with {UNRELATED}", labels="unrelated")


@TASK.claim(
    "icl-function-classes/T1",
    where="our reading of Figure 2, linear functions",
    kind="training",
    statement="After 1 500 updates ($d = 2$), under either mask, the trained network has a smaller error than one gradient step of "
    r"the best size, $(d+1)/(k+d+1)$, for every number of examples $k = 1, \dots, 6$.",
    controls=[OTHER_LABELS],
)
def below_one_gradient_step(results: Results, labels: str = "error") -> Evidence:
    config = results.config
    limits = labelled(best_step_error(config), examples=config.counts)
    ratio = np.log(results[regression][labels] / limits)
    return Evidence.all(
        *(
            Evidence.over_seeds(
                ratio.sel(arm=arm, examples=k), "<", 0.0, f"log ratio to the error of the best step, {arm}, k = {k}"
            )
            for arm in ARM_NAMES
            for k in config.counts[1:]
        )
    )


@TASK.claim(
    "icl-function-classes/T1.twice",
    where="our reading of Figure 2, linear functions",
    kind="training",
    statement="After 1 500 updates ($d = 2$), under either mask, less than half of the error of the best gradient step is left at "
    "$k = 2d$ examples; least squares leaves nothing.",
    controls=[OTHER_LABELS],
)
def little_is_left_at_twice_the_dimension(results: Results, labels: str = "error") -> Evidence:
    config = results.config
    k = min(2 * config.dimension, config.context_length)
    ratio = np.log(results[regression][labels].sel(examples=k) / best_step_error(config)[k])
    return Evidence.all(
        *(Evidence.over_seeds(ratio.sel(arm=arm), "<", float(np.log(0.5)), f"{arm}; {PILOT}") for arm in ARM_NAMES)
    )


@TASK.claim(
    "icl-function-classes/T1.falling",
    where="our reading of Figure 2, linear functions",
    kind="training",
    statement="After 1 500 updates ($d = 2$) the error falls with every example up to $k = d$, and from there to the longest prompt, "
    "under either mask.",
    controls=[OTHER_LABELS],
)
def falls_with_examples(results: Results, labels: str = "error") -> Evidence:
    config = results.config
    chosen = [*range(config.dimension + 1), config.context_length]
    logs = np.log(results[regression][labels])
    return Evidence.all(
        *(
            Evidence.over_seeds(
                logs.sel(arm=arm, examples=more) - logs.sel(arm=arm, examples=fewer),
                "<",
                0.0,
                f"log ratio of the errors at {more} and {fewer} examples, {arm}",
            )
            for arm in ARM_NAMES
            for fewer, more in zip(chosen[:-1], chosen[1:], strict=True)
        )
    )


# %%
TASK.show(error_by_examples)
TASK.show(below_one_gradient_step)
TASK.show(little_is_left_at_twice_the_dimension)
TASK.show(falls_with_examples)

# %% [markdown]
# The networks are not least squares yet: after this budget something is left at $k \ge d$, where least squares leaves nothing,
# and the distance to least squares still falls. The prefix mask changes nothing for $k \le 1$, where there is no later example
# to see. For more, every example can be compared with all others in each layer, where the causal mask leaves the first
# examples alone; no order of the masks is claimed here, because trainings of this length differ by as much as the masks do.

# %% [markdown]
# ## Other laws


# %%
def shifted_least_squares(config: Config, law: str) -> np.ndarray:
    """Error of least squares for 1 to n examples; NaN where no simple closed form exists (skewed spectra before k = d).

    Examples of one orthant change nothing: with k < d of full rank, d - k directions of w are left, whatever they are.
    """
    counts, shift = np.array(config.counts[1:]), LAWS[law][0]
    exact = least_squares_error(config)[1:]
    if shift == "orthogonal":
        return np.where(counts < config.dimension, 1.0, np.nan)
    if shift == "overlapping":
        return np.zeros(len(counts))
    return np.where(counts < config.dimension, np.nan, exact) if shift == "skewed" else exact


@TASK.figure
def shifted_errors(results: Results) -> Sheet:
    """Error by number of examples under other laws of inputs, queries and labels."""
    shifted, config = results[regression]["shifted"], results.config
    counts = np.array(config.counts[1:])
    drawn = [law for law in LAWS if not law.endswith("other prompts") and LAWS[law][0] != "orthogonal"]
    sheet = Sheet(
        columns=4,
        rows=2,
        width=3.6,
        height=2.9,
        title="networks follow least squares only near the law they were trained on",
    )
    for law in drawn:
        top = max(0.7, 1.15 * float(shifted.sel(law=law).mean("seed").max()))
        panel = sheet.panel(law, x="examples k", y="error / mean label²", ylim=(-0.05, top), xticks=counts)
        for arm in ARM_NAMES:
            panel.curve(shifted.sel(law=law, arm=arm), over="shown", arm=arm)
        panel.theory(counts, shifted_least_squares(config, law), name="least squares, exact")
    return sheet


def harm(results: Results, law: str, against: str) -> xr.DataArray:
    """Mean over k > d and both arms of the log ratio of errors under two laws, [seed]."""
    logs = np.log(results[regression]["shifted"])
    many = logs.shown > results.config.dimension
    ratio: xr.DataArray = (logs.sel(law=law) - logs.sel(law=against)).where(many, drop=True).mean(("arm", "shown"))
    return ratio


@TASK.claim(
    "icl-function-classes/P1",
    where="our reading of the paper's prompts with scaled inputs",
    kind="phenomenon",
    statement="Inputs divided by three multiply the normalised error with more than $d$ examples by more than $1.5$ (after 1 500 updates, "
    "$d = 2$); that of least squares stays 0.",
    controls=[control("other prompts of the training law", law="training law, other prompts")],
)
def smaller_inputs_hurt(results: Results, law: str = "inputs / 3") -> Evidence:
    return Evidence.over_seeds(harm(results, law, "training law"), ">", float(np.log(1.5)), PILOT)


@TASK.claim(
    "icl-function-classes/P1.doubled",
    where="our reading of the paper's prompts with scaled inputs",
    kind="phenomenon",
    statement="With more than $d$ examples doubled inputs do more harm than inputs divided by three (after 1 500 updates, $d = 2$).",
    expected="not reproduced",
    condition="at twenty dimensions and after half a million updates; here inputs divided by three do more harm",
    controls=[control("doubled inputs beside the training law instead", against="training law")],
)
def doubled_inputs_hurt_most(results: Results, law: str = "inputs x 2", against: str = "inputs / 3") -> Evidence:
    return Evidence.over_seeds(harm(results, law, against), ">", 0.0, "log ratio of the errors; 0 for equal harm")


@TASK.claim(
    "icl-function-classes/P1.quadrant",
    where="derived",
    kind="phenomenon",
    statement="Examples from one orthant multiply the error with more than $d$ examples by more than $1.5$ (after 1 500 updates, $d = 2$); "
    "that of least squares stays 0.",
    controls=[control("other prompts of the training law", law="training law, other prompts")],
)
def one_orthant_hurts(results: Results, law: str = "examples of one orthant") -> Evidence:
    return Evidence.over_seeds(harm(results, law, "training law"), ">", float(np.log(1.5)), PILOT)


@TASK.claim(
    "icl-function-classes/P1.overlapping",
    where="derived",
    kind="phenomenon",
    statement="A query that is one of more than $d$ examples is answered with at most three fifths of the error of a new one (after 1 500 "
    "updates, $d = 2$).",
    controls=[
        control("new queries, on other prompts", law="training law, other prompts"),
        control("inputs divided by three instead of such queries", law="inputs / 3"),
    ],
)
def seen_queries_are_easier(results: Results, law: str = "queries among the examples") -> Evidence:
    return Evidence.over_seeds(harm(results, law, "training law"), "<", float(np.log(0.6)), PILOT)


# %%
TASK.show(shifted_errors)
TASK.show(smaller_inputs_hurt)
TASK.show(doubled_inputs_hurt_most)
TASK.show(one_orthant_hurts)
TASK.show(seen_queries_are_easier)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
