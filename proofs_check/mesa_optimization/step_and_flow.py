# %% [markdown]
# # Next-state prediction by one step of gradient descent: what can be proved
#
# A sequence follows $x_{t+1} = W x_t$ with a fresh random unitary $W$. One layer of linear attention that reads the pairs
# $(x_t; x_{t-1})$ can estimate $W$ from the past of the very sequence it continues: with the right weights it takes *one*
# step of gradient descent on $\tfrac12 \sum_{i<t} |x_{i+1} - W x_i|^2$, starting from zero, and applies the result to
# $x_t$. This part checks, to rounding error,
#
# 1. that these weights are that step (C1), and which of the others can matter at all (I4);
# 2. that a prefix mask changes nothing in what a position at the end of the prefix or after it computes (I0.mask);
# 3. the population loss as a function of the step $c$, and so the best step $c^* = k_1/(k_2 + k_3 h)$ (I1);
# 4. the gradient flow towards it: a conserved quantity (I2) and the trajectory (I3), and that no other weight moves (T1).
#
# When one step recovers $W$ at all is the question of `recovery.py`. All expectations over phases and first states are
# exact quadratures. Notation, moments and closed forms: `lab/domains/dynamics/mesa_optimization.py`, `mesa_laws.py`.
# %%
from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lab import Evidence, Task, control
from lab.domains.dynamics import mesa_optimization as theory
from lab.domains.dynamics.mesa_laws import product_flow
from lab.domains.dynamics.mesa_layer import MesaLayer, gradient_descent, prediction_loss
from lab.domains.dynamics.sequences import Phases, Start, linear_dynamics
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.results import Results
from lab.statistics import rounding_bound, slope
from lab.streams import stream
from proofs_check.mesa_optimization._shared import GRADIENT_BOUND, LOSS_BOUND, PAPER, QUADRATURE, SIZES, SLUG, SYMMETRIC

PROOFS = Task(SLUG, PAPER)

# %% [markdown]
# ## The construction
#
# With $V = (bI, 0)$ and a lower left block $aI$ in $K$ the score of token $i$ at token $t$ is $a\, x_{i-1}^H x_t$ and its
# value is $b\, x_i$: the pair $(x_{i-1}, x_i)$ enters as an example $(x, Wx)$ of a regression.

# %%
KEY, VALUE = 0.7, 0.4
CONSTRUCTIONS = ("claimed", "keys not delayed", "divided by t")


def diagonal_layer(dimension: int, keys: tuple[float, ...], values: tuple[float, ...]) -> MesaLayer:
    """Layers with diagonal weights a of ``keys`` and b of ``values``."""
    return MesaLayer.diagonal(
        dimension, torch.tensor(keys, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
    )


@PROOFS.cases(
    small={"dimension": 1, "length": 8}, middle={"dimension": 3, "length": 20}, large={"dimension": 8, "length": 64}
)
def construction(config: object, *, dimension: int, length: int) -> LabelledArrays:
    """Error of the layer against one gradient step, by variant of the layer, over its rounding bound."""
    states = linear_dynamics(stream(0, "construction", dimension), 20, dimension=dimension, length=length).states
    layer = diagonal_layer(dimension, (KEY,), (VALUE,))
    undelayed = layer.select([0])
    undelayed.query_key.data = undelayed.query_key.data.roll(-dimension, dims=1)  # x_i as the key
    exact = theory.one_step_predictions(states, KEY * VALUE)
    mask = masks.causal(length)
    with torch.no_grad():
        predicted = layer(states[None], mask)[0, :, 1:]
        without_delay = undelayed(states[None], mask)[0, :, 1:]
    counts = torch.arange(1, length, dtype=torch.float64)[:, None]
    by_variant = (predicted, without_delay, predicted * counts / (counts + 1))
    # Inner products of 2 d terms and a sum over T tokens; a complex product is four real ones and two sums.
    size = states.abs().square().sum(-1).sqrt()
    scale = KEY * VALUE * float((size.max(-1).values ** 3).max())
    bound = rounding_bound(8 * (length + 4 * dimension), scale)
    errors = [float((prediction - exact).abs().max()) / bound for prediction in by_variant]
    return {"error": labelled(errors, variant=CONSTRUCTIONS)}


@PROOFS.claim(
    "mesa-optimization/C1",
    where="Section 4 (what the layer computes)",
    kind="construction",
    statement=r"With $V = (bI, 0)$ and $K$ with the lower left block $aI$ the layer predicts $\tilde W_t x_t$, where $\tilde W_t$ is one "
    r"step of gradient descent from $0$ with step $ab/(t-1)$ on $\tfrac12 \sum_{i<t} |x_{i+1} - W x_i|^2$.",
    controls=[
        control("keys are the states themselves, not the ones before", variant="keys not delayed"),
        control("the sum is divided by t instead of t - 1", variant="divided by t"),
    ],
)
def layer_is_one_step(results: Results, variant: str = "claimed") -> Evidence:
    worst = results[construction]["error"].sel(variant=variant).max()
    return Evidence.exact(worst, "<=", 1.0, "1: the rounding error that sums over T tokens of 2 d products may leave")


# %% [markdown]
# ## Which weights and which positions matter
#
# *Blocks.* Turn all phases by the same angle, $\lambda_j \to e^{i\phi}\lambda_j$: the law of $W$ stays, $x_t$ turns by
# $(t-1)\phi$, and so the target $x_{t+1}$ by $t\phi$. A term of the prediction takes its value from $x_i$ or $x_{i-1}$, its
# key from $x_i$ or $x_{i-1}$ and its query from $x_t$ or $x_{t-1}$. Only value $x_i$, key $x_{i-1}$, query $x_t$ turns by
# $t\phi$; all other terms turn less, and are orthogonal to the target and to the first kind. So for *every* law of the first
# state the loss is that of the two active blocks plus the energy of what the other blocks add: they can only harm.
#
# *Masks.* Under the prefix mask the first $P$ tokens see one another. The token at position $t \ge P$ sees what it sees under
# a causal mask. In one layer its prediction is therefore the same function of the weights, whatever they are; a token
# *inside* the prefix sees the state that it would have to predict.

# %%
PREFIX = 3


def dense_layer() -> MesaLayer:
    """Two layers with random entries everywhere (d = 2)."""
    rng = stream(0, "dense weights").rng()
    return MesaLayer(*(torch.from_numpy(rng.normal(size=(2, 2 * rows, 4, 2))) for rows in (1, 2)))


def active_blocks(layer: MesaLayer) -> MesaLayer:
    """The same with every other block at 0."""
    value, query_key = (matrix.detach().clone() for matrix in layer.matrices())
    dimension = value.shape[1]
    value[..., dimension:] = 0
    query_key[:, :dimension] = 0
    query_key[:, dimension:, dimension:] = 0
    return MesaLayer.from_complex(value, query_key)


@PROOFS.cases(
    **{
        f"{start}, {phases} phases": {"start": start, "phases": phases}
        for start in (*SYMMETRIC, "ones")
        for phases in ("independent", "harmonic")
    }
)
def dense_weights(config: object, *, start: Start, phases: Phases) -> LabelledArrays:
    """Of two dense random layers at T = 4, relative to their loss: the loss less that of the active blocks and the energy
    of the rest; and what the prefix mask changes in the predictions, at positions from P on and inside the prefix."""
    length = 4
    rule = theory.quadrature(start, 2, length, phases)
    layer = dense_layer()
    states = rule.states.expand(2, *rule.states.shape)
    weights = rule.weights.expand(2, -1)
    mask = masks.causal(length)
    with torch.no_grad():
        loss, of_active = (prediction_loss(variant, states, weights, mask) for variant in (layer, active_blocks(layer)))
        predicted = layer(states, mask)
        rest = (predicted - active_blocks(layer)(states, mask))[:, :, 1:-1].abs().square().sum((-1, -2))
        changed = (layer(states, masks.prefix_lm(length, PREFIX)) - predicted).abs().amax((0, 1, 3))
    split = (loss - of_active - 0.5 * (rest * weights).sum(-1)).abs() / loss
    size = predicted.abs().max()
    return {
        "split": float(split.max()),
        "from P on": float(changed[PREFIX - 1 :].max() / size),
        "inside": float(changed[1 : PREFIX - 1].min() / size),
    }


@PROOFS.claim(
    "mesa-optimization/I4",
    where="derived (turning all phases)",
    kind="identity",
    statement=r"For independent uniform phases and every law of the first state tried, ones among them, the population loss of "
    r"arbitrary weights is that of their two active blocks (value $x_i$, key $x_{i-1}$, query $x_t$) plus half the mean square of "
    r"what the other blocks add to the predictions: no other block can lower the loss.",
    controls=[control("phases that are multiples of one another", phases="harmonic")],
)
def other_blocks_only_harm(results: Results, phases: str = "independent") -> Evidence:
    cases = [f"{start}, {phases} phases" for start in (*SYMMETRIC, "ones")]
    return Evidence.exact(
        results[dense_weights]["split"].sel(case=cases).max(), "<=", 2 * LOSS_BOUND, f"relative {QUADRATURE}, twice"
    )


@PROOFS.claim(
    "mesa-optimization/I0.mask",
    where="derived (one layer under a prefix mask)",
    kind="identity",
    statement=r"For arbitrary weights the predictions under a prefix mask of $P$ tokens are those under the causal mask at every "
    r"position $t \ge P$: a prefix arm and a causal arm scored from $P$ on are one function.",
    controls=[control("positions inside the prefix, which see what they have to predict", where="inside")],
)
def masks_agree_from_the_prefix_on(results: Results, where: str = "from P on") -> Evidence:
    return Evidence.exact(
        results[dense_weights][where].max(),
        "<=",
        rounding_bound(8 * (4 + 8)),
        "rounding error of sums over T tokens of 2 d products",
    )


# %% [markdown]
# ## The loss of a step, and the gradient everywhere else
#
# With independent uniform phases $E|\frac{1}{t-1}\sum_i (\lambda_j \bar\lambda_r)^i|^2 = 1/(t-1)$ for $r \ne j$, which is the only
# place where the number of examples enters: $L(c) = \sum_t \tfrac12 [d c^2 (k_2 + k_3/(t-1)) - 2dck_1 + E|x_1|^2]$. If moreover
# every mixed moment with an odd power of a coordinate vanishes, the gradient in all other entries of $V$ and $K$ is zero, so
# that gradient flow never leaves the diagonal weights. A first state of ones breaks that, and so do phases that are multiples
# of one another, $\lambda_j = e^{-ij\phi}$, as the Fourier modes of periodic advection have.

# %%
MIXING = SIZES[:2]  # d = 1 has no entries that mix coordinates
LAWS_OF_PHASES: dict[str, dict[str, Any]] = {
    **{start: {"start": start, "sizes": SIZES} for start in (*SYMMETRIC, "ones")},
    # d <= 2 cannot tell harmonic phases apart.
    "equal phases": {"start": "rademacher", "phases": "equal", "sizes": ((3, 4),)},
    "harmonic phases": {"start": "rademacher", "phases": "harmonic", "sizes": ((3, 4),)},
}


def exact_gradient(
    start: Start, dimension: int, length: int, phases: Phases = "independent"
) -> tuple[float, float, float]:
    """Loss at a = 0.7, b = 0.4, the largest gradient off the diagonal entries, and the one on them."""
    rule = theory.quadrature(start, dimension, length, phases)
    layer = diagonal_layer(dimension, (KEY,), (VALUE,))
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


@PROOFS.cases(**LAWS_OF_PHASES)
def exact_losses(
    config: object, *, start: Start, sizes: tuple[tuple[int, int], ...], phases: Phases = "independent"
) -> LabelledArrays:
    """Largest relative error of the loss formula, and largest gradients off and on the diagonal entries, where d > 1."""
    errors, off, on = [], [], []
    for dimension, length in sizes:
        loss, other, diagonal = exact_gradient(start, dimension, length, phases)
        law = theory.moments(start, dimension)
        errors.append(abs(loss / float(theory.population_loss(KEY * VALUE, law, dimension, length)) - 1))
        if dimension > 1:
            off.append(other)
            on.append(diagonal)
    return {"loss error": max(errors), "off": max(off), "on": max(on)}


@PROOFS.claim(
    "mesa-optimization/I1",
    where="Section 4; the loss behind Theorem 4.1",
    kind="identity",
    statement=r"For diagonal weights with $c = ab$ the population loss is $\sum_{t=2}^{T-1} \tfrac12 [d c^2 (k_2 + k_3/(t-1)) - 2 d c k_1"
    r" + E|x_1|^2]$ for independent uniform phases and first states with equal moments of their coordinates (Gaussian, sparse, "
    r"uniform, $\pm 1$, ones).",
    controls=[
        control("all coordinates share one phase", cases=("equal phases",)),
        control("phases that are multiples of one another", cases=("harmonic phases",)),
    ],
)
def loss_formula(results: Results, cases: tuple[str, ...] = (*SYMMETRIC, "ones")) -> Evidence:
    worst = results[exact_losses]["loss error"].sel(case=list(cases)).max()
    return Evidence.exact(worst, "<=", LOSS_BOUND, f"relative {QUADRATURE}")


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
    worst = results[exact_losses][quantity].sel(case=list(cases)).max()
    return Evidence.exact(worst, "<=", GRADIENT_BOUND, QUADRATURE)


# %% [markdown]
# ## The flow to the best step
#
# On diagonal weights gradient flow is $\dot a = -b\,L'(c)/d$, $\dot b = -a\,L'(c)/d$, so $a^2 - b^2$ is conserved and
# $\dot c = \sqrt{(a_0^2-b_0^2)^2 + 4c^2}\,(T-2)(k_1 - c\,S)$ with $S = k_2 + k_3h$: logistic from equal starts. From unequal
# ones put $2c = D \sinh u$ with $D = |a_0^2 - b_0^2|$; then $\dot u = \alpha - \beta \sinh u$, which $w = \tanh(u/2)$ makes a
# Riccati equation with constant coefficients, solved by a hyperbolic tangent (`product_flow`). Its right-hand side is positive
# below $c^*$, also where $c < 0$: the flow reaches $c^*$ from *every* start but those on the line $a_0 = -b_0$, from which it
# runs into the saddle $c = 0$. Gradient *descent* with step $\eta$ departs from all this in proportion to $\eta$: it changes
# $a^2-b^2$ by the factor $1 - \eta^2 (L'(c)/d)^2$ a step.

# %%
RATES = (4e-3, 2e-3, 1e-3)
TIME = 1.2
FLOW_START: Start = "rademacher"
FLOW_DIMENSION, FLOW_LENGTH = 2, 4
EQUAL = "equal"
BEGINNINGS = {
    "drift": (0.1, 0.6),
    EQUAL: (0.3, 0.3),
    "unequal": (0.2, 0.9),
    "opposite signs": (0.5, -0.2),
    "the other way": (-0.2, 0.6),
}


def diagonal_path(
    rule: theory.Quadrature, keys: tuple[float, ...], values: tuple[float, ...], rate: float, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a, b and c = ab along gradient descent on the exact loss of all weights: [step, beginning]."""
    start = diagonal_layer(FLOW_DIMENSION, keys, values)
    path = gradient_descent(start, rule.states, rule.weights, masks.causal(FLOW_LENGTH), rate=rate, steps=steps)
    key, value = path.query_key[:, :, FLOW_DIMENSION, 0].real, path.value[:, :, 0, 0].real
    return key.numpy(), value.numpy(), path.step_product.numpy()


@PROOFS.cases(**{f"rate {rate:g}": {"rate": rate} for rate in RATES})
def flow(config: object, *, rate: float) -> LabelledArrays:
    """Drifts of a^2 - b^2 and a^2 + b^2, and distances of c from the trajectory, by beginning; distances also from the
    trajectory to the step of long sequences, and from that of equal starts with the same product."""
    rule = theory.quadrature(FLOW_START, FLOW_DIMENSION, FLOW_LENGTH)
    law = theory.moments(FLOW_START, FLOW_DIMENSION)
    long_run = theory.Moments(law.second, law.fourth, law.sixth, 0.0)  # h -> 0 as sequences grow
    keys, values = (tuple(beginning[place] for beginning in BEGINNINGS.values()) for place in (0, 1))
    key, value, product = diagonal_path(rule, keys, values, rate, round(TIME / rate))
    times = rate * np.arange(len(product))

    def distances(moments: theory.Moments, logistic: bool = False) -> list[float]:
        largest_distances = []
        for place, (first, second) in enumerate(zip(keys, values, strict=True)):
            if logistic:
                first, second = np.sqrt(abs(first * second)), np.sign(first * second) * np.sqrt(abs(first * second))
            trajectory = product_flow(times, float(first), float(second), moments, FLOW_LENGTH)
            largest_distances.append(float(np.abs(product[:, place] - trajectory).max()))
        return largest_distances

    drifts = {
        name: np.abs(path - path[0]).max(0)
        for name, path in (("difference", key**2 - value**2), ("sum", key**2 + value**2))
    }
    quantities = {
        **drifts,
        "trajectory": distances(law),
        "other limit": distances(long_run),
        "logistic": distances(law, logistic=True),
    }
    return {name: labelled(by_beginning, beginning=list(BEGINNINGS)) for name, by_beginning in quantities.items()}


FIRST_ORDER = "first order of Euler's method; its second order is below a tenth here"


def order_in_the_rate(results: Results, quantity: str, beginning: str) -> float:
    """Slope of the logarithm of a drift or distance against that of the step size."""
    measured = results[flow][quantity].sel(beginning=beginning)
    return float(slope(np.array(RATES), measured.sel(case=[f"rate {rate:g}" for rate in RATES]).values))


@PROOFS.claim(
    "mesa-optimization/I2",
    where="proof of Theorem 4.1",
    kind="rate",
    statement=r"Gradient flow conserves $a^2 - b^2$: under gradient descent its drift up to a fixed time is proportional to the step size "
    r"(slope of the drift against the step size within a tenth of 1; from $a_0 = 0.1$, $b_0 = 0.6$).",
    controls=[control("the sum of the squares", quantity="sum")],
)
def difference_of_squares(results: Results, quantity: str = "difference") -> Evidence:
    return Evidence.exact(abs(order_in_the_rate(results, quantity, "drift") - 1), "<=", 0.1, FIRST_ORDER)


@PROOFS.claim(
    "mesa-optimization/I3",
    where="proof of Theorem 4.1 (trajectory derived)",
    kind="rate",
    statement=r"From $a_0 = b_0$ the flow is $c(\tau) = c^*/(1 + (c^*/c_0 - 1) e^{-2(T-2)k_1\tau})$: the distance of gradient descent "
    r"from it is proportional to the step size (slope within a tenth of 1).",
    controls=[control("the limit of long sequences instead of c*", quantity="other limit")],
)
def logistic_trajectory(results: Results, quantity: str = "trajectory") -> Evidence:
    return Evidence.exact(abs(order_in_the_rate(results, quantity, EQUAL) - 1), "<=", 0.1, FIRST_ORDER)


@PROOFS.claim(
    "mesa-optimization/I3.starts",
    where="derived (the flow from any start)",
    kind="rate",
    statement=r"From unequal starts, of equal or opposite signs, $c(\tau) = \tfrac D2 \sinh u(\tau)$ with $D = |a_0^2 - b_0^2|$ and "
    r"$\tanh(u/2)$ a shifted hyperbolic tangent of time (closed form in `product_flow`): the distance of gradient descent from it is "
    r"proportional to the step size (slopes within a tenth of 1, four starts).",
    controls=[
        control("the logistic trajectory of equal starts with the same product", quantity="logistic"),
        control("the limit of long sequences instead of c*", quantity="other limit"),
    ],
)
def trajectory_from_any_start(results: Results, quantity: str = "trajectory") -> Evidence:
    return Evidence.all(
        *(
            Evidence.exact(abs(order_in_the_rate(results, quantity, beginning) - 1), "<=", 0.1, FIRST_ORDER)
            for beginning in BEGINNINGS
            if beginning != EQUAL
        )
    )


@PROOFS.cases(three_pairs={"keys": (0.1, 0.9, 0.3), "values": (0.6, 0.2, 0.3)})
def one_step(config: object, *, keys: tuple[float, ...], values: tuple[float, ...]) -> LabelledArrays:
    """Errors of the formulas for one step of gradient descent, with a^2 + b^2 and with 2 c instead of it."""
    rule = theory.quadrature(FLOW_START, FLOW_DIMENSION, FLOW_LENGTH)
    law, rate = theory.moments(FLOW_START, FLOW_DIMENSION), 0.02
    key, value, product = diagonal_path(rule, tuple(keys), tuple(values), rate, steps=1)
    scored = theory.scored_positions(FLOW_LENGTH)[:, None]
    first = product[0]
    derivative = (first * (law.sixth + law.mixed / (scored - 1)) - law.fourth).sum(0)  # L'(c) / d
    difference = key**2 - value**2
    squares = {"squares": key[0] ** 2 + value[0] ** 2, "twice the product": 2 * first}
    moved = difference[1] - difference[0] * (1 - (rate * derivative) ** 2)
    errors = [
        np.abs([moved, product[1] - first + square_sum * rate * derivative - first * (rate * derivative) ** 2]).max()
        for square_sum in squares.values()
    ]
    return {"error": labelled(errors, formula=list(squares))}


@PROOFS.claim(
    "mesa-optimization/I3.unequal",
    where="proof of Theorem 4.1 (general starts, derived)",
    kind="identity",
    statement=r"From three pairs $(a, b)$, two of them unequal, one step $\eta$ of gradient descent multiplies $a^2 - b^2$ by "
    r"$1 - (\eta L'(c)/d)^2$ and takes $(a^2 + b^2)\, \eta L'(c)/d - c\, (\eta L'(c)/d)^2$ from $c = ab$.",
    controls=[control("2 c instead of a^2 + b^2, as for equal starts", formula="twice the product")],
)
def one_step_from_unequal_starts(results: Results, formula: str = "squares") -> Evidence:
    return Evidence.exact(results[one_step]["error"].sel(formula=formula).max(), "<=", GRADIENT_BOUND, QUADRATURE)
