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
# # One attention layer on a fixed binary chain
#
# Now the chain is the same for all sequences: $P = \begin{pmatrix} 1-p & p \\ q & 1-q \end{pmatrix}$, with
# $\pi = (q, p)/(p + q)$. The answer is a function of the current token alone. A single layer whose embedding vector is also
# its read-out vector (tied), started symmetric and of rank one, stays in a family of three numbers: embedding $e$,
# attention $w$, bias $b$, with
# $$ \mathrm{logit}(x) = s\,x + b - \tfrac12 e^2, \qquad s = e^2 (1 + 2 w |w|), \qquad x \in \{0, 1\}. $$
# The loss is a function of the *slope* $s$ once $b$ is optimal. Three facts follow.
# %%
from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from scipy import integrate, optimize
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.chains.markov import (
    basin_edge,
    canonical_flow,
    canonical_loss,
    canonical_slope,
    conserved_energy,
    entropy_rate,
    kernel_slope,
    optimal_bias,
    stationary_entropy,
    trap_curvature,
)
from lab.domains.chains.markov_prompts import binary_kernel
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from lab.tasks import NoConfig

PROOFS = Task("induction-heads-markov", paper="induction-heads-markov")
KERNELS = {f"p = {p}, q = {q}": (p, q) for p, q in ((0.5, 0.8), (0.8, 0.7), (0.2, 0.3), (0.1, 0.1), (0.9, 0.9))}
EDGE = -(0.5**0.5)  # the attention w at which the slope changes its sign


def points(number: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """Random (e, w, b)."""
    e, w, b = torch.from_numpy(stream(0, "points").rng().normal(size=(3, number)))
    return e, w, b


def best_loss(embedding: Tensor, attention: Tensor, p: float, q: float) -> Tensor:
    """The loss at (e, w) with its optimal bias."""
    return canonical_loss(embedding, attention, optimal_bias(embedding, attention, p, q), p, q)


@PROOFS.cases(claimed={}, unshifted={"shift": 0.5})
def optimal_biases(config: NoConfig, *, shift: float = 0.0) -> LabelledArrays:
    """Largest differences at random points of the loss from its enumeration, and gradients in b at its optimum.

    A multiple ``shift`` of e^2 is left out of the optimal bias.
    """
    embedding, attention, bias = points()
    losses, gradients = [], []
    for p, q in KERNELS.values():
        kernel = binary_kernel(p, q)
        pi = torch.tensor([q, p], dtype=torch.float64) / (p + q)
        logit = canonical_slope(embedding, attention).unsqueeze(-1) * torch.arange(2.0, dtype=torch.float64)
        logit = logit + (bias - embedding**2 / 2).unsqueeze(-1)
        law = torch.stack([torch.sigmoid(-logit), torch.sigmoid(logit)], -1).log()
        enumerated = -(pi.unsqueeze(-1) * kernel * law).sum((-1, -2))
        losses.append(float((canonical_loss(embedding, attention, bias, p, q) - enumerated).abs().max()))
        best = optimal_bias(embedding, attention, p, q) - shift * embedding**2
        best = best.detach().requires_grad_()
        total = canonical_loss(embedding, attention, best, p, q).sum()
        gradients.append(float(torch.autograd.grad(total, best)[0].abs().max()))
    return {"loss": labelled(losses, kernel=list(KERNELS)), "gradient": labelled(gradients, kernel=list(KERNELS))}


@PROOFS.cases(claimed={}, mirrored={"sign": -1})
def minima(config: NoConfig, *, sign: int = 1) -> LabelledArrays:
    """Largest differences of probabilities and loss from those of the kernel, at slope s* (``sign`` 1) or -s*."""
    differences = []
    for p, q in KERNELS.values():
        kernel = binary_kernel(p, q)
        # A point of that slope: e = 1 and w |w| = (s - 1) / 2.
        product = torch.tensor((sign * kernel_slope(p, q) - 1) / 2, dtype=torch.float64)
        e, w = torch.ones((), dtype=torch.float64), product.sign() * product.abs().sqrt()
        b = optimal_bias(e, w, p, q)
        ones = torch.sigmoid(b - 0.5 + torch.stack([torch.zeros_like(b), canonical_slope(e, w)]))
        away = (ones - torch.stack([kernel[0, 1], kernel[1, 1]])).abs().max()
        excess = (canonical_loss(e, w, b, p, q) - entropy_rate(kernel)).abs()
        differences.append(float(torch.maximum(away, excess)))
    return {"difference": labelled(differences, kernel=list(KERNELS))}


@PROOFS.cases(random_points={})
def shallow_gains(config: NoConfig) -> LabelledArrays:
    """By how much the best random point with w >= -1/sqrt(2) beats the unigram (negative: by how much it misses)."""
    embedding, attention, _ = points()
    shallow = attention.clamp_min(EDGE)
    gains = [
        float(stationary_entropy(binary_kernel(p, q)) - best_loss(embedding, shallow, p, q).min())
        for p, q in KERNELS.values()
    ]
    return {"gain": labelled(gains, kernel=list(KERNELS))}


# Logits here reach 40, so that a loss carries their rounding and that of a logarithm or two.
CANONICAL_ROUNDING = rounding_bound(60, 60.0)


@PROOFS.claim(
    "induction-heads-markov/L1",
    where="Makkuva et al., canonical parametrisation, the optimal bias",
    kind="identity",
    statement=r"The loss of logit$(x) = s x + b - e^2/2$ is the cross entropy over the four pairs of neighbours, and "
    r"$b^* = \frac{e^2}{2} + \log \frac{p - q + \sqrt{(p - q)^2 + 4 p q\, e^s}}{2 q\, e^s}$ makes its derivative in $b$ vanish.",
    controls=[control("the bias without its shift e^2/2", case="unshifted")],
)
def optimal_bias_is_stationary(results: Results, case: str = "claimed") -> Evidence:
    measured = results[optimal_biases].sel(case=case).max()
    origin = "rounding of logits up to 40 and their sigmoids"
    return Evidence.all(
        *(Evidence.exact(float(measured[name]), "<=", CANONICAL_ROUNDING, origin) for name in ("loss", "gradient"))
    )


@PROOFS.claim(
    "induction-heads-markov/L1-minima",
    where="Makkuva et al., global minima",
    kind="identity",
    statement=r"At slope $s^* = \log \frac{(1-p)(1-q)}{pq}$ and $b = b^*$ the model is the kernel itself, $P(1|0) = p$ and "
    r"$P(1|1) = 1 - q$, with the entropy rate as its loss.",
    controls=[control("the slope of opposite sign", case="mirrored")],
)
def global_minima(results: Results, case: str = "claimed") -> Evidence:
    difference = results[minima]["difference"].sel(case=case).max()
    return Evidence.exact(float(difference), "<=", CANONICAL_ROUNDING, "rounding of logits and sigmoids")


@PROOFS.claim(
    "induction-heads-markov/L1-sign",
    where="Makkuva et al., global minima; derived",
    kind="identity",
    statement=r"If $p + q > 1$ then no point with $w \ge -1/\sqrt 2$ does better than the unigram, $L \ge H(\pi)$: the loss is "
    r"convex in the slope, whose best value is negative there, and the slope is not.",
    controls=[control("p + q < 1", above=False)],
)
def negative_attention_is_needed(results: Results, above: bool = True) -> Evidence:
    chosen = [name for name, (p, q) in KERNELS.items() if (p + q > 1) == above]
    gain = results[shallow_gains]["gain"].sel(kernel=chosen).max()
    return Evidence.exact(float(gain), "<=", CANONICAL_ROUNDING, "rounding of a loss")


# %%
PROOFS.show(optimal_bias_is_stationary)
PROOFS.show(global_minima)
PROOFS.show(negative_attention_is_needed)

# %% [markdown]
# At $e = 0$ the current token is invisible and $b = \log(p/q)$ makes the model the unigram, whose loss is $H(\pi)$. The
# gradient vanishes there. Whether it is a valley or a saddle is decided by one second derivative.


# %%
@PROOFS.cases(claimed={}, flipped={"sign": -1})
def trap_checks(config: NoConfig, *, sign: int = 1) -> LabelledArrays:
    """Gradient, excess over H(pi) and error of the curvature at e = 0, b = log(p/q); the formula has ``sign`` times w."""
    attention = torch.tensor([-1.2, -0.9, -0.3, 0.05, 0.5], dtype=torch.float64)
    rows = []
    for p, q in KERNELS.values():
        e = torch.zeros_like(attention).requires_grad_()
        w = attention.clone().requires_grad_()
        b = torch.full_like(attention, np.log(p / q)).requires_grad_()
        loss = canonical_loss(e, w, b, p, q)
        first = torch.autograd.grad(loss.sum(), (e, w, b), create_graph=True)
        second = torch.autograd.grad(first[0].sum(), e)[0]
        gradient = max(float(part.detach().abs().max()) for part in first)
        level = float((loss.detach() - stationary_entropy(binary_kernel(p, q))).abs().max())
        curvature = float((second.detach() - trap_curvature(sign * attention, p, q)).abs().max())
        rows.append((gradient, level, curvature))
    names = ("gradient", "level", "curvature")
    return {name: labelled(values, kernel=list(KERNELS)) for name, values in zip(names, np.array(rows).T, strict=True)}


@PROOFS.claim(
    "induction-heads-markov/L2",
    where="Makkuva et al., bad local minima",
    kind="identity",
    statement=r"At $e = 0$, $b = \log(p/q)$ the gradient vanishes, $L = H(\pi)$ and $\partial^2 L/\partial e^2 = -2 (1 + 2 w|w|)"
    r"\, \pi_0 \pi_1 (1 - p - q)$: for $w > -1/\sqrt 2$ and $p + q \ne 1$ the unigram is a local minimum exactly if "
    r"$p + q > 1$.",
    controls=[control("the formula with the sign of w turned round", case="flipped")],
)
def trap_is_a_local_minimum(results: Results, case: str = "claimed") -> Evidence:
    measured = results[trap_checks].sel(case=case).max()
    bound, origin = (rounding_bound(60, 4.0), "rounding of a loss and its derivatives at logits below 3")
    return Evidence.all(
        *(Evidence.exact(float(measured[name]), "<=", bound, origin) for name in ("gradient", "level", "curvature"))
    )


# %%
PROOFS.show(trap_is_a_local_minimum)

# %% [markdown]
# Under gradient flow with $b = b^*(e, w)$ both $\dot e$ and $\dot w$ are multiples of the same $\partial L / \partial s$:
# $$ \frac{de}{dw} = \frac{2 e (1 + 2 w |w|)}{4 e^2 |w|} \quad\Longrightarrow\quad
#   \mathcal E = e^2 - w^2 - \mathrm{sign}(w) \log |w| \ \text{ is conserved,} $$
# whatever $p$ and $q$: the paths are known, only the direction along them depends on the chain. Through the point
# $e = 0$, $w = -1/\sqrt 2$, where the trap changes its nature, runs the path that parts the starts that end in the trap from
# those that escape.


# %%
@PROOFS.cases(optimal={}, zero={"bias": "zero"})
def energy_rates(config: NoConfig, *, bias: str = "optimal") -> LabelledArrays:
    """At random points: |d energy / dt| over |gradient| along the flow, and the distance of the flow from its closed form."""
    rates, differences = [], []
    for p, q in KERNELS.values():
        e, w, _ = points()
        b = optimal_bias(e, w, p, q) if bias == "optimal" else torch.zeros_like(e)
        e, w = e.requires_grad_(), w.requires_grad_()
        flow = torch.autograd.grad(-canonical_loss(e, w, b.detach(), p, q).sum(), (e, w))
        level = torch.autograd.grad(conserved_energy(e, w).sum(), (e, w))
        terms = torch.stack([flow[0] * level[0], flow[1] * level[1]])
        rates.append(float((terms.sum(0).abs() / (1 + terms.abs().sum(0))).max()))
        closed = canonical_flow(e.detach(), w.detach(), p, q)
        differences.append(max(float((a - b).abs().max()) for a, b in zip(flow, closed, strict=True)))
    return {"rate": labelled(rates, kernel=list(KERNELS)), "flow": labelled(differences, kernel=list(KERNELS))}


@PROOFS.claim(
    "induction-heads-markov/L3",
    where="Makkuva et al., Local to Global: learning dynamics",
    kind="identity",
    statement=r"Gradient flow in $(e, w)$ with the optimal bias conserves $e^2 - w^2 - \mathrm{sign}(w) \log |w|$, for every "
    r"$p$ and $q$: its rate of change vanishes at random points.",
    controls=[control("the bias is held at 0", case="zero")],
)
def energy_is_conserved(results: Results, case: str = "optimal") -> Evidence:
    measured = results[energy_rates].sel(case=case).max()
    # Logits reach 40 and the flow is a difference of sigmoids times 4 e^2 w, up to 60.
    bound, origin = rounding_bound(100, 100.0), "rounding of logits up to 40 in the flow"
    return Evidence.all(*(Evidence.exact(float(measured[name]), "<=", bound, origin) for name in ("rate", "flow")))


STARTS = {f"e = {e}, w = {w}": (e, w) for e, w in ((0.05, 0.02), (0.5, 0.3), (1.0, -1.1))}
FATES = ("p = 0.2, q = 0.3", "p = 0.8, q = 0.7", "p = 0.5, q = 0.8")
EDGE_FACTORS = (0.9, 0.97, 1.03, 1.1)
# Where the edge is looked for: chains and attention weights, for p + q below and above 1.
EDGES = {
    "below": (("p = 0.2, q = 0.3",), (-0.8, -1.1, -1.5)),
    "above": (("p = 0.8, q = 0.7", "p = 0.5, q = 0.8"), (-0.1, -0.3, -0.6)),
}


def flow_to(starts: Tensor, p: float, q: float, time: float) -> Tensor:
    """Where the flow carries (e, w) [2, starts]."""

    def rate(_: float, state: np.ndarray) -> np.ndarray:
        e, w = torch.from_numpy(state).view(2, -1)
        return torch.stack(canonical_flow(e, w, p, q)).flatten().numpy()

    path = integrate.solve_ivp(rate, (0, time), starts.flatten().numpy(), method="LSODA", rtol=1e-10, atol=1e-12)
    return torch.from_numpy(path.y).view(2, -1, path.y.shape[-1])[..., -1]


@PROOFS.cases(flow={})
def fates(config: NoConfig) -> LabelledArrays:
    """Losses after gradient flow, beside the entropy rate and H(pi)."""
    starts = torch.tensor(list(STARTS.values()), dtype=torch.float64).T
    kernels = torch.stack([binary_kernel(*KERNELS[name]) for name in FATES])
    losses = [best_loss(*flow_to(starts, *KERNELS[name], 4000.0), *KERNELS[name]).numpy() for name in FATES]  # type: ignore[call-arg]
    return {
        "loss": labelled(losses, kernel=FATES, start=list(STARTS)),
        "rate": labelled(entropy_rate(kernels), kernel=FATES),
        "trap": labelled(stationary_entropy(kernels), kernel=FATES),
    }


def starts_at_the_edge(side: str) -> Tensor:
    """Starts (e, w) [2, w * factor]: e^2 is a factor times that of the edge."""
    weights = torch.tensor(EDGES[side][1], dtype=torch.float64)
    squares = basin_edge(weights).unsqueeze(-1) * torch.tensor(EDGE_FACTORS)
    return torch.stack([squares.sqrt(), weights.unsqueeze(-1).expand_as(squares)]).flatten(1)


def losses_from_the_edge(side: str) -> LabelledArrays:
    """Losses after gradient flow from starts around the edge of the basin, beside the entropy rate and H(pi)."""
    names, weights = EDGES[side]
    starts, shape = starts_at_the_edge(side), (len(weights), len(EDGE_FACTORS))
    ends = [(flow_to(starts, *KERNELS[name], 20_000.0), KERNELS[name]) for name in names]
    losses = [best_loss(*end, *kernel).view(shape).numpy() for end, kernel in ends]  # type: ignore[call-arg]
    kernels = torch.stack([binary_kernel(*KERNELS[name]) for name in names])
    return {
        "loss": labelled(losses, kernel=names, w=weights, factor=EDGE_FACTORS),
        "rate": labelled(entropy_rate(kernels), kernel=names),
        "trap": labelled(stationary_entropy(kernels), kernel=names),
    }


@PROOFS.cases(flow={})
def basin(config: NoConfig) -> LabelledArrays:
    """Around the edge for p + q < 1."""
    return losses_from_the_edge("below")


@PROOFS.cases(flow={})
def basin_above(config: NoConfig) -> LabelledArrays:
    """Around the edge for p + q > 1."""
    return losses_from_the_edge("above")


# The slowest rate of decay towards a minimum is |curvature| > 0.02, so that nothing is left of the start at t = 4000;
# what remains is the tolerance of the integration.
ARRIVED = 1e-7


@PROOFS.claim(
    "induction-heads-markov/L4",
    where="Makkuva et al., Local to Global",
    kind="identity",
    statement=r"From small $(e, w)$ gradient flow ends at the entropy rate for $p + q < 1$ and at $H(\pi)$ for $p + q > 1$; from "
    r"$(1, -1.1)$ it ends at the entropy rate for all three chains.",
    controls=[control("the same fate predicted for all chains", by_kernel=False)],
)
def fate_depends_on_the_sign(results: Results, by_kernel: bool = True) -> Evidence:
    measured = results[fates].sel(case="flow")
    trapped = [
        [sum(KERNELS[name]) > 1 and by_kernel and w > EDGE for _, w in STARTS.values()]
        for name in measured["kernel"].values
    ]
    predicted = measured["trap"].where(labelled(trapped, kernel=FATES, start=list(STARTS)), measured["rate"])
    difference = abs(measured["loss"] - predicted).max()
    return Evidence.exact(float(difference), "<=", ARRIVED, "tolerance of the integration to t = 4000")


@PROOFS.claim(
    "induction-heads-markov/L4-basin",
    where="Makkuva et al., Local to Global; derived",
    kind="identity",
    statement=r"For $p + q < 1$ and $w < -1/\sqrt 2$ gradient flow is trapped at the unigram exactly if $e^2 < w^2 + "
    r"\mathrm{sign}(w) \log|w| - (1 + \log 2)/2$: starts at 0.90 and 0.97 times the edge stay, at 1.03 and 1.10 they escape.",
    controls=[control("an edge higher by a fifth", scale=1.2)],
)
def basin_has_an_edge(results: Results, scale: float = 1.0) -> Evidence:
    return parted_at_the_edge(results[basin], scale)


def parted_at_the_edge(basins: xr.Dataset, scale: float) -> Evidence:
    """Starts below ``scale`` times the edge end at the unigram, the others at the entropy rate."""
    measured = basins.sel(case="flow")
    predicted = measured["trap"].where(measured["factor"] < scale, measured["rate"])
    difference = abs(measured["loss"] - predicted).max()
    return Evidence.exact(float(difference), "<=", ARRIVED, "tolerance of the integration to t = 20000")


@PROOFS.claim(
    "induction-heads-markov/L4-basin-above",
    where="derived",
    kind="identity",
    statement=r"The same curve bounds the trap for $p + q > 1$: from $-1/\sqrt 2 < w < 0$ gradient flow ends at the unigram exactly "
    r"if $e^2 < w^2 - \log|w| - (1 + \log 2)/2$, and at the entropy rate beyond it: at 0.90 and 0.97 times the edge it stays, at "
    r"1.03 and 1.10 it escapes, for two chains. A large enough start leaves the trap.",
    controls=[control("an edge higher by a fifth", scale=1.2), control("no edge: every start is trapped", scale=2.0)],
)
def basin_above_has_an_edge(results: Results, scale: float = 1.0) -> Evidence:
    return parted_at_the_edge(results[basin_above], scale)


# %%
PROOFS.show(energy_is_conserved)
PROOFS.show(fate_depends_on_the_sign)
PROOFS.show(basin_has_an_edge)
PROOFS.show(basin_above_has_an_edge)

# %% [markdown]
# For $p + q > 1$ the flow runs along the same paths the other way round. Above the path through $(e, w) = (0, -1/\sqrt 2)$ it
# carries $w$ from small negative values past $-1/\sqrt 2$, where the slope $s$ turns negative and may become the best one;
# below it, $e$ goes to 0 first. So the trap is a bounded region of starts on the side of negative $w$. On the side of
# positive $w$ it has no end, for no path leads from there to negative $w$.
#
# ### Nowhere else to stop
#
# $\partial L/\partial e = 2e (1 + 2w|w|) L_s$ and $\partial L/\partial w = 4 e^2 |w| L_s$. The loss is convex in $(s, b)$,
# so that with the best $b$ its derivative $L_s$ has the sign of $s - s^*$ and vanishes at $s^*$ alone. If both derivatives
# vanish, then $L_s = 0$, a global minimum; or $e = 0$, the unigram; or $w = 0$ and $e (1 + 0) L_s = 0$, again one of the two;
# or $1 + 2 w|w| = 0$, which is $s = 0 \ne s^*$, so that the second one asks for $e = 0$. Without the tie ($u = a e$ in place of
# $e^2$) the same holds with $a = e = 0$, a saddle (`trapped_unigram`, L2-untied), or $w = -1/\sqrt 2$ and $a e = 0$. There is
# no third place where descent could end.


# %%
def slope_pull(slope: Tensor, p: float, q: float, bias: str = "optimal") -> Tensor:
    """L_s = pi_1 (sigmoid(b - e^2/2 + s) - (1 - q)), the bias at its best, or with b = e^2/2 as if it were not there."""
    shift = torch.zeros_like(slope)
    if bias == "optimal":
        growth = slope.exp()
        root = ((p - q) ** 2 + 4 * p * q * growth).sqrt()
        shift = ((p - q + root) / (2 * q * growth) if p >= q else 2 * p / (q - p + root)).log()
    return p / (p + q) * (torch.sigmoid(shift + slope) - (1 - q))


def gradient_at(point: np.ndarray, p: float, q: float, tied: bool, bias: str) -> np.ndarray:
    """(dL/de, dL/dw) at (e, w), or (dL/da, dL/de, dL/dw) at (a, e, w)."""
    first, second, w = (point[0], point[0], point[1]) if tied else point
    gain = 1 + 2 * w * abs(w)
    pull = float(slope_pull(torch.tensor(first * second * gain, dtype=torch.float64), p, q, bias))
    along_w = 4 * first * second * abs(w) * pull
    if tied:
        return np.array([2 * first * gain * pull, along_w])
    return np.array([second * gain * pull, first * gain * pull, along_w])


SEARCHES = 60  # starts for each chain


@PROOFS.cases(tied={}, untied={"tied": False}, no_bias={"bias": "none"})
def critical_points(config: NoConfig, *, tied: bool = True, bias: str = "optimal") -> LabelledArrays:
    """Roots of the gradient from random starts: how many, and how far the farthest is from the unigram and from s*.

    Also the error of the gradient's closed form against differentiation, and the least of L_s sign(s - s*) on a grid of s.
    """
    rows = []
    for p, q in KERNELS.values():
        best, distances = kernel_slope(p, q), []
        starts = stream(0, "searches").rng().normal(scale=1.5, size=(SEARCHES, 2 if tied else 3))
        for start in starts:
            root = optimize.least_squares(
                gradient_at, start, args=(p, q, tied, bias), method="lm", xtol=1e-15, ftol=1e-15, gtol=1e-15
            )
            if np.abs(root.fun).max() > 1e-12 or np.abs(root.x).max() > 20:
                continue  # ran off to where the loss is flat
            first, second, w = (root.x[0], *root.x) if tied else root.x
            gain = 1 + 2 * w * abs(w)
            unigram = max(abs(first), abs(second))
            edge = np.inf if tied else max(abs(gain), abs(first * second))
            distances.append(min(unigram, edge, abs(first * second * gain - best)))
        grid = torch.linspace(-12, 12, 97, dtype=torch.float64) + best
        grid = grid[(grid - best).abs() > 0.1]
        signed = slope_pull(grid, p, q, bias) * (grid - best).sign()
        rows.append((len(distances), max(distances), float(signed.min())))
    names = ("found", "distance", "pull")
    return {name: labelled(values, kernel=list(KERNELS)) for name, values in zip(names, np.array(rows).T, strict=True)}


@PROOFS.claim(
    "induction-heads-markov/L1-critical",
    where="derived",
    kind="identity",
    statement=r"With the optimal bias there are no critical points but the unigram ($e = 0$) and the global minima ($s = s^*$): "
    r"$L_s$ has the sign of $s - s^*$, and each root of the gradient found from 60 random starts for each of five chains is one of "
    r"the two. Without the tie the roots are $a = e = 0$, $s = s^*$, or $w = -1/\sqrt 2$ with $a e = 0$.",
    controls=[control("a model without bias", case="no_bias")],
)
def nowhere_else_to_stop(results: Results, case: str = "tied") -> Evidence:
    cases = (case, "untied") if case == "tied" else (case,)
    return Evidence.all(
        *(
            Evidence.all(
                Evidence.exact(
                    float(critical["pull"].min()), ">", 0, "L_s (sign of s - s*) at |s - s*| from 0.25 to 12"
                ),
                # Gradients below 1e-12: a product of three factors, so that one is below 1e-4.
                Evidence.exact(
                    float(critical["distance"].max()), "<=", 1e-3, "a root of three factors at a gradient of 1e-12"
                ),
                Evidence.exact(float(critical["found"].min()), ">=", SEARCHES / 2, "half of the searches must arrive"),
            )
            for critical in (results[critical_points].sel(case=name) for name in cases)
        )
    )


# %%
PROOFS.show(nowhere_else_to_stop)

# %%
PROOFS.show()
