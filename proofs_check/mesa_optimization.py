# %% [markdown]
# # Next-state prediction by one step of gradient descent: what can be proved
#
# A sequence follows $x_{t+1} = W x_t$ with a fresh random unitary $W$. One layer of linear attention that reads the pairs
# $(x_t; x_{t-1})$ can estimate $W$ from the past of the very sequence it continues: with the right weights it takes *one*
# step of gradient descent on $\tfrac12 \sum_{i<t} |x_{i+1} - W x_i|^2$, starting from zero, and applies the result to
# $x_t$. This file checks, to rounding error,
#
# 1. that these weights are that step (C1);
# 2. the population loss as a function of the step $c$, and so the best step $c^* = k_1/(k_2 + k_3 h)$ (I1);
# 3. the gradient flow towards it: a conserved quantity (I2) and the trajectory (I3), and that no other weight moves (T1);
# 4. when one step recovers $W$ at all: if and only if all nonzero coordinates of $x_1$ have one modulus (T3). For Gaussian
#    starts it recovers a fifth of it, on average.
#
# All expectations over phases and first states are exact quadratures; sixth moments of a Gaussian are no business for
# sampling. Notation, moments and closed forms: `lab/domains/dynamics/mesa_optimization.py`.
# %%
from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from lab import Evidence, Task, control
from lab.domains.dynamics import mesa_optimization as theory
from lab.domains.dynamics.mesa_layer import MesaLayer, gradient_descent, prediction_loss
from lab.domains.dynamics.sequences import Phases, Start, linear_dynamics
from lab.models import masks
from lab.results import Results
from lab.statistics import rounding_bound, slope
from lab.streams import stream

SYMMETRIC: tuple[Start, ...] = ("gaussian", "sparse", "uniform", "rademacher")
SIZES = ((2, 5), (2, 4), (1, 6))  # (d, T) of the exact quadratures


@dataclass(frozen=True)
class Config:
    """How much is sampled; the quadratures are exact."""

    draws: int = 16
    """independent draws"""
    sequences: int = 2_000
    """sequences a draw"""
    length: int = 10
    """states T of the sequences whose ratio is measured: short, so that the limit of long ones is told apart"""
    long_length: int = 200
    """states of the long sequences"""
    long_sequences: int = 500
    """long sequences a draw"""
    dimension: int = 5
    """d of the sampled sequences"""


PROOFS = Task(
    "mesa-optimization",
    "zheng-2024-mesa",
    {
        "smoke": Config(draws=4, sequences=300, long_length=60, long_sequences=20),
        "ci": Config(),
        "paper": Config(draws=32, sequences=10_000, long_length=400),
    },
)

# %% [markdown]
# ## The construction
#
# With $V = (bI, 0)$ and a lower left block $aI$ in $K$ the score of token $i$ at token $t$ is $a\, x_{i-1}^H x_t$ and its
# value is $b\, x_i$: the pair $(x_{i-1}, x_i)$ enters as an example $(x, Wx)$ of a regression.


# %%
@PROOFS.measurement()
def construction(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Error of the layer against one gradient step, and its rounding bound, by variant of the layer: [variant, size]."""
    sizes = ((1, 8), (3, 20), (8, 64))
    errors, bounds = [], []
    for dimension, length in sizes:
        states = linear_dynamics(stream(seed, "construction", dimension), 20, dimension=dimension, length=length).states
        key, value = torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
        layer = MesaLayer.diagonal(dimension, key, value)
        undelayed = layer.select([0])
        undelayed.query_key.data = undelayed.query_key.data.roll(-dimension, dims=1)  # x_i as the key
        exact = theory.one_step_predictions(states, 0.28)
        mask = masks.causal(length)
        with torch.no_grad():
            found = layer(states[None], mask)[0, :, 1:]
            without_delay = undelayed(states[None], mask)[0, :, 1:]
        counts = torch.arange(1, length, dtype=torch.float64)[:, None]
        by_variant = (found, without_delay, found * counts / (counts + 1))
        errors.append([float((one - exact).abs().max()) for one in by_variant])
        # Inner products of 2 d terms and a sum over T tokens; a complex product is four real ones and two sums.
        size = states.abs().square().sum(-1).sqrt()
        scale = 0.28 * float((size.max(-1).values ** 3).max())
        bounds.append(rounding_bound(8 * (length + 4 * dimension), scale))
    return {"error": np.array(errors).T[None][0], "bound": np.array(bounds)}


@PROOFS.claim(
    "mesa-optimization/C1",
    where="Section 4 (what the layer computes)",
    kind="construction",
    statement=r"With $V = (bI, 0)$ and $K$ with the lower left block $aI$ the layer predicts $\tilde W_t x_t$, where $\tilde W_t$ is one "
    r"step of gradient descent from $0$ with step $ab/(t-1)$ on $\tfrac12 \sum_{i<t} |x_{i+1} - W x_i|^2$.",
    controls=[
        control("keys are the states themselves, not the ones before", variant=1),
        control("the sum is divided by t instead of t - 1", variant=2),
    ],
)
def layer_is_one_step(results: Results, variant: int = 0) -> Evidence:
    found = results[construction]
    worst = float((found["error"][0, variant] / found["bound"][0]).max())
    return Evidence.exact(worst, "<=", 1.0, "1: the rounding error that sums over T tokens of 2 d products may leave")


# %% [markdown]
# ## The loss of a step, and the gradient everywhere else
#
# With independent uniform phases $E|\frac{1}{t-1}\sum_i (\lambda_j \bar\lambda_r)^i|^2 = 1/(t-1)$ for $r \ne j$, which is the only
# place where the number of examples enters: $L(c) = \sum_t \tfrac12 [d c^2 (k_2 + k_3/(t-1)) - 2dck_1 + E|x_1|^2]$. If moreover
# every mixed moment with an odd power of a coordinate vanishes, the gradient in all other entries of $V$ and $K$ is zero, so
# that gradient flow never leaves the diagonal weights. A first state of ones breaks that, and so do phases that are multiples
# of one another, $\lambda_j = e^{-ij\phi}$, as the Fourier modes of periodic advection have.


# %%
def exact_gradient(
    start: Start, dimension: int, length: int, phases: Phases = "independent"
) -> tuple[float, float, float]:
    """Loss at a = 0.7, b = 0.4, the largest gradient off the diagonal entries, and the one on them."""
    rule = theory.quadrature(start, dimension, length, phases)
    layer = MesaLayer.diagonal(
        dimension, torch.tensor([0.7], dtype=torch.float64), torch.tensor([0.4], dtype=torch.float64)
    )
    loss = prediction_loss(layer, rule.states[None], rule.weights[None], masks.causal(length))
    loss.sum().backward()
    off, on = [], []
    for parameter, entries in zip((layer.value, layer.query_key), theory.diagonal_entries(dimension), strict=True):
        assert parameter.grad is not None
        gradient = torch.view_as_complex(parameter.grad)[0].abs()
        rows, columns = (list(places) for places in zip(*entries, strict=True))
        on.append(float(gradient[rows, columns].max()))
        gradient[rows, columns] = 0
        off.append(float(gradient.max()))
    return float(loss.detach()[0]), max(off), max(on)


@PROOFS.measurement()
def exact_losses(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Relative error of the loss formula and gradients off and on the diagonal entries: [case, size].

    Cases: the four symmetric laws of the first state, ones, and rademacher states with equal and harmonic phases; the
    latter two at d = 3, T = 4 alone (repeated along the second axis), since d <= 2 cannot tell harmonic phases apart.
    """
    cases: list[list[tuple[float, float, float]]] = []
    for start in (*SYMMETRIC, "ones"):
        row = []
        for dimension, length in SIZES:
            loss, off, on = exact_gradient(start, dimension, length)
            law = theory.moments(start, dimension)
            row.append((loss / float(theory.population_loss(0.28, law, dimension, length)) - 1, off, on))
        cases.append(row)
    for phases in ("equal", "harmonic"):
        loss, off, on = exact_gradient("rademacher", 3, 4, phases)
        predicted = float(theory.population_loss(0.28, theory.moments("rademacher", 3), 3, 4))
        cases.append([(loss / predicted - 1, off, on)] * len(SIZES))
    found = np.array(cases)
    return {"loss_error": np.abs(found[..., 0]), "off": found[..., 1], "on": found[..., 2]}


CASES = (*SYMMETRIC, "ones", "equal phases", "harmonic phases")
# A mean over P weighted sequences of sums over T tokens: P + 8 (T + 4 d) operations on numbers of the loss's size, which the
# sixth moment of the outermost Gauss-Hermite node (2.33^6 = 161) exceeds at single points.
POINTS = max(len(theory.quadrature("gaussian", dimension, length).weights) for dimension, length in SIZES)
LOSS_BOUND = rounding_bound(POINTS + 8 * (5 + 8), 1.0)
GRADIENT_BOUND = rounding_bound(POINTS + 16 * (5 + 8), 10.0)


@PROOFS.claim(
    "mesa-optimization/I1",
    where="Section 4; the loss behind Theorem 4.1",
    kind="identity",
    statement=r"For diagonal weights with $c = ab$ the population loss is $\sum_{t=2}^{T-1} \tfrac12 [d c^2 (k_2 + k_3/(t-1)) - 2 d c k_1"
    r" + E|x_1|^2]$ for independent uniform phases and every first state with equal moments of its coordinates.",
    controls=[
        control("all coordinates share one phase", cases=("equal phases",)),
        control("phases that are multiples of one another", cases=("harmonic phases",)),
    ],
)
def loss_formula(results: Results, cases: tuple[str, ...] = (*SYMMETRIC, "ones")) -> Evidence:
    errors = results[exact_losses]["loss_error"][0]
    worst = max(float(errors[CASES.index(case)].max()) for case in cases)
    return Evidence.exact(
        worst, "<=", LOSS_BOUND, "relative rounding error of a mean over the points of the quadrature"
    )


@PROOFS.claim(
    "mesa-optimization/T1.invariance",
    where="Theorem 4.1 (diagonal weights stay diagonal)",
    kind="identity",
    statement=r"At diagonal weights the gradient of the population loss vanishes in all other entries of $V$ and $K$, if every mixed "
    r"moment of $x_1$ with an odd power of a coordinate vanishes (Gaussian, sparse, uniform, $\pm 1$).",
    controls=[
        control("a first state of ones", cases=("ones",)),
        control("phases that are multiples of one another", cases=("harmonic phases",)),
        control("the diagonal entries instead of the others", quantity="on"),
    ],
)
def other_entries_rest(results: Results, cases: tuple[str, ...] = SYMMETRIC, quantity: str = "off") -> Evidence:
    found = results[exact_losses][quantity][0]
    # d = 1 has no entries that mix coordinates, so the sizes of two dimensions decide.
    worst = max(float(found[CASES.index(case), :2].max()) for case in cases)
    return Evidence.exact(worst, "<=", GRADIENT_BOUND, "rounding error of a mean over the points of the quadrature")


# %% [markdown]
# ## The flow to the best step
#
# On diagonal weights gradient flow is $\dot a = -b\,L'(c)/d$, $\dot b = -a\,L'(c)/d$, so $a^2 - b^2$ is conserved and
# $\dot c = \sqrt{(a_0^2-b_0^2)^2 + 4c^2}\,(T-2)(k_1 - c\,(k_2+k_3h))$: logistic from equal starts. Gradient *descent* with step
# $\eta$ departs from both in proportion to $\eta$: it changes $a^2-b^2$ by the factor $1 - \eta^2 (L'(c)/d)^2$ a step.


# %%
ETAS = np.array([4e-3, 2e-3, 1e-3])
TIME = 1.2
FLOW_START: Start = "rademacher"
FLOW_DIMENSION, FLOW_LENGTH = 2, 4


def squares_and_product(
    rule: theory.Quadrature, keys: Sequence[float], values: Sequence[float], eta: float, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """a^2 - b^2 and a^2 + b^2 [2, steps + 1, starts], and c = ab [steps + 1, starts], of gradient descent on the exact loss
    of all weights."""
    start = MesaLayer.diagonal(
        FLOW_DIMENSION, torch.tensor(keys, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    )
    path = gradient_descent(start, rule.states, rule.weights, masks.causal(FLOW_LENGTH), rate=eta, steps=steps)
    squares = [path.query_key[:, :, FLOW_DIMENSION, 0].real.square(), path.value[:, :, 0, 0].real.square()]
    both = torch.stack([squares[0] - squares[1], squares[0] + squares[1]])
    return both.numpy(), path.step_product.numpy()


@PROOFS.measurement()
def flow(config: Config, seed: int) -> dict[str, np.ndarray]:
    """Drift of a^2 - b^2 and of a^2 + b^2 from (0.1, 0.6), and distance from the trajectory from (0.3, 0.3), by step size."""
    rule = theory.quadrature(FLOW_START, FLOW_DIMENSION, FLOW_LENGTH)
    law = theory.moments(FLOW_START, FLOW_DIMENSION)
    long_run = theory.Moments(law.second, law.fourth, law.sixth, 0.0)  # h -> 0 as sequences grow
    drift, sum_drift, distance, wrong = [], [], [], []
    for eta in ETAS:
        squares, products = squares_and_product(rule, (0.1, 0.3), (0.6, 0.3), eta, round(TIME / eta))
        difference, total = np.abs(squares[..., 0] - squares[:, :1, 0]).max(-1)
        drift.append(difference)
        sum_drift.append(total)
        product = products[:, 1]
        time = eta * np.arange(len(product))
        distance.append(np.abs(product - theory.step_flow(time, 0.09, law, FLOW_LENGTH)).max())
        wrong.append(np.abs(product - theory.step_flow(time, 0.09, long_run, FLOW_LENGTH)).max())
    return {
        "difference": np.array(drift),
        "sum": np.array(sum_drift),
        "trajectory": np.array(distance),
        "other limit": np.array(wrong),
    }


@PROOFS.claim(
    "mesa-optimization/I2",
    where="proof of Theorem 4.1",
    kind="rate",
    statement=r"Gradient flow conserves $a^2 - b^2$: under gradient descent its drift up to a fixed time is proportional to the step size "
    r"(slope of the drift against the step size within a tenth of 1).",
    controls=[control("the sum of the squares", quantity="sum")],
)
def difference_of_squares(results: Results, quantity: str = "difference") -> Evidence:
    measured = abs(slope(ETAS, results[flow][quantity][0]) - 1)
    return Evidence.exact(measured, "<=", 0.1, "first order of Euler's method; its second order is below a tenth here")


@PROOFS.claim(
    "mesa-optimization/I3",
    where="proof of Theorem 4.1 (trajectory derived)",
    kind="rate",
    statement=r"From $a_0 = b_0$ the flow is $c(\tau) = c^*/(1 + (c^*/c_0 - 1) e^{-2(T-2)k_1\tau})$: the distance of gradient descent "
    r"from it is proportional to the step size (slope within a tenth of 1).",
    controls=[control("the limit of long sequences in the place of c*", quantity="other limit")],
)
def logistic_trajectory(results: Results, quantity: str = "trajectory") -> Evidence:
    measured = abs(slope(ETAS, results[flow][quantity][0]) - 1)
    return Evidence.exact(measured, "<=", 0.1, "first order of Euler's method; its second order is below a tenth here")


@PROOFS.claim(
    "mesa-optimization/I3.unequal",
    where="proof of Theorem 4.1 (general starts, derived)",
    kind="identity",
    statement=r"From three pairs $(a, b)$, two of them unequal, one step $\eta$ of gradient descent multiplies $a^2 - b^2$ by "
    r"$1 - (\eta L'(c)/d)^2$ and takes $(a^2 + b^2)\, \eta L'(c)/d - c\, (\eta L'(c)/d)^2$ from $c = ab$.",
    controls=[control("2 c in the place of a^2 + b^2, as for equal starts", equal=True)],
)
def one_step_from_unequal_starts(results: Results, equal: bool = False) -> Evidence:
    rule = theory.quadrature(FLOW_START, FLOW_DIMENSION, FLOW_LENGTH)
    law, eta = theory.moments(FLOW_START, FLOW_DIMENSION), 0.02
    keys, values = np.array([0.1, 0.9, 0.3]), np.array([0.6, 0.2, 0.3])
    (difference, _), products = squares_and_product(rule, keys.tolist(), values.tolist(), eta, steps=1)
    step = keys * values
    scored = theory.scored_positions(FLOW_LENGTH)[:, None]
    slope = (step * (law.sixth + law.mixed / (scored - 1)) - law.fourth).sum(0)  # L'(c) / d
    squares = 2 * step if equal else keys**2 + values**2
    errors = (
        difference[1] - difference[0] * (1 - (eta * slope) ** 2),
        products[1] - step + squares * eta * slope - step * (eta * slope) ** 2,
    )
    return Evidence.exact(
        float(np.abs(errors).max()), "<=", GRADIENT_BOUND, "rounding error of a mean over the points of the quadrature"
    )


# %% [markdown]
# ## Does one step recover the dynamics?
#
# For long sequences $\frac{1}{t-1}\sum_i x_i x_i^H \to \mathrm{diag}(|x_{1j}|^2)$, so that the prediction of coordinate $j$ is
# $c^* |x_{1j}|^2$ times the truth. It is right in the limit exactly if all nonzero coordinates share the modulus
# $1/\sqrt{c^*}$. A sparse start does, at every $t$. A Gaussian start does not: the *mean* of $c^* x_{1j}^2$ is
# $c^* s^2 \to 1/5$, its median is less than half of that, and $1 - k_1^2/(k_2 E x^2) = 2/5$ of the square of the signal is
# lost for good.


# %%
MEDIAN = float(stats.chi2(1).median())  # 0.455 of the mean


@PROOFS.measurement(seeds=lambda config: config.draws)
def predictions(config: Config, seed: int) -> dict[str, np.ndarray]:
    """By law of the first state [law]: ratio of prediction to truth, unbiased residual of c*, losses.

    ``ratio`` is its mean at the last position of short sequences and ``below_mean`` and ``below_median`` are the shares of
    coordinates of long ones whose ratio is below the mean and the median that chi-square predicts; ``residual`` is the mean of
    Re<x_{t+1}, y_t> - c* |y_t|^2 with y_t the prediction at c = 1, zero if c* is optimal, and ``long_run_residual`` the same
    with the step of infinitely long sequences; ``error`` is the largest relative error of a prediction; ``loss`` the share
    of |x|^2 missed at the last position of long sequences.
    """
    found: dict[str, list[float]] = {
        name: [] for name in ("ratio", "below_mean", "below_median", "residual", "long_run_residual", "error", "loss")
    }
    for start in LAWS:
        law = theory.moments(start, config.dimension)
        step = theory.optimal_step(law, config.length)
        states = linear_dynamics(
            stream(seed, "short", start),
            config.sequences,
            dimension=config.dimension,
            length=config.length,
            start=start,
        ).states
        predicted = theory.one_step_predictions(states, step)[:, :-1]
        truth = states[:, 2:]
        nonzero = truth[:, -1].abs() > 0
        ratio = (predicted[:, -1] / torch.where(nonzero, truth[:, -1], torch.ones_like(truth[:, -1]))).real
        found["ratio"].append(float(ratio[nonzero].mean()))
        aligned, squared = theory.step_statistics(states)
        found["residual"].append(float((aligned - step * squared).sum(-1).mean()))
        long_run = law.fourth / law.sixth
        found["long_run_residual"].append(float((aligned - long_run * squared).sum(-1).mean()))
        found["error"].append(float((predicted - truth).abs().max()))
        step = theory.optimal_step(law, config.long_length)
        states = linear_dynamics(
            stream(seed, "long sequences", start),
            config.long_sequences,
            dimension=config.dimension,
            length=config.long_length,
            start=start,
        ).states
        predicted, truth = theory.one_step_predictions(states, step)[:, -2], states[:, -1]
        share = (predicted * truth.conj()).real / truth.abs().square().clamp(min=1e-300)
        for name, quantile in (("below_mean", 1.0), ("below_median", MEDIAN)):
            found[name].append(float((share < step * law.second * quantile).double().mean()))
        missed = (predicted - truth).abs().square().sum()
        found["loss"].append(float(missed / truth.abs().square().sum()))
    return {name: np.array(values) for name, values in found.items()}


LAWS: tuple[Start, ...] = ("gaussian", "sparse", "rademacher", "complex gaussian")


def of_law(results: Results, quantity: str, start: str) -> np.ndarray:
    """One number a draw."""
    return results[predictions][quantity][:, [str(law) for law in LAWS].index(start)]


@PROOFS.claim(
    "mesa-optimization/I1.sampled",
    where="Theorem 4.1 (the value of the limit)",
    kind="identity",
    statement=r"In sampled sequences ($d = 5$, $T = 10$, Gaussian starts) $c^*$ solves the normal equation of the step: "
    r"$E \sum_t (\mathrm{Re}\langle x_{t+1}, \hat y_t \rangle - c^* |\hat y_t|^2) = 0$ with the predictions $\hat y_t$ at $c = 1$.",
    controls=[control("the step 1/5 of infinitely long sequences", quantity="long_run_residual")],
)
def normal_equation(results: Results, quantity: str = "residual") -> Evidence:
    return Evidence.agreement(of_law(results, quantity, "gaussian"), 0.0, "the derivative of the loss at its minimum")


LIMITS: dict[Start, float] = {"sparse": 0.0, "ones": 0.0, "rademacher": 0.0, "gaussian": 2 / 5, "uniform": 4 / 25}


@PROOFS.claim(
    "mesa-optimization/T3.iff",
    where="Theorem 4.2 and Proposition 4.1, as one law (derived)",
    kind="identity",
    statement=r"The step $k_1/k_2$ of long sequences misses the share $s + \frac{(k_1/k_2)^2 k_3}{(t-1) E x^2}$ of $|x_{t+1}|^2$, with "
    r"$s = 0$ for sparse, $\pm 1$ and starts of ones, $s = 2/5$ for Gaussian and $s = 4/25$ for uniform ones: of these five laws, those "
    r"whose nonzero coordinates share one modulus recover $W$ in the limit, and no other does.",
    controls=[
        control("nothing is missed in the limit, whatever the start", recovered=True),
        control("k_3 left out", mixed=False),
    ],
)
def share_missed_in_the_limit(results: Results, recovered: bool = False, mixed: bool = True) -> Evidence:
    errors = []
    for (start, limit), (dimension, length) in itertools.product(LIMITS.items(), SIZES[:2]):
        rule, law = theory.quadrature(start, dimension, length), theory.moments(start, dimension)
        aligned, squared = (torch.einsum("b,bt->t", rule.weights, part) for part in theory.step_statistics(rule.states))
        step, energy = law.fourth / law.sixth, dimension * law.second
        missed = 1 + ((step**2 * squared - 2 * step * aligned) / energy).numpy()
        before = theory.scored_positions(length) - 1
        falling = step**2 * law.mixed / (before * law.second) if mixed else 0 * before
        errors.append(np.abs(missed - (0.0 if recovered else limit) - falling).max())
    return Evidence.exact(
        float(max(errors)), "<=", LOSS_BOUND, "relative rounding error of a mean over the points of the quadrature"
    )


@PROOFS.claim(
    "mesa-optimization/T3",
    where="Assumption 4.2, Theorem 4.2 (sparse starts)",
    kind="identity",
    statement=r"From sparse starts, $x_1 = \pm e_j$, the trained step predicts every next state exactly, from the second one on.",
    controls=[
        control("Gaussian starts", start="gaussian"),
        control("starts of independent signs, right only in the limit", start="rademacher"),
    ],
)
def sparse_is_exact(results: Results, start: str = "sparse") -> Evidence:
    length, dimension = results.config.length, results.config.dimension
    return Evidence.exact(
        of_law(results, "error", start).max(),
        "<=",
        rounding_bound(8 * (length + 4 * dimension)),
        "rounding error of sums over T tokens of 2 d products",
    )


@PROOFS.claim(
    "mesa-optimization/T3.loss",
    where="Section 4.2 (Gaussian starts fail)",
    kind="phenomenon",
    statement=r"From Gaussian starts one step leaves more than $0.35$ of $|x|^2$ unexplained however long the sequence is "
    r"(the limit is $1 - k_1^2/(k_2 E x^2) = 0.4$; here 200 states); the model does not recover $W$.",
    controls=[
        control("independent signs, whose modulus is one", start="rademacher"),
        control("sparse starts", start="sparse"),
    ],
)
def gaussian_fails(results: Results, start: str = "gaussian") -> Evidence:
    return Evidence.over_seeds(
        of_law(results, "loss", start), ">", 0.35, "seven eighths of the limit 2/5, fixed beforehand"
    )


@PROOFS.claim(
    "mesa-optimization/T3.ratio",
    where="Section 4.2 and the simulations (a fifth of the truth)",
    kind="identity",
    statement=r"From Gaussian starts the prediction is on average $c^* s^2 = 1/(5 + (d-1)h)$ of the truth, coordinate by coordinate and at "
    r"every length ($d = 5$, $T = 10$); that tends to $1/5$.",
    controls=[control("1/5 at this length", target=0.2)],
)
def mean_ratio(results: Results, target: float | None = None) -> Evidence:
    config = results.config
    exact = theory.optimal_step(theory.moments("gaussian", config.dimension), config.length)
    return Evidence.agreement(of_law(results, "ratio", "gaussian"), target or exact, "the mean ratio")


@PROOFS.claim(
    "mesa-optimization/T3.third",
    where="derived (complex Gaussian starts)",
    kind="identity",
    statement=r"The fifth belongs to real starts: from complex Gaussian ones the mean ratio is $1/(3 + (d-1)h)$ ($d = 5$, $T = 10$).",
    controls=[control("the ratio of real starts", law="gaussian")],
)
def complex_ratio(results: Results, law: Start = "complex gaussian") -> Evidence:
    config = results.config
    exact = theory.optimal_step(theory.moments(law, config.dimension), config.length)
    return Evidence.agreement(of_law(results, "ratio", "complex gaussian"), exact, "the mean ratio")


@PROOFS.claim(
    "mesa-optimization/T3.median",
    where="Section 4.2, read for the typical coordinate",
    kind="phenomenon",
    statement=r"The fifth is a mean over a skewed law: for long Gaussian sequences more than $0.6$ of the coordinates are predicted "
    r"at less than the mean share of their true value ($P(\chi^2_1 < 1) = 0.683$).",
    controls=[control("below the median of a squared normal instead", quantity="below_median")],
)
def most_are_below_the_mean(results: Results, quantity: str = "below_mean") -> Evidence:
    return Evidence.over_seeds(
        of_law(results, quantity, "gaussian"),
        ">",
        0.6,
        "between 1/2 and 0.683, the probability that a squared normal is below its mean",
    )
