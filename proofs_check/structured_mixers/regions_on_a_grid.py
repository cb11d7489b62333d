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
# # Regions on a grid: Combiner's axial variants
#
# Let tokens fill a grid of $R$ rows and $C$ columns, row by row. Two variants of Combiner (Ren et al. 2021) cut the past along its
# axes, both read in the authors' code:
#
# - **Row-major**: the own row is seen token by token, and each row above is a region. Its law inside is that of one
#   query, of the token that stands in that row in the own column. The regions are a partition of the past.
# - **Mixture**: the own row and the own column are seen token by token. Beside them stand summaries of every other column above the own
#   row, and of each row above, to the left and to the right of the own column. So a token that is neither in the own row nor in the
#   own column is covered *twice*, by its column and by its row. The weights still sum to 1: a mixture of laws, but over no
#   partition.
#
# What does covering twice do? Let scores separate, so that every law inside is the right one, and let a region's logit be the log of its
# sum of exponentials. Then the weight of token j is $m_{ij} e^{s_{ij}} / \sum_k m_{ik} e^{s_{ik}}$, with $m_{ij}$ the number of times that
# j is covered: **softmax attention with $\log 2$ added to the scores outside the own row and column**. All tokens of a region
# are covered twice here, so that $\log 2$ less in every region's logit mends it. Left as it is, let a be the weight that softmax
# attention gives to tokens off the own row and column: theirs becomes $2a / (1 + a)$, so that the two laws differ by
# $\frac{a (1 - a)}{1 + a} \le 3 - 2 \sqrt 2$ in total variation. A partition needs no such thing.
#
# Inside regions we take the mean of the queries in a summary, where the code takes running sums of queries and of keys.


# %%
from __future__ import annotations

import math

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.mixers.combiner import Regions, axial_mixture, law, row_major, segments
from lab.models.mixers.heads import weights
from lab.results import Results
from lab.statistics import rounding_bound
from proofs_check.structured_mixers._shared import COUNTING, SLUG, largest, largest_distance, normal

PROOFS = Task(SLUG, paper=SLUG, root=2032)
PAPER = "ren-2021-combiner"
DRAWS, ROWS, COLUMNS, SIZE = 50, 4, 6, 6
LENGTH = ROWS * COLUMNS
CUTS = {"row-major": row_major, "mixture": axial_mixture}


def times_covered(variant: str) -> Tensor:
    """How often the variant covers each token for each query: once in the past, twice off the own row and column of a mixture."""
    token = torch.arange(LENGTH)
    row, column = token // COLUMNS, token % COLUMNS
    off = (row != row.unsqueeze(1)) & (column != column.unsqueeze(1))
    once = masks.causal(LENGTH).long()
    return once * (1 + off.long()) if variant == "mixture" else once


def cut(variant: str, change: str) -> Regions:
    """The variant on 4 rows of 6; or with the own column seen token by token as well, or with nothing of the own row but the token."""
    regions, token = CUTS[variant](LENGTH, COLUMNS), torch.arange(LENGTH)
    column = masks.causal(LENGTH) & ((token - token.unsqueeze(1)) % COLUMNS == 0)
    if change == "column too":
        return regions._replace(direct=regions.direct | column)
    return regions._replace(direct=column) if change == "no row" else regions


@PROOFS.cases(
    rows={},
    mixture={"variant": "mixture"},
    overlapping={"change": "column too"},
    gap={"variant": "mixture", "change": "no row"},
)
def grid_support(config: object, *, variant: str = "row-major", change: str = "") -> LabelledArrays:
    """Over 50 draws: entries of the induced law that are positive where the causal mask is False or the reverse, how far rows are
    from sum 1, and pairs that are not covered as often as each variant's law says."""
    regions = cut(variant, change)
    query, key = normal("grid q", DRAWS, LENGTH, SIZE), normal("grid k", DRAWS, LENGTH, SIZE)
    induced, covered = law(query, key, regions, "mean").weights(), regions.multiplicity()
    return {
        "support": int(((induced > 0) != masks.causal(LENGTH)).sum()),
        "sum": largest(induced.sum(-1) - 1),
        "miscovered": labelled([int((covered != times_covered(name)).sum()) for name in CUTS], variant=tuple(CUTS)),
        "covered": labelled(covered.numpy(), query=range(LENGTH), token=range(LENGTH)),
        "bound": rounding_bound(4 * (LENGTH + len(regions.members)) + 8),
    }


def grid_is_covered(results: Results, case: str, variant: str) -> Evidence:
    """Full causal support, rows that sum to 1, and every pair covered as often as the variant's law says."""
    measured = results[grid_support].sel(case=case)
    return Evidence.all(
        Evidence.exact(int(measured["support"]), "<=", 0, "a softmax weight is positive where its score is finite"),
        Evidence.exact(int(measured["miscovered"].sel(variant=variant)), "<=", 0, COUNTING),
        Evidence.exact(float(measured["sum"]), "<=", float(measured["bound"]), "rounding of two normalised sums"),
    )


@PROOFS.claim(
    "structured-mixers/comb.T1.axial",
    where="the axial variant in row-major order, in the authors' code",
    paper=PAPER,
    kind="identity",
    statement="In row-major order Combiner's regions are a partition of the past: on 4 rows of 6 tokens every token of the past is "
    "covered exactly once and has a positive weight, no future token has one, and rows sum to 1.",
    controls=[
        control("the own column seen token by token as well", case="overlapping"),
        control("the mixture of rows and columns", case="mixture"),
    ],
)
def rows_are_a_partition(results: Results, case: str = "rows") -> Evidence:
    return grid_is_covered(results, case, "row-major")


@PROOFS.claim(
    "structured-mixers/comb.T1.mixture",
    where="the axial variant that mixes summaries, in the authors' code; the law is derived",
    paper=PAPER,
    kind="identity",
    statement="The mixture of row and column summaries is a probability law with full causal support, but over no partition: tokens "
    "of the past are covered once in the own row and in the own column and exactly twice elsewhere (4 rows of 6 tokens).",
    controls=[
        control("a partition, as in row-major order", variant="row-major"),
        control("nothing of the own row but the token", case="gap"),
    ],
)
def mixtures_cover_twice(results: Results, case: str = "mixture", variant: str = "mixture") -> Evidence:
    return grid_is_covered(results, case, variant)


# %% [markdown]
# **Exactness.** In row-major order the condition is that of segments, row by row: scores that separate inside each row, and the logarithm
# of the row's sum as its logit. That another query asks in each column changes nothing then, as the law inside is the same for
# all queries. In the mixture rows and columns overlap, so that scores must separate over all of the past,
# $s_{ij} = \alpha_i + \beta_j$.


# %%
def separable(draws: int, keys: int) -> tuple[Tensor, Tensor]:
    """Queries (q', 1) and keys (k', beta_j) with ``keys`` different k', one for each of as many equal parts of the tokens."""
    shared = normal("grid separable k", draws, keys, SIZE - 1).repeat_interleave(LENGTH // keys, dim=1)
    query = torch.cat((normal("grid separable q", draws, LENGTH, SIZE - 1), torch.ones(draws, LENGTH, 1).double()), -1)
    return query, torch.cat((shared, 2 * normal("grid separable beta", draws, LENGTH, 1)), -1)


def equal_keys(draws: int) -> tuple[Tensor, Tensor]:
    """Keys that are equal inside a row."""
    query, key = separable(draws, ROWS)
    return query, torch.cat((key[..., :-1], torch.zeros_like(key[..., -1:])), -1)


def any_keys(draws: int) -> tuple[Tensor, Tensor]:
    """Independent keys."""
    return normal("grid any q", draws, LENGTH, SIZE), normal("grid any k", draws, LENGTH, SIZE)


def covered_attention(query: Tensor, key: Tensor, covered: Tensor) -> Tensor:
    """Softmax attention with log m added to the scores, m being how often a token is covered; 0 where m is 0."""
    scores = query @ key.mT / math.sqrt(SIZE) + covered.double().log()
    return scores.softmax(-1)


def halved(query: Tensor, key: Tensor, regions: Regions) -> Tensor:
    """The induced law of logits logsumexp, with log 2 less in the logit of every region."""
    induced_law = law(query, key, regions, "logsumexp")
    direct, summaries = induced_law.direct, induced_law.regions / 2
    total = direct.sum(-1, keepdim=True) + summaries.sum(-1, keepdim=True)
    return (direct + summaries @ induced_law.inside) / total


def moved(full: Tensor, chosen: Tensor) -> Tensor:
    """a (1 - a) / (1 + a) of each query, a being the weight in ``full`` of the tokens ``chosen``."""
    off = full.masked_fill(~chosen, 0.0).sum(-1)
    return off * (1 - off) / (1 + off)


@PROOFS.cases(claimed={})
def grid_distances(config: object) -> LabelledArrays:
    """Largest total variation between laws of both variants and softmax attention, plain and by coverage, over 50 draws."""
    rows, mixture = (make(LENGTH, COLUMNS) for make in CUTS.values())
    by_row, everywhere, equal, independent = (
        separable(DRAWS, ROWS),
        separable(DRAWS, 1),
        equal_keys(DRAWS),
        any_keys(DRAWS),
    )
    causal, twice = masks.causal(LENGTH), times_covered("mixture")
    plain = {id(streams): weights(*streams, causal) for streams in (by_row, everywhere, equal, independent)}

    def of(streams: tuple[Tensor, Tensor], regions: Regions, logit: str) -> float:
        return largest_distance(law(*streams, regions, logit).weights(), plain[id(streams)])

    def by_coverage(streams: tuple[Tensor, Tensor]) -> float:
        return largest_distance(law(*streams, mixture, "logsumexp").weights(), covered_attention(*streams, twice))

    def beside_its_law(streams: tuple[Tensor, Tensor], times: int = 2) -> float:
        full = plain[id(streams)]
        apart = (law(*streams, mixture, "logsumexp").weights() - full).abs().sum(-1) / 2
        return largest(apart - moved(full, twice == times))

    total_variations = {
        "rows, separable": of(by_row, rows, "logsumexp"),
        "rows, equal": of(equal, rows, "mean and size"),
        "rows, separable, largest": of(by_row, rows, "max"),
        "rows, equal, no size": of(equal, rows, "mean"),
        "rows, independent": of(independent, rows, "logsumexp"),
        "mixture, by coverage": by_coverage(everywhere),
        "mixture, halved": largest_distance(halved(*everywhere, mixture), plain[id(everywhere)]),
        "mixture, plain": of(everywhere, mixture, "logsumexp"),
        "mixture, beside its law": beside_its_law(everywhere),
        "mixture, independent, beside its law": beside_its_law(independent),
        "mixture, beside the law of the own row and column": beside_its_law(everywhere, times=1),
        "mixture, separable in rows": by_coverage(by_row),
        "mixture, independent": by_coverage(independent),
        "mixture, halved, separable in rows": largest_distance(halved(*by_row, mixture), plain[id(by_row)]),
    }
    score = max(
        float(query.norm(dim=-1).max() * key.norm(dim=-1).max()) / math.sqrt(SIZE)
        for query, key in (by_row, everywhere, equal)
    )
    # Shares of both levels move by twice the error of a score, and their sums have a term for each token and region.
    bound = rounding_bound(8 * (SIZE + LENGTH + len(mixture.members) + 8), 1 + 2 * score)
    return {"distance": labelled(list(total_variations.values()), setting=tuple(total_variations)), "bound": bound}


def near(results: Results, settings: tuple[str, ...]) -> Evidence:
    """Total variations within their rounding."""
    measured = results[grid_distances].sel(case="claimed")
    total_variations = [float(measured["distance"].sel(setting=setting)) for setting in settings]
    origin = "rounding of scores and of two nested softmaxes, in total variation"
    return Evidence.within(total_variations, [float(measured["bound"])] * len(total_variations), origin)


@PROOFS.claim(
    "structured-mixers/comb.T3.axial",
    where="derived",
    paper=PAPER,
    kind="identity",
    statement=r"In row-major order a Combiner *is* softmax attention where scores separate inside each row and a row's logit is the "
    r"logarithm of its sum of exponentials; for keys that are equal inside a row, the mean key plus $\log C$ is that logit "
    "(4 rows of 6 tokens).",
    controls=[
        control("separable scores, the largest key as logit", settings=("rows, separable, largest", "rows, equal")),
        control("equal keys without the size", settings=("rows, separable", "rows, equal, no size")),
        control("independent keys and the sum of exponentials", settings=("rows, independent", "rows, equal")),
    ],
)
def rows_are_exact_where_scores_separate(
    results: Results, settings: tuple[str, ...] = ("rows, separable", "rows, equal")
) -> Evidence:
    return near(results, settings)


@PROOFS.claim(
    "structured-mixers/comb.T3.mixture",
    where="derived",
    paper=PAPER,
    kind="identity",
    statement=r"With $s_{ij} = \alpha_i + \beta_j$ and logits that are logarithms of sums of exponentials the mixture is softmax attention "
    r"with $\log 2$ added to all scores outside the own row and column; with $\log 2$ less in every region's logit it is softmax "
    "attention itself (4 rows of 6 tokens).",
    controls=[
        control("softmax attention without log 2", settings=("mixture, plain", "mixture, halved")),
        control(
            "scores that separate only inside rows",
            settings=("mixture, separable in rows", "mixture, halved, separable in rows"),
        ),
        control("independent keys", settings=("mixture, independent", "mixture, halved")),
    ],
)
def the_mixture_counts_twice(
    results: Results, settings: tuple[str, ...] = ("mixture, by coverage", "mixture, halved")
) -> Evidence:
    return near(results, settings)


@PROOFS.claim(
    "structured-mixers/comb.T3.twice",
    where="derived",
    paper=PAPER,
    kind="identity",
    statement=r"Covering twice has a price that is known: with $s_{ij} = \alpha_i + \beta_j$ and logits that are logarithms of sums of "
    r"exponentials the mixture differs from softmax attention by exactly $a (1 - a) / (1 + a)$ in total variation, a being the weight "
    r"that softmax attention gives off the own row and column; that is never more than "
    r"$3 - 2 \sqrt 2 \approx 0.1716$ (4 rows of 6 tokens, 50 draws).",
    controls=[
        control("independent keys", settings=("mixture, independent, beside its law",)),
        control(
            "the weight on the own row and column in the place of a",
            settings=("mixture, beside the law of the own row and column",),
        ),
    ],
)
def twice_has_a_price(results: Results, settings: tuple[str, ...] = ("mixture, beside its law",)) -> Evidence:
    measured = results[grid_distances].sel(case="claimed")
    most, bound = 3 - 2 * math.sqrt(2), float(measured["bound"])
    largest_found = float(measured["distance"].sel(setting="mixture, plain"))
    return Evidence.all(
        near(results, settings),
        Evidence.exact(
            largest_found, "<=", most + bound, "the largest a (1 - a) / (1 + a), at a = 0.414, and rounding"
        ),
    )


# %% [markdown]
# **Cost.** A token of row s and column u scores s summaries and $u + 1$ tokens in row-major order, together
# $\frac{R C (R + C)}{2}$ over the grid, and $(R - 1) C^2$ scores lie inside regions. The mixture adds the summaries of columns,
# and two halves of each row for one whole: $(R - 1)(C - 1)(R + C)$ scores more, and $\frac{C R (R - 1)}{2} + (R - 1) C (C - 1)$ inside.
# On a square grid that is $L^{3/2}$ for one and $L^{3/2} + 2 \sqrt L (\sqrt L - 1)^2$ for the other.
# Both grow like $L^{3/2}$; the mixture scores 2.9 times as many at 1,024 tokens, and 2.2 times with those inside regions.


# %%
GRIDS = ((4, 6), (6, 4), (8, 8), (16, 16), (32, 32))
NAMES = tuple(f"{rows} x {columns}" for rows, columns in GRIDS)


def pair_laws(rows: int, columns: int) -> dict[str, tuple[int, int]]:
    """Scores of queries and scores inside regions on a full grid of at least two columns, by variant."""
    first = rows * columns * (rows + columns) // 2
    more = (rows - 1) * (columns - 1) * (rows + columns)
    inside = columns * rows * (rows - 1) // 2 + (rows - 1) * columns * (columns - 1)
    return {"row-major": (first, (rows - 1) * columns**2), "mixture": (first + more, inside)}


@PROOFS.cases(claimed={}, transposed={"turned": True}, segmented={"cut_by": "segments"})
def grid_pairs(config: object, *, turned: bool = False, cut_by: str = "") -> LabelledArrays:
    """Scores counted in the patterns, of queries and inside regions, by grid and variant, and their laws; for grids of exchanged
    sides, or for segments of a row's length in place of both."""
    counted, laws = [], []
    for rows, columns in GRIDS:
        length, side = rows * columns, rows if turned else columns
        grid_regions = {name: segments(length, side) if cut_by else make(length, side) for name, make in CUTS.items()}
        counted.append([[regions.pairs(), regions.inside()] for regions in grid_regions.values()])
        laws.append(list(pair_laws(rows, columns).values()))
    axes = {"grid": NAMES, "variant": tuple(CUTS), "of": ("queries", "inside")}
    return {"counted": labelled(counted, **axes), "law": labelled(laws, **axes)}


@PROOFS.claim(
    "structured-mixers/comb.R1.axial",
    where="sub-quadratic cost of the axial variants; the counts are derived",
    paper=PAPER,
    kind="rate",
    statement=r"On a grid of R rows and C columns the row-major variant scores exactly $R C (R + C) / 2$ pairs and $(R - 1) C^2$ inside "
    r"regions, the mixture $(R - 1)(C - 1)(R + C)$ more and $C R (R - 1) / 2 + (R - 1) C (C - 1)$ inside: of 1,024 tokens in a square "
    "32,768 and 94,272 pairs, with those inside regions 64,512 and 140,896, where causal attention scores 524,800 (counted on "
    "five full grids, 4 x 6 to 32 x 32).",
    controls=[
        control("rows and columns exchanged", case="transposed"),
        control("segments of a row's length in place of both", case="segmented"),
    ],
)
def grids_cost_three_halves(results: Results, case: str = "claimed") -> Evidence:
    measured = results[grid_pairs].sel(case=case)
    far = abs(measured["counted"] - measured["law"]).sum(("grid", "of"))
    return Evidence.all(*(Evidence.exact(int(far.sel(variant=name)), "<=", 0, f"{name}: {COUNTING}") for name in CUTS))


@PROOFS.figure
def coverage_on_a_grid(results: Results) -> Sheet:
    """How often each variant covers a token for each query, and scores of queries by length."""
    sheet = Sheet(
        columns=3, width=4.4, height=3.9, foot="4 rows of 6 tokens; scores of queries without those inside regions"
    )
    for case, title in (("rows", "row-major: a partition"), ("mixture", "mixture: twice off row and column")):
        panel = sheet.panel(title, x="token", y="query")
        panel.heat(results[grid_support]["covered"].sel(case=case), bar="times covered", high=2.0, of="times covered")
        if bar := panel.axes.collections[-1].colorbar:
            bar.set_ticks([0, 1, 2])
    measured = results[grid_pairs]["counted"].sel(case="claimed", of="queries")
    panel = sheet.panel(
        "both grow like L to the 3/2", x="tokens L", y="scores", scale=("log", "log"), legend="upper left"
    )
    squares = {f"{rows} x {columns}": rows * columns for rows, columns in GRIDS if rows == columns}
    lengths = list(squares.values())
    for name in CUTS:
        panel.line(lengths, measured.sel(variant=name, grid=list(squares)), name=name, of="counted")
    panel.theory(lengths, [length * (length + 1) // 2 for length in lengths], name="causal attention, L (L + 1) / 2")
    panel.theory(lengths, [length**1.5 for length in lengths], name="$L^{3/2}$")
    return sheet


# %%
PROOFS.show(coverage_on_a_grid)
PROOFS.show(rows_are_a_partition)
PROOFS.show(mixtures_cover_twice)
PROOFS.show(rows_are_exact_where_scores_separate)
PROOFS.show(the_mixture_counts_twice)
PROOFS.show(twice_has_a_price)
PROOFS.show(grids_cost_three_halves)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
