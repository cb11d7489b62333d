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
# # Growing a tree that predicts the next token
#
# A small tree carries out an automaton token by token (`proofs_check/autoregressive_trees`). Is it *found*? Words of twelve random
# letters are written with the states they lead through, $x_1 .. x_n q_0 .. q_n$; each predicted state is a row, the last
# $n + 1$ tokens are its window. A tree is grown greedily (CART): the question that leaves the least impurity, until all rows agree.
# A grown tree is *exact* if it asks only for the last token and the $(n + 1)$-th from the end and is right on every pair of state and
# letter. That proves it right on every word of this length; no sampling of words is involved.
#
# Greed has one blind spot. For **parity** neither the state nor the letter alone says anything of the next state: with uniform
# letters the gain of both vanishes, but for the first state, which is fixed and gives $O(1/n^2)$. So the first question is chosen by
# the noise of the sample, and the tree goes astray. One step of look-ahead, by the impurity after the best *second* question, sees it.
# But by itself look-ahead sees it too late: both orders "useless question, then a good one" and the reverse look
# alike, so what is equal must be decided by what helps at once.

# %%
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lab import Evidence, Task, control
from lab.domains.machines.automata import AUTOMATA, Automaton
from lab.domains.machines.tree_learning import grow, windows
from lab.domains.machines.trees import Tree, automaton_strings, final_states, leaf_count, many, offsets
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import RandomStream, stream

SLUG = "autoregressive-trees"


@dataclass(frozen=True)
class Config:
    """Words from which trees are grown."""

    length: int = 12
    """n, letters a word"""
    words: int = 20
    """words a tree is grown from"""
    few_words: int = 5
    """words for the tree with look-ahead"""
    many_words: int = 640
    """words that are enough even for greed"""
    direct_bits: int = 10
    """bits of the parity that is answered at once"""
    direct_words: int = 2000
    """words with their answer"""
    row_counts: tuple[int, ...] = (5, 10, 20, 40, 80, 160, 320, 640)
    """words on the way from few to many, for the picture"""
    trees: int = 120  # 20 of them added later, since fresh seeds must give every verdict again
    """independent samples of words"""
    large: int = 30
    """samples for the trees that answer at once, and for the picture"""


TASK = Task(
    SLUG,
    paper="gan-2024-trees",
    presets={
        "smoke": Config(length=4, direct_bits=5, direct_words=40, many_words=40, row_counts=(5, 10), trees=2, large=2),
        "ci": Config(),
        "paper": Config(
            length=20, words=100, few_words=20, many_words=5000, direct_bits=12, direct_words=4000, trees=100
        ),
    },
    root=2032,
)
PILOTS = "bound chosen on pilot seeds (root 0), judged on fresh ones"
MOST = "samples of words; most"
STRUCTURED = ("count mod 3", "contains aab", "flip-flop")


def states_and_letters(automaton: Automaton, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and next states of words followed by their states."""
    length = words.shape[1]
    strings = automaton_strings(automaton, words, interleaved=False)
    return windows(strings, length + 1, np.arange(length + 1, 2 * length + 1))


def is_exact(tree: Tree, automaton: Automaton, length: int) -> bool:
    """Whether the tree asks only for state and letter and is right on every pair, hence on every word of this length."""
    if not offsets(tree) <= {1, length + 1}:
        return False
    states, letters = np.divmod(np.arange(automaton.states * automaton.letters), automaton.letters)
    strings = np.zeros((len(states), length + 1), dtype=np.int64)
    strings[:, 0], strings[:, -1] = letters, states + automaton.letters
    expected = np.asarray(automaton.transitions).reshape(-1) + automaton.letters
    return bool((many(tree, strings, 1)[:, 0] == expected).all())


def drawn_words(source: RandomStream, automaton: Automaton, count: int, length: int) -> np.ndarray:
    """Uniform words."""
    return source.rng().integers(automaton.letters, size=(count, length))


def ends_right(tree: Tree, automaton: Automaton, words: np.ndarray, interleaved: bool = False) -> float:
    """Share of words at whose end the tree, running by itself, is in the right state."""
    expected = automaton.run(words)[:, -1] + automaton.letters
    return float((final_states(tree, automaton, words, interleaved) == expected).mean())


TARGETS = ("own", "of other rows")


@TASK.measurement(seeds=lambda config: config.trees)
def grown(config: Config, seed: int) -> LabelledArrays:
    """Whether the greedy tree of each automaton is exact, and its leaves; with targets "of other rows", windows are paired with next
    states of other rows."""
    exact, leaves = [], []
    for name, automaton in AUTOMATA.items():
        source = stream(seed, name)
        rows, targets = states_and_letters(
            automaton, drawn_words(source.child("words"), automaton, config.words, config.length)
        )
        shuffled = source.child("targets").rng().permutation(targets)
        trees = [grow(rows, next_states, source.child("grow")) for next_states in (targets, shuffled)]
        exact.append([is_exact(tree, automaton, config.length) for tree in trees])
        leaves.append([leaf_count(tree) for tree in trees])
    axes = {"automaton": list(AUTOMATA), "targets": TARGETS}
    return {"exact": labelled(exact, **axes), "leaves": labelled(leaves, **axes)}


WAYS = ("look-ahead", "look-ahead without ties", "greedy, many words", "greedy, few words")


@TASK.measurement(seeds=lambda config: config.trees)
def parity(config: Config, seed: int) -> LabelledArrays:
    """Whether the tree of parity is exact: with look-ahead from few words, the same without its rule for ties, greedy from many
    and from few."""
    automaton, exact = AUTOMATA["parity"], []
    for way in WAYS:
        number = config.many_words if way.endswith("many words") else config.few_words
        words = drawn_words(stream(seed, "parity", "words"), automaton, number, config.length)
        rows, targets = states_and_letters(automaton, words)
        source = stream(seed, "parity", way)
        tree = grow(rows, targets, source, look_ahead=way.startswith("look"), break_ties=not way.endswith("ties"))
        exact.append(is_exact(tree, automaton, config.length))
    return {"exact": labelled(exact, way=WAYS)}


@TASK.claim(
    "autoregressive-trees/T1",
    where="derived; the paper trains trees on chains of thought",
    kind="training",
    statement="Greedy growth from 20 words of 12 letters with their states gives exactly the automaton (right on every word of this "
    "length) in more than half of all samples, for each of three: count modulo 3, contains *aab*, flip-flop.",
    controls=[control("next states of other rows", targets="of other rows"), control("parity", automata=("parity",))],
)
def greed_finds_automata(results: Results, targets: str = "own", automata: tuple[str, ...] = STRUCTURED) -> Evidence:
    exact = results[grown]["exact"].sel(targets=targets)
    return Evidence.all(
        *(
            Evidence.proportion(int(exact.sel(automaton=name).sum()), exact.sizes["seed"], ">", 0.5, f"{name}: {MOST}")
            for name in automata
        )
    )


@TASK.claim(
    "autoregressive-trees/T2",
    where="derived",
    kind="phenomenon",
    statement="Greedy growth misses parity: from 20 words of 12 letters with their states it is exact in fewer than half of all "
    "samples, although four leaves would do.",
    controls=[control("count modulo 3 instead of 2", automaton="count mod 3")],
)
def greed_misses_parity(results: Results, automaton: str = "parity") -> Evidence:
    exact = results[grown]["exact"].sel(targets="own", automaton=automaton)
    return Evidence.proportion(int(exact.sum()), exact.size, "<", 0.5, MOST)


@TASK.claim(
    "autoregressive-trees/T2.look-ahead",
    where="derived",
    kind="training",
    statement="One step of look-ahead, with ties broken by the impurity at once, finds parity from 5 words of 12 letters in more than "
    "half of all samples; greed finds it from 640.",
    controls=[
        control("look-ahead without the rule for ties", ways=("look-ahead without ties",)),
        control("greed from 5 words", ways=("greedy, few words",)),
    ],
)
def look_ahead_finds_parity(results: Results, ways: tuple[str, ...] = ("look-ahead", "greedy, many words")) -> Evidence:
    exact = results[parity]["exact"]
    return Evidence.all(
        *(
            Evidence.proportion(int(exact.sel(way=way).sum()), exact.sizes["seed"], ">", 0.5, f"{way}: {MOST}")
            for way in ways
        )
    )


# %%
TASK.show(greed_finds_automata)
TASK.show(greed_misses_parity)
TASK.show(look_ahead_finds_parity)


# %%
@TASK.measurement(seeds=lambda config: config.large)
def by_rows(config: Config, seed: int) -> LabelledArrays:
    """Whether greedy trees are exact, by automaton and number of words."""
    exact = [
        [
            is_exact(
                grow(
                    *states_and_letters(
                        automaton, drawn_words(stream(seed, name, "by rows"), automaton, number, config.length)
                    ),
                    stream(seed, name, "grow", number),
                ),
                automaton,
                config.length,
            )
            for number in config.row_counts
        ]
        for name, automaton in AUTOMATA.items()
    ]
    return {"exact": labelled(exact, automaton=list(AUTOMATA), words=config.row_counts)}


@TASK.figure
def exact_by_rows(results: Results) -> Sheet:
    """Share of samples from which the greedy tree is exactly the automaton, by number of words of twelve letters."""
    exact = results[by_rows]["exact"].astype(float)
    sheet = Sheet(width=6.4, height=3.8)
    panel = sheet.panel(
        "greed needs many words for parity",
        x="words",
        y="share of exact trees",
        scale=("log", "linear"),
        ylim=(-0.05, 1.1),
        xticks={number: str(number) for number in results.config.row_counts},
        legend="outside",
    )
    for name in AUTOMATA:
        panel.curve(exact.sel(automaton=name), over="words", name=name, within=(0, 1))
    return sheet


# %%
TASK.show(exact_by_rows)

# %% [markdown]
# ## At once, or word by word
#
# A tree that is asked for the answer alone has $2^n$ leaves to fill. Grown from 2,000 words of ten bits with their
# parity it has learnt every word that it has seen, and of those that it has not it gets nearly all *wrong*: a word
# that is new shares its leaf with a seen one that differs in a single bit, and that one has the other parity. A tree
# with the states at hand has four leaves and is right.
#
# And if the states stand *between* the letters, what the tree learns on short words is the automaton itself, at any length.


# %%
@TASK.measurement(seeds=lambda config: config.large)
def direct(config: Config, seed: int) -> LabelledArrays:
    """Parity answered at once: leaves, and share right of the words that were not among those grown from (nan if all
    were). "conjunction" is the *or* of the first two bits from the same words. "token by token": parity with its
    states and look-ahead."""
    bits = config.direct_bits
    words = stream(seed, "direct").rng().integers(2, size=(config.direct_words, bits))
    every = np.arange(2**bits)[:, None] >> np.arange(bits) & 1
    numbers = words @ (1 << np.arange(bits))
    unseen = ~np.isin(np.arange(2**bits), numbers)
    right, leaves = [], []
    for name in ("parity", "first two bits"):
        values = every.sum(1) % 2 if name == "parity" else every[:, 0] | every[:, 1]
        tree = grow(words[:, ::-1], values[numbers] + 2, stream(seed, "direct", name))
        answers = many(tree, every, 1)[:, 0] - 2
        right.append(float((answers == values)[unseen].mean()) if unseen.any() else np.nan)
        leaves.append(leaf_count(tree))
    automaton = AUTOMATA["parity"]
    few_words = words[: config.few_words * 4]
    tree = grow(*states_and_letters(automaton, few_words), stream(seed, "direct", "states"), look_ahead=True)
    right.append(ends_right(tree, automaton, every[unseen]) if unseen.any() else np.nan)
    leaves.append(leaf_count(tree))
    arms = ("at once", "first two bits", "token by token")
    return {"right": labelled(right, way=arms), "leaves": labelled(leaves, way=arms)}


@TASK.claim(
    "autoregressive-trees/O1",
    where="abstract: trees need the chain of thought; sizes derived",
    kind="ordering",
    statement="Grown from 2,000 words of ten bits, a tree that answers parity at once has more than 700 leaves and "
    "is right on fewer than a tenth of the "
    "words it has not seen, on average over samples; token by token, grown from 20 of these words, it is right on more than nine tenths.",
    controls=[
        control("at once, but *or* of the first two bits", at_once="first two bits"),
        control("at once in the place of token by token", stepwise="at once"),
    ],
)
def at_once_is_worse_than_chance(
    results: Results, at_once: str = "at once", stepwise: str = "token by token"
) -> Evidence:
    measured = results[direct]
    return Evidence.all(
        Evidence.over_seeds(measured["right"].sel(way=at_once), "<", 0.1, f"chance is 1/2; {PILOTS}"),
        Evidence.over_seeds(measured["leaves"].sel(way=at_once), ">", 700, f"of at most 1,024; {PILOTS}"),
        Evidence.over_seeds(measured["right"].sel(way=stepwise), ">", 0.9, f"1 if exact; {PILOTS}"),
    )


@TASK.measurement(seeds=lambda config: config.trees)
def longer(config: Config, seed: int) -> LabelledArrays:
    """Share of 100 words of 200 letters that a tree grown on 40 words of 8 letters ends right (contains aab; one
    word in a hundred does not, so counted modulo 3 as well): states between the letters, with a window of six
    tokens, or behind the word."""
    right = []
    for name in ("count mod 3", "contains aab"):
        automaton, source, row = AUTOMATA[name], stream(seed, "longer", name), []
        words = drawn_words(source.child("words"), automaton, 40, 8)
        tests = drawn_words(source.child("tests"), automaton, 100, 200)
        between = automaton_strings(automaton, words, interleaved=True)
        tree = grow(*windows(between, 6, np.arange(2, 17, 2)), source.child("grow"))
        row.append(ends_right(tree, automaton, tests, interleaved=True))
        tree = grow(*states_and_letters(automaton, words), source.child("grow"))
        row.append(ends_right(tree, automaton, tests))
        right.append(row)
    return {"right": labelled(right, automaton=("count mod 3", "contains aab"), layout=("between", "behind"))}


@TASK.claim(
    "autoregressive-trees/T1.length",
    where="derived",
    kind="training",
    statement="With the states between the letters, a greedy tree grown on 40 words of 8 letters is right on all of "
    "100 words of 200 letters, in more than half "
    "of all samples (count modulo 3, contains *aab*).",
    controls=[control("states behind the word", layout="behind")],
)
def grown_trees_fit_longer_words(results: Results, layout: str = "between") -> Evidence:
    right = results[longer]["right"].sel(layout=layout)
    return Evidence.all(
        *(
            Evidence.proportion(
                int((right.sel(automaton=name) == 1).sum()), right.sizes["seed"], ">", 0.5, f"{name}: {MOST}"
            )
            for name in ("count mod 3", "contains aab")
        )
    )


@TASK.figure
def at_once_or_token_by_token(results: Results) -> Sheet:
    """Share right on words of ten bits that the tree has not seen, and its leaves: parity at once, *or* of two bits at once, and
    parity token by token."""
    measured = results[direct]
    sheet = Sheet(columns=2, width=4.6, height=3.6)
    names = {
        "at once": "parity,\nat once",
        "first two bits": "or of 2 bits,\nat once",
        "token by token": "parity,\ntoken by token",
    }
    panel = sheet.panel("parity at once: worse than chance", x="tree", y="share right on new words", ylim=(0, 1.1))
    panel.bars({title: measured["right"].sel(way=way).values for way, title in names.items()}, name="trees", dots=True)
    panel.level(0.5, "chance")
    panel = sheet.panel("hundreds of leaves, or four", x="tree", y="leaves", scale=("linear", "log"))
    panel.points({title: measured["leaves"].sel(way=way).values for way, title in names.items()}, name="trees")
    return sheet


# %%
TASK.show(at_once_is_worse_than_chance)
TASK.show(grown_trees_fit_longer_words)
TASK.show(at_once_or_token_by_token)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
