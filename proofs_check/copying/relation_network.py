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
# # A relation network: when is a sum over pairs a recurrence, and when is it a memory?
#
# The causal relation network (Cui et al. 2024) replaces the softmax by a sum over pairs of tokens,
# $o_i = \sum_{j \le i} \exp(z_{ij})$, elementwise over $h$ features, and normalises it: $y_i = N(o_i)$ with
# $N(x) = (x - \bar x) / \mathrm{std}(x)$. Everything depends on what stands in $z_{ij}$.
#
# *Without pre-norm*, $z_{ij} = a_i + b_j$, the exponential factors: $o_i = e^{a_i} \sum_{j \le i} e^{b_j}$. One
# vector of $h$ numbers is all
# that is known of the past. Normalising each side by itself, $N(a_i) + N(b_j)$, changes nothing about that.
#
# *Normalising the pair*, $z_{ij} = N(a_i + b_j)$, divides by
# $\mathrm{std}(a_i + b_j) = \sqrt{\mathrm{var}\,a_i + \mathrm{var}\,b_j + 2\,\mathrm{cov}(a_i, b_j)}$. An inner
# product of query and key stands in it, as in
# attention, and the sum does not factor any more: the matrix of pairs has full rank in every feature. A pair whose query
# cancels its key is divided by nothing, and all others by a large number. That is retrieval by content.


# %%
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, deviations, labelled
from lab.models import masks
from lab.models.mixers.relation_network import RelationNetwork, normalised
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream

PROOFS = Task("copying", paper="cui-2024-copying")
TOKENS, FEATURES, DRAWS = 40, 16, 50


def sides(name: str, *, tokens: int = TOKENS, features: int = FEATURES, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Normal query and memory sides [1, draw, 1, token, feature]."""
    rng = stream(0, name).rng()
    drawn = scale * rng.standard_normal((2, 1, DRAWS, 1, tokens, features))
    return torch.from_numpy(drawn[0]), torch.from_numpy(drawn[1])


def pair_sums(query: Tensor, memory: Tensor, network: RelationNetwork) -> Tensor:
    """o_i, pair by pair, before it is normalised; as written, without a care for overflow."""
    z = network.relations(query, memory)
    values = z.relu() if network.activation == "relu" else z.exp()
    return values.masked_fill(~masks.causal(query.shape[-2]).unsqueeze(-1), 0.0).sum(-2)


@PROOFS.identity(
    "copying/I1",
    where="section 3, linear-time reduction",
    statement=r"The sum over pairs factors where nothing normalises a pair: $\sum_{j \le i} e^{a_i + b_j} = "
    r"e^{a_i} \sum_{j \le i} e^{b_j}$, so that a "
    "state of one vector replaces the quadratic sum (40 tokens, 16 features, 50 draws).",
    origin=r"relative rounding of two computations: T sums of positive terms, and $|z|$ roundings in each exponential",
    controls=[
        control("the pair is normalised", prenorm="pairs"),
        control("ReLU instead of the exponential", activation="relu"),
    ],
)
def the_sum_factors(config: object, *, prenorm: str = "none", activation: str = "exp") -> LabelledArrays:
    query, memory = sides("I1")
    pairwise = pair_sums(query, memory, RelationNetwork(prenorm, activation))
    factored = query.exp() * memory.exp().cumsum(-2)
    largest = float(query.abs().max() + memory.abs().max())
    bound = rounding_bound(2 * (TOKENS + 2 * largest + 6))
    return deviations([(float((pairwise / factored - 1).abs().max()), bound)])


@PROOFS.identity(
    "copying/I2",
    where="section 3; the stable form is derived",
    statement=r"Since N follows, the state may be kept as its logarithm: $N(\exp(z_i - \max z_i)) = N(o_i)$ with "
    r"$z_i = a_i + \log \sum_{j \le i} e^{b_j}$, the maximum being over features.",
    origin="first-order rounding bound of a relation network, from its sizes and the spread of its sums",
    controls=[control("no norm after the sum", postnorm=False)],
)
def logarithms_may_be_shifted(config: object, *, postnorm: bool = True) -> LabelledArrays:
    query, memory = sides("I2")
    network, causal = RelationNetwork("none"), masks.causal(TOKENS)
    direct = pair_sums(query, memory, network)
    z = query + memory.logcumsumexp(-2)
    shifted = torch.exp(z - z.amax(-1, keepdim=True))
    if postnorm:
        direct, shifted = normalised(direct), normalised(shifted)
    bound = network.rounding({"query": query, "key": memory}, causal)
    return deviations([(float((direct - shifted).abs().max()), bound)])


@PROOFS.cases(claimed={}, small={"scale": 1.0})
def lost_numbers(config: object, *, scale: float = 300.0) -> LabelledArrays:
    """How many outputs are not finite, of the sum as written and of the form with logarithms."""
    query, memory = sides("I2 overflow", scale=scale)
    network = RelationNetwork("none")
    stable = network.parallel({"query": query, "key": memory}, masks.causal(TOKENS))
    naive = normalised(pair_sums(query, memory, network))
    return {"lost": labelled([int((~sums.isfinite()).sum()) for sums in (naive, stable)], form=("naive", "stable"))}


@PROOFS.claim(
    "copying/I2.overflow",
    where="derived",
    kind="identity",
    statement="With sides three hundred times as large the sum as written overflows, and the form with logarithms stays finite.",
    controls=[control("sides of unit size, with which nothing overflows", case="small")],
)
def logarithms_do_not_overflow(results: Results, case: str = "claimed") -> Evidence:
    lost = results[lost_numbers]["lost"].sel(case=case)
    return Evidence.all(
        Evidence.exact(lost.sel(form="naive").item(), ">", 0, "outputs that are not finite; at least one"),
        Evidence.exact(lost.sel(form="stable").item(), "<=", 0, "outputs that are not finite; none"),
    )


@PROOFS.identity(
    "copying/I3",
    where="section 3; the formula is derived",
    statement=r"The norm of a pair holds an inner product: $\mathrm{std}(a_i + b_j)^2 = \mathrm{var}\,a_i + "
    r"\mathrm{var}\,b_j + 2\,\mathrm{cov}(a_i, b_j)$ "
    "for all pairs.",
    origin="rounding of two computations, chains of 2 h + 6 operations on squares of that size",
    controls=[control("without the covariance, as if query and key did not meet", covariance=False)],
)
def the_norm_of_a_pair_is_an_inner_product(config: object, *, covariance: bool = True) -> LabelledArrays:
    query, memory = sides("I3")
    direct = (query.unsqueeze(-2) + memory.unsqueeze(-3)).var(-1, unbiased=False)
    a, b = query - query.mean(-1, keepdim=True), memory - memory.mean(-1, keepdim=True)
    variance = a.square().mean(-1).unsqueeze(-1) + b.square().mean(-1).unsqueeze(-2)
    if covariance:
        variance = variance + 2 * (a @ b.mT) / FEATURES
    size = 4 * float(query.square().sum(-1).max() + memory.square().sum(-1).max()) / FEATURES
    return deviations([(float((direct - variance).abs().max()), rounding_bound(2 * (2 * FEATURES + 6), size))])


KINDS = {
    "no pre-norm": ("none", "exp"),
    "sides": ("sides", "exp"),
    "pairs": ("pairs", "exp"),
    "no pre-norm, ReLU": ("none", "relu"),
}


@PROOFS.cases(all={})
def pair_matrices(config: object) -> LabelledArrays:
    """Singular values of exp(z_ij) (or ReLU) as a matrix [i, j] of each feature, largest first, over the largest."""
    query, memory = (side[0, 0, 0] for side in sides("I3 rank"))
    ratios = []
    for prenorm, activation in KINDS.values():
        z = RelationNetwork(prenorm, activation).relations(query, memory)
        values = z.relu() if activation == "relu" else z.exp()
        singular = torch.linalg.svdvals(values.permute(2, 0, 1))
        ratios.append((singular / singular[:, :1]).numpy())
    return {"ratio": labelled(np.stack(ratios), kind=tuple(KINDS), feature=range(FEATURES), place=range(1, TOKENS + 1))}


@PROOFS.claim(
    "copying/I3.rank",
    where="derived",
    kind="identity",
    statement="As a matrix over pairs of tokens, every feature has rank 1 without pre-norm and with that of "
    "sides, and full rank 40 with "
    "the pre-norm of pairs (its smallest singular value is more than $10^{-9}$ of its largest, a million times its rounding).",
    controls=[
        control("no norm where that of pairs is claimed", full="no pre-norm"),
        control("pairs where rank 1 is claimed", factored=("pairs",)),
        control("ReLU where rank 1 is claimed", factored=("no pre-norm, ReLU",)),
    ],
)
def only_pairs_have_full_rank(
    results: Results, full: str = "pairs", factored: tuple[str, ...] = ("no pre-norm", "sides")
) -> Evidence:
    ratio = results[pair_matrices]["ratio"].sel(case="all")
    rounding = rounding_bound(TOKENS * (2 * FEATURES + 40), 1.0)
    second = ratio.sel(kind=list(factored), place=2).max()
    last = ratio.sel(kind=full, place=TOKENS).min()
    return Evidence.all(
        Evidence.exact(
            second.item(), "<=", rounding, "second singular value over the first; rounding of T numbers a row"
        ),
        Evidence.exact(last.item(), ">", 1e-9, "last singular value over the first; far above rounding"),
    )


SHARPNESS = (0.3, 1.0, 10.0, 100.0, 1000.0)
KEYS, GATED = 10, 64


def gating(prenorm: str, sharpness: float, seed: int = 0) -> float:
    """How much more the sum of a query answers to the payload of its key than to those of the others, on average.

    The query side is -t E_q and the memory side t E_k + p_k, with standardised random E and normal payloads p.
    """
    rng = stream(seed, "gating").rng()
    codes = normalised(torch.from_numpy(rng.standard_normal((KEYS, GATED))))
    payloads = torch.from_numpy(rng.standard_normal((KEYS, GATED)))
    network = RelationNetwork(prenorm)

    def answers(payload: Tensor) -> Tensor:
        return network.relations(-sharpness * codes, sharpness * codes + payload).exp().sum(1)

    jacobian = torch.autograd.functional.jacobian(answers, payloads)  # [query, feature, key, feature]
    size = torch.linalg.matrix_norm(jacobian.transpose(1, 2))
    own_size = size.diagonal()
    return float((own_size / ((size.sum(1) - own_size) / (KEYS - 1))).mean())


@PROOFS.cases(pairs={"prenorm": "pairs"}, sides={"prenorm": "sides"})
def gates(config: object, *, prenorm: str) -> LabelledArrays:
    """`gating` by sharpness."""
    return {"ratio": labelled([gating(prenorm, sharpness) for sharpness in SHARPNESS], sharpness=SHARPNESS)}


@PROOFS.claim(
    "copying/C1",
    where="derived",
    kind="construction",
    statement=r"With the query side $-t E_q$ and the memory side $t E_k + p_k$ the pair of the right key is "
    r"exactly its payload, and every other is "
    r"divided by about $t \sqrt 2$: the pre-norm of pairs answers to the right payload more than $t / 2$ times as "
    r"much as to another "
    "($t = 10, 100, 1000$; ten keys, 64 features), that of sides never twice as much.",
    controls=[
        control("the pre-norm of sides as the gate", gate="sides"),
        control("the pre-norm of pairs as what does not gate", open_gate="pairs"),
    ],
)
def pairs_gate_by_content(results: Results, gate: str = "pairs", open_gate: str = "sides") -> Evidence:
    ratio = results[gates]["ratio"]
    sharp = [sharpness for sharpness in SHARPNESS if sharpness >= 10]
    return Evidence.all(
        *(
            Evidence.exact(
                ratio.sel(case=gate, sharpness=sharpness).item(),
                ">",
                sharpness / 2,
                f"t / 2 at t = {sharpness:g}, of about t expected",
            )
            for sharpness in sharp
        ),
        Evidence.exact(ratio.sel(case=open_gate).max().item(), "<", 2, "no key is told from another"),
    )


@PROOFS.figure
def what_a_pair_can_tell(results: Results) -> Sheet:
    """Singular values of a feature over pairs of tokens, and how sharply a query tells its key from others."""
    ratio = results[pair_matrices]["ratio"].sel(case="all")
    sheet = Sheet(columns=2, width=4.8, height=3.9, foot="sizes below 1e-17 are drawn there")
    panel = sheet.panel(
        "normalising pairs makes a matrix of full rank",
        x="singular value",
        y="size over the largest",
        scale=("linear", "log"),
        ylim=(1e-24, 30),
        legend="lower left",
    )
    for kind in KINDS:
        panel.curve(
            np.maximum(ratio.sel(kind=kind), 1e-17),
            "place",
            name=kind,
            across="feature",
            middle="geometric mean",
            band="range",
        )
    panel = sheet.panel(
        "and a gate that opens with the size t of the keys",
        x="t",
        y="answer to the right payload over others",
        scale=("log", "log"),
        legend="upper left",
    )
    for case, name in (("pairs", "pre-norm of pairs"), ("sides", "pre-norm of sides")):
        gate_ratio = results[gates]["ratio"].sel(case=case)
        panel.line(SHARPNESS, gate_ratio.values, name=name, of="exact")
    panel.theory(SHARPNESS, [max(1.0, sharpness) for sharpness in SHARPNESS], name="max(1, t)")
    return sheet


# %%
PROOFS.show(the_sum_factors)
PROOFS.show(logarithms_may_be_shifted)
PROOFS.show(logarithms_do_not_overflow)
PROOFS.show(the_norm_of_a_pair_is_an_inner_product)
PROOFS.show(what_a_pair_can_tell)
PROOFS.show(only_pairs_have_full_rank)
PROOFS.show(pairs_gate_by_content)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
