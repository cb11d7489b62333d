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
# # The limit of the causal network: one pass of Kaczmarz
#
# The stationary point is found by substitution, never by iterating: the iteration matrix is triangular but far from normal,
# and for inputs with a mean it first amplifies errors by many orders (last figure of this part). One more example
# projects the error of $w$ onto the complement of that example; for zero-mean inputs every projection removes a share
# $1/d$ of the expected error, so the error is $v\,d\,(1-1/d)^n$. A mean $\mu$ makes the inputs point the same way,
# and the factor comes close to 1.
#
# The error of given weights is taken in expectation over queries: with $e$ the error of the weights it is
# $v \lVert e\rVert^2 + \mu^2 (\sum_k e_k)^2$.

# %%
from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.causal_recursions import causal_recursion
from lab.domains.regression.kaczmarz import kaczmarz_path, normalised_kaczmarz_path, stationary_coefficients
from lab.domains.regression.least_squares import least_squares_weights
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from tasks.causallm_icl._shared import PAPER, SLUG, UNIFORM_VARIANCE, Numerics, numerical_prompts, one_pass_law

# Mean of the inputs and step size of a layer.
TRANSIENTS = ((0.0, 0.04), (0.0, 0.2), (1.0, 0.04), (1.0, 0.01))


@dataclass(frozen=True)
class Config(Numerics):
    """Sizes of this part."""

    draws: int = 16
    """independent draws (seeds)"""
    means: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0)
    """mean of every coordinate of the inputs"""
    lengths: tuple[int, ...] = (20, 40, 60, 100, 200, 300)
    """numbers of examples at which two limits are compared"""
    noises: tuple[float, ...] = (0.0, 0.1, 0.5)
    """standard deviations of the label noise, for inputs of the first mean"""
    law: Numerics = field(default_factory=lambda: Numerics(sequences=1000))
    """sizes of the draws that the exact law is held against: the longer the context, the more do few prompts decide a mean"""
    law_lengths: tuple[int, ...] = (20, 40, 60, 80, 100)
    """numbers of examples there"""
    layers: int = 200
    """layers of the iteration in the last figure"""
    iterations: int = 8
    """independent draws there"""


TASK = Task(
    SLUG,
    PAPER,
    {
        "smoke": Config(
            draws=8,
            sequences=4,
            lengths=(20, 40),
            means=(0.0, 1.0),
            law=Numerics(draws=8, sequences=4),
            law_lengths=(20, 40),
            layers=24,
        ),
        "ci": Config(),
        "paper": replace(Config(), law=Numerics(draws=64, sequences=4000), law_lengths=(20, 40, 60, 100, 200, 300)),
    },
)


def expected_error(weights: Tensor, truth: Tensor, mean: float) -> Tensor:
    """Squared query error in expectation over queries, averaged over prompts; weights [prompt, ..., dimension] to [...]."""
    missing = weights - truth.reshape(len(truth), *[1] * (weights.dim() - 2), -1)
    errors = UNIFORM_VARIANCE * missing.square().sum(-1) + mean**2 * missing.sum(-1).square()
    return errors.mean(0)


# %% [markdown]
# ## Slow, and slower where inputs have a mean


# %%
@TASK.measurement(seeds=lambda config: config.law.draws)
def one_pass_errors(config: Config, seed: int) -> LabelledArrays:
    """Query error at the stationary point of the causal network, without noise, by mean of the inputs and examples."""
    places = [length - 1 for length in config.law_lengths]
    rows = []
    for mean in config.means:
        prompts = numerical_prompts(config.law, seed, mean=mean, query_length=1, context_length=max(config.law_lengths))
        path = kaczmarz_path(prompts.x_context, prompts.y_context)[:, places]
        rows.append(expected_error(path, prompts.weights, mean))
    return {"causal": labelled(torch.stack(rows), input_mean=config.means, examples=config.law_lengths)}


@TASK.measurement(seeds=lambda config: config.draws)
def stationary(config: Config, seed: int) -> LabelledArrays:
    """Query errors at stationary points, from one example on: of the plain causal network and of the one that divides by the
    visible length by mean of the inputs, and of the plain one and least squares by label noise."""
    lengths = (1, *config.lengths)
    places = [length - 1 for length in lengths]
    by_mean: dict[str, list[Tensor]] = {"causal": [], "normalised": []}
    for mean in config.means:
        prompts = numerical_prompts(config, seed, mean=mean, query_length=1, context_length=max(lengths))
        for name, follow in (("causal", kaczmarz_path), ("normalised", normalised_kaczmarz_path)):
            path = follow(prompts.x_context, prompts.y_context)[:, places]
            by_mean[name].append(expected_error(path, prompts.weights, mean))
    by_noise: dict[str, list[Tensor]] = {"noisy_causal": [], "noisy_least_squares": []}
    for noise in config.noises:
        mean = config.means[0]
        prompts = numerical_prompts(config, seed, mean=mean, noise=noise, query_length=1, context_length=max(lengths))
        x, y = prompts.x_context, prompts.y_context
        fitted = torch.stack([least_squares_weights(x[:, :length], y[:, :length]) for length in lengths], 1)
        for name, weights in (("noisy_causal", kaczmarz_path(x, y)[:, places]), ("noisy_least_squares", fitted)):
            by_noise[name].append(expected_error(weights, prompts.weights, mean))
    return {
        name: labelled(torch.stack(rows), input_mean=config.means, examples=lengths) for name, rows in by_mean.items()
    } | {name: labelled(torch.stack(rows), noise=config.noises, examples=lengths) for name, rows in by_noise.items()}


@TASK.figure
def stationary_error(results: Results) -> Sheet:
    """Query error of the infinitely deep causal network against the number of examples, beside the exact law."""
    errors, config = results[one_pass_errors].causal, results.config
    sheet = Sheet(width=6.0, height=4.2)
    panel = sheet.panel(
        "one pass learns slowly, far slower where inputs have a mean",
        x="examples in the context",
        y="mean squared query error",
        scale=("linear", "log"),
    )
    for mean in config.means:
        panel.curve(errors.sel(input_mean=mean), over="examples", name=rf"causal limit, $\mu$ = {mean:g}")
        law = one_pass_law(config, config.law_lengths, mean)
        panel.theory(config.law_lengths, law, name="closed forms")
    return sheet


@TASK.claim(
    "causallm-icl/O2",
    where="Figure 2, right",
    kind="ordering",
    statement=r"The query error of the infinitely deep causal network grows with the mean $\mu$ of the inputs at every number "
    r"of examples $n$, and equals the exact law of one pass of Kaczmarz.",
    controls=[control("the curve of mean 0 taken for mean 1", relabel=True)],
)
def stationary_error_grows_with_the_mean(results: Results, relabel: bool = False) -> Evidence:
    errors, config = results[one_pass_errors].causal, results.config
    if relabel:
        errors = errors.where(errors.input_mean != 1, errors.sel(input_mean=0, drop=True))
    growth = np.log(errors).diff("input_mean").min(("input_mean", "examples"))
    laws = {mean: one_pass_law(config, config.law_lengths, mean) for mean in config.means}
    return Evidence.all(
        Evidence.over_seeds(growth, ">", 0.0, "smallest log ratio of neighbouring means"),
        *(
            Evidence.equals(
                errors.sel(input_mean=mean, examples=length),
                float(law.sel(examples=length)),
                0.05,
                f"law of one pass at mean {mean:g}, {length} examples",
            )
            for mean, law in laws.items()
            for length in config.law_lengths
        ),
    )


# %%
TASK.show(stationary_error)
TASK.show(stationary_error_grows_with_the_mean)

# %% [markdown]
# Dividing by the number of visible examples looks fairer. It makes the limit worse: what was learnt is pulled towards zero
# before every example. And with noisy labels, which every step fits exactly, the error of one pass stays above a floor.


# %%
@TASK.figure
def normalised_stationary_error(results: Results) -> Sheet:
    """The limit of the network that divides by the number of visible examples, beside that of the plain one."""
    errors, config = results[stationary], results.config
    sheet = Sheet(width=6.0, height=4.2)
    panel = sheet.panel(
        "dividing by the visible length makes the limit worse",
        x="examples in the context",
        y="mean squared query error",
        scale=("linear", "log"),
    )
    for look, mean in enumerate(config.means):
        for variant, (network, name) in enumerate((("normalised", "divided by j"), ("causal", "plain"))):
            samples = errors[network].sel(input_mean=mean, examples=list(config.lengths))
            panel.curve(samples, over="examples", name=rf"{name}, $\mu$ = {mean:g}", look=look, variant=variant)
    return sheet


@TASK.figure
def noise_floor(results: Results) -> Sheet:
    """Query error against the number of examples under label noise: one pass stays above a floor, least squares does not."""
    errors, config = results[stationary], results.config
    sheet = Sheet(width=6.0, height=4.2)
    panel = sheet.panel(
        "with noisy labels the causal limit stays above a floor",
        x="examples in the context",
        y="mean squared query error",
        scale=("linear", "log"),
        ylim=(1e-5, 10),
    )
    for look, noise in enumerate(config.noises):
        networks = {"noisy_causal": "causal limit", "noisy_least_squares": "least squares"}
        if noise == 0:
            del networks["noisy_least_squares"]  # zero to rounding
        for variant, (network, name) in enumerate(networks.items()):
            samples = errors[network].sel(noise=noise, examples=list(config.lengths))
            panel.curve(samples, over="examples", name=rf"{name}, $\sigma$ = {noise:g}", look=look, variant=variant)
        if noise > 0:
            floor = one_pass_law(config, [10_000], noise=noise)
            panel.level(float(floor.item()), name=rf"floor, $\sigma$ = {noise:g}")
    return sheet


@TASK.claim(
    "causallm-icl/O3",
    where="Figure 4",
    kind="ordering",
    statement=r"The causal network that divides by the number of visible examples, with step $\eta/j$ at place $j$, has a larger "
    r"stationary query error than the plain one at every $n$ and every mean.",
    controls=[control("one example, where both divide by 1", one_example=True)],
)
def normalised_network_is_worse(results: Results, one_example: bool = False) -> Evidence:
    errors: xr.Dataset = results[stationary].sel(examples=[1] if one_example else list(results.config.lengths))
    ratio = np.log(errors.normalised / errors.causal).min(("input_mean", "examples"))
    return Evidence.over_seeds(ratio, ">", 0.0, "smallest log ratio over n and means")


# %%
TASK.show(normalised_stationary_error)
TASK.show(normalised_network_is_worse)
TASK.show(noise_floor)

# %% [markdown]
# ## Where iterating goes wrong
#
# $I - sT$ is triangular: its eigenvalues are $1 - s\lVert x_j\rVert^2$, all below 1 in size for a small step, whatever $n$ is. But
# eigenvalues only rule late layers. With inputs of mean 1 and the paper's step the error grows by many orders before it
# falls; with mean 2 it grows beyond what floating-point numbers can recover from. A network of any real depth would never
# show the "linear rate".


# %%
@TASK.measurement(seeds=lambda config: config.iterations)
def transient(config: Config, seed: int) -> LabelledArrays:
    """Largest error of the coefficients over prompts relative to their start, by layer, and the asymptotic rates."""
    distances, rates = [], []
    for mean, step_size in TRANSIENTS:
        prompts = numerical_prompts(config, seed, mean=mean, query_length=1)
        x, y = prompts.x_context, prompts.y_context
        path = causal_recursion(x, y, prompts.x_query, step=step_size, layers=config.layers).coefficients
        distance = (path - stationary_coefficients(x, y)).norm(dim=-1)
        distances.append((distance / distance[:1]).amax(-1))
        rates.append((1 - step_size * x.square().sum(-1)).abs().amax())
    settings = [rf"$\mu$ = {mean:g}, s = {step_size:g}" for mean, step_size in TRANSIENTS]
    return {
        "distance": labelled(torch.stack(distances), setting=settings, layer=range(config.layers + 1)),
        "rate": labelled(torch.stack(rates), setting=settings),
    }


@TASK.figure
def transient_growth(results: Results) -> Sheet:
    """Error of the causal iteration by layer: a rate below 1 does not stop it from growing first."""
    found = results[transient]
    sheet = Sheet(width=6.0, height=4.2)
    panel = sheet.panel(
        "a rate below 1 does not stop errors from growing first",
        x="layer",
        y="largest error of the weights, relative to the start",
        scale=("linear", "log"),
        ylim=(1e-10, 1e8),
        legend="outside",
    )
    for setting in found.setting.values:
        rate = float(found.rate.sel(setting=setting).mean())
        samples = np.maximum(found.distance.sel(setting=setting), 1e-16)
        panel.curve(samples, over="layer", name=f"{setting}: rate {rate:.2f}", middle="geometric mean")
    panel.level(1.0, name="the start")
    return sheet


# %%
TASK.show(transient_growth)

# %%
TASK.show()
