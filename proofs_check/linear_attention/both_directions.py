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
# # Both directions at once
#
# Masked tokens are predicted from both sides. Linear attention that sees everything,
# $Y = (Q K^\top \odot M)\, V$ divided by its row sums, with a mask $M$ of decays, costs $N^2$ as it stands. LION writes it as two
# recurrences, one from each end. Each of them reads its own token, so the diagonal would count twice: half of
# $(Q_i \cdot K_i)\, v_i$ is taken from each direction, in the numerator and in the normaliser alike, and the two meet *before* they are
# divided.
#
# With decays that vary from token to token there are two conventions, and they are transposes of one another. The
# released code lets the decay of the *source* count ($M_{ij} = a_j \cdots a_{i-1}$ for $i > j$), so that the recurrence multiplies by
# the decay of the token it has just left. The plain recursion $S_i = a_i S_{i-1} + \dots$ lets the reader's count. Neither mask is
# symmetric, and a recurrence of one convention beside the mask of the other is no approximation of anything.
#
# A constant decay makes $M_{ij} = \lambda^{|i - j|}$, the Kac-Murdock-Szegő matrix: its inverse is tridiagonal, so that what
# looks like a full mask is the covariance of a first-order autoregression, and its eigenvalues lie between
# $\frac{1 - \lambda}{1 + \lambda}$ and the inverse of that at every length.


# %%
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.exponential_decay_matrix import (
    decay_matrix,
    determinant_of_decay_matrix,
    inverse_of_decay_matrix,
    spectrum_of_decay_matrix,
)
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.mixers.bidirectional import BidirectionalLinearAttention, two_sided_decay
from lab.models.mixers.linear import DecayedLinearAttention
from lab.results import Results
from lab.statistics import rounding_bound
from proofs_check.linear_attention._shared import PRESETS, SLUG, Config, largest, streams, within_rounding

PROOFS = Task(SLUG, paper=SLUG, presets=PRESETS, root=2032)
KINDS = ("LIT", "D", "S")
FORMS = ("two recurrences", "chunks of 1", "chunks of 8")


def lion_streams(config: Config, kind: str) -> dict[str, Tensor]:
    """Streams with decays 1 (LIT), 0.7 (D) or of each token (S)."""
    token_streams = streams(config, "decay")
    fixed = {"LIT": 1.0, "D": 0.7}
    return token_streams | ({"decay": torch.full_like(token_streams["decay"], fixed[kind])} if kind in fixed else {})


def twice_the_diagonal(mixer: BidirectionalLinearAttention, token_streams: dict[str, Tensor]) -> Tensor:
    """Two recurrences that meet without giving up half of the diagonal."""
    query, key = mixer.features.map(token_streams["query"]), mixer.features.map(token_streams["key"])
    weights = query @ key.transpose(-1, -2) * two_sided_decay(token_streams["decay"].squeeze(-1))
    weights = weights + torch.diag_embed(weights.diagonal(dim1=-2, dim2=-1))
    return weights @ token_streams["value"] / weights.sum(-1, keepdim=True)


def mean_of_two_passes(token_streams: dict[str, Tensor]) -> Tensor:
    """The mean of a causal pass from each end, each divided by its own sum."""
    forward, mask = DecayedLinearAttention(), masks.causal(token_streams["query"].shape[-2])
    turned = {name: value.flip(-2) for name, value in token_streams.items()}
    return (forward.run("recurrent", token_streams, mask) + forward.run("recurrent", turned, mask).flip(-2)) / 2


# %%
@PROOFS.cases(
    claimed={},
    reader={"source": False},
    doubled={"broken": "diagonal"},
    apart={"broken": "two passes"},
    one={"broken": "one direction"},
    mixed={"broken": "other convention"},
    epsilon={"broken": "epsilon"},
)
def forms_of_lion(config: Config, *, source: bool = True, broken: str = "") -> LabelledArrays:
    """Largest difference of each form from the full masked product, by kind of decay, and its rounding bound."""
    mixer, full = BidirectionalLinearAttention(source=source), masks.full(config.length)
    differences, bounds = [], []
    for kind in KINDS:
        token_streams = lion_streams(config, kind)
        reference = mixer.run("parallel", token_streams, full)
        outputs = [
            mixer.run("recurrent", token_streams, full),
            *(mixer.run("chunked", token_streams, full, chunk) for chunk in (1, 8)),
        ]
        if broken == "diagonal":
            outputs[0] = twice_the_diagonal(mixer, token_streams)
        elif broken == "two passes":
            outputs[0] = mean_of_two_passes(token_streams)
        elif broken == "one direction":
            outputs[0] = mixer.run("parallel", token_streams, masks.causal(config.length))
        elif broken == "other convention":
            outputs[0] = BidirectionalLinearAttention(source=not source).run("recurrent", token_streams, full)
        elif broken == "epsilon":
            scores = mixer.features.map(token_streams["query"]) @ mixer.features.map(token_streams["key"]).transpose(
                -1, -2
            )
            total = (scores * two_sided_decay(token_streams["decay"].squeeze(-1))).sum(-1, keepdim=True)
            reference = reference * total / (total + 1e-6)
        differences.append([largest(output - reference) for output in outputs])
        bounds.append(mixer.rounding(token_streams, full))
    return {"difference": labelled(differences, kind=KINDS, form=FORMS), "rounding": labelled(bounds, kind=KINDS)}


def lion_evidence(results: Results, kind: str, cases: tuple[str, ...]) -> Evidence:
    """Evidence that all forms of one kind agree, in each of the cases."""
    return within_rounding(results[forms_of_lion].sel(case=list(cases), kind=kind))


MEET = [
    control("the diagonal counted by both directions", cases=("doubled",)),
    control("the mean of two passes that are divided apart", cases=("apart",)),
    control("one direction only", cases=("one",)),
]


@PROOFS.claim(
    "linear-attention/lion.T1",
    where="full attention as a bidirectional recurrence, without decay",
    paper="afzal-2025-lion",
    kind="identity",
    statement="Bidirectional linear attention (LION-LIT, all decays 1) is two recurrences, one from each end, each of "
    "which gives up "
    "half of the diagonal before they are added and divided: the full product, the recurrences and the chunked form agree to "
    "rounding.",
    controls=MEET,
)
def lit_is_two_recurrences(results: Results, cases: tuple[str, ...] = ("claimed",)) -> Evidence:
    return lion_evidence(results, "LIT", cases)


@PROOFS.claim(
    "linear-attention/lion.T2",
    where="full attention as a bidirectional recurrence, one decay a head",
    paper="afzal-2025-lion",
    kind="identity",
    statement=r"The same holds with one decay for all tokens (LION-D, $M_{ij} = \lambda^{|i - j|}$, $\lambda = 0.7$): "
    "both recurrences "
    r"multiply their state by $\lambda$.",
    controls=MEET,
)
def constant_decay_is_two_recurrences(results: Results, cases: tuple[str, ...] = ("claimed",)) -> Evidence:
    return lion_evidence(results, "D", cases)


@PROOFS.claim(
    "linear-attention/lion.T3",
    where="full attention as a bidirectional recurrence, a decay of each token, as in the released code",
    paper="afzal-2025-lion",
    kind="identity",
    statement="The same holds with a decay of each token (LION-S), if the recurrences keep the convention of the mask: "
    r"$M_{ij} = a_j \cdots a_{i-1}$ for $i > j$ and $a_{i+1} \cdots a_j$ for $i < j$ go with $f_i = a_{i-1}$ "
    "and $b_i = a_{i+1}$, the "
    "transposed mask with $f_i = b_i = a_i$.",
    controls=[*MEET, control("the recurrences of one convention beside the mask of the other", cases=("mixed",))],
)
def selective_decay_is_two_recurrences(results: Results, cases: tuple[str, ...] = ("claimed", "reader")) -> Evidence:
    return lion_evidence(results, "S", cases)


@PROOFS.cases(claimed={}, added={"inside": "added to each score"})
def common_factor(config: Config, *, inside: str = "times each score") -> LabelledArrays:
    """What 1 / sqrt(D), put into every weight, changes in the output: by a factor, or added."""
    mixer, full = BidirectionalLinearAttention(), masks.full(config.length)
    differences, bounds = [], []
    for kind in KINDS:
        token_streams = lion_streams(config, kind)
        weights = mixer.features.map(token_streams["query"]) @ mixer.features.map(token_streams["key"]).transpose(
            -1, -2
        )
        weights = weights * two_sided_decay(token_streams["decay"].squeeze(-1))
        scale = token_streams["key"].shape[-1] ** -0.5
        weights = weights * scale if inside == "times each score" else weights + scale
        output = weights @ token_streams["value"] / weights.sum(-1, keepdim=True)
        differences.append(largest(output - mixer.run("parallel", token_streams, full)))
        bounds.append(mixer.rounding(token_streams, full))
    return {"difference": labelled(differences, kind=KINDS), "rounding": labelled(bounds, kind=KINDS)}


@PROOFS.claim(
    "linear-attention/lion.T4",
    where="derived; the released code scales the scores in one of its formats",
    kind="identity",
    statement=r"Division by row sums makes any common factor of the scores, such as $1 / \sqrt D$, irrelevant, to rounding.",
    controls=[control("the same number added to each score", case="added")],
)
def common_factors_cancel(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[common_factor].sel(case=case))


@PROOFS.claim(
    "linear-attention/lion.T4.epsilon",
    where="derived; the released code adds 1e-6 in one of its formats",
    kind="phenomenon",
    statement="An epsilon of $10^{-6}$ in the normaliser of one format alone breaks the equality of the formats, by more than "
    "a thousand times what rounding could, in each of LIT, D and S.",
    controls=[control("no epsilon", case="claimed")],
)
def epsilon_in_one_format_is_seen(results: Results, case: str = "epsilon") -> Evidence:
    measured = results[forms_of_lion].sel(case=case)
    ratio = measured["difference"].max("form") / measured["rounding"]
    return Evidence.exact(float(ratio.min()), ">", 1000.0, "difference over the bound on rounding")


@PROOFS.cases(claimed={}, other={"of_inverse": 0.65})
def spectrum_of_the_mask(config: Config, *, of_inverse: float = 0.0) -> LabelledArrays:
    """Distances of M M^-1 from I, of det M from its law (relative), and how far eigenvalues leave their interval."""
    decays, lengths = (0.3, 0.7, 0.95), (2, 12, 40)
    distances = np.zeros((3, len(decays), len(lengths)))
    for row, decay in enumerate(decays):
        for column, length in enumerate(lengths):
            matrix, other = decay_matrix(length, decay), of_inverse or decay
            low, high = spectrum_of_decay_matrix(other)
            eigenvalues = np.linalg.eigvalsh(matrix)
            determinant = determinant_of_decay_matrix(length, other)
            distances[:, row, column] = (
                np.abs(matrix @ inverse_of_decay_matrix(length, other) - np.eye(length)).max(),
                abs(np.linalg.det(matrix) / determinant - 1),
                max((low - eigenvalues.min()) / low, (eigenvalues.max() - high) / high),
            )
    conditions = np.array([(1 + decay) ** 2 / (1 - decay) ** 2 for decay in decays])[:, None]
    operations = np.array([4.0 * length**2 for length in lengths])
    rounding = np.vectorize(rounding_bound)(operations * conditions)
    axes = {"decay": decays, "length": lengths}
    return {
        "difference": labelled(distances, of=("inverse", "determinant", "eigenvalues"), **axes),
        "rounding": labelled(rounding, **axes),
    }


@PROOFS.claim(
    "linear-attention/lion.T5",
    where="derived; Kac, Murdock and Szegő 1953",
    kind="identity",
    statement=r"The mask $\lambda^{|i - j|}$ has a tridiagonal inverse, $1 + \lambda^2$ on the diagonal (1 in two corners) and "
    r"$-\lambda$ beside it, over $1 - \lambda^2$; the determinant $(1 - \lambda^2)^{N - 1}$; and eigenvalues between "
    r"$\frac{1 - \lambda}{1 + \lambda}$ and $\frac{1 + \lambda}{1 - \lambda}$ ($\lambda$ = 0.3, 0.7, 0.95; $N$ "
    "= 2, 12, 40; to rounding times "
    "the condition number).",
    controls=[control("the formulas of another decay", case="other")],
)
def constant_decay_is_a_known_matrix(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[spectrum_of_the_mask].sel(case=case))


@PROOFS.figure
def masks_of_lion(results: Results) -> Sheet:
    """The masks of LION-D and LION-S on one draw of decays, and the latter's transpose: the other convention."""
    decay = torch.tensor([0.9, 0.8, 0.3, 0.9, 0.95, 0.2, 0.9, 0.8, 0.9, 0.85], dtype=torch.float64)
    sheet = Sheet(columns=3, width=4.0, height=3.6)
    places = range(1, len(decay) + 1)
    shown = {
        "one decay, 0.7": two_sided_decay(torch.full_like(decay, 0.7)),
        "a decay of each token: the source's": two_sided_decay(decay),
        "and the reader's": two_sided_decay(decay, source=False),
    }
    for title, matrix in shown.items():
        panel = sheet.panel(title, x="token seen", y="token that reads")
        panel.heat(matrix.numpy(), rows=list(places), columns=list(places), bar="weight in the mask", of="exact")
    return sheet


# %%
PROOFS.show(masks_of_lion)
PROOFS.show(lit_is_two_recurrences)
PROOFS.show(constant_decay_is_two_recurrences)
PROOFS.show(selective_decay_is_two_recurrences)
PROOFS.show(common_factors_cancel)
PROOFS.show(epsilon_in_one_format_is_seen)
PROOFS.show(constant_decay_is_a_known_matrix)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
