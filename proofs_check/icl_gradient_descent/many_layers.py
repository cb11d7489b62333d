# %% [markdown]
# # Many layers
#
# Stacking the layer of T1 takes more steps, as long as examples see each other and the query is nobody's key.
# Two things that one layer hides become visible: with the query among the keys the second layer uses the
# first one's *prediction* as if it were a label; and under a causal mask the examples' own slots are behind,
# so that the query's second step uses other residuals.


# %%
from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from numpy.polynomial import polynomial
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.regression.causal_steps import causal_two_step_error, optimal_causal_steps
from lab.domains.regression.gradient_descent import gradient_descent_path, gram_eigenvalues
from lab.domains.regression.least_squares import predict
from lab.domains.regression.linear_attention import gradient_descent_network, network_predictor
from lab.domains.regression.optimal_steps import (
    UNIFORM_KURTOSIS,
    curvature_sequence,
    gd_plus_plus_weights,
    normal_moments,
    optimal_filter,
    optimal_step,
    uniform_moments,
)
from lab.domains.regression.prompts import tokens
from lab.labels import LabelledArrays, deviations, labelled
from lab.results import Results
from lab.statistics import rounding_bound
from proofs_check.icl_gradient_descent._shared import (
    HALF_WIDTH,
    MASKS,
    PAPER,
    PRESETS,
    VARIANCE,
    Config,
    apply,
    greatest,
    loaded,
    noisy_prompts,
    normal,
    query_bound,
    three_atoms,
)

PROOFS = Task("icl-gradient-descent", PAPER, PRESETS)


@PROOFS.identity(
    "icl-gradient-descent/T4",
    where="Proposition 1, stacked",
    kind="construction",
    statement=(
        r"$K$ layers with the weights of Proposition 1 predict with $K$ steps of gradient descent from zero "
        r"($K = 1, 2, 5, 12$), the query being no key."
    ),
    origin="rounding of two computations, a chain of 2d + N + 6 operations a layer",
    controls=[
        control("the query among keys and values", mask="query seen"),
        control("a causal mask", mask="causal"),
        control("one step less", fewer=1),
    ],
)
def layers_are_steps(config: Config, *, mask: str = "prefix", fewer: int = 0) -> LabelledArrays:
    pairs = []
    for dimension, context in ((2, 3), (4, 12), (6, 4)):
        data = noisy_prompts(config, "T4", dimension, context)
        step_size = 1 / float(gram_eigenvalues(torch.cat([data.x_context, data.x_query], dim=1)).max())
        path = gradient_descent_path(data.x_context, data.y_context, step=step_size, steps=12)
        for layers in (1, 2, 5, 12):
            network = network_predictor(gradient_descent_network(dimension, layers, step=step_size), MASKS[mask])
            predictions = network(data.x_context, data.y_context, data.x_query)
            expected = predict(path[layers - fewer], data.x_query)
            bound = query_bound(data.x_context, data.y_context, data.x_query, layers)
            pairs.append((greatest(predictions - expected), bound))
    return deviations(pairs)


# %%
PROOFS.show(layers_are_steps)

# %% [markdown]
# **GD++.** Let the layer also write to the input slots: $W_V = \mathrm{diag}(I_x, -1)$,
# $P = \mathrm{diag}(-\gamma I_x, s)$. Then every input is mapped by $x \leftarrow (I - \gamma A)\,x$ while
# the label slots take a gradient step. In the eigenbasis of the first $A$ everything is diagonal and stays
# so: the next layer meets $\lambda_{l+1} = \lambda_l (1 - \gamma \lambda_l)^2$, and the residual is
# multiplied by $f(\lambda) = \prod_l (1 - s_l \lambda_l)$. That is a polynomial filter of degree
# $\sum_l 3^l$, where $K$ gradient steps have degree $K$. It holds for noisy labels too, as a filter on least
# squares.


# %%
def curved_layer(dimension: int, step_size: float, curvature: float) -> dict[str, Tensor]:
    """One layer of GD++, W_0 = 0."""
    inputs = torch.eye(dimension + 1, dtype=torch.float64)
    inputs[-1, -1] = 0
    value, output = (torch.eye(dimension + 1, dtype=torch.float64), -curvature * torch.eye(dimension + 1).double())
    value[-1, -1], output[-1, -1] = -1, step_size
    return {"query": inputs, "key": inputs, "value": value, "output": output}


@PROOFS.identity(
    "icl-gradient-descent/T5",
    where="Appendix A.10, in closed form",
    kind="construction",
    statement=(
        r"$K$ layers that map inputs by $I - \gamma_l A_l$ and step by $s_l$ predict with "
        r"$U\,\mathrm{diag}(1 - f(\lambda))\,U^\top$ times least squares, $f = \prod_l (1 - s_l "
        r"\lambda_l)$, $\lambda_{l+1} = \lambda_l (1 - \gamma_l \lambda_l)^2$; $\gamma = 0$ is gradient "
        r"descent."
    ),
    origin="rounding of two computations, a chain of 2d + N + 6 operations a layer",
    controls=[
        control("the first layer's eigenvalues in every layer", frozen=True),
        control("a causal mask", mask="causal"),
        control("the query among keys and values", mask="query seen"),
    ],
)
def curved_layers_filter(config: Config, *, mask: str = "prefix", frozen: bool = False) -> LabelledArrays:
    pairs = []
    for dimension, context in ((2, 3), (4, 12), (6, 4)):
        data = noisy_prompts(config, "T5", dimension, context)
        largest = float(gram_eigenvalues(torch.cat([data.x_context, data.x_query], dim=1)).max())
        prompt_tokens = tokens(data)
        for bend in (0.3, 0.0):
            steps = [0.9 / largest, 0.6 / largest, 0.8 / largest, 0.5 / largest]
            curvatures = [bend / largest, 1.2 * bend / largest, 0.7 * bend / largest, 0.4 * bend / largest]
            network = loaded(
                dimension + 1, [curved_layer(dimension, *rates) for rates in zip(steps, curvatures, strict=True)]
            )
            predictions = -apply(network, prompt_tokens, MASKS[mask](context, 2))[:, context:, -1]
            met = [0.0] * 4 if frozen else curvatures
            weights = gd_plus_plus_weights(data.x_context, data.y_context, steps=steps, curvatures=met)
            error = greatest(predictions - predict(weights, data.x_query))
            bound = query_bound(data.x_context, data.y_context, data.x_query, 4)
            if bend:
                pairs.append((error, bound))
            else:
                rates = torch.tensor(steps, dtype=torch.float64)
                descent = torch.zeros_like(data.weights)
                for rate in rates:
                    residual = data.y_context - predict(descent, data.x_context)
                    descent = descent + rate * predict(residual, data.x_context.mT)
                pairs.append((greatest(predict(weights - descent, data.x_query)), bound))
    return deviations(pairs)


@PROOFS.identity(
    "icl-gradient-descent/T5.map",
    where="Appendix A.10",
    statement=(
        r"The map $\lambda \mapsto \lambda (1 - \gamma \lambda)^2$ has zeros at $0$ and $1/\gamma$ and its "
        r"only local maximum, $4/(27\gamma)$, at $1/(3\gamma)$."
    ),
    origin="rounding of polynomials of degree 3",
    controls=[control("the factor not squared", power=1)],
)
def curvature_map(config: Config, *, power: int = 2) -> LabelledArrays:
    pairs = []
    for curvature in (0.029, 0.179, 1.0, 7.0):
        map_ = polynomial.polymul([0.0, 1.0], polynomial.polypow([1.0, -curvature], power))
        slope = polynomial.polyder(map_)
        scale = 1 / curvature
        top = scale / 3
        pairs += [
            (float(abs(polynomial.polyval(scale, map_))), rounding_bound(12, 4 * scale)),
            (float(abs(polynomial.polyval(top, slope))), rounding_bound(12, 4.0)),
            (float(abs(polynomial.polyval(top, map_) - 4 * scale / 27)), rounding_bound(12, scale)),
        ]
        met = curvature_sequence(torch.tensor([top, scale], dtype=torch.float64), [curvature, curvature])[1]
        pairs.append((abs(float(met[0]) - float(polynomial.polyval(top, map_))), rounding_bound(12, scale)))
    return deviations(pairs)


@PROOFS.cases(claimed={}, beyond_one={"start": 1.0}, up_to_three={"end": 3.0})
def growth_by_the_map(config: Config, *, start: float = 2.0, end: float = 2.0) -> LabelledArrays:
    """The least growth of an eigenvalue among 300 beyond ``start``, the most among 300 below ``end`` (units of 1/gamma)."""
    beyond = torch.linspace(start, start + 3, 301, dtype=torch.float64)[1:]
    before = torch.linspace(0, end, 302, dtype=torch.float64)[1:-1]
    growth = [curvature_sequence(values, [1.0, 1.0])[1] / values for values in (beyond, before)]
    return {"least beyond": labelled(growth[0].min()), "most before": labelled(growth[1].max())}


@PROOFS.claim(
    "icl-gradient-descent/T5.beyond",
    where="derived, beside Appendix A.10",
    kind="identity",
    statement=(
        r"The map $\lambda \mapsto \lambda (1 - \gamma \lambda)^2$ enlarges eigenvalues beyond $2/\gamma$, its fixed point, and no others: "
        r"up to there, also beyond its zero $1/\gamma$, it makes them smaller (600 eigenvalues)."
    ),
    controls=[
        control("enlarged beyond 1/gamma already", case="beyond_one"),
        control("made smaller up to 3/gamma", case="up_to_three"),
    ],
)
def eigenvalues_grow_beyond_two(results: Results, case: str = "claimed") -> Evidence:
    measured = results[growth_by_the_map].sel(case=case)
    return Evidence.all(
        Evidence.exact(float(measured["least beyond"]), ">", 1.0, "1 is neither larger nor smaller (units of 1/gamma)"),
        Evidence.exact(float(measured["most before"]), "<", 1.0, "1 is neither larger nor smaller (units of 1/gamma)"),
    )


# %%
PROOFS.show(curved_layers_filter)
PROOFS.show(curvature_map)
PROOFS.show(eigenvalues_grow_beyond_two)

# %% [markdown]
# ## Two steps under a causal mask
#
# After one causal layer example j holds the residual $y_j - s \sum_{i \le j} y_i\,x_i \cdot x_j$, so that a second one predicts with
# $2 s A w - s^2 B w$, $B = \sum_{i \le j} x_j x_j^\top x_i x_i^\top$: half of $A^2$, and the diagonal. The expected error is $v$ times
# $$d - 4 s\,E\,\mathrm{tr}A + s^2 (4\,E\,\mathrm{tr}A^2 + 2\,E\,\mathrm{tr}B) - 4 s^3\,E\,\mathrm{tr}AB + s^4\,E\,\mathrm{tr}B^\top B,$$
# whose moments are counted like those of $A$, over pairs of partitions, with $\binom Np$ times the allowed orders of blocks
# in the place of $N (N-1) \cdots$ (`lab.domains.regression.causal_steps`). At $N = d = 10$ and uniform inputs the best two causal
# steps leave a half-loss of $0.1637$, where two true steps leave $0.1566$. As N grows, $N s^*$ tends to $2 - \sqrt 2$, the zero of the
# Laguerre polynomial $L_2$.


# %%
@PROOFS.identity(
    "icl-gradient-descent/T6.steps",
    where="derived",
    statement=(
        r"Two tied layers of one gradient step each under a causal mask have the expected error $v\,E\lVert I - 2 s A + s^2 B\rVert_F^2$, "
        r"a quartic in $s$ with counted coefficients; at $N = d = 10$, inputs uniform on $[-\frac12, \frac12]$, its least half is $0.1637$."
    ),
    origin="rounding of a sum over all input matrices; half a unit of the last quoted digit",
    controls=[
        control("two steps under the prefix mask", mask="prefix"),
        control("the kurtosis of normal inputs", normal_inputs=True),
    ],
)
def two_causal_steps(config: Config, *, mask: str = "causal", normal_inputs: bool = False) -> LabelledArrays:
    pairs = []
    for (context, dimension), kurtosis in itertools.product(((2, 2), (3, 2), (2, 3), (4, 1)), (1.0, 1.8, 4.0)):
        x, probability = three_atoms(kurtosis, context, dimension)
        # E x^2k of the atoms: kurtosis^(k - 1).
        moments = normal_moments() if normal_inputs else (1.0, *(kurtosis ** (k - 1) for k in range(1, 9)))
        for step in (0.1, 0.3):
            network = gradient_descent_network(dimension, 2, step=step)
            labels = x.mT  # one prompt a unit vector w: its labels are a coordinate of the inputs
            queries = torch.eye(dimension, dtype=x.dtype).expand(len(x) * dimension, -1, -1)
            examples = x[:, None].expand(-1, dimension, -1, -1).flatten(0, 1)
            answers = network_predictor(network, MASKS[mask])(examples, labels.flatten(0, 1), queries)
            left = torch.eye(dimension, dtype=x.dtype) - answers.unflatten(0, (len(x), dimension))
            error = float(probability @ left.square().sum((1, 2)))
            claimed = causal_two_step_error(step, context, dimension, moments)
            size = (1 + step * context * dimension * kurtosis) ** 4 * dimension
            pairs.append((abs(error - claimed), rounding_bound(len(x) + 80, size)))
    moments = normal_moments(VARIANCE) if normal_inputs else uniform_moments(HALF_WIDTH)
    least = (
        optimal_causal_steps(10, 10, moments)[1]
        if mask == "causal"
        else optimal_filter(10, 10, moments, layers=2, curved=False)[2]
    )
    pairs.append((abs(least / 2 - 0.1637), 5e-5))
    return deviations(pairs)


# %%
PROOFS.show(two_causal_steps)

# %% [markdown]
# ## Repeating a layer
#
# Applying the one-step-optimal layer again and again, damped by a factor $c$, multiplies residuals by
# $(1 - c s^* \lambda)$ each time. On a task whose largest eigenvalue exceeds $2/(c s^*)$ it diverges. Such
# tasks have a positive probability for *every* damping above $2 / (s^* \lambda_{\sup})$, where
# $\lambda_{\sup} = N d a^2$ is reached when all inputs are the same corner of the cube. So the mean over
# tasks always diverges in the end, while the median need not: what a plot of 50 repeats shows depends on how
# rare those tasks are.


# %%
@PROOFS.cases(claimed={})
def largest_rates(config: Config) -> LabelledArrays:
    """c s* times the largest eigenvalue there can be, that of equal inputs at a corner, by damping c."""
    step_size = optimal_step(10, 10, input_variance=VARIANCE, kurtosis=UNIFORM_KURTOSIS)
    corner = torch.full((1, 10, 10), HALF_WIDTH, dtype=torch.float64)
    largest, dampings = gram_eigenvalues(corner).max(), (1.0, 0.875, 0.75, 0.5, 0.13)
    return {"rate": labelled([damping * step_size * float(largest) for damping in dampings], damping=dampings)}


@PROOFS.claim(
    "icl-gradient-descent/P1.support",
    where="Figure 10, derived",
    kind="identity",
    statement=(
        r"At $N = d = 10$ the dampings $1, 0.875, 0.75$ and also $0.5$ all exceed $2 / (s^* N d a^2) = "
        r"0.132$: inputs near one corner of the cube make repeated steps diverge, so that the mean loss "
        r"over tasks diverges at each of them."
    ),
    controls=[control("a damping of 0.13", dampings=(0.13,))],
)
def every_damping_diverges_somewhere(results: Results, dampings: Sequence[float] = (1.0, 0.875, 0.75, 0.5)) -> Evidence:
    rates = results[largest_rates]["rate"].sel(case="claimed", damping=list(dampings))
    return Evidence.exact(float(rates.min()), ">", 2.0, "the edge of stability")


# %%
PROOFS.show(every_damping_diverges_somewhere)

# %% [markdown]
# ## Features in front
#
# Put any map $m$ in front, shared by all tokens: the layer then takes gradient steps on a linear head over
# $m(x)$. In function space that is kernel gradient descent with $k(x, x') = m(x) \cdot m(x')$: with $W_0 = 0$
# one layer is the smoother $s \sum_i y_i\, k(x_i, x_q)$.


# %%
@PROOFS.identity(
    "icl-gradient-descent/T7",
    where="Proposition 2",
    statement=(
        r"Linear attention over tokens $(m(x_j), y_j)$ with a random two-layer $m$ takes the steps $f "
        r"\leftarrow f + s \sum_i (y_i - f(x_i))\, k(x_i, \cdot)$ of kernel gradient descent, $k(x, x') = "
        r"m(x) \cdot m(x')$ (5 steps)."
    ),
    origin="rounding of two computations, a chain of 2 features + N + 6 operations a layer",
    controls=[control("the kernel of the raw inputs", raw=True), control("a causal mask", mask="causal")],
)
def features_give_kernel_descent(config: Config, *, raw: bool = False, mask: str = "prefix") -> LabelledArrays:
    pairs = []
    for dimension, hidden, features, context in ((1, 16, 8, 10), (3, 12, 5, 6)):
        data = noisy_prompts(config, "T7", dimension, context)
        first, second = (
            normal(f"T7 first {dimension}", dimension, hidden),
            normal(f"T7 second {dimension}", hidden, features) / math.sqrt(hidden),
        )
        examples, queries = (torch.tanh(torch.tanh(x @ first) @ second) for x in (data.x_context, data.x_query))
        step_size = 1 / float(gram_eigenvalues(torch.cat([examples, queries], dim=1)).max())
        network = network_predictor(gradient_descent_network(features, 5, step=step_size), MASKS[mask])
        predictions = network(examples, data.y_context, queries)
        sides = (data.x_context, data.x_query) if raw else (examples, queries)
        kernel, cross = sides[0] @ sides[0].mT, sides[1] @ sides[0].mT
        fitted, answer = torch.zeros_like(data.y_context), torch.zeros_like(data.y_query)
        for _ in range(5):
            residual = data.y_context - fitted
            fitted, answer = (
                fitted + step_size * predict(residual, kernel),
                answer + step_size * predict(residual, cross),
            )
        pairs.append((greatest(predictions - answer), query_bound(examples, data.y_context, queries, 5)))
    return deviations(pairs)


# %%
PROOFS.show(features_give_kernel_descent)

# %%
PROOFS.show()
