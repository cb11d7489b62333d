"""Which attention mechanism is which optimiser or statistic, when, and which claim verifies it.

The lines are data. ``lab show dictionary`` prints them, ``lab reproduce`` writes them to `PAGE`, and a test holds every
cited claim to be in the registry and expected to hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from lab.tasks import PROJECT

PAGE = PROJECT / "figures" / "dictionary.md"


@dataclass(frozen=True)
class Line:
    """One entry.

    Args:
        mechanism: what the network does.
        equals: what that is.
        condition: when.
        claims: ids of the claims that verify it.
    """

    mechanism: str
    equals: str
    condition: str
    claims: tuple[str, ...]


LINES = (
    Line(
        "one layer of linear attention",
        "one step of batch gradient descent",
        "read at the queries, whose own label slot is 0; under a prefix and a causal mask alike",
        ("causallm-icl/T1", "causallm-icl/I1"),
    ),
    Line(
        "depth of linear attention under a prefix mask",
        "steps of batch gradient descent on all examples",
        "queries see the examples and neither themselves nor each other; all layers share weights",
        ("causallm-icl/T1", "causallm-icl/T3.rate"),
    ),
    Line(
        "a term $w_0$ in the value matrix",
        "the weights at which the descent starts",
        "the query adds $w_0 \\cdot x_q$ to its answer",
        ("causallm-icl/T6",),
    ),
    Line(
        "infinite depth under a prefix mask",
        "least squares, of least norm with fewer examples than dimensions",
        "a step below $2 / \\lambda_{\\max}(X^\\top X)$, starting from zero",
        ("causallm-icl/T3", "causallm-icl/T3.rate"),
    ),
    Line(
        "depth of linear attention under a causal mask",
        "an online recursion: each place descends on the examples up to its own, with weights of its own",
        "from the second layer on; in the first the masks cannot differ",
        ("causallm-icl/T2", "causallm-icl/T4", "causallm-icl/T4.rate"),
    ),
    Line(
        "infinite depth under a causal mask",
        "one pass of Kaczmarz: each example is fitted exactly, in the order shown",
        "a step below $2 / \\max_j \\|x_j\\|^2$; noisy labels leave an error floor",
        ("causallm-icl/T5", "causallm-icl/T5b", "causallm-icl/L1.noise"),
    ),
    Line(
        "infinite depth under a causal mask, place j dividing by j",
        "one pass of Kaczmarz whose weights are shrunk by j / (j + 1) before each example",
        "a step $\\eta / j$ at place j",
        ("causallm-icl/T8",),
    ),
    Line(
        "n layers under a causal mask, inputs of equal norm r",
        "one pass of Kaczmarz after finitely many layers",
        "the step is $1 / r^2$: place j is exact after j layers",
        ("causallm-icl/I4",),
    ),
    Line(
        "the context shown many times under a causal mask",
        "many passes of Kaczmarz, which tend to least squares",
        "labels without noise",
        ("causallm-icl/O5.passes",),
    ),
    Line(
        "linear attention whose tokens all see the query",
        "gradient descent on one example more: the query with label 0",
        "the prediction shrinks by the query's leverage",
        ("causallm-icl/I3.full",),
    ),
    Line(
        "the order of the context under a prefix mask",
        "nothing: a batch optimiser sees a set",
        "no positions; under a causal mask the order is that of the online passes",
        ("causallm-icl/I2",),
    ),
    Line(
        "an induction head (two softmax layers: copy the symbol before, match the copy)",
        "bigram counts of the context",
        "a sharp second layer; under a full mask the wiring is another and the counts are the same",
        ("induction-heads-markov/K1", "induction-heads-markov/K2"),
    ),
    Line(
        "an induction head of finite sharpness $\\beta$",
        "bigram counts with additive smoothing towards the unigram",
        "worth $t / (e^\\beta - 1)$ observations after t tokens",
        ("induction-heads-markov/K3",),
    ),
    Line(
        "bigram counts with $\\alpha$ added to each",
        "the Bayes posterior of a Markov chain",
        "rows from $\\mathrm{Dirichlet}(\\alpha)$ and uniform first symbols",
        ("induction-heads-markov/B1",),
    ),
    Line(
        "two softmax layers, the first on the parent in a graph",
        "counts of children given the parent's symbol",
        "a sharp second layer; sharpness $\\beta$ smooths towards the unigram of the keys",
        ("causal-structure/C1", "causal-structure/C2"),
    ),
    Line(
        "k heads in the first layer, one on each parent",
        "counts given all k parents",
        "a sharp second layer, the last key and the roots silenced",
        ("causal-structure/M1",),
    ),
)


def page() -> str:
    """The dictionary as a Markdown page."""
    rows = [
        "| " + " | ".join((line.mechanism, line.equals, line.condition, _cited(line))) + " |"
        for line in LINES
    ]
    head = [
        "# Dictionary: attention as optimisation",
        "",
        "What an attention mechanism computes, under which condition, and the claims that verify it on every commit",
        "(`lab show CLAIM` states one, `lab check CLAIM` measures it). Written by `lab reproduce` from `lab/dictionary.py`.",
        "",
        "| mechanism | is | condition | verified by |",
        "| --- | --- | --- | --- |",
    ]
    return "\n".join([*head, *rows]) + "\n"


def _cited(line: Line) -> str:
    return ", ".join(f"`{claim}`" for claim in line.claims)


def terminal_table() -> Table:
    """The dictionary for the terminal."""
    table = Table(title="attention as optimisation", show_lines=True)
    for name in ("mechanism", "is", "condition"):
        table.add_column(name, ratio=3)
    table.add_column("verified by", no_wrap=True)
    for line in LINES:
        cells = (line.mechanism, line.equals, line.condition)
        table.add_row(*(escape(cell) for cell in cells), "\n".join(line.claims))
    return table
