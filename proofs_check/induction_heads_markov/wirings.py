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
# # Two wirings of an induction head
#
# Two attention layers can compute the counts of `counting`. With a **causal** mask, layer 1 copies to each position the symbol
# *before* it; layer 2 asks with the current symbol $s$, finds the positions whose copy is $s$, and reads the symbols
# standing there, the successors of $s$. With a **bidirectional** mask over the prompt there is another way: layer 1 copies
# the symbol *after*, layer 2 looks for $s$ itself and reads the copy; the position that asks must be left out, for it
# matches itself and has no successor yet. Both are weights of one and the same transformer (attention only,
# one-hot symbols in the residual stream, a sentinel in front), compared with the counts position by position.
# %%
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.chains.induction_head import causal_head, frequencies, prefix_head
from lab.domains.chains.markov import smoothed_frequencies
from lab.domains.chains.markov_prompts import dirichlet_chains
from lab.evaluation import cross_entropy
from lab.labels import LabelledArrays, labelled
from lab.models.masks import causal, full
from lab.models.relative import MinimalInduction
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from lab.tasks import NoConfig

PROOFS = Task("induction-heads-markov", paper="induction-heads-markov")
STATES, LENGTH, PROMPTS = 4, 25, 300
SHARPNESS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
MASKS = {"causal": causal(LENGTH + 1), "full": full(LENGTH + 1)}


def prompts() -> Tensor:
    """Tokens of Dirichlet chains."""
    return dirichlet_chains(stream(0, "prompts"), PROMPTS, states=STATES, length=LENGTH).tokens


@PROOFS.cases(
    causal={},
    after={"head": "prefix"},
    causal_open={"mask": "full", "last": True},
    prefix={"head": "prefix", "mask": "full", "last": True},
    prefix_itself={"head": "prefix", "mask": "full", "last": True, "itself": True},
    prefix_masked={"head": "prefix", "last": True},
)
def wiring_errors(
    config: NoConfig, *, head: str = "causal", mask: str = "causal", last: bool = False, itself: bool = False
) -> LabelledArrays:
    """Errors of a sharp head against the in-context frequencies where these make sense: the largest, and their mean.

    Args:
        head: which wiring, "causal" or "prefix".
        last: only the last position is asked.
        itself: the position that asks is not left out of what is matched.
    """
    tokens = prompts()
    if head == "causal":
        built = causal_head(STATES, LENGTH, 60.0)
    else:
        built = prefix_head(STATES, LENGTH, 60.0, exclude_query=not itself)
    errors = (frequencies(built, tokens, MASKS[mask]) - smoothed_frequencies(tokens, STATES, np.inf)).abs().amax(-1)
    # Where a symbol has had no successor yet, counts say nothing, and a sharp head shows the unigram.
    known = (tokens.unsqueeze(-1) == tokens.unsqueeze(-2)).tril(-1).any(-1)
    if last:
        errors, known = errors[:, -1], known[:, -1]
    return {"largest": labelled(errors[known].max()), "mean": labelled(errors[known].mean())}


# Scores of size beta <= 60 carry 4 beta rounding errors into the weights, which are then summed over 26 keys.
HEAD_ROUNDING = rounding_bound(4 * 60 + 2 * (LENGTH + 1), 1.0)
SUMS = "rounding of scores and of a sum of 26 terms"


@PROOFS.claim(
    "induction-heads-markov/K1",
    where="Edelman et al., construction of the statistical induction head",
    kind="construction",
    statement=r"Under a causal mask two attention layers (copy the symbol before; match the current symbol with the copy "
    r"and read the symbol there) put out the in-context frequencies $C_t(s, \cdot)/C_t(s)$ at every position; under an open "
    r"mask the same weights put them out at the last position.",
    controls=[control("layer 1 copies the symbol after, which a causal mask hides", case="after", error="mean")],
)
def causal_wiring(results: Results, case: str = "causal", error: str = "largest") -> Evidence:
    errors = results[wiring_errors]
    return Evidence.all(
        Evidence.exact(float(errors[error].sel(case=case)), "<=", HEAD_ROUNDING, SUMS),
        Evidence.exact(float(errors["largest"].sel(case="causal_open")), "<=", HEAD_ROUNDING, SUMS),
    )


@PROOFS.claim(
    "induction-heads-markov/K2",
    where="derived: the counterpart for a bidirectional prompt",
    kind="construction",
    statement=r"Where all tokens of a prompt see each other, two attention layers (copy the symbol after; match the current "
    r"symbol with the symbol and read the copy; leave out the position that asks) put out the same frequencies.",
    controls=[
        control("the position that asks is not left out", case="prefix_itself", error="mean"),
        control("a causal mask", case="prefix_masked", error="mean"),
    ],
)
def prefix_wiring(results: Results, case: str = "prefix", error: str = "largest") -> Evidence:
    return Evidence.exact(float(results[wiring_errors][error].sel(case=case)), "<=", HEAD_ROUNDING, SUMS)


@PROOFS.cases(claimed={}, shifted={"shift": 0.1})
def smoothing_errors(config: NoConfig, *, shift: float = 0.0) -> LabelledArrays:
    """Largest errors of both wirings at finite sharpness against the formula at a sharpness larger by ``shift``."""
    tokens = prompts()
    errors = []
    for beta in SHARPNESS:
        formula = smoothed_frequencies(tokens, STATES, beta + shift)
        everywhere = frequencies(causal_head(STATES, LENGTH, beta), tokens, MASKS["causal"]) - formula
        at_last = (frequencies(prefix_head(STATES, LENGTH, beta), tokens, MASKS["full"]) - formula)[:, -1]
        errors.append([float(everywhere.abs().max()), float(at_last.abs().max())])
    return {"error": labelled(errors, sharpness=SHARPNESS, wiring=("causal", "prefix"))}


@PROOFS.claim(
    "induction-heads-markov/K3",
    where="derived",
    kind="identity",
    statement=r"At finite sharpness $\beta$ both wirings put out $\frac{(e^\beta - 1)\, C_t(s, \cdot) + u_t}{(e^\beta - 1)\, "
    r"C_t(s) + t}$, $u_t$ counting $x_1, \dots, x_t$: additive smoothing towards the unigram. The mask changes the wiring, "
    r"not the statistic.",
    controls=[control("the formula at a sharpness larger by 0.1", case="shifted")],
)
def finite_sharpness_is_smoothing(results: Results, case: str = "claimed") -> Evidence:
    error = results[smoothing_errors]["error"].sel(case=case).max()
    return Evidence.exact(float(error), "<=", HEAD_ROUNDING, SUMS)


# %%
PROOFS.show(causal_wiring)
PROOFS.show(prefix_wiring)
PROOFS.show(finite_sharpness_is_smoothing)

# %% [markdown]
# At the last position the causal wiring also works where the mask is open, since none of its steps *needs* to see what comes
# later: a bidirectional model may use either.
#
# ## Why layer 1 waits for layer 2
#
# In the minimal model (pattern $a$ over offsets from scores $v$, then a linear match $W$) take all entries of $W$ equal to
# $c$. Every score is $x_i^T W c_j = c$, because the attention weights of layer 1 sum to 1: whatever $v$ is, the logits are
# $c\,u_i$, the counts of symbols. So the gradient of $v$ vanishes identically, for every batch, until $W$ has learnt to tell
# symbols apart, and the first thing the model can be is a unigram.


# %%
@PROOFS.cases(constant={}, identity={"match": "identity"})
def first_gradients(config: NoConfig, *, match: str = "constant") -> LabelledArrays:
    """Largest gradient of v relative to that of W, at random v, for W constant or a multiple of the identity."""
    states, length = 3, 24
    tokens = dirichlet_chains(stream(0, "batch"), 200, states=states, length=length).tokens
    offsets = torch.from_numpy(stream(0, "offsets").rng().normal(size=(4, length)))
    matrix = torch.full((states, states), 0.01) if match == "constant" else 0.01 * torch.eye(states)
    model = MinimalInduction(offsets, matrix.double().expand(4, -1, -1))
    logs = model(tokens.unsqueeze(0)).log_softmax(-1)
    cross_entropy(logs, tokens).mean().backward()
    first, second = model.scaled_offsets.grad, model.scaled_match.grad
    assert first is not None
    assert second is not None
    return {"ratio": labelled(first.abs().max() / second.abs().max())}


@PROOFS.claim(
    "induction-heads-markov/P3-start",
    where="Edelman et al., minimal model",
    kind="identity",
    statement=r"In the minimal model with a constant match matrix $W$ the gradient of the offset scores $v$ is zero for every "
    r"$v$ and every batch, while that of $W$ is not: layer 1 cannot start to learn before layer 2.",
    controls=[control("W is a multiple of the identity, as if layer 2 had learnt to match", case="identity")],
)
def layer_one_waits(results: Results, case: str = "constant") -> Evidence:
    # Each of 24 rows sums 24 products of weights and scores that are equal up to rounding.
    bound = rounding_bound(200 * 24 * 24, 1.0)
    ratio = float(results[first_gradients]["ratio"].sel(case=case))
    return Evidence.exact(ratio, "<=", bound, "rounding of 200 x 24 rows of 24 scores")


# %%
PROOFS.show(layer_one_waits)

# %%
PROOFS.show()
