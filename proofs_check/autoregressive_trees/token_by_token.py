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
# # What small trees carry out token by token
#
# Let the tree write down what it knows. For an **automaton** of $m$ states and $k$ letters put the states behind the word, $x_1 .. x_n
# q_0 q_1 ..$: the last token is the state, and the letter that comes next is *always* the $(n+1)$-th from the end,
# since word and states grow apart at the same pace. A chain of questions for the state and below it one for the
# letter: $mk$ leaves, depth $m + k - 2$. Parity, which takes $2^n$ leaves at once, takes 4.
#
# A **Turing machine** on $M$ cells, its configurations one behind the other: what becomes of a cell depends on three
# tokens one period $M + 1$ back. That is a tree of $H + 1 + k(L + 1)$ leaves ($H = mk$ heads, $L$ of them live) and
# a window of $M + 2$. The space is bounded by the window; more space needs a longer one.
#
# A **circuit** of $N$ gates that each read at most $w$ wires: the last token says which gate comes next, and its
# wires stand at known distances: at most $2N2^w$ leaves and depth $2N + w$. So whatever small circuits compute,
# small trees compute in as many tokens.
#
# The theorems of the paper could be read only in its abstract and in descriptions; the constants here are derived,
# and checked by running every tree against the machine that it stands for.

# %%
from __future__ import annotations

from dataclasses import replace

import numpy as np

from lab import Evidence, Task, control
from lab.domains.machines.automata import AUTOMATA, random_automaton, random_circuit
from lab.domains.machines.trees import (
    START,
    Leaf,
    Node,
    Tree,
    automaton_strings,
    automaton_tree,
    circuit_tree,
    depth,
    final_states,
    generate,
    leaf_count,
    many,
    turing_string,
    turing_tree,
)
from lab.domains.machines.turing import MACHINES, Configuration, Head, on_word, random_configuration, run
from lab.figures import Sheet
from lab.figures.looks import COLOURS
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream
from proofs_check.autoregressive_trees._shared import COUNTS, PAPER, SLUG

PROOFS = Task(SLUG, paper=PAPER)


@PROOFS.cases(claimed={}, one_place_off={"shift": -1})
def automata(config: object, *, shift: int = 0) -> LabelledArrays:
    """Wrong states over 200 random automata (up to 6 states and 4 letters) on 4 words of up to 30 letters, with the letter ``shift``
    places from where it is, and the largest distance of leaves and depth from their formulas."""
    wrong, states, leaves, depths = 0, 0, 0, 0
    for place in range(200):
        rng = stream(place, "sizes").rng()
        m, k, length = int(rng.integers(1, 7)), int(rng.integers(2, 5)), int(rng.integers(1, 31))
        automaton = random_automaton(stream(place, "automaton"), m, k)
        words = stream(place, "words").rng().integers(k, size=(4, length))
        strings = automaton_strings(automaton, words, interleaved=False)
        tree = automaton_tree(automaton, 1, length + 1 + shift)
        written = many(tree, strings[:, : length + 1], length)
        wrong += int((written != strings[:, length + 1 :]).sum())
        states += written.size
        leaves = max(leaves, abs(leaf_count(tree) - m * k))
        depths = max(depths, abs(depth(tree) - (m + k - 2)))
    return {"wrong": float(wrong), "states": float(states), "leaves": float(leaves), "depth": float(depths)}


@PROOFS.claim(
    "autoregressive-trees/C1",
    where="abstract: trees with a chain of thought simulate automata; constants derived",
    kind="construction",
    statement="A tree of $mk$ leaves and depth $m + k - 2$, applied token by token, carries out any automaton of $m$ "
    "states and $k$ letters on "
    "words of length $n$ through a window of $n + 1$ tokens (200 random automata, every state of 800 words of up to 30 letters).",
    controls=[control("the letter looked for one place nearer", case="one_place_off")],
)
def trees_run_automata(results: Results, case: str = "claimed") -> Evidence:
    measured = results[automata].sel(case=case)
    return Evidence.all(
        Evidence.exact(float(measured["wrong"]), "<=", 0, f"wrong states; {COUNTS}"),
        Evidence.exact(float(measured["leaves"]), "<=", 0, f"m k leaves; {COUNTS}"),
        Evidence.exact(float(measured["depth"]), "<=", 0, f"depth m + k - 2; {COUNTS}"),
    )


@PROOFS.cases(claimed={}, behind={"interleaved": False})
def other_lengths(config: object, *, interleaved: bool = True) -> LabelledArrays:
    """Words of 1 to 40 letters that a tree built for 8 letters ends wrong, of the four named automata, 50 words a
    length; the states stand between the letters, or behind the word."""
    wrong = []
    for automaton in AUTOMATA.values():
        tree = automaton_tree(automaton, 2, 1) if interleaved else automaton_tree(automaton, 1, 9)
        failed = 0
        for length in range(1, 41):
            words = stream(length, "words").rng().integers(automaton.letters, size=(50, length))
            expected = automaton.run(words)[:, -1] + automaton.letters
            failed += int((final_states(tree, automaton, words, interleaved) != expected).sum())
        wrong.append(failed)
    return {"wrong": labelled(wrong, automaton=list(AUTOMATA))}


@PROOFS.claim(
    "autoregressive-trees/C1.length",
    where="derived",
    kind="construction",
    statement="With the states between the letters, $q_0 x_1 q_1 x_2 ..$, one tree of $mk$ leaves is right at every "
    "length (four automata, all lengths up "
    "to 40).",
    controls=[control("states behind the word, the tree of words of 8 letters", case="behind")],
)
def interleaved_trees_fit_every_length(results: Results, case: str = "claimed") -> Evidence:
    wrong = results[other_lengths]["wrong"].sel(case=case)
    return Evidence.exact(float(wrong.sum()), "<=", 0, f"words that end wrong; {COUNTS}")


@PROOFS.cases(claimed={}, short={"cut": True})
def parity_words(config: object, *, cut: bool = False) -> LabelledArrays:
    """All words of n = 1 to 10 bits whose parity the tree of four leaves gets wrong after n tokens (``cut``: after one token less), and
    its leaves."""
    wrong, leaves = [], []
    for bits in range(1, 11):
        words = np.arange(2**bits)[:, None] >> np.arange(bits) & 1
        tree = automaton_tree(AUTOMATA["parity"], 1, bits + 1)
        start = np.concatenate((words, np.full((len(words), 1), 2)), axis=1)
        states = np.concatenate((start[:, -1:], many(tree, start, bits)), axis=1)
        wrong.append(int((states[:, -2 if cut else -1] != words.sum(1) % 2 + 2).sum()))
        leaves.append(leaf_count(tree))
    return {"wrong": labelled(wrong, bits=range(1, 11)), "leaves": labelled(leaves, bits=range(1, 11))}


@PROOFS.claim(
    "autoregressive-trees/C1.parity",
    where="abstract: without the chain of thought a tree needs exponential size",
    kind="construction",
    statement="Parity, for which a tree that answers at once needs $2^n$ leaves, is said by one of 4 leaves after "
    "$n$ tokens (all words of up to 10 "
    "bits).",
    controls=[control("after one token less", case="short")],
)
def four_leaves_say_parity(results: Results, case: str = "claimed") -> Evidence:
    measured = results[parity_words].sel(case=case)
    return Evidence.all(
        Evidence.exact(float(measured["wrong"].sum()), "<=", 0, f"words that end wrong; {COUNTS}"),
        Evidence.exact(float(measured["leaves"].max()), "<=", 4, f"leaves; {COUNTS}"),
    )


# %%
PROOFS.show(trees_run_automata)
PROOFS.show(interleaved_trees_fit_every_length)
PROOFS.show(four_leaves_say_parity)


# %%
STEPS, RUNS = 25, 4


def mirrored(tree: Tree, period: int) -> Tree:
    """The same tree with the left and the right neighbour exchanged."""
    if isinstance(tree, Leaf):
        return tree
    offset = 2 * period - tree.offset
    return Node(offset, tree.token, mirrored(tree.yes, period), mirrored(tree.no, period))


@PROOFS.cases(claimed={}, mirrored={"swap": True})
def turing_machines(config: object, *, swap: bool = False) -> LabelledArrays:
    """Of each machine: wrong tokens in up to 25 steps of 4 runs, padded so that the head stays on its cells; leaves
    of its tree and the formula; the window. With ``swap`` left and right neighbours are exchanged."""
    wrong, tokens, leaves, formula = [], [], [], []
    for name, machine in MACHINES.items():
        failed = total = 0
        for place in range(RUNS):
            state, tape, head = random_configuration(stream(place, name), machine, 4 + place)
            blanks = (machine.blank,) * STEPS
            start = Configuration(state, (*blanks, *tape, *blanks), head + STEPS)
            cells = len(start.tape)
            tree = turing_tree(machine, cells)
            history = run(machine, start, STEPS)
            expected = [token for configuration in history[1:] for token in turing_string(machine, configuration)[1:]]
            tested_tree = mirrored(tree, cells + 1) if swap else tree
            written = generate(tested_tree, turing_string(machine, start, STEPS), len(expected))
            failed += sum(token != target for token, target in zip(written, expected, strict=True))
            total += len(expected)
        k, heads, live = len(machine.symbols), len(machine.heads), len(machine.transitions)
        wrong.append(failed)
        tokens.append(total)
        leaves.append(leaf_count(tree))
        formula.append(heads + 1 + k * (live + 1))
    names = list(MACHINES)
    return {
        "wrong": labelled(wrong, machine=names),
        "tokens": labelled(tokens, machine=names),
        "leaves": labelled(leaves, machine=names),
        "formula": labelled(formula, machine=names),
    }


@PROOFS.claim(
    "autoregressive-trees/C2",
    where="abstract: trees with a chain of thought simulate Turing machines; constants derived, for bounded space",
    kind="construction",
    statement="A tree of $H + 1 + k(L + 1)$ leaves with a window of $M + 2$ tokens writes the configurations of a "
    "Turing machine on $M$ cells, $M + 1$ "
    "tokens a step ($k$ symbols, $H$ heads, $L$ that go on): 91 leaves for the universal machine (seven machines, "
    "every token of up to 25 steps of 4 runs).",
    controls=[control("left and right neighbour exchanged", case="mirrored")],
)
def trees_run_turing_machines(results: Results, case: str = "claimed") -> Evidence:
    measured = results[turing_machines].sel(case=case)
    return Evidence.all(
        Evidence.exact(float(measured["wrong"].sum()), "<=", 0, f"wrong tokens; {COUNTS}"),
        Evidence.exact(float(abs(measured["leaves"] - measured["formula"]).max()), "<=", 0, f"the formula; {COUNTS}"),
        Evidence.exact(float(abs(measured["leaves"].sel(machine="universal") - 91)), "<=", 0, f"91 leaves; {COUNTS}"),
    )


CIRCUITS = 60


@PROOFS.cases(claimed={}, one_wire_off={"shift": True})
def circuits(config: object, *, shift: bool = False) -> LabelledArrays:
    """Over random circuits (up to 6 inputs, 15 gates, 3 wires a gate): inputs on which some gate is wrong, leaves
    over their bound, and depth less its bound. With ``shift`` the tree is that of a circuit whose last gate reads
    through another table."""
    wrong, shares, deep = [], [], []
    for place in range(CIRCUITS):
        rng = stream(place, "sizes").rng()
        inputs, gates, fan_in = int(rng.integers(2, 7)), int(rng.integers(1, 16)), int(rng.integers(1, 4))
        circuit = random_circuit(stream(place, "circuit"), inputs, gates, fan_in)
        other = tuple(1 - value for value in circuit.tables[-1])
        tree = circuit_tree(replace(circuit, tables=(*circuit.tables[:-1], other)) if shift else circuit)
        failed = 0
        for number in range(2**inputs):
            bits = [number >> bit & 1 for bit in range(inputs)]
            failed += generate(tree, [*bits, START], gates) != list(enumerate(circuit.values(bits)))
        wrong.append(failed)
        shares.append(leaf_count(tree) / (gates * 2**fan_in))
        deep.append(depth(tree) - 2 * gates - fan_in)
    return {
        "wrong": labelled(wrong, circuit=None),
        "share": labelled(shares, circuit=None),
        "deep": labelled(deep, circuit=None),
    }


@PROOFS.claim(
    "autoregressive-trees/C3",
    where="abstract: trees with a chain of thought simulate sparse circuits; constants derived",
    kind="construction",
    statement="A tree of at most $2N2^w$ leaves and depth at most $2N + w$ gives the $N$ gates of a circuit, each of "
    "at most $w$ wires, one token a gate "
    "(60 random circuits of up to 15 gates, all inputs).",
    controls=[control("the last gate's table complemented", case="one_wire_off")],
)
def trees_run_circuits(results: Results, case: str = "claimed") -> Evidence:
    measured = results[circuits].sel(case=case)
    return Evidence.all(
        Evidence.exact(float(measured["wrong"].sum()), "<=", 0, f"inputs on which a gate is wrong; {COUNTS}"),
        Evidence.exact(float(measured["share"].max()), "<=", 2, "leaves over N 2^w"),
        Evidence.exact(float(measured["deep"].max()), "<=", 0, f"depth less 2 N + w; {COUNTS}"),
    )


# %%
PROOFS.show(trees_run_turing_machines)
PROOFS.show(trees_run_circuits)


# %%
@PROOFS.figure
def leaves_of_circuits(results: Results) -> Sheet:
    """Leaves of the trees of sixty random circuits, divided by $N 2^w$: never more than 2."""
    shares = results[circuits]["share"].sel(case="claimed").values
    sheet = Sheet(width=6.0, height=3.4)
    panel = sheet.panel(
        "few leaves for each gate",
        x="circuit, by size of its tree",
        y="leaves / $N 2^w$",
        ylim=(0, 2.4),
        legend="lower right",
    )
    panel.scatter(list(range(len(shares))), np.sort(shares), name="circuits")
    panel.level(2, "bound")
    return sheet


@PROOFS.cases(**{"increment": {}})
def written_tape(config: object) -> LabelledArrays:
    """Cells of binary increment of 10111 (places in the alphabet) after each step, and the head's cell, as the tree writes them."""
    machine = MACHINES["increment"]
    start = on_word(machine, "10111", 2)
    cells, steps = len(start.tape), 9
    tokens = [
        *turing_string(machine, start, steps),
        *generate(turing_tree(machine, cells), turing_string(machine, start), steps * (cells + 1)),
    ]
    rows, heads = [], []
    for step in range(steps + 1):
        row = tokens[1 + step * (cells + 1) : (step + 1) * (cells + 1)]
        heads.append(next(place for place, token in enumerate(row) if isinstance(token, Head)))
        rows.append([machine.symbols.index(token.symbol if isinstance(token, Head) else str(token)) for token in row])
    return {
        "cells": labelled(rows, step=range(steps + 1), cell=range(cells)),
        "heads": labelled(heads, step=range(steps + 1)),
    }


@PROOFS.figure
def tape_token_by_token(results: Results) -> Sheet:
    """Binary increment of 10111, written by a tree of 31 leaves one token after the other; a row is one configuration, orange dots are
    the head."""
    tape = results[written_tape].sel(case="increment")
    sheet = Sheet(width=5.0, height=4.2)
    panel = sheet.panel("a tree adds one", x="cell", y="step")
    panel.heat(tape["cells"], bar="symbol", of="exact")
    symbols = ["blank" if symbol == "_" else symbol for symbol in MACHINES["increment"].symbols]
    if bar := panel.axes.collections[-1].colorbar:
        bar.set_ticks(range(len(symbols)), labels=symbols)
    heads = tape["heads"]
    panel.axes.scatter(heads + 0.5, heads["step"] + 0.5, s=24, color=COLOURS["orange"], edgecolors="white", zorder=3)
    panel.note("head", heads["step"], heads, words="dots: place of the head")
    return sheet


# %%
PROOFS.show(leaves_of_circuits)
PROOFS.show(tape_token_by_token)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
