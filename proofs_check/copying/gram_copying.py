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
# # Copying by grams: attention needs no state, and errs where a string repeats itself
#
# After $g$ letters of its answer a copier finds where these letters stand in the string and says what follows there. Two attention
# layers do that with explicit weights (Jelassi et al. 2024): heads of the first bring the $g$ letters before a place
# to that place, the
# second compares. Nothing bounds the number of strings; what can go wrong is the string.
#
# **When it errs.** If every g-gram is always followed by the same letter, each step is right. If some g-gram is followed by two
# different letters, whichever occurrence is taken, the other one is answered wrongly. So the chance of an error is
# that of *a g-gram
# with two followers*.
#
# **How often.** Windows at $i < j$ agree with probability $D^{-g}$, also where they overlap: letter $j + k$ must
# equal an earlier one, for
# $k = 0, \dots, g - 1$ in turn. The follower of the later one is a fresh letter, and differs with probability $1 - 1/D$. Hence
# $\lambda = \binom{n - g}{2} D^{-g} (1 - \frac1D)$ such pairs are expected, $P(\text{error}) \le \lambda$, and,
# since a long repeat ends in one pair only,
# the pairs come nearly independently: $P(\text{error}) \approx 1 - e^{-\lambda}$. The union bound is sharper than
# $L^2 D^{-g} / 2$, which forgets the follower.


# %%
from __future__ import annotations

from dataclasses import dataclass

import torch

from lab import Evidence, Task, control
from lab.domains.copying.copy_prompts import all_strings, copy_prompts
from lab.domains.copying.gram_copier import HARD, gram_copier, next_token_law
from lab.domains.copying.gram_copying import ambiguous, copy_by_grams, expected_pairs, poisson_error, union_bound
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.results import Results
from lab.streams import stream


@dataclass(frozen=True)
class Config:
    """Random strings to copy by grams."""

    letters: int = 26
    """D"""
    length: int = 100
    """n"""
    strings: int = 1000
    """strings a draw"""
    draws: int = 96
    """draws"""


PROOFS = Task(
    "copying",
    paper="jelassi-2024-copying",
    presets={"smoke": Config(strings=20, draws=2), "ci": Config(), "paper": Config(length=300, draws=100)},
    root=2032,
)
GRAMS = (2, 3, 4)
SMALL = ((2, 10), (3, 7), (4, 5))  # letters and length of strings that are enumerated


@PROOFS.cases(all={})
def enumerated(config: Config) -> LabelledArrays:
    """Over all strings of small sizes: share of errors by either rule, of ambiguous strings, and mean number of pairs."""
    shares = []
    for letters, length in SMALL:
        strings = all_strings(letters, length)
        rows = []
        for gram in GRAMS:
            wrong = [(copy_by_grams(strings, gram, rule) != strings).any(1) for rule in ("first", "last")]
            doubtful = ambiguous(strings, gram)
            windows, after = strings[:, :-1].unfold(1, gram, 1), strings[:, gram:]
            agree = (windows.unsqueeze(1) == windows.unsqueeze(2)).all(-1)
            pairs = (agree & (after.unsqueeze(1) != after.unsqueeze(2))).sum((1, 2)) / 2
            rows.append(
                [
                    float(doubtful.double().mean()),
                    *(float((rule_errors != doubtful).double().mean()) for rule_errors in wrong),
                    float(pairs.double().mean()),
                ]
            )
        shares.append(rows)
    kinds = ("ambiguous", "first differs", "last differs", "pairs")
    return {"share": labelled(shares, size=[f"{d}^{n}" for d, n in SMALL], gram=GRAMS, kind=kinds)}


@PROOFS.claim(
    "copying/L2",
    where="Jelassi et al. 2024, copying by n-grams; the exact event and the sharper bound are derived",
    kind="rate",
    statement="Copying by g-grams errs exactly on the strings in which a g-gram is followed by two different "
    "letters, whichever occurrence is "
    r"taken; of such pairs exactly $\lambda = \binom{n - g}{2} D^{-g} (1 - \frac1D)$ are expected, and the chance "
    r"of an error is at most $\lambda$ (all strings "
    "of three sizes, $g = 2, 3, 4$).",
    controls=[
        control("the law of grams one letter longer", longer=1),
        control("without the followers, C(n - g, 2) / D^g", followers=False),
    ],
)
def errors_are_grams_with_two_followers(results: Results, longer: int = 0, followers: bool = True) -> Evidence:
    share = results[enumerated]["share"].sel(case="all")
    parts = [
        Evidence.exact(share.sel(kind=kind).max().item(), "<=", 0, "strings on which error and event differ; counted")
        for kind in ("first differs", "last differs")
    ]
    for letters, length in SMALL:
        for gram in GRAMS:
            if length - gram - longer < 2:
                continue
            by_kind = share.sel(size=f"{letters}^{length}", gram=gram)
            law = expected_pairs(letters, length, gram + longer) / (1 if followers else 1 - 1 / letters)
            words = f"{letters}^{length} strings, g = {gram}"
            distance = abs(by_kind.sel(kind="pairs").item() / law - 1)
            parts.append(
                Evidence.exact(distance, "<=", 1e-12, f"{words}: mean number of pairs over the law; summed exactly")
            )
            parts.append(
                Evidence.exact(
                    by_kind.sel(kind="ambiguous").item(), "<=", min(1.0, law) * (1 + 1e-12), f"{words}: union bound"
                )
            )
    return Evidence.all(*parts)


@PROOFS.measurement(seeds=lambda config: config.draws)
def errors(config: Config, seed: int) -> LabelledArrays:
    """Share of strings that are not copied whole, by g: those in which a gram has two followers (see `enumerated`)."""
    strings = copy_prompts(stream(seed, "strings"), config.strings, letters=config.letters, length=config.length)
    string = strings.tokens[:, 1 : config.length + 1]
    shares = [float(ambiguous(string, gram).double().mean()) for gram in GRAMS]
    return {"error": labelled(shares, gram=GRAMS)}


@PROOFS.claim(
    "copying/L2.poisson",
    where="derived",
    kind="rate",
    statement=r"Of strings of 100 letters out of 26 copying by g-grams misses a share of $1 - e^{-\lambda}$: "
    r"within $0.015$ of $0.2249$ at $g = 3$ and within "
    "$0.005$ of $0.0096$ at $g = 4$.",
    controls=[
        control("the law of grams one letter longer", longer=1),
        control("the union bound taken for the law", law="union", grams=(3,)),
    ],
)
def errors_follow_the_law_of_rare_pairs(
    results: Results, longer: int = 0, law: str = "poisson", grams: tuple[int, ...] = (3, 4)
) -> Evidence:
    config, error = results.config, results[errors]["error"]
    laws = {"poisson": poisson_error, "union": union_bound}
    return Evidence.all(
        *(
            Evidence.equals(
                error.sel(gram=gram),
                laws[law](config.letters, config.length, gram + longer),
                within=0.015 if gram == 3 else 0.005,
                absolute=True,
                origin=f"g = {gram}: law of rare pairs; tolerance from the spread on pilot seeds (root 0)",
            )
            for gram in grams
        )
    )


@PROOFS.cases(causal={}, prefix={"pattern": "prefix"}, blurred={"sharpness": 0.02}, window={"pattern": "window"})
def circuit(config: Config, *, pattern: str = "causal", sharpness: float = HARD) -> LabelledArrays:
    """Strings on which the two-layer circuit and the rule disagree about an error, by g."""
    letters, length, count = 4, 20, 60
    allowed = {
        "causal": masks.causal(2 * length),
        "prefix": masks.prefix_lm(2 * length, length),
        "window": masks.sliding_window(2 * length, length // 2),
    }[pattern]
    string = copy_prompts(stream(0, "circuit"), count, letters=letters, length=length).tokens[:, 1 : length + 1] - 3
    twice, disagreements = torch.cat((string, string), 1), []
    for gram in GRAMS:
        answer = next_token_law(gram_copier(letters, 2 * length, gram, sharpness), twice, allowed).argmax(-1)
        wrong = (answer[:, length + gram - 1 : -1] != string[:, gram:]).any(1)
        disagreements.append(int((wrong != ambiguous(string, gram)).sum()))
    return {"disagree": labelled(disagreements, gram=GRAMS)}


@PROOFS.claim(
    "copying/L2.circuit",
    where="Jelassi et al. 2024, the two-layer construction; the weights are ours",
    kind="construction",
    statement="Two attention layers with explicit weights copy by g-grams: on every string they err exactly "
    "where a g-gram has two followers, "
    "under a causal and under a prefix mask (60 strings of 20 letters out of 4, $g = 2, 3, 4$).",
    controls=[
        control("attention that is soft", cases=("blurred",)),
        control("a window that does not reach back to the string", cases=("window",)),
    ],
)
def two_layers_copy_by_grams(results: Results, cases: tuple[str, ...] = ("causal", "prefix")) -> Evidence:
    disagree = results[circuit]["disagree"].sel(case=list(cases)).sum()
    return Evidence.exact(disagree.item(), "<=", 0, "strings on which circuit and rule disagree; counted")


@PROOFS.figure
def errors_by_gram(results: Results) -> Sheet:
    """Share of strings that copying by g-grams misses, by the length of the gram."""
    config = results.config
    sheet = Sheet(width=5.6, height=3.9)
    panel = sheet.panel(
        f"longer grams, fewer errors (n = {config.length}, D = {config.letters})",
        x="letters of a gram g",
        y="share of strings not copied",
        scale=("linear", "log"),
        xticks=GRAMS,
        ylim=(1e-3, 3),
    )
    panel.curve(results[errors]["error"], "gram", name="measured")
    laws = {r"$1 - e^{-\lambda}$": poisson_error, r"union bound $\lambda$": union_bound}
    for name, law in laws.items():
        panel.theory(GRAMS, [law(config.letters, config.length, gram) for gram in GRAMS], name=name)
    return sheet


# %%
PROOFS.show(errors_are_grams_with_two_followers)
PROOFS.show(errors_by_gram)
PROOFS.show(errors_follow_the_law_of_rare_pairs)
PROOFS.show(two_layers_copy_by_grams)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
