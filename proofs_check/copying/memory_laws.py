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
# # What a matrix of D columns remembers of n random keys
#
# Linear attention keeps $S = \sum_i v_i k_i^\top$ and answers a key with $S k_q = v_q + \sum_{i \ne q} (k_i \cdot
# k_q)\, v_i$. Keys that are not
# orthogonal disturb each other. For unit keys that look in all directions alike, $E\,(k_i \cdot k_q)^2 = 1 / D$ and mixed terms
# vanish: the error, over the size of a value, is $\frac{n - 1}{D}$. It passes 1, the error of answering nothing, at $n = D + 1$.
#
# The *delta rule* first takes away what the memory would answer, $S \leftarrow S (I - k k^\top) + v k^\top$. The
# last key is then answered
# exactly, and each later key erases a share of it. Let a pair have m newer and o older ones. Its own value comes back with the
# factor $c = k_q^\top P_{q+1} \cdots P_n k_q$, with $P_j = I - k_j k_j^\top$. For a key uniform on the sphere
# $E\,P A P = (1 - \frac2D) A + \frac{\mathrm{tr}(A) I + 2 A}{D (D + 2)}$, a linear recursion in the plane of $k_q
# k_q^\top$ and $I$ which is solved at once:
# $E\,c = r^m$, $E\,c^2 = \rho^m + \beta_m$. Newer values disturb by $1 - r^m$, older ones by $(D - 1) \beta_m (1 - r^o)$. Together
# $2 - 3 r^m + \rho^m + \beta_m + (D - 1) \beta_m (1 - r^o)$.
#
# *Least squares* over the pairs (recursive least squares, ridge in its limit) answers up to D independent keys
# exactly and then leaves
# $1 - D / n$. So three rules of learning, with the same D numbers for each coordinate of a value, hold $0$, about
# $D$ and a share of $D$ pairs: the
# state's size bounds all of them, and the rule decides how much of it is used. Softmax attention keeps the pairs instead.
#
# Expectations over the sphere are checked without sampling. A *spherical t-design* is a set of points with the same moments up to
# degree t; the pentagon is a 4-design of the circle, the icosahedron a 5-design of the sphere. The errors are
# polynomials of degree 4
# in each key, and so an average over all combinations of such points is the expectation itself.


# %%
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lab import Evidence, Task, control
from lab.domains.copying.memory_capacity import (
    LAWS,
    delta_error,
    enumerated_error,
    least_squares_error,
    memory_error,
    sphere,
    sum_error,
    weights_of,
)
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream


@dataclass(frozen=True)
class Config:
    """Random keys in memories of one size."""

    size: int = 32
    """D"""
    pairs: tuple[int, ...] = (2, 8, 16, 24, 32, 48, 64)
    """n"""
    sharpness: float = 12.0
    """of the softmax over cosines"""
    memories: int = 96
    """memories a draw; least squares, which need no average, take four of them"""
    draws: int = 32
    """draws"""


PROOFS = Task(
    "copying",
    paper="arora-2023-zoology",
    presets={
        "smoke": Config(size=8, pairs=(2, 8, 12), memories=2, draws=2),
        "ci": Config(),
        "paper": Config(size=128, pairs=(8, 32, 64, 128, 192, 256), memories=96, draws=32),
    },
    root=2032,
)
MEMORIES = (*LAWS, "softmax")


@PROOFS.cases(
    circle={},
    sphere={"design": "icosahedron"},
    square={"design": "square"},
    octahedron={"design": "octahedron"},
    skew={"design": "skew"},
)
def enumerated(config: Config, *, design: str = "pentagon") -> LabelledArrays:
    """Error of each of four pairs over all keys from a design, of a sum and of the delta rule, beside the laws."""
    pairs, size = 4, 3 if design in ("icosahedron", "octahedron") else 2
    errors = [enumerated_error(memory, design, pairs) for memory in ("sum", "delta rule")]
    law = [[sum_error(pairs, size)] * pairs, [delta_error(pairs - 1 - place, place, size) for place in range(pairs)]]
    axes = {"memory": ("sum", "delta rule"), "place": range(1, pairs + 1)}
    return {"error": labelled(np.stack(errors), **axes), "law": labelled(law, **axes)}


def distance(results: Results, memory: str, cases: tuple[str, ...]) -> Evidence:
    """Largest distance from the law over all pairs."""
    measured = results[enumerated].sel(case=list(cases), memory=memory)
    far = abs(measured["error"] - measured["law"]).max()
    origin = "rounding: products of 4 keys with 3 coordinates, 4 terms, and a mean of up to 20,736 combinations"
    return Evidence.exact(far.item(), "<=", rounding_bound(20_736 + 100, 4.0), origin)


@PROOFS.claim(
    "copying/R2",
    where="derived",
    kind="rate",
    statement=r"A sum of outer products answers n random unit keys of $\mathbb R^D$ with the error $(n - 1) / D$, "
    r"whichever pair is asked "
    "(n = 4, D = 2 and 3; every combination of keys from a spherical design).",
    controls=[control("keys that prefer a direction", cases=("skew",))],
)
def sums_err_by_their_number(
    results: Results, cases: tuple[str, ...] = ("circle", "sphere", "square", "octahedron")
) -> Evidence:
    return distance(results, "sum", cases)


@PROOFS.claim(
    "copying/R2.delta",
    where="derived",
    kind="rate",
    statement=r"The delta rule at rate 1 answers a pair with m newer and o older ones with the error $2 - 3 r^m + "
    r"\rho^m + \beta_m + (D - 1) \beta_m (1 - r^o)$, with "
    r"$r = 1 - \frac1D$, $\rho = 1 - \frac{2(D + 1)}{D(D + 2)}$, $\beta_m = (r^m - \rho^m) / D$ (four pairs, D = "
    r"2 and 3; every combination of keys from a "
    "spherical 4-design).",
    controls=[
        control("keys from a square, which has the wrong fourth moments", cases=("square",)),
        control("keys from an octahedron, which has them too", cases=("octahedron",)),
    ],
)
def the_delta_rule_forgets_by_a_law(results: Results, cases: tuple[str, ...] = ("circle", "sphere")) -> Evidence:
    return distance(results, "delta rule", cases)


@PROOFS.measurement(seeds=lambda config: config.draws)
def recall_errors(config: Config, seed: int) -> LabelledArrays:
    """Mean error over pairs and memories with random keys, by rule and number of pairs."""
    errors = []
    for pairs in config.pairs:
        keys = sphere(stream(seed, "keys", pairs).rng(), config.memories, pairs, config.size)
        errors.append(
            [
                memory_error(
                    weights_of(memory, keys[:4] if memory == "least squares" else keys, config.sharpness)
                ).mean()
                for memory in MEMORIES
            ]
        )
    return {"error": labelled(errors, pairs=config.pairs, memory=MEMORIES)}


@PROOFS.claim(
    "copying/R2.capacity",
    where="derived",
    kind="rate",
    statement="With 32 numbers for each coordinate of a value, random pairs are answered with the errors of the "
    "laws, within $5\\,\\%$: 8 pairs by a "
    r"sum with $7/32$, 48 pairs by a sum with $47/32$, by the delta rule with $0.855$, and by least squares with "
    r"$1/3$. More keys than the "
    "state can hold are no failure of a rule; the law says what they cost.",
    controls=[
        control("the law of n / D for a sum", memories=("sum",), shift=1),
        control("the delta rule held to the law of a sum", memories=("delta rule",), law="sum"),
        control("least squares held to the law of the delta rule", memories=("least squares",), law="delta rule"),
    ],
)
def memories_follow_their_laws(
    results: Results, memories: tuple[str, ...] = tuple(LAWS), law: str = "", shift: int = 0
) -> Evidence:
    config, error = results.config, results[recall_errors]["error"]
    most = max(pairs for pairs in config.pairs if pairs <= 1.5 * config.size)
    places = [(memory, most) for memory in memories] + [("sum", 8)] * ("sum" in memories)
    return Evidence.all(
        *(
            Evidence.equals(
                error.sel(pairs=pairs, memory=memory),
                LAWS[law or memory](pairs + shift, config.size),
                within=0.05,
                origin=f"{memory}, {pairs} pairs: law of random keys; tolerance from the spread on pilot seeds (root 0)",
            )
            for memory, pairs in places
        )
    )


@PROOFS.claim(
    "copying/R2.exact",
    where="derived",
    kind="identity",
    statement="Least squares answers as many random keys as the state has columns, to rounding, and of n more "
    "than that leaves $1 - D / n$ of every "
    "value on average, in each draw of keys.",
    controls=[control("a sum in its place", memory="sum"), control("the delta rule in its place", memory="delta rule")],
)
def least_squares_fill_the_state(results: Results, memory: str = "least squares") -> Evidence:
    config, parts = results.config, []
    for pairs in config.pairs:
        error = results[recall_errors]["error"].sel(pairs=pairs, memory=memory)
        far = abs(error - least_squares_error(pairs, config.size)).max().item()
        # A random square matrix has a condition number of some thousand at most; its inverse errs by that many units.
        bound = rounding_bound(pairs * config.size * 1e4)
        parts.append(
            Evidence.exact(far, "<=", bound, f"{pairs} pairs: rounding of a pseudo-inverse, condition to 10^4")
        )
    return Evidence.all(*parts)


@PROOFS.figure
def capacity(results: Results) -> Sheet:
    """Error of recall against the number of pairs, for four memories."""
    config, error = results.config, results[recall_errors]["error"]
    sheet = Sheet(width=6.2, height=4.2)
    panel = sheet.panel(
        f"one state of D = {config.size} columns, three rules, and a cache",
        x="pairs n",
        y=r"error, $|S k_q - v_q|^2$ over $|v_q|^2$",
        ylim=(-0.05, 2.1),
        legend="upper left",
    )
    for memory in MEMORIES:
        panel.curve(error.sel(memory=memory), "pairs", name=memory if memory in LAWS else "softmax over all pairs")
    for law in LAWS.values():
        panel.theory(config.pairs, [law(pairs, config.size) for pairs in config.pairs], name="laws")
    panel.level(config.size, "n = D", vertical=True)
    panel.level(1.0, "answering 0")
    return sheet


# %%
PROOFS.show(sums_err_by_their_number)
PROOFS.show(the_delta_rule_forgets_by_a_law)
PROOFS.show(capacity)
PROOFS.show(memories_follow_their_laws)
PROOFS.show(least_squares_fill_the_state)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
