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
# # What a memory of bounded size holds
#
# A recurrence must forget. How much? Put $n$ pairs into the sum $S = \sum_j v_j k_j^\top$ with keys in $D$ dimensions and ask for one of
# them: $S k_i = v_i + \sum_{j \ne i} (k_j \cdot k_i)\, v_j$. Orthonormal keys, at most $D$ of them, come back exactly. Random directions
# overlap with $E (k_j \cdot k_i)^2 = 1 / D$, so that with independent values of variance 1 the mean square error is $(n - 1) / D$ in each
# coordinate: at $n = D + 1$ as large as the value itself. Only the second moments of the keys enter, so the law can be *enumerated*: keys
# drawn from the $D$ axes have the same second moments.
#
# The delta rule writes what is wrong instead, which erases what stood at the new key. What is stored last comes back exactly, what has
# been forgotten is worth nothing, which costs at most 2 (the value's own variance, and that of what stands in its place), and from two
# items on it is better than adding up. Its law is a recursion in two numbers and takes fourth moments of the keys; in the plane seven
# equally spaced directions have them.
#
# As learners of noiseless linear regression the rungs have exact rates as well. Online, at rate 1 and with unit keys, each example
# removes a random direction: $E \|S_t - W\|^2 = (1 - 1/d)^t \|W\|^2$. With normal keys the factor is $1 - 2b + b^2 (d + 2)$, least at
# $b = 1 / (d + 2)$ and above 1 beyond twice that. One batch step of size $c$ ends at $1 - 2cn + c^2 n (n + d + 1)$: polynomial in $n$
# where the online rule is exponential.


# %%
from __future__ import annotations

import itertools

import numpy as np
import torch

from lab import Evidence, Task, control
from lab.domains.attention.fast_weight_laws import (
    additive_error,
    axis_keys,
    batch_error,
    best_batch_rate,
    circle_keys,
    delta_error,
    enumerated_descent,
    enumerated_recall,
    normal_keys,
    online_error,
)
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.linear_attention._shared import PRESETS, SLUG, Config, within_rounding

PROOFS = Task(SLUG, paper=SLUG, presets=PRESETS, root=2032)
ENUMERATED = "rounding of the enumeration: its operations times its largest term"


# %%
@PROOFS.cases(claimed={}, one_more={"extra": 1})
def orthonormal_recall(config: Config, *, extra: int = 0) -> LabelledArrays:
    """Largest error of a sum of outer products at its D orthonormal keys, and ``extra`` random unit keys more."""
    size, rng = 8, stream(0, "orthonormal").rng()
    keys, _ = np.linalg.qr(rng.standard_normal((size, size)))
    more = rng.standard_normal((extra, size))
    keys = np.concatenate([keys, more / np.linalg.norm(more, axis=1, keepdims=True)])
    values = rng.standard_normal((len(keys), 5))
    error = np.abs(keys @ (keys.T @ values) - values).max()
    return {"difference": float(error), "rounding": rounding_bound(20 * size, size * float(np.abs(values).max()))}


@PROOFS.claim(
    "linear-attention/la.C1",
    where="derived; linear associative memories (Kohonen 1972)",
    kind="construction",
    statement=r"The sum $\sum_j v_j k_j^\top$ returns every value exactly for orthonormal keys, as many as there are "
    "dimensions ($D = 8$).",
    controls=[control("one key more than dimensions", case="one_more")],
)
def orthonormal_keys_come_back(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[orthonormal_recall].sel(case=case))


# Items and dimensions; all D^n sequences of axes are gone through.
MEMORIES = ((1, 3), (2, 2), (3, 3), (4, 3), (5, 2), (4, 4))


@PROOFS.cases(claimed={}, common={"common": 0.5}, corrected={"delta": True})
def enumerated_memory(config: Config, *, common: float = 0.0, delta: bool = False) -> LabelledArrays:
    """Difference between the enumerated mean square error and (n - 1) / D.

    ``common`` is added to all keys before they are made unit vectors again; ``delta`` writes by the delta rule.
    """
    differences, bounds = [], []
    for items, size in MEMORIES:
        keys, weights = axis_keys(size)
        keys = keys + common
        keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
        differences.append(abs(enumerated_recall(keys, weights, items, delta=delta) - additive_error(items, size)))
        bounds.append(rounding_bound(size**items + items * size + 8, 1.0 + items))
    names = [f"n = {items}, D = {size}" for items, size in MEMORIES]
    return {"difference": labelled(differences, memory=names), "rounding": labelled(bounds, memory=names)}


@PROOFS.claim(
    "linear-attention/la.C2",
    where="derived",
    kind="rate",
    statement="A sum of $n$ outer products with isotropic unit keys in $D$ dimensions, values independent and of "
    "variance 1, returns them "
    "with a mean square error of exactly $(n - 1) / D$ a coordinate, by enumeration of all sequences of axes "
    "as keys (six sizes, $n$ up to "
    "5), below and above $n = D$.",
    controls=[control("keys with a common part", case="common"), control("the delta rule", case="corrected")],
)
def capacity_of_a_sum(results: Results, case: str = "claimed") -> Evidence:
    measured = results[enumerated_memory].sel(case=case)
    return Evidence.within(measured["difference"], measured["rounding"], ENUMERATED)


@PROOFS.cases(claimed={}, axes={"directions": 4}, added={"delta": False})
def enumerated_delta_memory(config: Config, *, directions: int = 7, delta: bool = True) -> LabelledArrays:
    """Difference between the enumerated error of the delta rule in the plane and its recursion, by number of items.

    Four directions, those of the axes, have the second moments of the circle but not the fourth ones.
    """
    items = (1, 2, 3, 4)
    keys, weights = circle_keys(directions)
    errors = [enumerated_recall(keys, weights, count, delta=delta) for count in items]
    law = [delta_error(count, 2) for count in items]
    bounds = [rounding_bound(directions**count + 20 * count, 4.0) for count in items]
    return {
        "difference": labelled(np.abs(np.subtract(errors, law)), items=items),
        "rounding": labelled(bounds, items=items),
    }


@PROOFS.claim(
    "linear-attention/fw.R4",
    where="derived",
    kind="rate",
    statement="After one pass of the delta rule at rate 1 over $n$ random unit keys the mean square error of recall is "
    "that of a recursion in "
    "two numbers (`delta_error`), by enumeration in the plane ($n$ up to 4, 7 directions).",
    controls=[
        control("keys on the axes, whose fourth moments are not the circle's", case="axes"),
        control("a sum of outer products", case="added"),
    ],
)
def recall_of_the_delta_rule(results: Results, case: str = "claimed") -> Evidence:
    measured = results[enumerated_delta_memory].sel(case=case)
    return Evidence.within(measured["difference"], measured["rounding"], ENUMERATED)


@PROOFS.cases(claimed={})
def recall_by_items(config: Config) -> LabelledArrays:
    """Laws of both memories by number of items and dimension."""
    items, sizes = range(1, 257), (4, 32)
    laws = {"sum": additive_error, "delta rule": delta_error}
    errors = [[[law(count, size) for count in items] for size in sizes] for law in laws.values()]
    return {"error": labelled(errors, memory=list(laws), size=sizes, items=items)}


@PROOFS.claim(
    "linear-attention/fw.R4.better",
    where="derived",
    kind="ordering",
    statement="By these laws the delta rule returns what it was shown with less error than a sum, for every number of "
    "items from 2 to 256, "
    "in 4 and in 32 dimensions, and never with more than 2.",
    controls=[control("the sum in its place", memory="sum")],
)
def correcting_is_better_than_adding(results: Results, memory: str = "delta rule") -> Evidence:
    error = results[recall_by_items]["error"].sel(case="claimed", items=slice(2, None))
    gain = (error.sel(memory="sum") - error.sel(memory=memory)).min()
    return Evidence.all(
        Evidence.exact(float(gain), ">", 0.0, "the error of the sum"),
        Evidence.exact(
            float(error.sel(memory=memory).max()), "<=", 2.0, "the variance of the value and of what replaces it"
        ),
    )


# %% [markdown]
# ## Rates as learners


# %%
@PROOFS.cases(claimed={}, unequal={"stretch": 2.0})
def enumerated_online(config: Config, *, stretch: float = 1.0) -> LabelledArrays:
    """Difference between the enumerated error of online descent at rate 1 with unit keys, and its law.

    ``stretch`` makes the first axis so many times as likely as another.
    """
    cases = ((2, 4), (3, 3), (4, 3))
    differences, bounds = [], []
    for size, steps in cases:
        keys, weights = axis_keys(size)
        weights = weights * np.where(np.arange(size) == 0, stretch, 1.0)
        error = enumerated_descent(keys, weights / weights.sum(), steps, 1.0, batch=False)
        differences.append(abs(error - online_error(steps, size)))
        bounds.append(rounding_bound(size**steps + 4 * steps * size, 1.0))
    names = [f"d = {size}, t = {steps}" for size, steps in cases]
    return {"difference": labelled(differences, problem=names), "rounding": labelled(bounds, problem=names)}


@PROOFS.claim(
    "linear-attention/fw.R1",
    where="derived",
    kind="rate",
    statement=r"On noiseless linear regression with isotropic unit keys the delta rule at rate 1 has $E \|S_t - W\|^2 = "
    r"(1 - 1/d)^t \|W\|^2$, by "
    "enumeration of all sequences of axes.",
    controls=[control("one axis twice as likely as another", case="unequal")],
)
def online_rate_with_unit_keys(results: Results, case: str = "claimed") -> Evidence:
    measured = results[enumerated_online].sel(case=case)
    return Evidence.within(measured["difference"], measured["rounding"], ENUMERATED)


RATES = ("1 / (d + 2)", "1 / (d + 2) and a tenth more", "2.2 / (d + 2)")


@PROOFS.cases(claimed={}, unit={"of_law": "unit"}, coarse={"nodes": 2})
def enumerated_normal(config: Config, *, of_law: str = "normal", nodes: int = 3) -> LabelledArrays:
    """Difference between the error of online descent with normal keys by quadrature, and its law, by rate.

    Two nodes a coordinate have the second moments of the normal law and not the fourth ones; ``unit`` compares with the
    law of unit keys.
    """
    size, steps = 2, 3
    rates = [factor / (size + 2) for factor in (1.0, 1.1, 2.2)]
    keys, weights = normal_keys(size, nodes)
    errors = [enumerated_descent(keys, weights, steps, rate, batch=False) for rate in rates]
    laws = [online_error(steps, size, rate, normal=of_law == "normal") for rate in rates]
    bound = rounding_bound(len(keys) ** steps + 20 * steps * size, 4.0**steps)
    return {
        "difference": labelled(np.abs(np.subtract(errors, laws)), rate=RATES),
        "law": labelled(laws, rate=RATES),
        "rounding": bound,
    }


@PROOFS.claim(
    "linear-attention/fw.R2",
    where="derived",
    kind="rate",
    statement=r"With standard normal keys each example multiplies $E \|S_t - W\|^2$ by $1 - 2b + b^2 (d + 2)$, by "
    "Gauss-Hermite quadrature that "
    "is exact for these moments ($d = 2$, three steps, three rates): less at $b = 1 / (d + 2)$ than at a rate "
    "a tenth higher, and more than at "
    "the start beyond $2 / (d + 2)$.",
    controls=[
        control("the law of unit keys", case="unit"),
        control("two nodes a coordinate, without the fourth moments", case="coarse"),
    ],
)
def online_rate_with_normal_keys(results: Results, case: str = "claimed") -> Evidence:
    measured = results[enumerated_normal].sel(case=case)
    best, higher, too_high = (measured["law"].sel(rate=rate) for rate in RATES)
    return Evidence.all(
        Evidence.within(measured["difference"], measured["rounding"], ENUMERATED),
        Evidence.exact(higher - best, ">", 0.0, "the error at the best rate"),
        Evidence.exact(too_high, ">", 1.0, "the error at the start"),
    )


@PROOFS.cases(claimed={}, coarse={"nodes": 2})
def enumerated_batch(config: Config, *, nodes: int = 3) -> LabelledArrays:
    """Difference between the error of one batch step with normal keys by quadrature, and its law, by size and rate."""
    problems, differences, bounds = ((2, 1), (2, 3), (1, 5)), [], []
    for size, examples in problems:
        keys, weights = normal_keys(size, nodes)
        for rate in (1 / examples, best_batch_rate(examples, size)):
            error = enumerated_descent(keys, weights, examples, rate, batch=True)
            differences.append(abs(error - batch_error(examples, size, rate)))
            bounds.append(rounding_bound(len(keys) ** examples + 20 * examples * size, 10.0 * examples**2))
    shape = (len(problems), 2)
    axes = {"problem": [f"d = {d}, n = {n}" for d, n in problems], "rate": ("1 / n", "best")}
    return {
        "difference": labelled(np.reshape(differences, shape), **axes),
        "rounding": labelled(np.reshape(bounds, shape), **axes),
    }


@PROOFS.claim(
    "linear-attention/fw.R3",
    where="derived",
    kind="rate",
    statement=r"One batch step of size $c$ on $n$ standard normal keys has $E \|S - W\|^2 / \|W\|^2 = 1 - 2cn + c^2 n (n "
    "+ d + 1)$, by exact "
    "quadrature: $(d + 1) / n$ at $c = 1 / n$, and least at $c = 1 / (n + d + 1)$, where it is $(d + 1) / (n + d + 1)$.",
    controls=[control("two nodes a coordinate, without the fourth moments", case="coarse")],
)
def batch_rate_with_normal_keys(results: Results, case: str = "claimed") -> Evidence:
    measured = results[enumerated_batch].sel(case=case)
    laws = [
        abs(batch_error(n, d, 1 / n) - (d + 1) / n)
        + abs(batch_error(n, d, best_batch_rate(n, d)) - (d + 1) / (n + d + 1))
        for d, n in itertools.product((1, 4, 10), (2, 10, 40))
    ]
    return Evidence.all(
        Evidence.within(measured["difference"], measured["rounding"], ENUMERATED),
        Evidence.exact(max(laws), "<=", rounding_bound(20, 12.0), "rounding of the law at these rates"),
    )


@PROOFS.measurement(seeds=lambda config: config.draws)
def sampled_laws(config: Config, seed: int) -> LabelledArrays:
    """One draw of both memories with keys on the sphere (D = 32), and of the two learners (d = 10, unit and normal keys)."""
    rng, size, items = stream(seed, "memories").rng(), 32, (2, 8, 32, 128)
    recall = np.zeros((2, len(items)))
    for place, count in enumerate(items):
        keys = torch.nn.functional.normalize(torch.from_numpy(rng.standard_normal((count, size))), dim=-1)
        values = torch.from_numpy(rng.standard_normal((count, 16)))
        system = torch.eye(count).double() + (keys @ keys.T).tril(-1)
        written = torch.linalg.solve_triangular(system, values, upper=False, unitriangular=True)
        for row, stored in enumerate((values, written)):
            recall[row, place] = float((keys @ (keys.T @ stored) - values).square().mean())
    dimension, examples = 10, (5, 10, 20, 40)
    descent = np.zeros((2, len(examples)))
    for place, count in enumerate(examples):
        keys = torch.from_numpy(rng.standard_normal((count, dimension)))
        left = torch.eye(dimension).double() - best_batch_rate(count, dimension) * keys.T @ keys
        unit, online = torch.nn.functional.normalize(keys, dim=-1), torch.eye(dimension).double()
        for key in unit:
            online = online - torch.outer(online @ key, key)
        descent[:, place] = [float(residual.square().sum() / dimension) for residual in (left, online)]
    return {
        "recall": labelled(recall, memory=("sum", "delta rule"), items=items),
        "descent": labelled(descent, learner=("batch", "online"), examples=examples),
    }


@PROOFS.figure
def what_comes_back(results: Results) -> Sheet:
    """Mean square error of recall by number of items, sum against delta rule; relative error of batch and online learners."""
    sampled, laws = results[sampled_laws], results[recall_by_items]["error"].sel(case="claimed", size=32)
    sheet = Sheet(columns=2, width=4.9, height=3.9)
    panel = sheet.panel(
        "a memory of 32 dimensions",
        x="items written $n$",
        y="mean square error of recall",
        scale=("log", "log"),
        legend="upper left",
    )
    for variant, memory in enumerate(("sum", "delta rule")):
        panel.curve(sampled["recall"].sel(memory=memory), over="items", name=memory, variant=variant)
    shown = laws.sel(items=slice(2, 160))
    panel.theory(shown["items"].values, shown.sel(memory="sum").values, name="$(n - 1) / D$")
    panel.theory(shown["items"].values, shown.sel(memory="delta rule").values, name="recursion")
    panel = sheet.panel(
        "regression in 10 dimensions, no noise",
        x="examples $n$",
        y=r"$\|S - W\|^2 / \|W\|^2$",
        scale=("linear", "log"),
        legend="lower left",
    )
    titles = {"batch": "linear attention, best rate", "online": "delta rule, unit keys"}
    for variant, (learner, title) in enumerate(titles.items()):
        panel.curve(sampled["descent"].sel(learner=learner), over="examples", name=title, variant=variant)
    counts = np.arange(5, 41)
    batch = [batch_error(int(n), 10, best_batch_rate(int(n), 10)) for n in counts]
    panel.theory(counts, batch, name="$(d + 1) / (n + d + 1)$")
    panel.theory(counts, [online_error(int(n), 10) for n in counts], name="$(1 - 1/d)^n$")
    return sheet


# %%
PROOFS.show(what_comes_back)
PROOFS.show(orthonormal_keys_come_back)
PROOFS.show(capacity_of_a_sum)
PROOFS.show(recall_of_the_delta_rule)
PROOFS.show(correcting_is_better_than_adding)
PROOFS.show(online_rate_with_unit_keys)
PROOFS.show(online_rate_with_normal_keys)
PROOFS.show(batch_rate_with_normal_keys)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
