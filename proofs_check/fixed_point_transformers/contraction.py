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
# # When does iterated attention have a fixed point?
#
# Instead of stacking layers, iterate one: $u \leftarrow (1 - \alpha) u + \alpha f(u)$ with $f(u) = x + A(u)\, V
# W_O$, the values $V = x W_V$ being computed
# once (Mathur et al. 2025). If $f$ contracts, there is one fixed point, it is approached geometrically, and the
# movement of the last step bounds what is left. So: what is the Lipschitz constant of $f$?
#
# Scores are *quadratic* in u. On the ball $|u_i| \le R = \max_i |x_i| + |W_O| \max_j |v_j|$, which $f$ does not
# leave, a score moves by at most
# $B = 2 \frac{|W_Q W_K^\top|}{\sqrt d\,\tau} R\,|du|$. The weights of a row move together by at most B, their sum
# stays 1, and so what is read
# moves by at most $B\,\mathrm{diam}(V) / 2$:
#
# $$ \mathrm{Lip}(f) \le L = |W_O|\, \frac{|W_Q W_K^\top|}{\sqrt d\,\tau}\, R\, \mathrm{diam}(V) . $$
#
# Who is seen appears nowhere: the bound holds under every mask. A bound that multiplies the norms of the weights alone,
# $\sigma_Q \sigma_K \sigma_O / (\sqrt d\,\tau) < 1$, lacks R and diam(V), and cannot be enough. Two tokens of one
# coordinate, $x = (R, -R)$, show
# it: by symmetry $u = (y, -y)$ and $y \leftarrow R (1 - 0.9 \tanh(0.81 y^2))$, with the quoted value $0.729$ at
# every R. At $R = 2$ it
# jumps to and fro between two states for ever.


# %%
from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.fixed_point_laws import orbit, quoted_value, two_token_layer, two_token_slope
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.mixers.fixed_point import FixedPointAttention
from lab.results import Results
from lab.streams import stream

PROOFS = Task("fixed-point-transformers", paper="mathur-2025-fixed-point")
SHAPES = ((2, 2), (3, 4), (5, 3), (8, 6), (11, 9))  # tokens, width
LAYERS = 200
PATTERNS = {"full": masks.full, "causal": masks.causal, "prefix": lambda length: masks.prefix_lm(length, length // 2)}


def layers(width: int, scale: float, spread: float) -> FixedPointAttention:
    """Random layers of one head, with weights of sizes that spread over a range."""
    rng = stream(0, "layers", width, round(1000 * scale)).rng()
    scales = scale * np.exp(spread * rng.standard_normal((LAYERS, 1, 1, 1)))
    drawn = scales * rng.standard_normal((4, LAYERS, 1, width, width)) / width**0.5
    return FixedPointAttention(*torch.from_numpy(drawn))


def inputs(tokens: int, width: int, name: str = "inputs", sizes: float = 1.0) -> Tensor:
    """One prompt a layer [layer, 1, 1, token, width]."""
    return sizes * torch.from_numpy(stream(0, name, tokens, width).rng().standard_normal((LAYERS, 1, 1, tokens, width)))


def rows(u: Tensor) -> Tensor:
    """max_i |u_i|, [layer]."""
    return torch.linalg.vector_norm(u, dim=-1).amax(-1)[:, 0, 0]


@PROOFS.cases(all={})
def stretches(config: object) -> LabelledArrays:
    """|f(u) - f(u')| / |u - u'| over the bound L, and over it without R and without diam(V), for near and far pairs."""
    ratios = []
    for (tokens, width), size in itertools.product(SHAPES, (1.0, 12.0)):
        layer, x = layers(width, 0.4, 0.7), inputs(tokens, width, sizes=size)
        radius, lipschitz = layer.radius(x)[:, 0, 0], layer.lipschitz(x)[:, 0, 0]
        values = x @ layer.value
        diameter = torch.cdist(values, values).amax((-1, -2))[:, 0, 0]
        for pattern, apart in itertools.product(PATTERNS.values(), (1e-3, 1.0)):
            allowed = pattern(tokens)
            first = inputs(tokens, width, "state", size)
            second = first + apart * inputs(tokens, width, "other state")
            # Into the ball, which f does not leave.
            shrink = (radius / torch.maximum(rows(first), rows(second))).clamp_max(1.0)[:, None, None, None, None]
            first, second = shrink * first, shrink * second
            moved = rows(layer.step(first, x, allowed) - layer.step(second, x, allowed)) / rows(first - second)
            ratios.append(
                torch.stack((moved / lipschitz, moved / (lipschitz / radius), moved / (lipschitz / diameter)))
            )
    every = torch.cat(ratios, 1)
    return {"ratio": labelled(every, bound=("L", "without R", "without diam(V)"), pair=None)}


@PROOFS.claim(
    "fixed-point-transformers/I1",
    where="derived",
    kind="identity",
    statement=r"For one head with frozen values, $\mathrm{Lip}(f) \le |W_O|\, \frac{|W_Q W_K^\top|}{\sqrt "
    r"d\,\tau}\, R\, \mathrm{diam}(V)$ on the ball that f does not leave: 12,000 "
    "pairs of states, near and far, of small and of large prompts, five shapes, full, causal and prefix masks, "
    "and none stretches further.",
    controls=[
        control("the bound without R", bound="without R"),
        control("the bound without diam(V)", bound="without diam(V)"),
    ],
)
def no_pair_stretches_beyond_the_bound(results: Results, bound: str = "L") -> Evidence:
    ratio = results[stretches]["ratio"].sel(case="all", bound=bound)
    return Evidence.exact(
        ratio.max().item(), "<=", 1 + 1e-6, "stretch over the bound; rounding of a difference of 1e-3"
    )


RATE, STEPS = 0.9, 150


@PROOFS.cases(claimed={}, loose={"target": 200.0})
def approaches(config: object, *, target: float = RATE) -> LabelledArrays:
    """Largest movement of a step over what decay at the rate 0.9 allows, and distance of two ends over what it leaves.

    Queries and keys are scaled so that the bound L is ``target``; R and diam(V) do not know them.
    """
    tokens, width = 6, 5
    x, layer = inputs(tokens, width), layers(width, 1.0, 0.3)
    layer.scale = layer.scale * target / layer.lipschitz(x)[..., None, None]
    radius = layer.radius(x)[:, 0, 0]
    over, ends = [], []
    for pattern in PATTERNS.values():
        allowed, states = pattern(tokens), []
        for start in (x, 0.5 * x):
            u, first = start, None
            for step in range(STEPS):
                after = layer.step(u, x, allowed)
                movement = rows(after - u)
                first = movement if first is None else first
                over.append((movement - 1e-12) / (RATE**step * first))  # below 1e-12 there is rounding only
                u = after
            states.append(u)
        ends.append(rows(states[0] - states[1]) / (4 * radius * RATE**STEPS))
    return {
        "movement": labelled(torch.stack(over).amax(0), layer=None),
        "ends": labelled(torch.stack(ends).amax(0), layer=None),
    }


@PROOFS.claim(
    "fixed-point-transformers/I1.rate",
    where="derived",
    kind="rate",
    statement="Where $L < 1$ the movement of step k is at most $L^k$ times that of the first, and two starts end "
    "at one point (200 layers scaled to "
    "$L = 0.9$, 150 steps, full, causal and prefix masks).",
    controls=[control("layers scaled to L = 200, which need not contract", case="loose")],
)
def contractions_settle_geometrically(results: Results, case: str = "claimed") -> Evidence:
    measured = results[approaches].sel(case=case)
    return Evidence.all(
        Evidence.exact(measured["movement"].max().item(), "<=", 1 + 1e-6, "movement over decay at 0.9, rounding aside"),
        Evidence.exact(
            measured["ends"].max().item(), "<=", 1.0, "distance of the ends over 4 R 0.9^k, which decay leaves"
        ),
    )


SIZES = (0.5, 1.0, 2.0)


@PROOFS.cases(plain={}, half={"damping": 0.5}, quarter={"damping": 0.25})
def two_tokens(config: object, *, damping: float = 1.0) -> LabelledArrays:
    """The scalar example at R = 0.5, 1 and 2: the quoted value, the bound L, the slope at the fixed point, and the
    last movement."""
    layer = two_token_layer(damping)
    numbers = []
    for size in SIZES:
        x = torch.tensor([size, -size], dtype=torch.float64).view(1, 1, 1, 2, 1)
        solved = layer.solve(x, masks.full(2))
        last = orbit(size, 4000, 2, damping)
        numbers.append(
            [
                quoted_value(layer).item(),
                layer.lipschitz(x).item(),
                two_token_slope(size, damping),
                float(solved.arrived),
                last.min(),
                last.max(),
            ]
        )
    names = ("quoted", "bound", "slope", "arrived", "low", "high")
    return {"number": labelled(numbers, size=SIZES, what=names)}


@PROOFS.claim(
    "fixed-point-transformers/X1",
    where="a bound quoted with an open re-implementation of the layer; our reading of it",
    kind="identity",
    statement=r"Frozen-value attention converges wherever $\sigma_Q \sigma_K \sigma_O / (\sqrt{d_h}\,\tau) < 1$.",
    expected="refuted",
    condition=r"when the bound has the factors R and diam(V) too: $|W_O|\, |W_Q W_K^\top| R\, \mathrm{diam}(V) / "
    r"(\sqrt d\,\tau) < 1$",
    controls=[control("two tokens of size 0.5, for which the bound with both factors is below 1", size=0.5)],
)
def small_norms_are_enough(results: Results, size: float = 2.0) -> Evidence:
    number = results[two_tokens]["number"].sel(case="plain", size=size)
    assert number.sel(what="quoted") < 1
    apart = number.sel(what="high") - number.sel(what="low")
    return Evidence.exact(
        apart.item(), "<=", 1e-9, "distance of the last two states after 4,000 steps, quoted value 0.729"
    )


@PROOFS.claim(
    "fixed-point-transformers/X1.cycle",
    where="derived",
    kind="identity",
    statement=r"Two tokens $(R, -R)$ of one coordinate with the quoted value $0.729$ settle at $R = 0.5$ (where "
    r"$L = 0.69$) and at $R = 1$ (where $L = 2.77$: "
    "the bound is not necessary), and at $R = 2$, where the slope at the fixed point is below $-1$, run between "
    "$1.93680$ and $0.20824$ for "
    "ever.",
    controls=[
        control("R = 1 in the place of R = 2", cycling=1.0),
        control("R = 2 among those that settle", settling=(0.5, 1.0, 2.0)),
    ],
)
def two_tokens_can_cycle(results: Results, cycling: float = 2.0, settling: tuple[float, ...] = (0.5, 1.0)) -> Evidence:
    number = results[two_tokens]["number"].sel(case="plain")
    far = number.sel(size=cycling)
    still = number.sel(size=list(settling))
    apart = (still.sel(what="high") - still.sel(what="low")).max()
    return Evidence.all(
        Evidence.exact(abs(far.sel(what="high") - 1.93680).item(), "<=", 5e-6, "the higher state, to the digits given"),
        Evidence.exact(abs(far.sel(what="low") - 0.20824).item(), "<=", 5e-6, "the lower state, to the digits given"),
        Evidence.exact(far.sel(what="slope").item(), "<", -1, "slope below which a fixed point repels"),
        Evidence.exact(apart.item(), "<=", 1e-9, "distance of the last two states after 4,000 steps"),
    )


@PROOFS.claim(
    "fixed-point-transformers/X1.damping",
    where="derived",
    kind="identity",
    statement=r"Damping turns the slope s at a fixed point into $1 - \alpha + \alpha s$: half a step settles the "
    r"two tokens at $R = 2$, which undamped cycle.",
    controls=[control("without damping", case="plain")],
)
def damping_settles_the_cycle(results: Results, case: str = "half") -> Evidence:
    number = results[two_tokens]["number"].sel(case=case, size=2.0)
    plain = results[two_tokens]["number"].sel(case="plain", size=2.0, what="slope")
    apart = number.sel(what="high") - number.sel(what="low")
    law = 0.5 + 0.5 * plain
    return Evidence.all(
        Evidence.exact(apart.item(), "<=", 1e-9, "distance of the last two states after 4,000 steps"),
        Evidence.exact(abs(number.sel(what="slope") - law).item(), "<=", 1e-12, "slope against its law; rounding"),
    )


@PROOFS.figure
def settling_and_cycling(results: Results) -> Sheet:
    """Last states of the two-token iteration against the size R of the tokens, undamped and with half steps."""
    sheet = Sheet(columns=2, width=4.8, height=3.9)
    sizes = np.linspace(0.25, 4.0, 151)
    for damping, title in ((1.0, "one fixed point, then two states"), (0.5, "half steps settle at every size")):
        panel = sheet.panel(title, x="size R of the two tokens", y="last 16 states y", ylim=(-0.1, 4.1))
        states = np.array([orbit(size, 1000, 16, damping) for size in sizes])
        panel.axes.plot(np.repeat(sizes, 16), states.ravel(), ".", color="black", markersize=1.2)
        panel.note("last states", sizes, states.mean(1), words="points: 16 states after 984 steps")
        lost = [size for size in sizes if two_token_slope(size, damping) < -1]
        if lost:
            panel.level(min(lost), "slope -1", vertical=True)
    return sheet


# %%
PROOFS.show(no_pair_stretches_beyond_the_bound)
PROOFS.show(contractions_settle_geometrically)
PROOFS.show(small_norms_are_enough)
PROOFS.show(settling_and_cycling)
PROOFS.show(two_tokens_can_cycle)
PROOFS.show(damping_settles_the_cycle)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
