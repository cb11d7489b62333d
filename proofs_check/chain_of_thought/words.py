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
# # A transformer that runs an automaton
#
# A word $w_0 \dots w_{n-1}$ and its run, $s_{i+1} = \mathrm{table}[s_i, w_i]$. Behind the word stand the states one by
# one; at the position of $s_i$ the network sees its own token and has to fetch one letter, always $n$ places back. One
# attention head and one look-up are enough: one layer, whose MLP has a hidden unit for every (state, letter). Its width
# does not grow with $n$: positions are written as $(\cos, \sin)(2\pi t/T)$, and a query sharp enough to tell neighbours
# apart needs weights that grow as $T^2$. That is the paper's statement in its barest case (constant size, weights
# polynomial in $n$), and it holds for $S_5$ as for parity.
#
# *At once* is another matter. Parity of $n$ bits can be had in one layer by counting with uniform attention and a
# sawtooth, at the price of a hidden unit for every bit. And what can be said of the answer without reading the word is
# the law of a random walk on the group; its largest probability is the level that a network which guesses cannot pass.

# %%
from __future__ import annotations

import torch

from lab import Task, control
from lab.domains.derivations import automata
from lab.domains.derivations.automaton_transformer import automaton_transformer, parity_at_once
from lab.labels import LabelledArrays, deviations
from lab.models import masks
from lab.streams import stream
from proofs_check.chain_of_thought._shared import COUNTS, PAPER, SLUG, wrong_predicted, wrong_written

PROOFS = Task(SLUG, paper=PAPER)
MACHINES = {
    "parity": (automata.parity_table(), 40),
    "modulo 3": (automata.parity_table(3), 20),
    "S5": (automata.group_table(), 16),
}


@PROOFS.identity(
    "chain-of-thought/C1.words",
    where="theorem 4.7 (dynamic programmes), on its simplest case",
    kind="construction",
    statement="One layer with one head and a hidden unit for every state and letter, with explicit weights, writes "
    "the run of an automaton "
    "behind every word: parity of 40 bits, counting modulo 3, words of 16 letters over $S_5$; under both masks, "
    "token after token from its own "
    "output and at every position of the true row.",
    origin=COUNTS,
    controls=[control("a head that looks one place too far back", shift=1)],
)
def one_layer_runs_automata(config: object, *, shift: int = 0) -> LabelledArrays:
    pairs = []
    for name, (table, length) in MACHINES.items():
        rows = automata.words(stream(0, "automata", name), 40, table=table, length=length)
        module = automaton_transformer(table, length, shift=shift)
        pairs += [
            (wrong(module, rows, mask), 0.0)
            for wrong in (wrong_written, wrong_predicted)
            for mask in ("causal", "prefix")
        ]
    return deviations(pairs)


LONG, COPIES = 2500, 4


@PROOFS.identity(
    "chain-of-thought/C1.long",
    where="derived, on theorem 4.7",
    kind="construction",
    statement="The same construction, no wider (13 channels), writes the 10,000 parities of four words of 2,500 "
    "bits without an error, with a "
    "cache.",
    origin=COUNTS,
    controls=[control("a head that looks one place too far back", shift=1)],
)
def long_words(config: object, *, shift: int = 0) -> LabelledArrays:
    table = automata.parity_table()
    rows = automata.words(stream(0, "long words"), COPIES, table=table, length=LONG)
    module = automaton_transformer(table, LONG, shift=shift)
    return deviations([(wrong_written(module, rows), 0.0), (abs(module.width - 13.0), 0.0)])


BITS = (1, 2, 5, 10)


@PROOFS.identity(
    "chain-of-thought/C1.parity",
    where="derived",
    kind="construction",
    statement="One layer of uniform attention and a sawtooth of $n$ hidden units names the parity of every word of "
    "$n$ bits at once, under "
    "both masks (all words, $n = 1, 2, 5, 10$).",
    origin=COUNTS,
    controls=[control("one hidden unit fewer", missing=1)],
)
def parity_by_counting(config: object, *, missing: int = 0) -> LabelledArrays:
    pairs = []
    for length in BITS:
        bits = torch.arange(2**length)[:, None] >> torch.arange(length) & 1
        ends = torch.full((len(bits), 1), automata.END)
        tokens = torch.cat([automata.LETTERS + bits, ends], 1)
        module = parity_at_once(length, units=max(1, length - missing))
        for mask in (masks.causal(length + 1), masks.full(length + 1)):
            answer = module(tokens[None], mask)[0, :, -1].argmax(-1) - automata.LETTERS - 2
            pairs.append((float((answer != bits.sum(1) % 2).sum()), 0.0))
    return deviations(pairs)


@PROOFS.identity(
    "chain-of-thought/T1.law",
    where="derived",
    statement="Without reading the word its product in $S_5$ is known with probability at most $0.0586$ after 8 "
    "letters and $0.0205$ after 16: "
    "the law by convolution is that over all words.",
    origin="sums of at most 2^16 equal terms; the decimals as stated",
    controls=[control("the law of words that are one letter shorter", shorter=1)],
)
def law_of_the_walk(config: object, *, shorter: int = 0) -> LabelledArrays:
    table, pairs = automata.group_table(), []
    law = automata.walk_law(table, 16)
    for length, stated in ((8, 0.0586), (16, 0.0205)):
        words = torch.arange(2**length)[:, None] >> torch.arange(length) & 1
        counts = automata.run(table, words)[:, -1].bincount(minlength=len(table)).double() / len(words)
        pairs.append((float((law[length - shorter] - counts).abs().max()), 2.0**-50))
        pairs.append((abs(float(law[length - shorter].max()) - stated), 5e-5))
    return deviations(pairs)


@PROOFS.identity(
    "chain-of-thought/T1.rounds",
    where="derived",
    statement=r"The run of an automaton can be had in $\lceil \log_2 n \rceil$ rounds by composing maps of all "
    r"states, where a derivation takes $n$ "
    "steps: both give every state of words over $S_5$ (1 to 33 letters).",
    origin=COUNTS,
    controls=[control("words in reverse", reverse=True)],
)
def logarithmic_rounds(config: object, *, reverse: bool = False) -> LabelledArrays:
    table, pairs = automata.group_table(), []
    for length in (1, 2, 7, 16, 33):
        words = torch.from_numpy(stream(0, "rounds", length).rng().integers(0, 2, (50, length)))
        composed_words = words.flip(1) if reverse else words
        pairs.append(
            (float((automata.run(table, words) != automata.run_by_composition(table, composed_words)).sum()), 0.0)
        )
    return deviations(pairs)


# %%
PROOFS.show(one_layer_runs_automata)
PROOFS.show(long_words)
PROOFS.show(parity_by_counting)
PROOFS.show(law_of_the_walk)
PROOFS.show(logarithmic_rounds)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
