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
# # A universal machine in two layers
#
# A table of rules is a next-token map, so a network can hold it: one ReLU unit for each rule, $\max(0, \cdot)$ of the
# number of agreeing bits less all but one of them, is 1 at its own window and 0 at every other. That is the easy half. In the paper a
# program outside the model moves the window over the string. Can the network find the front of the queue *itself*, so
# that nothing is left but ordinary greedy decoding of a causal transformer?
#
# It can. Call a token *still* if it leaves the front where it is: the tokens of the prompt, and the first one of a rule
# that writes two. Every other token means that one rule is done and the front has moved by one. If $G$ is the share of
# still tokens among the $t + 1$ so far, the front is at
#
# $$i = (t + 1)(1 - G),$$
#
# and a head without preferences computes $G$. To look at position $i + m$, attend by $-(j - i - m)^2$; divided by $t
# + 1$ and without what is the same for all $j$ this is
#
# $$2j\Bigl(1 - G + \frac{m}{t+1}\Bigr) - \frac{j^2}{t+1},$$
#
# bilinear in what the last token knows, $(1, G, \frac{1}{t+1})$, and what position $j$ offers, $(j, j^2)$. Multiplied by 800 times the
# length of the run, the distance to the next best position is at least 800, and $e^{-800}$ is 0 in float64:
# attention is exact. So are the logits, which are whole numbers.

# %%
from __future__ import annotations

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.decoding import decode
from lab.domains.machines.lag import run
from lab.domains.machines.lag_compilers import compiled, encode
from lab.domains.machines.rule_transformer import Tokens, rule_transformer
from lab.domains.machines.turing import UNIVERSAL, configurations, random_tapes
from lab.labels import LabelledArrays
from lab.models import masks
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from proofs_check.computational_universality._shared import COUNTS, PAPER, SLUG

PROOFS = Task(SLUG, paper=PAPER)
LONG, CELLS = 10_000, 6


def network(window: int, longest: int, broken: str = "") -> tuple[Transformer, Tokens]:
    """The transformer of the universal machine; ``broken``: one "rule" is left out, or "pairs" move the front twice."""
    system = compiled(UNIVERSAL, window)
    tokens, built = Tokens(system), rule_transformer(system, longest)
    with torch.no_grad():
        if broken == "rule":
            built.get_parameter("layers.1.mlp.output.weight")[:, 0] = 0.0
        if broken == "pairs":
            assert built.embedding is not None
            built.embedding[:, 2 * tokens.given_from : tokens.halt, 0] = 0.0
    return built, tokens


@PROOFS.cases(window_2={}, window_3={"window": 3}, rule_2={"broken": "rule"}, rule_3={"window": 3, "broken": "rule"})
def every_window(config: object, *, window: int = 2, broken: str = "") -> LabelledArrays:
    """All windows of the alphabet (of three symbols: those with a rule, and those without one among 20,000 drawn) as
    prompts: wrong first tokens, wrong second ones, how many there were, the least lead of the chosen token, and what
    is left of the logits without a rule."""
    built, tokens = network(window, window + 1, broken)
    system = tokens.system
    windows = list(system.rules)
    size = len(system.alphabet)
    numbers = range(size**2) if window == 2 else stream(0, "windows").rng().integers(size**3, size=20_000).tolist()
    words = (tuple(system.alphabet[number // size**place % size] for place in range(window)) for number in numbers)
    windows += [word for word in words if word not in system.rules]
    prompts = torch.tensor([tokens.prompt(word) for word in windows])
    wanted = [tokens.written(system.rules.get(word)) for word in windows]
    logits = logits_after(built, prompts)
    best = logits.topk(2).values
    right = torch.tensor([continuation[0] for continuation in wanted])
    pairs = [place for place, continuation in enumerate(wanted) if len(continuation) == 2]
    longer = torch.cat((prompts[pairs], right[pairs].unsqueeze(1)), dim=1)
    seconds = torch.tensor([wanted[place][1] for place in pairs])
    silent = torch.tensor([word not in system.rules for word in windows])
    symbol_logits = logits[silent][:, : tokens.halt]
    return {
        "wrong": float((logits.argmax(-1) != right).sum()),
        "wrong seconds": float((logits_after(built, longer).argmax(-1) != seconds).sum()),
        "rules": float(len(system.rules)),
        "windows": float(len(windows)),
        "lead": float((best[:, 0] - best[:, 1]).min()),
        "silence": float(symbol_logits.abs().max()),
        "fraction": float((logits - logits.round()).abs().max()),
    }


def logits_after(built: Transformer, prompts: Tensor) -> Tensor:
    """Logits [prompt, token] after each prompt."""
    with torch.no_grad():
        parts = [built(part.unsqueeze(0), masks.causal(prompts.shape[1]))[0, :, -1] for part in prompts.split(4096)]
    return torch.cat(parts)


@PROOFS.claim(
    "computational-universality/C3",
    where="derived; a transformer in the place of the paper's prompted model",
    kind="construction",
    statement="A causal transformer of two layers in explicit weights, with one ReLU unit for each symbol of each rule, continues "
    "every window as the table of the universal machine does, by logits that are whole numbers: the right symbols where "
    "there is a rule, and where "
    "there is none every symbol's logit is exactly 0 and *halt* leads by 1 (all 12,321 windows of two symbols; of three, the 724 "
    "with a rule and 20,000 drawn ones).",
    controls=[
        control("window 2, what one rule writes left out", cases=("rule_2",)),
        control("window 3, what one rule writes left out", cases=("rule_3",)),
    ],
)
def the_network_holds_the_table(results: Results, cases: tuple[str, ...] = ("window_2", "window_3")) -> Evidence:
    measured = results[every_window].sel(case=list(cases))
    return Evidence.all(
        Evidence.exact(float(measured["wrong"].sum()), "<=", 0, f"wrong first symbols; {COUNTS}"),
        Evidence.exact(float(measured["wrong seconds"].sum()), "<=", 0, f"wrong second symbols; {COUNTS}"),
        Evidence.exact(float(measured["lead"].min()), ">=", 1, "whole numbers that differ"),
        Evidence.exact(float(measured["silence"].max()), "<=", 0, "sums in which no unit is on"),
        Evidence.exact(float(measured["fraction"].max()), "<=", 0, "sums of whole numbers"),
    )


# %%
PROOFS.show(the_network_holds_the_table)

# %% [markdown]
# ## Ten thousand tokens
#
# Now the network runs: a prompt (the tape of the universal machine as a ring), the plain causal mask, greedy decoding
# with the key-value cache of `lab.decoding`, nothing else. The lag system, run apart, says what every token must be.
# Teacher forcing says the same of all positions at once. If tokens that are first of two moved the front as all others do,
# everything would be right until the first cell is added, and wrong soon after.


# %%
@PROOFS.cases(
    long={"tapes": 1, "steps": LONG},
    many_2={"tapes": 16, "steps": 500},
    many_3={"tapes": 16, "steps": 500, "window": 3},
    pairs_2={"tapes": 16, "steps": 500, "broken": "pairs"},
    pairs_3={"tapes": 16, "steps": 500, "window": 3, "broken": "pairs"},
)
def decoded(config: object, *, tapes: int = 16, steps: int = 500, window: int = 2, broken: str = "") -> LabelledArrays:
    """Tokens of greedy decoding that are not the lag system's, of how many, and how many cells were added; and of the last queue,
    whether it is the system's."""
    built, tokens = network(window, CELLS + 2 + steps, broken)
    starts = configurations(UNIVERSAL, random_tapes(stream(0, "tapes"), UNIVERSAL, tapes, CELLS))
    queues = [encode(UNIVERSAL, start, window) for start in starts]
    prompts = torch.tensor([tokens.prompt(queue) for queue in queues])
    mask = masks.causal(prompts.shape[1] + steps)
    written = decode(built, prompts, mask, steps, stop_token=tokens.halt).tokens[0]
    wanted = torch.tensor([tokens.continuation(queue, steps) for queue in queues])
    rules = int((wanted[0] < tokens.given_from).sum())
    last = tokens.queue([*prompts[0].tolist(), *written[0].tolist()])
    expected = run(tokens.system, queues[0], rules)
    return {
        "wrong": float((written != wanted).sum()),
        "tokens": float(wanted.numel()),
        "pairs": float((wanted >= 2 * tokens.given_from).sum()),
        "queue": float(last[: len(expected.queue)] == expected.queue),
    }


@PROOFS.cases(window_2={}, window_3={"window": 3}, pairs_2={"broken": "pairs"})
def forced(config: object, *, window: int = 2, broken: str = "", length: int = 2000) -> LabelledArrays:
    """Teacher forcing on a run of one tape: positions at which the likeliest token is not the lag system's."""
    built, tokens = network(window, CELLS + 2 + length, broken)
    (start,) = configurations(UNIVERSAL, random_tapes(stream(1, "tapes"), UNIVERSAL, 1, CELLS))
    queue = encode(UNIVERSAL, start, window)
    string = torch.tensor(tokens.prompt(queue) + tokens.continuation(queue, length))
    with torch.no_grad():
        logits = built(string[None, None, :-1], masks.causal(len(string) - 1))[0, 0, len(queue) - 1 :]
    return {
        "wrong": float((logits.argmax(-1) != string[len(queue) :]).sum()),
        "fraction": float((logits - logits.round()).abs().max()),
    }


@PROOFS.claim(
    "computational-universality/C3.run",
    where="derived; the paper moves the window by a program",
    kind="construction",
    statement="Decoded greedily with its cache under the plain causal mask, with no program that moves a window, this transformer "
    "carries out the universal machine: every one of 10,000 tokens on one tape, and of 500 on each of 16 tapes for both tables, "
    "is the lag system's, although cells are added on the way; so is, by teacher forcing, every position of a run of 2,000.",
    controls=[
        control("window 2, the first of two tokens moves the front", runs=("pairs_2",)),
        control("window 3, the first of two tokens moves the front", runs=("pairs_3",)),
        control("teacher forcing, the first of two tokens moves the front", positions=("pairs_2",)),
    ],
)
def the_network_runs_the_machine(
    results: Results,
    runs: tuple[str, ...] = ("long", "many_2", "many_3"),
    positions: tuple[str, ...] = ("window_2", "window_3"),
) -> Evidence:
    measured = results[decoded].sel(case=list(runs))
    places = results[forced].sel(case=list(positions))
    return Evidence.all(
        Evidence.exact(float(measured["wrong"].sum()), "<=", 0, f"wrong tokens; {COUNTS}"),
        Evidence.exact(float(measured["pairs"].min()), ">=", 1, f"at least one cell is added; {COUNTS}"),
        Evidence.exact(float(measured["queue"].min()), ">=", 1, "the last queue of the first tape is the system's"),
        Evidence.exact(float(places["wrong"].sum()), "<=", 0, f"wrong positions; {COUNTS}"),
        Evidence.exact(float(places["fraction"].max()), "<=", 0, "logits are sums of whole numbers"),
    )


# %%
PROOFS.show(the_network_runs_the_machine)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
