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
# # Transforms: FNet, and its causal relative as a convolution between chirps
#
# FNet replaces attention by $\mathrm{Re}\,\mathcal F_{\text{tokens}} \mathcal F_{\text{channels}} x$: no weights,
# every output reads every token.
# FNetAR (Lou et al. 2021) makes it autoregressive. Its plain reading keeps $n \le t$ in the sum over tokens,
#
# $$y_t = \mathrm{Re} \sum_{n \le t} x_n\, e^{-2 \pi i\, n t / N},$$
#
# the bin $t$ of the transform of the prefix: a new transform for each $t$, $N^2$ products. But
# $n t = \tfrac12 (n^2 + t^2 - (t - n)^2)$, so that with the chirps $c_n = e^{-\pi i n^2 / N}$ and $h_n = e^{+\pi i n^2 / N}$
#
# $$y_t = \mathrm{Re}\; c_t \sum_{n \le t} (c_n x_n)\, h_{t - n}:$$
#
# a causal *convolution*, and three transforms of $2N$ places compute it (Bluestein's trick, which masking
# does not disturb, since a zero-padded convolution is causal by itself).


# %%
from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, deviations, labelled
from lab.models import masks
from lab.models.mixers.fourier import (
    MaskedFourier,
    chirp_rounding,
    fnet,
    fnet_by_tables,
    masked_transform,
    masked_transform_by_chirps,
    masked_transform_by_prefixes,
)
from lab.results import Results
from lab.statistics import rounding_bound
from proofs_check.structured_mixers._shared import BOOLEANS, SLUG, dependencies, largest, normal

PROOFS = Task(SLUG, paper=SLUG, root=2032)
PAPER = "lou-2021-fnetar"
SHAPES = ((12, 8), (17, 6), (64, 16))
LENGTHS = (16, 100, 257, 1024)


@PROOFS.identity(
    "structured-mixers/fnet.T1",
    where="the mixing layer of FNet, on which the paper builds",
    paper=PAPER,
    statement=r"FNet's $\mathrm{Re}\,\mathcal F_N \mathcal F_d\, x$ is $C_N x C_d - S_N x S_d$ in cosine and sine "
    r"tables, and the unitary "
    r"transform applied twice reverses the tokens, $n \to -n \bmod N$.",
    origin="rounding of sums of N d products of numbers of modulus 1 and of the reference's log N d levels",
    controls=[control("the sines added", sign=1.0), control("a reversal that moves the first token", first=True)],
)
def fnet_is_two_real_tables(config: object, *, sign: float = -1.0, first: bool = False) -> LabelledArrays:
    pairs = []
    for tokens, width in SHAPES:
        values = normal(f"fnet {tokens}", tokens, width)
        size = math.sqrt(tokens * width) * float(values.norm())
        bound = rounding_bound(tokens + width + 7 * math.log2(tokens * width) + 24, size)
        twice = torch.fft.fft(torch.fft.fft(values, dim=0, norm="ortho"), dim=0, norm="ortho")
        reversed_ = values.flip(0) if first else values.flip(0).roll(1, 0)
        pairs.append((largest(fnet(values) - fnet_by_tables(values, sign)), bound))
        pairs.append((largest(twice - reversed_), rounding_bound(14 * math.log2(tokens) + 24, float(values.norm()))))
    return deviations(pairs)


@PROOFS.identity(
    "structured-mixers/fnet.T2",
    where="derived: the plain reading of an autoregressive FNet",
    paper=PAPER,
    statement="Row $t$ of the causally masked transform is bin $t$ of the transform of the first $t + 1$ tokens, padded by zeros to "
    "$N$ (N = 16, 100, 257).",
    origin="rounding of a sum of N products and of a transform of N places",
    controls=[control("the whole sequence transformed", prefix=False)],
)
def masked_rows_are_prefix_transforms(config: object, *, prefix: bool = True) -> LabelledArrays:
    pairs = []
    for length in LENGTHS[:3]:
        values = normal(f"prefix {length}", length, 2)
        other = masked_transform_by_prefixes(values) if prefix else torch.fft.fft(values, dim=0).real
        size = math.sqrt(length) * float(values.norm(dim=0).max())
        # A length that is no product of small numbers is transformed by chirps of up to 4 N places.
        bound = rounding_bound(length + 21 * math.log2(4 * length) + 40, 4 * size)
        pairs.append((largest(masked_transform(values) - other), bound))
    return deviations(pairs)


@PROOFS.identity(
    "structured-mixers/fnet.T3",
    where="derived",
    paper=PAPER,
    statement=r"The masked transform is a causal convolution between chirps, "
    r"$y_t = \mathrm{Re}\, c_t \sum_{n \le t} (c_n x_n) h_{t-n}$ with "
    r"$c_n = e^{-\pi i n^2/N}$, $h_n = e^{\pi i n^2/N}$: three transforms of the least power of 2 above $2N - 2$ give it (N = 16, "
    "100, 257, 1024).",
    origin="rounding of three transforms in the 2-norm and of the reference's sum of N",
    controls=[
        control("h with the sign of c", sign=-1.0),
        control("transforms of N places, which wrap around", padded=False),
    ],
)
def masked_transform_is_a_convolution(config: object, *, sign: float = 1.0, padded: bool = True) -> LabelledArrays:
    pairs = []
    for length in LENGTHS:
        values = normal(f"chirp {length}", length, 2)
        by_chirps = masked_transform_by_chirps(values, sign, padded)
        pairs.append((largest(by_chirps - masked_transform(values)), chirp_rounding(values)))
    return deviations(pairs)


# %% [markdown]
# **Who reads whom.** The table of cosines hides later tokens exactly; among earlier ones output $t$ misses token $n$ where
# $\cos(2\pi n t / N) = 0$, that is where $4 n t$ is an odd multiple of $N$. And it *is* a recurrence, though a poor one: the $N$ running
# sums $\sum_n x_n \cos(2 \pi n k / N)$, of which step $t$ reads one, are as large a state as a cache of all tokens.

# %%
PLACES = 24


@PROOFS.cases(claimed={}, unmasked={"masked": False}, all_seen={"zeros": False})
def transform_dependencies(config: object, *, masked: bool = True, zeros: bool = True) -> LabelledArrays:
    """Entries of the dependency matrix that are not as declared; and how far the recurrence is from the table."""
    mixer, mask = MaskedFourier(PLACES), masks.causal(PLACES)
    used = mask if masked else masks.full(PLACES)
    tokens = normal("reads", PLACES, 2)

    def outputs(x: Tensor) -> Tensor:
        return mixer.run("parallel", {"stream": x[None, None]}, used)[0, 0]

    streams = {"stream": tokens[None, None, None]}
    expected = mixer.reads(mask) if zeros else mask
    difference = mixer.run("parallel", streams, used) - mixer.run("recurrent", streams, mask)
    return {
        "wrong": int(((dependencies(outputs, tokens) != 0) != expected).sum()),
        "difference": largest(difference),
        "bound": mixer.rounding(streams, mask),
    }


@PROOFS.claim(
    "structured-mixers/fnet.reads",
    where="derived",
    paper=PAPER,
    kind="identity",
    statement="Output $t$ of the masked transform depends on token $n \\le t$ iff $4 n t$ is no odd multiple of $N$, and on no later "
    "one: exact zeros of the Jacobian (24 tokens). A recurrence of $N$ running sums gives the same outputs.",
    controls=[control("no mask", case="unmasked"), control("the zeros of the cosine forgotten", case="all_seen")],
)
def masked_transform_reads_the_past(results: Results, case: str = "claimed") -> Evidence:
    measured = results[transform_dependencies].sel(case=case)
    return Evidence.all(
        Evidence.exact(int(measured["wrong"]), "<=", 0, BOOLEANS),
        Evidence.exact(float(measured["difference"]), "<=", float(measured["bound"]), "rounding of two sums of N"),
    )


@PROOFS.cases(claimed={})
def chirp_errors(config: object) -> LabelledArrays:
    """Relative difference of the chirps to the table, for both signs and without padding, and its rounding bound."""
    rows = []
    for length in LENGTHS:
        values = normal(f"chirp {length}", length, 2)
        table = masked_transform(values)
        ways: tuple[dict[str, Any], ...] = ({}, {"sign": -1.0}, {"padded": False})
        differences = [largest(masked_transform_by_chirps(values, **way) - table) for way in ways]
        rows.append([difference / largest(table) for difference in (*differences, chirp_rounding(values))])
    return {"error": labelled(rows, length=LENGTHS, way=("chirps", "h with the sign of c", "not padded", "bound"))}


@PROOFS.figure
def chirp_rounding_errors(results: Results) -> Sheet:
    """Difference of the convolution between chirps to the masked table, relative to the largest output, against the length."""
    measured = results[chirp_errors]["error"].sel(case="claimed")
    sheet = Sheet(width=6.2, height=4.2)
    panel = sheet.panel(
        "a masked Fourier transform is a causal convolution",
        x="tokens N",
        y="relative difference",
        scale=("log", "log"),
        ylim=(1e-17, 1e2),
        legend="outside",
    )
    for way in ("chirps", "h with the sign of c", "not padded"):
        panel.line(LENGTHS, measured.sel(way=way).values, name=way, of="one sequence")
    panel.theory(LENGTHS, measured.sel(way="bound").values, name="rounding bound")
    return sheet


# %%
PROOFS.show(chirp_rounding_errors)
PROOFS.show(fnet_is_two_real_tables)
PROOFS.show(masked_rows_are_prefix_transforms)
PROOFS.show(masked_transform_is_a_convolution)
PROOFS.show(masked_transform_reads_the_past)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
