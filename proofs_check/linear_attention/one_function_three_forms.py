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
# # One function, three forms
#
# Softmax attention compares every token with every other: the weights $e^{q_i \cdot k_j}$ are no product of a part of $i$ and a part
# of $j$. Write $\varphi(q_i) \cdot \varphi(k_j)$ in their place and they are, and the sum over $j$ can be taken before
# the query is known: with $S_i = S_{i-1} + \varphi(k_i) v_i^\top$ and $z_i = z_{i-1} + \varphi(k_i)$,
#
# $$y_i = \frac{\varphi(q_i)^\top S_i}{\varphi(q_i)^\top z_i}.$$
#
# A transformer with such attention *is* a recurrent network with a state of $D (M + 1)$ numbers. The denominator needs no
# code of its own: a column of ones beside the values carries it along. Between the two lies the chunked form, parallel
# inside a chunk, recurrent between chunks. All three are one function, and so in floating point they differ by rounding only,
# bounded here by $2 \gamma_n$ times the sums of absolute terms.
#
# Nothing in this needs a causal mask. The recurrence says how many tokens are written before token $i$ is read; under a
# causal mask these are $i$, under a prefix mask at least the prefix, under a block-causal one all of the own block (*write a
# whole chunk, then read it*). A mask of another kind, such as a sliding window, is served by no single state.


# %%
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.mask_patterns import mask
from lab.models.mixers.fast_weights import DeltaRule, RecursiveLeastSquares
from lab.models.mixers.features import FEATURE_MAPS
from lab.models.mixers.interface import Mixer, between
from lab.models.mixers.linear import DecayedLinearAttention, LinearAttention
from lab.models.mixers.softmax import SoftmaxAttention
from lab.results import Results
from lab.statistics import rounding_bound
from proofs_check.linear_attention._shared import PRESETS, SLUG, Config, compared, largest, streams, within_rounding

PROOFS = Task(SLUG, paper=SLUG, presets=PRESETS, root=2032)
CHUNKS = (1, 8)


def pattern(name: str, length: int) -> Tensor:
    """The causal mask, that of a prefix of a third, or blocks of a third (the last takes the rest)."""
    third = length // 3
    sizes: dict[str, dict[str, Any]] = {
        "causal": {"length": length},
        "prefix_lm": {"length": length, "prefix_length": third},
        "block_causal": {"sizes": (third, third, length - 2 * third)},
    }
    return mask(name, **sizes[name])


def runs(mixer: Mixer, token_streams: dict[str, Tensor], allowed: Tensor) -> list[Tensor]:
    """The recurrence, and the chunked form in each size of chunk."""
    chunked = [mixer.run("chunked", token_streams, allowed, chunk) for chunk in CHUNKS]
    return [mixer.run("recurrent", token_streams, allowed), *chunked]


FORMS = ("recurrence", *(f"chunks of {chunk}" for chunk in CHUNKS))


# %%
@PROOFS.cases(
    claimed={},
    softmax={"mixer": "softmax"},
    everywhere={"normaliser": "all tokens"},
    small={"normaliser": "1e-6 more in one form"},
)
def forms_of_linear_attention(
    config: Config, *, mixer: str = "linear", normaliser: str = "seen tokens"
) -> LabelledArrays:
    """Largest difference of each form from masked linear attention, by feature map, and its rounding bound.

    ``softmax`` puts softmax weights in the masked form; the normaliser may sum over all tokens, or be larger by LT's
    epsilon, in the masked form alone.
    """
    token_streams, allowed = streams(config, spread=2.0), pattern("causal", config.length)
    names = [name for name, features in FEATURE_MAPS.items() if features.never_negative]
    differences, bounds = [], []
    for name in names:
        linear = LinearAttention(name)
        reference = (SoftmaxAttention() if mixer == "softmax" else linear).run("parallel", token_streams, allowed)
        weights = linear.features.map(token_streams["query"]) @ linear.features.map(token_streams["key"]).transpose(
            -1, -2
        )
        total = weights.tril().sum(-1, keepdim=True)
        if normaliser == "all tokens":
            reference = reference * total / weights.sum(-1, keepdim=True)
        elif normaliser != "seen tokens":
            reference = reference * total / (total + 1e-6)
        differences.append([largest(output - reference) for output in runs(linear, token_streams, allowed)])
        bounds.append(linear.rounding(token_streams, allowed))
    return {
        "difference": labelled(differences, features=names, form=FORMS),
        "rounding": labelled(bounds, features=names),
    }


@PROOFS.claim(
    "linear-attention/la.T1",
    where="causal masking, and transformers as recurrent networks",
    paper="katharopoulos-2020-linear-attention",
    kind="identity",
    statement="Causal linear attention, normalised, is a recurrence with a state of $D (M + 1)$ numbers: the masked "
    "product, the "
    "recurrence and the chunked form (1 and 8 tokens) agree to rounding, for the feature maps elu + 1, exp, silu and "
    r"$x x^\top$.",
    controls=[
        control("softmax weights in the masked form", case="softmax"),
        control("a normaliser over all tokens in the masked form", case="everywhere"),
        control("an epsilon of 1e-6 in the normaliser of one form only", case="small"),
    ],
)
def masked_product_recurrence_and_chunks_agree(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[forms_of_linear_attention].sel(case=case))


@PROOFS.cases(claimed={}, token_causal={"read_as": "causal"}, ungated={"gated": False})
def forms_under_other_patterns(config: Config, *, read_as: str = "", gated: bool = True) -> LabelledArrays:
    """Largest difference of each form from masked linear attention under a prefix and a block-causal mask.

    A gate g of each block is a decay at its first token and 1 at the others. ``read_as`` runs the recurrence under another
    mask; without ``gated`` the recurrence forgets the gates.
    """
    token_streams = streams(config, "decay")
    block = torch.arange(config.length) % (config.length // 3) == 0
    token_streams["decay"] = torch.where(block[:, None], token_streams["decay"], 1.0)
    linear, patterns = DecayedLinearAttention(), ("prefix_lm", "block_causal")
    differences, bounds = [], []
    for name in patterns:
        allowed = pattern(name, config.length)
        reference = linear.run("parallel", token_streams, allowed)
        tested_streams = token_streams if gated else token_streams | {"decay": torch.ones_like(token_streams["decay"])}
        outputs = runs(linear, tested_streams, pattern(read_as or name, config.length))
        differences.append([largest(output - reference) for output in outputs])
        bounds.append(linear.rounding(token_streams, allowed))
    return {
        "difference": labelled(differences, pattern=patterns, form=FORMS),
        "rounding": labelled(bounds, pattern=patterns),
    }


@PROOFS.claim(
    "linear-attention/arflow.T1",
    where="hybrid linear attention: full inside an image, causal between images; gate as derived here",
    paper="hui-2025-arflow",
    kind="identity",
    statement="Linear attention under a block-causal mask is a recurrence over blocks, $S \\leftarrow g_n S + K_n^\\top "
    "V_n$ and "
    "*then* $O_n = Q_n S$, with a gate $g_n$ of each block; under a prefix mask the prefix is such a block. "
    "The masked product, "
    "the recurrence and the chunked form agree to rounding, whatever the chunk.",
    controls=[
        control("a recurrence that is causal inside the blocks too", case="token_causal"),
        control("a recurrence without the gates", case="ungated"),
    ],
)
def blocks_are_written_before_they_are_read(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[forms_under_other_patterns].sel(case=case))


@PROOFS.cases(claimed={}, identity={"features": "identity"})
def convex_hull(config: Config, *, features: str = "elu") -> LabelledArrays:
    """How far normalised outputs leave the running minimum and maximum of the values."""
    token_streams = streams(config, spread=2.0)
    linear = LinearAttention("elu")
    linear.features = FEATURE_MAPS[features]
    outputs = linear.parallel(token_streams, pattern("causal", config.length))
    low, high = token_streams["value"].cummin(-2).values, token_streams["value"].cummax(-2).values
    return {
        "violation": float(torch.maximum(low - outputs, outputs - high).max()),
        "rounding": rounding_bound(2 * config.length + 20, largest(token_streams["value"])),
    }


@PROOFS.claim(
    "linear-attention/la.T3",
    where="derived",
    kind="identity",
    statement=r"With a positive feature map every output $y_i$ is a mean of the values $v_1, \dots, v_i$ with positive "
    "weights: it lies "
    "between their running minimum and maximum in each coordinate, to rounding.",
    controls=[control("the identity as feature map, whose weights can sum to 0", case="identity")],
)
def outputs_are_means_of_values(results: Results, case: str = "claimed") -> Evidence:
    measured = results[convex_hull].sel(case=case)
    return Evidence.exact(
        float(measured["violation"]), "<=", float(measured["rounding"]), "rounding of two sums and a quotient"
    )


@PROOFS.cases(claimed={}, diagonal={"cross_terms": False})
def polynomial_weights(config: Config, *, cross_terms: bool = True) -> LabelledArrays:
    """Largest difference of (q . k)^2 from the product of features, vec(x x^T) or, without cross terms, x * x."""
    token_streams = streams(config)
    query, key = token_streams["query"], token_streams["key"]
    expand = FEATURE_MAPS["quadratic"].map if cross_terms else torch.square
    difference = (query @ key.transpose(-1, -2)).square() - expand(query) @ expand(key).transpose(-1, -2)
    scale = largest(query.abs() @ key.abs().transpose(-1, -2)) ** 2
    return {"difference": largest(difference), "rounding": rounding_bound(2 * query.shape[-1] ** 2 + 6, scale)}


@PROOFS.claim(
    "linear-attention/la.T4",
    where="section 3.2.1, which gives the size of the features; the identity is derived",
    paper="katharopoulos-2020-linear-attention",
    kind="identity",
    statement=r"Attention with the weights $(q \cdot k)^2$ *is* linear attention with the $D^2$ features $\mathrm{vec}(x "
    r"x^\top)$, to "
    "rounding ($D = 8$).",
    controls=[control("the D features x * x, without cross terms", case="diagonal")],
)
def quadratic_weights_are_linear_attention(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[polynomial_weights].sel(case=case))


# %% [markdown]
# ## Memories that correct themselves
#
# A memory may also write what is *wrong* with it instead of what comes in. The delta rule
# $S_t = S_{t-1} + b_t (v_t - S_{t-1} k_t) k_t^\top$ has a parallel form all the same: what is written,
# $u_t = b_t (v_t - S_{t-1} k_t)$, solves the triangular system
# $(I + \mathrm{tril}(\mathrm{diag}(b) K K^\top, -1))\, U = \mathrm{diag}(b) V$, and then
# $y_i = \sum_{j \le i} (q_i \cdot k_j) u_j$. In chunks, the values are replaced by what the memory does not know yet,
# $V_c - K_c S^\top$. Recursive least squares goes one step further and has ridge regression as its parallel form.


# %%
@PROOFS.cases(claimed={}, own={"diagonal": 0}, memoryless={"carried": False})
def forms_of_the_delta_rule(config: Config, *, diagonal: int = -1, carried: bool = True) -> LabelledArrays:
    """Largest difference of the recurrence and the chunked forms from the parallel form of the delta rule.

    With ``diagonal`` 0 the system holds a token's own product as well; without ``carried`` chunks write their values as
    they come, as if the memory knew nothing of them.
    """
    token_streams, rule = streams(config, "rate", spread=0.35), DeltaRule()
    allowed = pattern("causal", config.length)
    key, rate = token_streams["key"], token_streams["rate"]
    system = (rate * (key @ key.transpose(-1, -2))).tril(diagonal)
    system = system + torch.eye(config.length).to(system)
    written = torch.linalg.solve_triangular(system, rate * token_streams["value"], upper=False)
    scores = (token_streams["query"] @ key.transpose(-1, -2)).tril()
    reference = scores @ written
    outputs = runs(rule, token_streams, allowed)
    if not carried:
        parts = [between(token_streams, first, first + 8) for first in range(0, config.length, 8)]
        memory, rows = torch.zeros_like(key.transpose(-1, -2) @ token_streams["value"]), []
        for part in parts:
            inside = rule.parallel(part, pattern("causal", part["key"].shape[-2]))
            rows.append(inside + part["query"] @ memory)
            memory = memory + part["key"].transpose(-1, -2) @ (part["rate"] * part["value"])
        outputs[-1] = torch.cat(rows, dim=-2)
    return {
        "difference": labelled([largest(output - reference) for output in outputs], form=FORMS),
        "rounding": rule.rounding(token_streams, allowed),
    }


@PROOFS.claim(
    "linear-attention/fw.T2",
    where="derived; the parallel form of the delta rule is Yang et al. 2024's",
    kind="identity",
    statement=r"The delta rule has a parallel form, $U = (I + \mathrm{tril}(\mathrm{diag}(b) K K^\top, -1))^{-1} "
    r"\mathrm{diag}(b) V$ and "
    r"$O = \mathrm{tril}(Q K^\top)\, U$, and a chunked one in which $V_c - K_c S^\top$ stands for $V_c$: both "
    "agree with the recurrence to "
    "rounding.",
    controls=[
        control("the diagonal in the triangular system", case="own"),
        control("chunks that do not ask what the memory knows", case="memoryless"),
    ],
)
def delta_rule_has_a_parallel_form(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[forms_of_the_delta_rule].sel(case=case))


@PROOFS.cases(claimed={}, other={"started_at": 2.0})
def forms_of_least_squares(config: Config, *, started_at: float = 1.0) -> LabelledArrays:
    """Largest difference of the recursion, begun at P_0 = I / ``started_at``, from ridge regression of penalty 1."""
    token_streams, allowed = streams(config, spread=0.35), pattern("causal", config.length)
    outputs = RecursiveLeastSquares(started_at).run("recurrent", token_streams, allowed)
    return dict(compared(RecursiveLeastSquares(1.0), token_streams, allowed, outputs))


@PROOFS.claim(
    "linear-attention/fw.T4",
    where="derived; textbook recursive least squares",
    kind="identity",
    statement=r"With the matrix gain $P_{t-1} / (1 + k_t^\top P_{t-1} k_t)$, $P_0 = I / \lambda$, in the place of the "
    "rate, the delta rule "
    "answers as ridge regression of penalty $\\lambda$ on all examples up to its own, at every token, to rounding.",
    controls=[control("a start at twice the penalty", case="other")],
)
def matrix_gain_is_ridge_regression(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[forms_of_least_squares].sel(case=case))


@PROOFS.figure
def how_near_the_forms_are(results: Results) -> Sheet:
    """Largest difference between the forms of one mixer beside the bound on rounding, and what the controls differ by."""
    measured = results[forms_of_linear_attention]
    sheet = Sheet(columns=1, width=6.2, height=3.8)
    panel = sheet.panel(
        "one function in three forms",
        x="masked form compared with",
        y="largest difference, elu + 1",
        scale=("linear", "log"),
        ylim=(1e-17, 1e5),
        legend="upper left",
    )
    titles = {"claimed": "itself", "small": "ε in one", "everywhere": "all tokens\nin the sum", "softmax": "softmax"}
    for place, form in enumerate(FORMS):
        differences = {
            title: measured["difference"].sel(case=case, features="elu", form=form) for case, title in titles.items()
        }
        drawn = [max(float(difference), 1e-17) for difference in differences.values()]
        panel.scatter(list(differences), drawn, name=form, slot=(place, len(FORMS)))
    panel.level(float(measured["rounding"].sel(case="claimed", features="elu")), "bound on rounding")
    return sheet


# %%
PROOFS.show(how_near_the_forms_are)
PROOFS.show(masked_product_recurrence_and_chunks_agree)
PROOFS.show(blocks_are_written_before_they_are_read)
PROOFS.show(outputs_are_means_of_values)
PROOFS.show(quadratic_weights_are_linear_attention)
PROOFS.show(delta_rule_has_a_parallel_form)
PROOFS.show(matrix_gain_is_ridge_regression)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
