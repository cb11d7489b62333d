"""Which attention mechanism is which optimiser or statistic, when, and which claim verifies it.

The lines are data. ``lab show dictionary`` prints them, ``lab reproduce`` writes them to `PAGE`, and a test holds every
cited claim to be in the registry and expected to hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from lab.files import PROJECT

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
        ("causallm-icl/T1", "causallm-icl/I1", "icl-gradient-descent/T1"),
    ),
    Line(
        "one head of linear attention",
        "a matrix of fast weights, written by outer products of values and keys",
        "read at the last token",
        ("attention-masks/meta.T1.dual",),
    ),
    Line(
        "the best layer of linear attention, inputs alike in all directions",
        "one gradient step at the rate $1 / (v (n + d - 2 + \\kappa) + \\sigma^2)$",
        "independent coordinates of variance v and kurtosis $\\kappa$, label noise $\\sigma$",
        ("icl-gradient-descent/L1", "icl-gradient-descent/T2.isotropic"),
    ),
    Line(
        "the best layer of linear attention, inputs of covariance $\\Lambda$",
        "one step preconditioned by $[(1 + \\frac1n) \\Lambda + \\frac{\\mathrm{tr} \\Lambda + \\sigma^2}{n} I]^{-1}$",
        "normal inputs, label noise $\\sigma$",
        ("icl-gradient-descent/T2",),
    ),
    Line(
        "depth of linear attention under a prefix mask",
        "steps of batch gradient descent on all examples",
        "queries see the examples and neither themselves nor each other; all layers share weights",
        ("causallm-icl/T1", "causallm-icl/T3.rate", "icl-gradient-descent/T4"),
    ),
    Line(
        "layers of linear attention that rewrite the inputs as well, by $I - \\gamma A$",
        "GD++: gradient descent that meets the eigenvalues $\\lambda (1 - \\gamma \\lambda)^2$ of the layer before",
        "a prefix mask; eigenvalues beyond $2 / \\gamma$ grow",
        ("icl-gradient-descent/T5", "icl-gradient-descent/T5.map"),
    ),
    Line(
        "a network $m$ on each token before layers of linear attention",
        "gradient descent in function space with the kernel $m(x) \\cdot m(x')$",
        "a prefix mask",
        ("icl-gradient-descent/T7",),
    ),
    Line(
        "two layers on alternating tokens: copy the input to its label, then linear attention",
        "one step of batch gradient descent",
        "an exact copy; that of a softmax layer is exact as its scores grow",
        ("icl-gradient-descent/T8", "icl-gradient-descent/T8.causal", "icl-gradient-descent/T8.softmax"),
    ),
    Line(
        "one layer of linear attention over pairs of neighbouring states",
        "one gradient step on the transition matrix, from the past of the very sequence it continues",
        "the step is $a b / (t - 1)$ for the weights a and b",
        ("mesa-optimization/C1",),
    ),
    Line(
        "that layer, trained to predict the next state",
        "the step $k_1 / (k_2 + k_3 h)$, set by the moments of the first state and by which positions are asked",
        "exact predictions for sparse first states, a share of the truth for normal ones",
        ("mesa-optimization/T1", "mesa-optimization/T3", "mesa-optimization/T3.ratio"),
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
        ("causallm-icl/I2", "attention-masks/sym.T1"),
    ),
    Line(
        "the order of the earlier tokens under a causal mask",
        "nothing for one layer, a sequence from the second layer on",
        "no positions; read at the last token",
        ("attention-masks/sym.T2",),
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
    Line(
        "one causal layer of linear attention, normalised or not",
        "a recurrent network with a state of $D (M + 1)$ numbers",
        "a feature map whose weights are positive, where it is normalised; under a prefix or a block-causal mask a whole "
        "block is written before it is read",
        ("linear-attention/la.T1", "linear-attention/arflow.T1"),
    ),
    Line(
        "linear attention that sees all tokens, with decays",
        "two recurrences, one from each end, less the diagonal that both of them read",
        "added before they are divided, the decays in the convention of the mask",
        ("linear-attention/lion.T1", "linear-attention/lion.T2", "linear-attention/lion.T3"),
    ),
    Line(
        "weights $(q \\cdot k)^2$",
        "linear attention with the $D^2$ features $\\mathrm{vec}(x x^\\top)$",
        "always",
        ("linear-attention/la.T4",),
    ),
    Line(
        "linear attention as a recurrence, read at a query",
        "one step of batch gradient descent of size 1 from 0",
        "no feature map, no normaliser",
        ("linear-attention/fw.T3",),
    ),
    Line(
        "the delta rule",
        "online gradient descent, one step of its rate an example; at the rate $1 / \\|k\\|^2$ one pass of Kaczmarz",
        "one layer; deep causal linear attention tends to the same",
        ("linear-attention/fw.T1", "linear-attention/fw.T1.kaczmarz", "linear-attention/fw.T2"),
    ),
    Line(
        "the delta rule with the gain $P_{t-1} / (1 + k^\\top P_{t-1} k)$",
        "ridge regression of penalty $\\lambda$ on all examples so far: recursive least squares",
        "$P_0 = I / \\lambda$",
        ("linear-attention/fw.T4", "linear-attention/fw.T4.ridge"),
    ),
    Line(
        "a sum of n outer products, read at one of its keys",
        "a memory of mean square error $(n - 1) / D$",
        "isotropic unit keys in D dimensions, values of variance 1; the delta rule errs less from two items on",
        ("linear-attention/la.C2", "linear-attention/fw.R4", "linear-attention/fw.R4.better"),
    ),
)


def page() -> str:
    """The dictionary as a Markdown page."""
    rows = ["| " + " | ".join((line.mechanism, line.equals, line.condition, _cited(line))) + " |" for line in LINES]
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
        table.add_column(name, ratio=3, overflow="fold")
    table.add_column("verified by", no_wrap=True)
    for line in LINES:
        cells = (line.mechanism, line.equals, line.condition)
        table.add_row(*(escape(cell) for cell in cells), "\n".join(line.claims))
    return table
