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
# # A Turing machine in a queue
#
# Let a predictor see the first $N$ symbols of a string, append what it predicts to the *end* of the string, and let its
# window move on by one symbol. The string is then a queue and the predictor a table of rules: a **lag system** (Wang
# 1963). If it may append two symbols now and then, it is as strong as a Turing machine. Schuurmans, Dai and Zanini
# (2024) show it by a table of 2,027 rules for a universal machine of 15 states and 2 symbols (Neary and Woods 2009), and
# let a large language model obey the table.
#
# Here are two smaller tables for *any* machine, of $k$ symbols, $m$ states, $H = km$ heads $[q, s]$, of which $L$ go on and
# $h = H - L$ halt. The tape is a ring in the queue, with a marker `#` between its end and its beginning.
#
# **Window 3.** Three neighbours determine what becomes of the middle cell; one pass round the ring is one step, $n + 1$ symbols
# on $n$ cells. Counting windows with at most one `#` and at most one head, without those that halt,
#
# $$k^3 + 3k^2 + 3Hk^2 + 6Hk - 2h(k^2 + 2k) \text{ rules}.$$
#
# **Window 2.** Two neighbours do not determine the cell between them, so a first pass writes every cell together with
# the news from its left: only *the state that enters it*, if any (writing the neighbour's symbol would cost a factor
# $k + H$). The second pass knows the left news and sees the right neighbour: $2n + 1$ symbols a step. With $\rho$ states
# that some right move enters, the two passes and the seam between them take
#
# $$(k + H) + k^2 + kH + Lk \;+\; k^2 + 2kL \;+\; 2k^2 + \rho k^2 + 4kL + k + \rho k + L \text{ rules}.$$
#
# For the universal machine that is 724 and 587. What is checked: every configuration of every run is read back from
# the queue and compared with the machine's own.

# %%
from __future__ import annotations

from dataclasses import replace

import numpy as np

from lab import Evidence, Task, control
from lab.domains.machines.lag import LagSystem, Word, run
from lab.domains.machines.lag_compilers import (
    Agreement,
    compare,
    compiled,
    completed_steps,
    encode,
    rule_count,
    symbols_per_step,
)
from lab.domains.machines.one_way_ring import one_way, steps, symbols_of_a_move
from lab.domains.machines.turing import (
    LEFT,
    MACHINES,
    RIGHT,
    UNIVERSAL,
    Configuration,
    Transition,
    TuringMachine,
    normal,
    on_word,
    random_configuration,
)
from lab.domains.machines.turing import run as machine_run
from lab.figures import Sheet
from lab.figures.looks import COLOURS
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import RandomStream, stream
from proofs_check.computational_universality._shared import COUNTS, NAMES, PAPER, RANDOM, SLUG, machines, ring, starts

PROOFS = Task(SLUG, paper=PAPER)
INPUTS, OTHERS, STEPS = 5, 60, 100
CELLS = range(3, 25)
RELEASED_RULES = 2027  # of the paper's table for the universal machine


@PROOFS.cases(window_2={}, window_3={"window": 3}, alike_2={"halting": False}, alike_3={"window": 3, "halting": False})
def rule_counts(config: object, *, window: int = 2, halting: bool = True) -> LabelledArrays:
    """Rules of the compiled table beside the formula, for each machine (the sum, for the random ones). Without ``halting`` the
    formula takes every head for one that goes on."""
    rules, formula = [], []
    for name in NAMES:
        instances = machines(name, OTHERS if name == RANDOM else 1)
        rules.append(sum(len(compiled(machine, window).rules) for machine in instances))
        formula.append(sum(rule_count(machine if halting else never_halting(machine), window) for machine in instances))
    return {"rules": labelled(rules, machine=NAMES), "formula": labelled(formula, machine=NAMES)}


def never_halting(machine: TuringMachine) -> TuringMachine:
    """The machine with some left move wherever it would halt."""
    left = Transition(machine.blank, LEFT, machine.states[0])
    return replace(machine, transitions={pair: machine.transitions.get(pair, left) for pair in machine.heads})


def counted(results: Results, case: str, universal: int) -> Evidence:
    measured = results[rule_counts].sel(case=case)
    difference = float(abs(measured["rules"] - measured["formula"]).max())
    universal_formula = float(measured["formula"].sel(machine="universal"))
    return Evidence.all(
        Evidence.exact(difference, "<=", 0, f"the formula; {COUNTS}"),
        Evidence.exact(
            abs(universal_formula - universal), "<=", 0, f"{universal} for 15 states and 2 symbols; {COUNTS}"
        ),
    )


@PROOFS.claim(
    "computational-universality/C1",
    where="derived",
    kind="construction",
    statement="A lag system that sees three symbols carries out any Turing machine with $k^3 + 3k^2 + 3Hk^2 + 6Hk - 2h(k^2 + 2k)$ "
    "rules ($k$ symbols, $H$ heads, $h$ of them halting): 724 for the universal machine (seven machines and sixty random ones "
    "counted).",
    controls=[control("the formula for machines in which no head halts", case="alike_3")],
)
def rules_of_window_three(results: Results, case: str = "window_3") -> Evidence:
    return counted(results, case, 724)


@PROOFS.claim(
    "computational-universality/C2",
    where="derived; the paper has 2,027 rules for this machine",
    kind="construction",
    statement=r"A lag system that sees two symbols carries out any Turing machine with $2k + H + 4k^2 + kH + 7kL + "
    r"\rho k^2 + \rho k + L$ "
    "rules ($k$ symbols, $H$ heads, $L$ that go on, $\\rho$ states entered by a right move): 587 for the universal machine, less than a "
    "third of the paper's 2,027 (seven machines and sixty random ones counted).",
    controls=[control("the formula for machines in which no head halts", case="alike_2")],
)
def rules_of_window_two(results: Results, case: str = "window_2") -> Evidence:
    evidence = counted(results, case, 587)
    universal_rules = float(results[rule_counts].sel(case=case)["rules"].sel(machine="universal"))
    return Evidence.all(
        evidence, Evidence.exact(universal_rules, "<", RELEASED_RULES / 3, "a third of the paper's 2,027")
    )


# %%
PROOFS.show(rules_of_window_three)
PROOFS.show(rules_of_window_two)

# %% [markdown]
# ## The same run, configuration by configuration
#
# A step is complete when the marker is in front again. Where the machine halts the system has no rule in the midst of
# a pass; the symbol in front is then a stale copy of one that is already written, and the rest of the queue, turned to the
# marker, is the final tape. Faults that must be seen: one rule, among those that the first step uses, with another
# symbol on its right side; a queue that begins one place later; and tapes with one cell too few ($n = 1$ for window 2,
# $n = 2$ for window 3), on which two versions of the head meet in one window.


# %%
def corrupted(system: LagSystem, queue: Word, source: RandomStream) -> LagSystem:
    """One rule that is used within the first pass writes another symbol."""
    rng, used = source.rng(), []
    for rules in range(len(queue) - system.window):
        front = run(system, queue, rules).queue[: system.window]
        used += [front] if front in system.rules else []
    broken = used[rng.integers(len(used))]
    other_symbols = [symbol for symbol in system.alphabet if symbol != system.rules[broken][0]]
    wrong = other_symbols[rng.integers(len(other_symbols))]
    return replace(system, rules={**system.rules, broken: (wrong, *system.rules[broken][1:])})


@PROOFS.cases(
    window_2={},
    window_3={"window": 3},
    corrupted_2={"fault": "a rule"},
    corrupted_3={"window": 3, "fault": "a rule"},
    turned_2={"fault": "turned"},
    turned_3={"window": 3, "fault": "turned"},
    short_2={"fault": "short"},
    short_3={"window": 3, "fault": "short"},
)
def ring_runs(config: object, *, window: int = 2, fault: str = "") -> LabelledArrays:
    """Runs of each machine, how many of them went as they should, their steps, and the largest difference of a step's symbols
    from the law."""
    numbers: dict[str, list[Agreement]] = {name: [] for name in NAMES}
    for place, (name, machine, start) in enumerate(starts(INPUTS, OTHERS)):
        if fault == "short":
            start = Configuration(start.state, start.tape[: window - 1], min(start.head, window - 2))
        system, queue = compiled(machine, window), ring(start, window)
        if (start.state, start.tape[start.head]) not in machine.transitions:
            continue  # it halts at once, and no fault could show
        if fault == "a rule":
            system = corrupted(system, queue, stream(place, "fault"))
        if fault == "turned":
            queue = (*queue[1:], queue[0])
        numbers[name].append(compare(machine, start, system, queue, STEPS))
    return {
        "runs": labelled([len(agreements) for agreements in numbers.values()], machine=NAMES),
        "right": labelled(
            [sum(agreement.right for agreement in agreements) for agreements in numbers.values()], machine=NAMES
        ),
        "steps": labelled(
            [sum(agreement.steps for agreement in agreements) for agreements in numbers.values()], machine=NAMES
        ),
        "cost": labelled(
            [max((agreement.cost for agreement in agreements), default=0) for agreements in numbers.values()],
            machine=NAMES,
        ),
    }


@PROOFS.claim(
    "computational-universality/I1",
    where="the paper proves it of its own rules; derived for these",
    kind="identity",
    statement="After every completed step the ring shows the machine's configuration (state, place of the head, tape up to "
    "blanks), and the lag system halts if and only if the machine does, at the same step: both tables, six machines, the "
    "universal one and sixty random ones, up to 100 steps a run.",
    controls=[
        control("window 2, one used rule writes another symbol", cases=("corrupted_2",)),
        control("window 3, one used rule writes another symbol", cases=("corrupted_3",)),
        control("window 2, the queue begins one place later", cases=("turned_2",)),
        control("window 3, the queue begins one place later", cases=("turned_3",)),
        control("window 2 on tapes of one cell", cases=("short_2",)),
        control("window 3 on tapes of two cells", cases=("short_3",)),
    ],
)
def rings_show_the_machine(results: Results, cases: tuple[str, ...] = ("window_2", "window_3")) -> Evidence:
    measured = results[ring_runs].sel(case=list(cases))
    wrong = float((measured["runs"] - measured["right"]).sum())
    return Evidence.exact(wrong, "<=", 0, f"runs that differ; {COUNTS}")


@PROOFS.claim(
    "computational-universality/I1.detected",
    where="derived",
    kind="identity",
    statement="The comparison sees a fault whenever there is one: if one rule that the first step uses writes another symbol, no run "
    "at all comes out as the machine's (both tables, all machines that make a step).",
    controls=[control("without a fault", cases=("window_2", "window_3"))],
)
def every_fault_is_seen(results: Results, cases: tuple[str, ...] = ("corrupted_2", "corrupted_3")) -> Evidence:
    measured = results[ring_runs].sel(case=list(cases))
    return Evidence.exact(float(measured["right"].sum()), "<=", 0, f"runs that come out right; {COUNTS}")


@PROOFS.cases(window_2={}, window_3={"window": 3}, swapped_2={"law": 3}, swapped_3={"window": 3, "law": 2})
def costs(config: object, *, window: int = 2, law: int = 0) -> LabelledArrays:
    """Symbols of every step of the universal machine beside the law of a window, and its cells before the step."""
    cells, symbols, predicted = [], [], []
    for place in range(8):
        start = random_configuration(stream(place, "costs"), UNIVERSAL, 3 + 4 * place)
        history, _ = completed_steps(compiled(UNIVERSAL, window), encode(UNIVERSAL, start, window), 40)
        for (before, paid), (after, written) in zip(history, history[1:], strict=False):
            cells.append(len(before.tape))
            symbols.append(written - paid)
            predicted.append(symbols_per_step(cells[-1], law or window) + len(after.tape) - cells[-1])
    return {
        "difference": float(np.abs(np.subtract(symbols, predicted)).max()),
        "steps": float(len(cells)),
        "cells": float(max(cells)),
    }


@PROOFS.claim(
    "computational-universality/I2",
    where="derived",
    kind="identity",
    statement="One step of the machine on $n$ cells takes exactly $2n + 1$ symbols through a window of two and $n + 1$ through a window "
    "of three, one more where it adds a cell (the universal machine from 3 to 31 cells, and every run above).",
    controls=[
        control("window 2 against the law of window 3", cases=("swapped_2",)),
        control("window 3 against the law of window 2", cases=("swapped_3",)),
    ],
)
def symbols_of_a_step(results: Results, cases: tuple[str, ...] = ("window_2", "window_3")) -> Evidence:
    differences = results[costs]["difference"].sel(case=list(cases))
    every = results[ring_runs]["cost"].sel(case=["window_2", "window_3"])
    return Evidence.all(
        Evidence.exact(float(differences.max()), "<=", 0, f"the law of the window; {COUNTS}"),
        Evidence.exact(float(every.max()), "<=", 0, f"the law in the runs above; {COUNTS}"),
    )


# %%
PROOFS.show(rings_show_the_machine)
PROOFS.show(every_fault_is_seen)
PROOFS.show(symbols_of_a_step)


# %% [markdown]
# ## News to the left only
#
# The paper's rules rewrite a cell from itself and its right neighbour, one pass after another, so that news flow to the left only. A
# head that moves right must send a signal all the way round, and the cell that it wants to reach does not know that it is the
# one; the released rules find it by a mark that moves on one cell a circulation, $n^3 + n^2 + 3n + 3$ symbols a move (read from
# the rules, which are not ours to ship). Is that the price of a one-way ring? No: let the *tape* move to the left instead. The
# head takes its right neighbour's symbol and waits; what it wrote goes round as a wave that each cell exchanges for what it
# held. When the wave is back the whole ring has turned by one cell: $(n+1)^2$ symbols, and $n$ for a move to the left.


# %%
@PROOFS.cases(one_way={}, two_passes={"law": "two passes"}, released={"law": "released"})
def one_way_costs(config: object, *, law: str = "one way") -> LabelledArrays:
    """The universal machine on a one-way ring: runs whose configurations are not the machine's, and the largest difference of a
    step's symbols from a law; by cells, the symbols of a move to the right on given cells."""
    wrong, difference, moves = 0, 0, {}
    system = one_way(UNIVERSAL)
    for place in range(8):
        start = random_configuration(stream(place, "one way"), UNIVERSAL, 3 + 2 * place)
        history = steps(system, encode(UNIVERSAL, start, 2), 25)
        expected = machine_run(UNIVERSAL, start, 25)
        wrong += [normal(UNIVERSAL, configuration) for configuration, _ in history] != [
            normal(UNIVERSAL, configuration) for configuration in expected
        ]
        for (before, paid), (after, written) in zip(history, history[1:], strict=False):
            cells, grows = len(before.tape), len(after.tape) > len(before.tape)
            move = UNIVERSAL.transitions[before.state, before.tape[before.head]].move
            predicted = symbols_of_a_move(cells, move, grows)
            if law == "two passes":
                predicted = symbols_per_step(cells, 2) + grows
            if law == "released":
                predicted = released_symbols(cells) if move == RIGHT else 2 * (cells + 1)
            difference = max(difference, abs(written - paid - predicted))
            if move == RIGHT and not grows:
                moves[cells] = written - paid
    right = [float(moves.get(cells, np.nan)) for cells in CELLS]
    return {"wrong": float(wrong), "difference": float(difference), "right": labelled(right, cells=CELLS)}


def released_symbols(cells: int) -> int:
    """Symbols of a move to the right by the paper's released rules, as read from them."""
    return cells**3 + cells**2 + 3 * cells + 3


@PROOFS.claim(
    "computational-universality/R1",
    where="derived; the paper's own rules are one-way rings too",
    kind="rate",
    statement="On a ring of $n$ cells in which news flow to the left only, a move to the right need not take $n^3$ symbols: a lag system "
    "of window 2 takes exactly $(n + 1)^2$, and $n$ for a move to the left (the universal machine, from 3 cells on, every step "
    "of 8 runs).",
    controls=[
        control("the law of two passes", case="two_passes"),
        control("the law read from the released rules", case="released"),
    ],
)
def one_circulation_is_enough(results: Results, case: str = "one_way") -> Evidence:
    measured = results[one_way_costs].sel(case=case)
    return Evidence.all(
        Evidence.exact(float(measured["difference"]), "<=", 0, f"the law; {COUNTS}"),
        Evidence.exact(float(measured["wrong"]), "<=", 0, f"runs that differ from the machine; {COUNTS}"),
    )


@PROOFS.figure
def price_of_a_move(results: Results) -> Sheet:
    """Symbols of one move to the right, by cells of the ring: as measured on the one-way ring, its law, those of the other two
    tables, and the one read from the paper's released rules."""
    symbols = results[one_way_costs]["right"].sel(case="one_way")
    known = symbols.dropna("cells")
    sheet = Sheet(width=6.4, height=3.8)
    panel = sheet.panel(
        "the price of one move to the right",
        x="cells",
        y="symbols",
        scale=("log", "log"),
        xticks={n: str(n) for n in (3, 6, 12, 24)},
        legend="outside",
    )
    panel.scatter(known["cells"].values.tolist(), known.values, name="one way, measured")
    cells = np.array(CELLS)
    panel.line(cells, [released_symbols(n) for n in CELLS], name="released rules, as read", marks=False, of="exact")
    panel.line(cells, (cells + 1) ** 2, name="one way: $(n + 1)^2$", marks=False, of="exact")
    panel.line(cells, 2 * cells + 1, name="window 2, two passes: 2n + 1", marks=False, of="exact")
    panel.line(cells, cells + 1, name="window 3: n + 1", marks=False, of="exact")
    return sheet


# %%
PROOFS.show(one_circulation_is_enough)
PROOFS.show(price_of_a_move)


# %%
SHOWN = {"increment": on_word(MACHINES["increment"], "10111", 1), "BB4": on_word(MACHINES["BB4"], "000")}


@PROOFS.cases(**{"increment": {"name": "increment"}, "BB4": {"name": "BB4"}})
def space_time(config: object, *, name: str = "increment") -> LabelledArrays:
    """Symbol of each cell after each completed step (its place in the alphabet; 0 where nothing was written yet), and the head's
    cell; cells are numbered from the first one of the last tape."""
    machine, start = MACHINES[name], SHOWN[name]
    history, _ = completed_steps(compiled(machine, 2), encode(machine, start, 2), 1000)
    rows = 108
    added = [0]
    for (before, _), (after, _) in zip(history, history[1:], strict=False):
        left = len(after.tape) > len(before.tape) and after.head == 0
        added.append(added[-1] + left)
    width = 16
    cells, heads = np.full((rows, width), np.nan), np.full(rows, np.nan)
    for row, ((configuration, _), cells_before) in enumerate(zip(history, added, strict=True)):
        offset = added[-1] - cells_before
        cells[row, :] = 0
        for place, symbol in enumerate(configuration.tape):
            cells[row, offset + place] = machine.symbols.index(symbol)
        heads[row] = offset + configuration.head
    return {"cells": labelled(cells, step=range(rows), cell=range(width)), "heads": labelled(heads, step=range(rows))}


@PROOFS.figure
def rings_in_time(results: Results) -> Sheet:
    """The tape, read from the queue of the lag system of window 2 after every completed step (time runs down): binary
    increment of 10111 and the busy beaver of four states, which halts after 107 steps. Orange dots are the head."""
    measured = results[space_time]
    sheet = Sheet(columns=2, width=5.0, height=5.2)
    for name, title in (("increment", "10111 + 1 = 11000"), ("BB4", "the busy beaver of four states")):
        history = measured.sel(case=name)
        heads = history["heads"].dropna("step")
        panel = sheet.panel(title, x="cell", y="completed steps")
        cells = history["cells"].sel(step=heads["step"], cell=slice(0, 7 if name == "increment" else 15))
        every = 1 if name == "increment" else 10
        panel.heat(cells, columns=[str(cell) for cell in cells["cell"].values], bar="symbol", of="exact")
        symbols = ["blank" if symbol == "_" else symbol for symbol in MACHINES[name].symbols]
        if bar := panel.axes.collections[-1].colorbar:
            bar.set_ticks(range(len(symbols)), labels=symbols)
        marked = [step for step in heads["step"].values if step % every == 0]
        panel.axes.set_yticks([step + 0.5 for step in marked], [str(step) for step in marked])
        size, edge = (24, 1.0) if every == 1 else (9, 0.0)
        panel.axes.scatter(
            heads + 0.5,
            heads["step"] + 0.5,
            s=size,
            color=COLOURS["orange"],
            edgecolors="white",
            linewidths=edge,
            zorder=3,
        )
        panel.note("head", heads["step"], heads, words="dots: place of the head")
    return sheet


@PROOFS.figure
def how_many_rules(results: Results) -> Sheet:
    """Rules of the two tables for each machine, beside the 2,027 of the paper for the universal one."""
    counts = results[rule_counts]["rules"]
    sheet = Sheet(width=6.8, height=3.8)
    panel = sheet.panel("two tables for any machine", x="machine", y="rules", ylim=(0, 2900), legend="upper left")
    for slot, window in enumerate((2, 3)):
        window_counts = counts.sel(case=f"window_{window}")
        rules = {name: [float(window_counts.sel(machine=name))] for name in MACHINES}
        panel.bars(rules, name=f"window {window}", slot=(slot, 2))
    panel.level(RELEASED_RULES, "the paper's rules for the universal machine")
    return sheet


# %%
PROOFS.show(rings_in_time)
PROOFS.show(how_many_rules)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
