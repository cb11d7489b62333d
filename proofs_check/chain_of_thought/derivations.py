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
# # Problems with their derivations
#
# A *derivation* is a problem followed by all steps to its answer, as one row of tokens. The lab generates six families:
# arithmetic over a prime field, linear equations over one, the longest increasing subsequence, edit distance, Boolean
# formulas, and words read by an automaton. Before a network is asked to write such rows, three things must be sure.
#
# * **The steps are right.** Each family has a reader of its own that shares no code with its generator: recursive
#   descent for expressions, substitution of the printed answer into every printed equation, patience sorting,
#   entry-by-entry recurrences in plain integers, trees and tables.
# * **What guessing gives.** A solution of $m$ equations over $Z_p$ is uniform, so it is guessed with probability
#   $p^{-m}$, once singular matrices have been drawn again; that takes $1/\prod_{i \le m} (1 - p^{-i})$ draws on average.
# * **What the labels mean.** The code that came with the paper starts its table of edit distances with $D_{i0} = i$
#   although an insertion or a deletion costs 2. Its last entry is then no edit distance of these costs.

# %%
from __future__ import annotations

from collections.abc import Callable
from itertools import product

import networkx as nx
import torch

from lab import Task, control
from lab.domains.derivations import arithmetic, automata, edit_distance, equations, formulas, subsequences
from lab.domains.derivations.sequences import Derivations
from lab.labels import LabelledArrays, deviations
from lab.streams import stream
from proofs_check.chain_of_thought._shared import COUNTS, PAPER, SLUG

PROOFS = Task(SLUG, paper=PAPER)
ROWS = 300
MODULUS = 11


def families() -> dict[str, tuple[Derivations, int, int]]:
    """Rows of every family with the range of tokens that stand for numbers, states or values."""
    source = stream(0, "derivations")
    table = automata.group_table()
    first_state = automata.LETTERS + table.shape[1]
    return {
        "arithmetic": (
            arithmetic.arithmetic(source.child("arithmetic"), ROWS, operators=5),
            arithmetic.ZERO,
            arithmetic.ZERO + MODULUS,
        ),
        "equations": (
            equations.equations(source.child("equations"), ROWS, unknowns=3),
            equations.NUMBERS,
            equations.NUMBERS + MODULUS,
        ),
        "subsequences": (
            subsequences.increasing_subsequence(source.child("subsequences"), ROWS, length=20),
            subsequences.ZERO,
            subsequences.ZERO + 20,
        ),
        "edit distance": (
            edit_distance.edit_distance(source.child("edit"), ROWS, length=8),
            edit_distance.ZERO,
            edit_distance.vocabulary_size(8),
        ),
        "formulas": (formulas.formulas(source.child("formulas"), ROWS, depth=4), formulas.FALSE, formulas.TRUE + 1),
        "words": (
            automata.words(source.child("words"), ROWS, table=table, length=16),
            first_state,
            first_state + len(table),
        ),
    }


READERS: dict[str, Callable[[list[int]], object]] = {
    "arithmetic": lambda row: arithmetic.first_wrong_step(row, MODULUS),
    "equations": lambda row: equations.first_wrong_step(row, 3, MODULUS),
    "subsequences": lambda row: subsequences.first_wrong_step(row, 20),
    "edit distance": edit_distance.first_wrong_step,
    "formulas": lambda row: formulas.first_wrong_step(row, 4),
    "words": lambda row: automata.first_wrong_step(row, automata.group_table(), 16),
}


def one_number_changed(rows: Derivations, low: int, high: int) -> torch.Tensor:
    """The rows with the first number of each derivation replaced by the next one."""
    place = torch.arange(rows.tokens.shape[1])
    number = (rows.tokens >= low) & (rows.tokens < high) & (place >= rows.prefix_length[:, None])
    first = number.int().argmax(1, keepdim=True)
    old = rows.tokens.gather(1, first)
    return rows.tokens.scatter(1, first, low + (old - low + 1) % (high - low))


@PROOFS.identity(
    "chain-of-thought/G1",
    where="derived, on section 4",
    statement="Every step of every derivation follows from the one before, in 300 rows of each of the six families, "
    "each read by an evaluator that shares no code with its generator.",
    origin=COUNTS,
    controls=[control("the first number of every derivation replaced by the next", changed=True)],
)
def steps_follow(config: object, *, changed: bool = False) -> LabelledArrays:
    pairs = []
    for name, (rows, low, high) in families().items():
        tokens = one_number_changed(rows, low, high) if changed else rows.tokens
        wrong = sum(READERS[name](row) is not None for row in tokens.tolist())
        pairs.append((float(wrong), 0.0))
    return deviations(pairs)


OPERATORS = (2, 3, 4)


@PROOFS.identity(
    "chain-of-thought/G2",
    where="section 4, sizes of the released data",
    statement="An expression with $n$ operators and its value take at most $4n + 2$ tokens, with all its steps at "
    "most $2n(n+1) + 2$ "
    "(one sign that opens every row of the paper not counted), and both are reached ($n = 2, 3, 4$).",
    origin="equality of whole numbers",
    controls=[control("no brackets: lines of 2 k + 1 tokens", bracketed=False)],
)
def longest_rows(config: object, *, bracketed: bool = True) -> LabelledArrays:
    pairs = []
    for n, format in product(OPERATORS, ("direct", "derivation")):
        rows = arithmetic.arithmetic(stream(0, "lengths", n), 4000, operators=n, format=format)
        lines = [4 * k - 1 if bracketed else 2 * k + 1 for k in (range(1, n + 1) if format == "derivation" else [n])]
        law = sum(lines) + len(lines) + 2  # a sign of equality each, the value, the stop token
        pairs.append((abs(float(rows.lengths.max()) - law), 0.0))
    return deviations(pairs)


# %% [markdown]
# ## Guessing a solution


# %%
@PROOFS.identity(
    "chain-of-thought/G3",
    where="derived, on section 4",
    statement=r"Of all $m \times m$ matrices over $Z_p$ a share $\prod_{i=1}^m (1 - p^{-i})$ is invertible, and "
    r"over all systems "
    r"with an invertible one every solution is equally likely, so that guessing succeeds with probability $p^{-m}$ "
    r"(all "
    r"systems, $(m, p) = (1, 5), (2, 2), (2, 3), (3, 2)$).",
    origin="equality of two shares, at most 3 roundings",
    controls=[control("singular systems kept", keep_singular=True)],
)
def solutions_are_uniform(config: object, *, keep_singular: bool = False) -> LabelledArrays:
    pairs = []
    for unknowns, modulus in ((1, 5), (2, 2), (2, 3), (3, 2)):
        entries = unknowns * (unknowns + 1)
        everything = torch.arange(modulus**entries)[:, None] // modulus ** torch.arange(entries) % modulus
        solved = equations.eliminate(everything.view(-1, unknowns, unknowns + 1), modulus)
        kept = torch.ones(len(everything), dtype=torch.bool) if keep_singular else solved.singular == 0
        share = float(kept.double().mean())
        pairs.append((abs(share - equations.share_invertible(unknowns, modulus)), 1e-15))
        answers = (solved.systems[-1][kept, :, -1] * modulus ** torch.arange(unknowns)).sum(1)
        counts = answers.bincount(minlength=modulus**unknowns).double() / len(answers)
        pairs.append((float((counts - float(modulus) ** -unknowns).abs().max()), 1e-15))
    return deviations(pairs)


# %% [markdown]
# ## Which edit distance?


# %%
def cheapest(first: str, second: str) -> int:
    """The edit distance as a shortest path through the grid of prefixes, by Dijkstra's algorithm."""
    graph = nx.DiGraph()
    for i, j in product(range(len(first) + 1), range(len(second) + 1)):
        if i < len(first):
            graph.add_edge((i, j), (i + 1, j), weight=edit_distance.INDEL)
        if j < len(second):
            graph.add_edge((i, j), (i, j + 1), weight=edit_distance.INDEL)
        if i < len(first) and j < len(second):
            price = 0 if first[i] == second[j] else edit_distance.SUBSTITUTION
            graph.add_edge((i, j), (i + 1, j + 1), weight=price)
    return int(nx.dijkstra_path_length(graph, (0, 0), (len(first), len(second))))


@PROOFS.identity(
    "chain-of-thought/G4",
    where="section 4; the border is derived",
    statement="With the border $D_{i0} = 2i$, $D_{0j} = 2j$ the last entry of the table is the cost of the cheapest "
    "edit with costs 2, 2 "
    "and 3, for all pairs of words of 1 to 3 letters of an alphabet of two. (With the border $i$, $j$ of the "
    "released code it is not.)",
    origin=COUNTS,
    controls=[control("the border of the released code", border="released")],
)
def corrected_border(config: object, *, border: str = "corrected") -> LabelledArrays:
    words = ["".join(letters) for size in (1, 2, 3) for letters in product("ab", repeat=size)]
    pairs = list(product(words, words))
    (a, rows), (b, columns) = (edit_distance.parse_words([pair[side] for pair in pairs]) for side in (0, 1))
    table = edit_distance.distances(a, b, border)[torch.arange(len(pairs)), rows, columns]
    wrong = sum(int(entry) != cheapest(*pair) for entry, pair in zip(table, pairs, strict=True))
    return deviations([(float(wrong), 0.0)])


# %%
PROOFS.show(steps_follow)
PROOFS.show(longest_rows)
PROOFS.show(solutions_are_uniform)
PROOFS.show(corrected_border)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
