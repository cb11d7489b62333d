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
# # Two symbols now and then: where the memory comes from
#
# A model that appends exactly one token and moves on by one (*generalised* decoding) has a queue that keeps its
# length $\ell$. It has at most $|A|^\ell$ queues, so every run halts or repeats itself: it is as strong as a linear
# bounded automaton, and no stronger. The rules that append two symbols (44 of the 587 for the universal machine) are
# what makes it a Turing machine. Take the second symbols away and see: wherever the head stays on the cells it was
# given nothing changes, since no such rule is used; wherever it leaves them, the run is lost.

# %%
from __future__ import annotations

from lab import Evidence, Task, control
from lab.domains.machines.lag import LagSystem, Symbol, Word, lag_system, restricted
from lab.domains.machines.lag_compilers import compare, compiled, encode
from lab.domains.machines.turing import MACHINES, Configuration, random_configuration, run
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream
from proofs_check.computational_universality._shared import COUNTS, PAPER, SLUG

PROOFS = Task(SLUG, paper=PAPER)
STEPS, RUNS, PAD = 60, 60, 12


def tapes(padded: bool) -> list[tuple[str, Configuration]]:
    """Runs of six machines from random tapes of four cells. ``padded`` with blanks, the head stays on its cells or the run is left
    out; otherwise the run is left out if it does."""
    starts = []
    names = [name for name in MACHINES if name != "increment"]
    for place in range(RUNS):
        name = names[place % len(names)]
        machine = MACHINES[name]
        state, tape, head = random_configuration(stream(place, name), machine, 4)
        if padded:
            blanks = (machine.blank,) * PAD
            tape, head = (*blanks, *tape, *blanks), head + PAD
        start = Configuration(state, tape, head)
        if (len(run(machine, start, STEPS)[-1].tape) == len(tape)) == padded:
            starts.append((name, start))
    return starts


@PROOFS.cases(
    restricted_bounded={"bounded": True, "cut": True},
    restricted_growing={"cut": True},
    full_bounded={"bounded": True},
    full_growing={},
)
def memory_runs(config: object, *, bounded: bool = False, cut: bool = False) -> LabelledArrays:
    """Runs that stay on their cells, or that leave them; how many of them are the machine's, with or without the second symbols."""
    starts = tapes(bounded)
    right = 0
    for name, start in starts:
        system = compiled(MACHINES[name], 2)
        chosen = restricted(system) if cut else system
        right += compare(MACHINES[name], start, chosen, encode(MACHINES[name], start, 2), STEPS).right
    return {"runs": float(len(starts)), "right": float(right)}


@PROOFS.claim(
    "computational-universality/O1",
    where="the paper's contrast of generalised and extended decoding; derived for these rules",
    kind="ordering",
    statement="Without the second symbols of its rules the lag system never carries out a run that leaves its first cells (none of at "
    "least thirty, which the full system carries out, all of them).",
    controls=[control("with the second symbols", case="full_growing")],
)
def one_symbol_cannot_grow(results: Results, case: str = "restricted_growing") -> Evidence:
    measured, full = results[memory_runs].sel(case=case), results[memory_runs].sel(case="full_growing")
    return Evidence.all(
        Evidence.exact(float(measured["right"]), "<=", 0, f"runs that are the machine's; {COUNTS}"),
        Evidence.exact(float(full["right"]), ">=", 30, f"runs of the full system that are; {COUNTS}"),
    )


@PROOFS.claim(
    "computational-universality/O1.bounded",
    where="the paper: generalised decoding is a linear bounded automaton; derived for these rules",
    kind="identity",
    statement="On runs whose head stays on the cells it was given, one symbol a rule is enough: the restricted system carries out "
    "all of them (at least thirty).",
    controls=[control("runs that leave their cells", case="restricted_growing")],
)
def one_symbol_is_enough_on_given_cells(results: Results, case: str = "restricted_bounded") -> Evidence:
    measured = results[memory_runs].sel(case=case)
    return Evidence.all(
        Evidence.exact(float(measured["runs"] - measured["right"]), "<=", 0, f"runs that are not; {COUNTS}"),
        Evidence.exact(float(measured["runs"]), ">=", 30, f"runs; {COUNTS}"),
    )


# %%
PROOFS.show(one_symbol_cannot_grow)
PROOFS.show(one_symbol_is_enough_on_given_cells)

# %% [markdown]
# ## How long until it repeats
#
# $|A|^\ell$ queues are the most that a restricted system on $\ell$ symbols can pass through before it must repeat one. For random
# tables of $a$ letters and window 2 every start is followed until a queue comes back. A system that appends two symbols
# may never repeat: its queue grows.


# %%
SIZES = ((2, 3), (2, 6), (3, 4), (4, 3), (4, 5))  # letters, length of the queue


def before_repeat(system: LagSystem, queue: Word, limit: int) -> int:
    """Rules applied before a queue comes back, or until the system halts; ``limit`` where neither happens."""
    visited: set[tuple[Symbol, ...]] = set()
    for applied in range(limit):
        right = system.right_side(queue)
        if queue in visited or right is None:
            return applied
        visited.add(queue)
        queue = (*queue[1:], *right)
    return limit


@PROOFS.cases(one={}, two={"second": True})
def repeats(config: object, *, second: bool = False) -> LabelledArrays:
    """Most rules applied before a queue came back, over random tables and starts, for each number of letters and length of the
    queue; with ``second``, every rule appends its letter twice."""
    longest_runs = []
    for letters, length in SIZES:
        alphabet, longest = "abcd"[:letters], 0
        for place in range(40):
            rng = stream(place, "table", letters).rng()
            windows = [(letter, following) for letter in alphabet for following in alphabet]
            rights = [alphabet[rng.integers(letters)] for _ in windows]
            rules: list[tuple[Word, Word]] = [
                (left, (right, right) if second else (right,)) for left, right in zip(windows, rights, strict=True)
            ]
            queue = tuple(alphabet[index] for index in rng.integers(letters, size=length))
            longest = max(longest, before_repeat(lag_system(2, alphabet, rules), queue, letters**length + 1))
        longest_runs.append(longest)
    names = [f"{letters} letters, {length} long" for letters, length in SIZES]
    most = [letters**length for letters, length in SIZES]
    return {"rules": labelled(longest_runs, size=names), "queues": labelled(most, size=names)}


@PROOFS.claim(
    "computational-universality/O1.count",
    where="derived",
    kind="identity",
    statement=r"A restricted system of $|A|$ letters repeats a queue of length $\ell$, or halts, within $|A|^\ell$ "
    "rules (forty random tables of window 2 at each of five sizes).",
    controls=[control("two symbols a rule", case="two")],
)
def restricted_systems_repeat(results: Results, case: str = "one") -> Evidence:
    measured = results[repeats].sel(case=case)
    return Evidence.within(measured["rules"], measured["queues"], "as many queues as there are of this length")


# %%
PROOFS.show(restricted_systems_repeat)


# %%
@PROOFS.cases(full={}, cut={"cut": True})
def queue_lengths(config: object, *, cut: bool = False) -> LabelledArrays:
    """Length of the queue of the busy beaver of four states after every rule, from three blank cells, until it halts."""
    machine = MACHINES["BB4"]
    system = compiled(machine, 2)
    system = restricted(system) if cut else system
    queue = encode(machine, Configuration("A", ("0",) * 3, 1), 2)
    lengths = []
    for _ in range(2500):
        lengths.append(len(queue))
        right = system.right_side(queue)
        queue = queue if right is None else (*queue[1:], *right)
    return {"length": labelled(lengths, rule=range(2500))}


@PROOFS.figure
def length_of_the_queue(results: Results) -> Sheet:
    """Length of the queue while the busy beaver of four states runs in it, with the rules that append two symbols and
    without their second symbols."""
    lengths = results[queue_lengths]["length"]
    sheet = Sheet(width=6.4, height=3.6)
    panel = sheet.panel(
        "only two symbols at once make room", x="rules applied", y="symbols in the queue", legend="upper left"
    )
    rules = list(range(0, 2500, 5))
    panel.line(rules, lengths.sel(case="full", rule=rules).values, name="one or two symbols", marks=False, of="exact")
    panel.line(rules, lengths.sel(case="cut", rule=rules).values, name="one symbol", marks=False, of="exact")
    return sheet


# %%
PROOFS.show(length_of_the_queue)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
