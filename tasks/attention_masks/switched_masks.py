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
# # Changing the mask of a trained network
#
# Sight that a causal mask takes (`pointers.py`) can be given back to a trained network. First: which mask learns better?
# That may depend on what is counted. A full language model has a loss on every token, a
# prefix model only on what follows the prefix: with a uniform split of $n$ tokens on $(n + 1)/2$ of them.
# So arms can be compared at equal *steps* or at equal *loss tokens*, and the order could differ. Here, on
# in-context regression, the prefix arm is trained twice: with the loss on all queries (equal steps and equal
# loss tokens) and on half of them (equal steps, half the loss tokens). Given its context a query is as good
# as any other, and no query sees another: scoring half of them leaves the *expected* gradient what it was
# and makes it noisier. So a prefix arm that is ahead because it sees more should stay ahead; the figure shows
# it between the other two, but a dozen trainings at this size do not settle its order to the causal arm, so
# that no claim is made of it.
#
# Then the causal network is **switched**. (a) It is read under the prefix mask, without any training. (b)
# It is trained on under the prefix mask for a quarter of its steps; beside it a control that is trained on
# under the causal mask, and a network trained from scratch under the prefix mask, each for as many steps on
# the same data. The two that are continued have a lower learning rate, so that its restart does not undo what they
# know; the one from scratch has the rate of the full training. Two more networks say what chance makes of such a
# comparison: one more is trained on under the causal mask, with other prompts, and one more from scratch, from other
# weights. Errors are compared by the mean of their log ratio.

# %%
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.prompts import RegressionPrompts, linear_regression, tokens
from lab.figures import Sheet
from lab.labels import LabelledArrays, at_end, labelled
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import RandomStream, stream
from lab.study import Arm, Study
from lab.training import Batch, Optimisation
from tasks.attention_masks._shared import ARMS, LARGE, SLUG


@dataclass(frozen=True)
class Config:
    """In-context linear regression, trained under one mask and read or trained on under another."""

    dimension: int = 3
    """dimension d, inputs uniform on [-1, 1]^d"""
    context_length: int = 6
    """examples n"""
    queries: int = 6
    """queries a prompt"""
    architecture: Architecture = Architecture(width=32, layers=3, heads=2, mlp_ratio=2.0, norm="none")
    batch: int = 48
    """prompts a step"""
    optimisation: Optimisation = Optimisation(
        steps=300,
        learning_rate=6e-3,
        warmup=0.1,
        schedule="cosine",
        optimiser="adamw",
        betas=(0.9, 0.98),
        clip_norm=1.0,
    )
    share: float = 0.25
    """steps of the adaptation, as a share of those of the training, with a schedule of the same shape"""
    later_rate: float = 2e-3
    """learning rate of networks that are trained on; one from scratch has that of the training"""
    test_prompts: int = 300
    trainings: int = 32
    """independent trainings an arm"""


TASK = Task(
    SLUG,
    paper=SLUG,
    presets={
        "smoke": Config(batch=4, optimisation=Optimisation(steps=8, learning_rate=1e-3), test_prompts=20, trainings=2),
        "ci": Config(),
        "paper": Config(
            dimension=16,
            context_length=40,
            queries=20,
            architecture=Architecture(width=128, layers=12, heads=4, norm="none"),
            optimisation=replace(LARGE, steps=100_000, learning_rate=1e-4),
            trainings=10,
        ),
    },
    root=2026,
)
HALF = "prefix, half the loss"
CONTINUATIONS = ("switched", "not switched", "from scratch")
# What chance makes of two that are alike: the second has other prompts (not switched) or other weights (from scratch).
AGAIN = {"not switched": "not switched, again", "from scratch": "from scratch, again"}
OTHER_WEIGHTS = 500_000
"""added to a seed; a root has a million"""


def encoded(prompts: RegressionPrompts, scored: int) -> Batch:
    """Tokens and labels of prompts, and how many of the queries count in the loss."""
    return {"tokens": tokens(prompts), "labels": prompts.y_query, "scored": torch.tensor([scored])}


def squared_errors(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Squared errors [model, prompt, query]."""
    labels = batch["labels"]
    squared: Tensor = (module(batch["tokens"], mask)[:, :, -labels.shape[-1] :, 0] - labels).square()
    return squared


def scored_loss(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Mean over the queries that count: all of them, or the first half."""
    errors = squared_errors(module, batch, mask).mean(1)
    half = errors[:, : errors.shape[1] // 2].mean(1)
    return torch.where(batch["scored"][:, 0] < errors.shape[1], half, errors.mean(1))


def query_error(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Mean squared error over all queries."""
    return squared_errors(module, batch, mask).mean((1, 2))


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=4)
def adaptation(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Query errors of networks ``trained`` in one arm and read under the mask of another; and of those that are
    ``adapted``, in the course of their further training."""
    architecture = replace(config.architecture, input_size=config.dimension + 1, output_size=1)
    prefix = masks.in_context_prefix(config.context_length, config.queries)
    causal = masks.in_context_causal(config.context_length, config.queries)

    def sample(source: RandomStream, count: int) -> RegressionPrompts:
        return linear_regression(
            source,
            count,
            dimension=config.dimension,
            context_length=config.context_length,
            query_length=config.queries,
            dtype=torch.float32,
        )

    all_scored, half_scored = (partial(encoded, scored=scored) for scored in (config.queries, config.queries // 2))
    first = Study(
        build=lambda chosen: Transformer(architecture, tuple(chosen)),
        arms={"prefix": prefix, "causal": causal, HALF: Arm(prefix, half_scored)},
        encode=all_scored,
        loss=scored_loss,
    )
    base = first.fit(
        seeds,
        lambda seed, step: sample(stream(seed, "examples and queries", step), config.batch),
        config.optimisation,
        name="base",
    )
    tests = {seed: sample(stream(seed, "examples and queries, test"), config.test_prompts) for seed in seeds}

    # Continued networks start from the causal one of their seed; one from scratch starts where that one once did.
    causal_start = base.start("causal")
    continued = replace(first, build=causal_start, arms={"switched": prefix, "not switched": causal})
    scratch = replace(first, arms={"from scratch": prefix})
    continued_again = replace(first, build=causal_start, arms={AGAIN["not switched"]: causal})
    scratch_again = replace(
        first,
        build=lambda chosen: Transformer(architecture, tuple(seed + OTHER_WEIGHTS for seed in chosen)),
        arms={AGAIN["from scratch"]: prefix},
    )
    steps = max(round(config.share * config.optimisation.steps), 1)
    first_rate, later = config.optimisation.learning_rate, "examples and queries, later"
    histories = [
        study.fit(
            seeds,
            lambda seed, step, prompts=prompts: sample(stream(seed, prompts, step), config.batch),
            replace(config.optimisation, steps=steps, learning_rate=rate),
            measure=lambda networks: {"error": networks.numbers(tests, query_error)},
            measure_every=max(steps // 5, 1),
            name=name,
        )
        .history["error"]
        .drop_vars("learning_rate")
        for name, study, rate, prompts in (
            ("adapted", continued, config.later_rate, later),
            ("adapted again", continued_again, config.later_rate, f"{later}, again"),
            ("scratch", scratch, first_rate, later),
            ("scratch again", scratch_again, first_rate, later),
        )
    ]
    reads = xr.DataArray(list(ARMS), dims="read", name="read")
    trained = xr.concat([base.ask(tests, query_error, read=mask) for mask in ARMS], reads)
    return {
        "trained": trained.transpose("seed", "arm", "read"),
        "adapted": xr.concat(histories, "arm").rename(arm="continuation"),
    }


@TASK.figure
def adaptation_curves(results: Results) -> Sheet:
    """Error during a short training after the switch of the mask, beside its controls."""
    measured = results[adaptation]
    trained = measured["trained"]
    sheet = Sheet(columns=2, width=5.4, height=4.3)
    panel = sheet.panel(
        "after training: more sight, less error",
        x="trained network",
        y="mean squared query error",
        scale=("linear", "log"),
        legend="none",
    )
    for title, arm, read in (
        ("prefix", "prefix", "prefix"),
        ("prefix, half the loss tokens", HALF, "prefix"),
        ("causal, read as prefix", "causal", "prefix"),
        ("causal", "causal", "causal"),
    ):
        errors, mask = trained.sel(arm=arm, read=read), own_mask(arm)
        panel.scatter(title, errors, name=f"{title}, single seeds", arm=mask, slot=(0, 2))
        panel.points({title: errors.values}, name=title, arm=mask, middle="geometric mean", slot=(1, 2))
    panel = sheet.panel(
        "switched: ahead of staying, and of starting anew",
        x="further steps",
        y="mean squared query error",
        scale=("linear", "log"),
        xticks=measured["update"].values,
        ylim=(0.04, None),
    )
    for continuation, name, own_arm in zip(
        CONTINUATIONS,
        ("causal network, switched to the prefix mask", "causal network, not switched", "prefix network from scratch"),
        ("prefix", "causal", None),
        strict=True,
    ):
        errors = measured["adapted"].sel(continuation=continuation)
        panel.curve(errors, over="update", name=name, arm=own_arm, middle="geometric mean")
    for read, name in (
        ("causal", "before: causal, read causally"),
        ("prefix", "before: causal, read with the prefix mask"),
    ):
        panel.level(float(np.exp(np.log(trained.sel(arm="causal", read=read)).mean())), name, arm=read)
    throughout = float(np.exp(np.log(trained.sel(arm="prefix", read="prefix")).mean()))
    panel.level(throughout, "trained with the prefix mask throughout", look=3)
    return sheet


def own_mask(arm: str) -> str:
    """The mask under which an arm was trained."""
    return "causal" if arm == "causal" else "prefix"


def log_error(results: Results, arm: str, read: str) -> xr.DataArray:
    """Log error [seed] of a trained arm, read under a mask."""
    return np.log(results[adaptation]["trained"].sel(arm=arm, read=read))


def final_log_error(results: Results, continuation: str) -> xr.DataArray:
    """Log error [seed] at the end of a further training."""
    return np.log(at_end(results[adaptation]["adapted"].sel(continuation=continuation), "update"))


@TASK.claim(
    "attention-masks/arch.prefix-ahead",
    where="Wang et al. 2022, architectures compared; lab analogue",
    paper="wang-2022-architecture",
    kind="training",
    statement="At equal parameters, steps (300) and loss tokens the prefix network has a smaller query error in "
    "in-context regression than the causal one (geometric means, three dimensions, six examples).",
    controls=[
        control("a prefix network with a quarter of the steps", few_steps=True),
        control("the same prefix network, read under the causal mask", read="causal"),
    ],
)
def prefix_is_ahead(results: Results, few_steps: bool = False, read: str = "prefix") -> Evidence:
    prefix = final_log_error(results, "from scratch") if few_steps else log_error(results, "prefix", read)
    return Evidence.over_seeds(
        log_error(results, "causal", "causal") - prefix, ">", 0.0, "an order: sign of the log ratio causal / prefix"
    )


@TASK.claim(
    "attention-masks/arch.read",
    where="derived",
    kind="phenomenon",
    statement="A network trained under the causal mask (300 updates) has a smaller query error when it is simply read under "
    "the prefix mask (geometric means, three dimensions, six examples).",
    controls=[control("the prefix network, read under the causal mask", arm="prefix")],
)
def reading_with_more_sight_helps(results: Results, arm: str = "causal") -> Evidence:
    mask = own_mask(arm)
    other = "prefix" if mask == "causal" else "causal"
    ratio = log_error(results, arm, other) - log_error(results, arm, mask)
    return Evidence.over_seeds(ratio, "<", 0.0, "log ratio other mask / own mask")


@TASK.claim(
    "attention-masks/arch.adaptation",
    where="Wang et al. 2022, adaptation; lab analogue",
    paper="wang-2022-architecture",
    kind="training",
    statement="Trained on under the prefix mask for a quarter of its steps (75 after 300), a causal network has less than "
    "$0.85$ of the query error of the same network trained on under its own mask, and less than half of that of a prefix "
    "network trained from scratch for as long (geometric means).",
    controls=[
        control("a second causal network in its place, trained on with other prompts", null="not switched"),
        control("a second network from scratch in its place, from other weights", null="from scratch"),
    ],
)
def switching_pays(results: Results, null: str = "") -> Evidence:
    ahead = AGAIN[null] if null else "switched"
    return Evidence.all(
        *(
            Evidence.over_seeds(
                final_log_error(results, ahead) - final_log_error(results, other),
                "<",
                float(np.log(share)),
                f"log ratio to {other}, below log {share:g}; chosen on pilot seeds (root 0), judged on fresh ones",
            )
            for other, share in (("not switched", 0.85), ("from scratch", 1 / 2))
            if null in ("", other)
        )
    )


@TASK.cases(claimed={}, last={"only_last": True})
def scored_tokens(config: Config, *, only_last: bool = False) -> LabelledArrays:
    """Tokens with a loss of a prefix language model, and pairs that its mask allows, averaged over all splits.

    Before the tokens stands a beginning that all see; a token has a loss if the one before it does not see it.
    """
    lengths, scored, pairs = range(1, 65), [], []
    for length in lengths:
        splits = [length - 1] if only_last else list(range(length))
        patterns = [masks.prefix_lm(length + 1, 1 + split) for split in splits]
        scored.append(float(np.mean([int((~pattern.diagonal(1)).sum()) for pattern in patterns])))
        pairs.append(float(np.mean([int(pattern[1:, 1:].sum()) for pattern in patterns])))
    return {"scored": labelled(scored, length=lengths), "pairs": labelled(pairs, length=lengths)}


@TASK.claim(
    "attention-masks/arch.tokens",
    where="Wang et al. 2022, objectives; derived accounting",
    paper="wang-2022-architecture",
    kind="identity",
    statement=r"With a split drawn uniformly from $0, \dots, n - 1$, a prefix language model has a loss on $(n + "
    r"1)/2$ of $n$ tokens on average and sees $(2n^2 + 1)/3$ pairs; a full language model has $n$ and $n(n + 1)/2$: half the "
    r"loss for a third more sight ($n = 1, \dots, 64$).",
    controls=[
        control("a split that leaves the last token alone to be predicted", case="last"),
        control("the pairs of the causal mask", full_model=True),
    ],
)
def split_points_halve_the_loss_tokens(results: Results, case: str = "claimed", full_model: bool = False) -> Evidence:
    measured = results[scored_tokens].sel(case=case)
    length = measured["length"]
    pairs = length * (length + 1) / 2 if full_model else (2 * length**2 + 1) / 3
    return Evidence.all(
        Evidence.exact(float(abs(measured["scored"] - (length + 1) / 2).max()), "<=", 0.0, "halves are exact"),
        Evidence.exact(
            float((abs(measured["pairs"] - pairs) / pairs).max()), "<=", rounding_bound(64), "rounding of a mean of 64"
        ),
    )


# %%
TASK.show(adaptation_curves)
TASK.show(prefix_is_ahead)
TASK.show(reading_with_more_sight_helps)
TASK.show(switching_pays)
TASK.show(split_points_halve_the_loss_tokens)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
