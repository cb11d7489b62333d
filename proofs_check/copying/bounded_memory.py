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
# # A memory of b bits against a string of n letters
#
# A model that has read a string and keeps only a *state* says, from then on, what the state tells it to say. Two strings that leave
# the same state are answered alike, and one of them wrongly. So a state from a set $S$ gives back at most $|S|$ of
# the $D^n$ strings
# (Jelassi et al. 2024): a share of $2^{b - n \log_2 D}$ with $b = \log_2 |S|$ bits, whatever the weights are,
# however they were trained. It is
# attained by giving a state each to $|S|$ strings.
#
# For networks with floating-point states count *stored* bits: 64 numbers in float32 are 2,048 bits, and the bound says nothing
# about any string below 436 letters of an alphabet of 26. What networks do below it is a matter of training, not of this bound.


# %%
from __future__ import annotations

import numpy as np
import torch

from lab import Evidence, Task, control
from lab.domains.copying.bounded_memory import (
    best_by_search,
    best_copy_rate,
    float_bits,
    given_back,
    longest_copied,
    string_bits,
)
from lab.domains.copying.copy_prompts import all_strings
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.results import Results
from lab.streams import stream

PROOFS = Task("copying", paper="cui-2024-copying")
SEARCHED = ((1, 2, 2), (2, 2, 2), (3, 2, 2), (4, 2, 2), (2, 3, 1), (3, 3, 1), (2, 2, 3))  # states, letters, length
LETTERS, LENGTH = 2, 6
BITS = tuple(range(7))
WRITERS = 200


@PROOFS.cases(claimed={}, grown={"more": 1})
def searched(config: object, *, more: int = 0) -> LabelledArrays:
    """The best of all pairs of a writer and a reader, and the bound for so many states more."""
    copied = [best_by_search(*sizes) for sizes in SEARCHED]
    bound = [
        round(letters**length * best_copy_rate(np.log2(states + more), letters, length))
        for states, letters, length in SEARCHED
    ]
    return {"found": labelled(copied, sizes=None), "bound": labelled(bound, sizes=None)}


@PROOFS.claim(
    "copying/L1.search",
    where="Jelassi et al. 2024, the lower bound for state space models, at sizes that can be searched",
    paper="jelassi-2024-copying",
    kind="construction",
    statement=r"Of all ways to write a state and all ways to read it, the best gives back exactly $\min(|S|, "
    r"D^n)$ of the $D^n$ strings "
    "(seven sizes, each pair tried).",
    controls=[control("a bound for one state more", case="grown")],
)
def no_code_beats_the_number_of_states(results: Results, case: str = "claimed") -> Evidence:
    measured = results[searched].sel(case=case)
    wrong = int((measured["found"] != measured["bound"]).sum())
    return Evidence.exact(wrong, "<=", 0, "sizes at which the best code and the bound differ; counted")


@PROOFS.cases(states={}, unbounded={"rounded": False})
def copied_strings(config: object, *, rounded: bool = True) -> LabelledArrays:
    """Strings that the best reader gives back: of random states of b bits, and of a code that gives the first strings one each.

    ``rounded`` keeps the signs of b random features of a string; otherwise the features themselves, as real numbers.
    """
    strings = all_strings(LETTERS, LENGTH) - 3
    at_random, code = np.zeros((len(BITS), WRITERS)), np.zeros(len(BITS))
    for row, bits in enumerate(BITS):
        weights = stream(0, "writers", bits).rng().standard_normal((WRITERS, LENGTH, bits))
        features = (2.0 * strings.numpy() - 1) @ weights  # [writer, string, bit]
        for writer, writer_features in enumerate(features):
            kept = writer_features > 0 if rounded else writer_features
            states = np.unique(kept, axis=0, return_inverse=True)[1] if bits else np.zeros(len(strings), int)
            at_random[row, writer] = given_back(torch.from_numpy(states.reshape(-1)))
        code[row] = given_back(torch.arange(len(strings)).clamp_max(2**bits - 1))
    return {"random": labelled(at_random, bits=BITS, writer=None), "code": labelled(code, bits=BITS)}


@PROOFS.claim(
    "copying/L1",
    where="Jelassi et al. 2024, the lower bound for state space models",
    paper="jelassi-2024-copying",
    kind="rate",
    statement=r"A state of b bits gives back at most a share of $2^{b - n \log_2 D}$ of all strings: no writer of "
    r"200 with random weights "
    "exceeds it, and a code that gives the first strings a state each attains it ($D = 2$, $n = 6$, $b = 0, "
    "\\dots, 6$; all 64 strings).",
    controls=[
        control("states of b real numbers that are not rounded", case="unbounded"),
        control("a bound of half the states", states=0.5),
    ],
)
def states_bound_the_copies(results: Results, case: str = "states", states: float = 1.0) -> Evidence:
    measured = results[copied_strings].sel(case=case)
    bound = np.array([states * best_copy_rate(bits, LETTERS, LENGTH) for bits in BITS])
    above = measured["random"].max("writer").values - bound
    missed = np.abs(measured["code"].values - bound)
    return Evidence.all(
        Evidence.exact(above.max(), "<=", 0, "share of strings above the bound; counted, multiples of 1/64"),
        Evidence.exact(missed.max(), "<=", 0, "distance of the code from the bound; counted"),
    )


@PROOFS.cases(all={})
def float_states(config: object) -> LabelledArrays:
    """The longest strings that a state of so many float32 numbers could give back half of the time."""
    numbers, letters = (1, 4, 16, 64, 256), (2, 4, 26)
    lengths = [[longest_copied(float_bits(number), letter) for letter in letters] for number in numbers]
    return {"length": labelled(lengths, numbers=numbers, letters=letters)}


@PROOFS.claim(
    "copying/L1.vacuous",
    where="derived",
    kind="rate",
    statement="For states of floating-point numbers the bound is vacuous at the lengths that small networks are "
    "trained at: one vector of "
    "64 float32 numbers could give back half of all strings of 435 letters out of 26, and not of 436.",
    controls=[control("a state of one number", numbers=1), control("a state of 256 numbers", numbers=256)],
)
def float_states_could_hold_long_strings(results: Results, numbers: int = 64) -> Evidence:
    length = results[float_states]["length"].sel(case="all", numbers=numbers, letters=26).item()
    bits = float_bits(64)
    least, most = best_copy_rate(bits, 26, 435), best_copy_rate(bits, 26, 436)
    return Evidence.all(
        Evidence.exact(abs(length - 435), "<=", 0, "letters between the longest string and 435; integers"),
        Evidence.exact(least, ">=", 0.5, "share at 435 letters"),
        Evidence.exact(most, "<", 0.5, "share at 436 letters"),
    )


@PROOFS.figure
def bits_against_bits(results: Results) -> Sheet:
    """Share of strings given back by states of b bits, and the longest strings that floating-point states could hold."""
    measured = results[copied_strings].sel(case="states")
    sheet = Sheet(columns=2, width=4.8, height=3.9)
    panel = sheet.panel(
        f"a state of b bits and strings of {string_bits(LETTERS, LENGTH):g} bits",
        x="bits of the state",
        y="share of all strings given back",
        scale=("linear", "log"),
        ylim=(0.01, 1.5),
        legend="lower right",
    )
    panel.curve(measured["random"], "bits", name="200 random writers", across="writer", band="range")
    panel.line(BITS, measured["code"].values, name="a state for each of the first strings", of="counted")
    panel.theory(BITS, [best_copy_rate(bits, LETTERS, LENGTH) for bits in BITS], name=r"$2^{b - n}$")
    panel = sheet.panel(
        "what floating-point states could hold",
        x="float32 numbers in the state",
        y="longest string given back half of the time",
        scale=("log", "log"),
        legend="upper left",
    )
    lengths = results[float_states]["length"].sel(case="all")
    for letters in lengths["letters"].values.tolist():
        line = lengths.sel(letters=letters)
        panel.line(line["numbers"].values, line.values, name=f"{letters} letters", of="exact")
    return sheet


# %%
PROOFS.show(no_code_beats_the_number_of_states)
PROOFS.show(states_bound_the_copies)
PROOFS.show(bits_against_bits)
PROOFS.show(float_states_could_hold_long_strings)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
