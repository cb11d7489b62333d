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
# # Learning to calculate, with and without writing
#
# The paper's first task: an expression over a prime field and its value. A derivation is the expression with one
# operation after the other carried out, `(3 + 2) * 4 = 0 * 4 = 0` over $Z_5$; the direct answer is the value alone.
# Expressions are built backwards from a uniform value, so that whoever knows nothing of an expression is right with
# probability exactly $1/p$, at every size. In training 30 % of the expressions have fewer operators than the largest
# number, as in the paper.
#
# Paper and experiment differ in size: the paper has $p = 11$, 4 to 6 operators, and a hundred passes through a million
# expressions; here it is $p = 5$, up to 3 operators, and some ten thousand expressions. So what is compared is what the
# same network *has learnt so far*, after equally many updates on the same expressions. Answers are judged on free
# greedy writing. Problems are padded on the left, so that all end at the same place: the sign of equality.
#
# Which operation is carried out first is up to the generator, so that no network can foresee every line; there is more
# than one right derivation, and only the value at its end counts. Whether the lines follow from one another is checked
# apart, by a reader that knows nothing of the generator.

# %%
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.derivations import arithmetic as expressions
from lab.domains.derivations.sequences import NO_TARGET, PAD, STOP, Derivations
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import RandomStream, stream
from lab.study import Fitted, Networks, Study
from lab.training import Batch
from tasks.chain_of_thought._shared import (
    CAUSAL,
    PAPER,
    PAPER_NETWORK,
    PILOTS,
    PREFIX,
    SLUG,
    SMOKE_NETWORK,
    Network,
    answers,
    answers_written,
    as_read,
    mask_of,
    next_token_loss,
    problem_length,
    written,
)


@dataclass(frozen=True)
class Config:
    """Expressions, and the networks that read them."""

    modulus: int = 5
    """p"""
    operators: int = 3
    """the largest number of operators"""
    fewer: float = 0.3
    """share of the training expressions that have fewer, i of them with weight i"""
    network: Network = Network(updates=1500)
    """what all networks have in common"""
    test_expressions: int = 200
    """expressions of each number of operators that a network is asked for"""
    read_expressions: int = 50
    """derivations of each network whose every line is read"""
    records: int = 5
    """measurements on the way"""
    trainings: int = 6
    """independent trainings an arm"""


TASK = Task(
    SLUG,
    paper=PAPER,
    presets={
        "smoke": Config(
            operators=2, network=SMOKE_NETWORK, test_expressions=4, read_expressions=2, records=2, trainings=2
        ),
        "ci": Config(),
        "paper": Config(
            modulus=11,
            operators=5,
            network=PAPER_NETWORK,
            test_expressions=1000,
            read_expressions=200,
            records=20,
            trainings=4,
        ),
    },
    root=2035,
)
FORMATS = {"steps": "derivation", "at once": "direct"}
ARMS = (CAUSAL, PREFIX)
PAIRINGS = ("own problem", "another problem")


def aligned(rows: Derivations, problem: int, width: int) -> Derivations:
    """The same rows, ``width`` tokens long, moved to the right so that all problems end after ``problem`` tokens."""
    shift = problem - rows.prefix_length
    place = torch.arange(width) - shift[:, None]

    def moved(values: Tensor, blank: int) -> Tensor:
        longer = F.pad(values, (0, max(0, width - values.shape[1])), value=blank)
        return torch.where(place >= 0, longer.gather(1, place.clamp(min=0)), blank)

    return replace(
        rows,
        tokens=moved(rows.tokens, PAD),
        targets=moved(rows.targets, NO_TARGET),
        loss_mask=moved(rows.loss_mask.long(), 0).bool(),
        prefix_length=torch.full_like(rows.prefix_length, problem),
        lengths=rows.lengths + shift,
    )


def drawn_expressions(config: Config, source: RandomStream, count: int, operators: int, kind: str) -> Derivations:
    """Expressions with so many operators, as long and as far to the right as those with the most."""
    rows = expressions.arithmetic(source, count, operators=operators, modulus=config.modulus, format=FORMATS[kind])
    return aligned(rows, 4 * config.operators, expressions.longest(config.operators, FORMATS[kind]))


def mixed_expressions(config: Config, source: RandomStream, count: int, kind: str) -> Derivations:
    """Expressions of which a share has fewer operators, i of them with weight i."""
    weights = np.arange(1.0, config.operators)
    shares = [*(config.fewer * weights / weights.sum()), 1 - config.fewer]
    numbers = torch.from_numpy(source.child("operators").rng().choice(config.operators, count, p=shares))
    rows = [
        drawn_expressions(config, source.child("with", number), count, number, kind)
        for number in range(1, config.operators + 1)
    ]
    chosen = numbers, torch.arange(count)
    names = ("tokens", "targets", "loss_mask", "prefix_length", "lengths")
    return Derivations(**{name: torch.stack([getattr(one, name) for one in rows])[chosen] for name in names})


def tests(config: Config, seeds: Sequence[int], operators: int, kind: str) -> dict[int, Derivations]:
    """The expressions that each seed is asked, the same for all arms."""
    return {
        seed: drawn_expressions(config, stream(seed, "test", operators), config.test_expressions, operators, kind)
        for seed in seeds
    }


def train_expressions(config: Config, seeds: Sequence[int], kind: str) -> Fitted[Transformer]:
    """Networks under both masks; their accuracy on the largest expressions on the way is in the history."""
    network, read = config.network, expressions.longest(config.operators, FORMATS[kind]) - 1
    asked = tests(config, seeds, config.operators, kind)
    study = Study(
        build=network.build(expressions.vocabulary_size(config.modulus), read, network.layers),
        arms={arm: mask_of(arm, read, 4 * config.operators) for arm in ARMS},
        encode=as_read,
        loss=next_token_loss,
    )

    def under_way(networks: Networks[Transformer]) -> dict[str, Tensor]:
        return {"right": networks.numbers(asked, right_values)[:, 0]}

    return study.fit(
        seeds,
        lambda seed, number, count: mixed_expressions(config, stream(seed, "train", number), count, kind),
        network.optimisation,
        blocks=network.blocks,
        measure=under_way,
        measure_every=-(-network.updates // config.records),
        name=kind.replace(" ", "-"),
    )


def right_values(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Share of values that are right, all tokens behind the problem written freely, and the share that would be if
    every value were written behind the problem of another row, drawn at random [model, 2]."""
    own, truth = (one[..., 0] for one in answers_written(module, batch, mask))
    right = (own == truth).double().mean(-1)
    values = torch.arange(int(truth.max()) + 1)[:, None, None]
    by_chance = ((own == values).double().mean(-1) * (truth == values).double().mean(-1)).sum(0)
    return torch.stack([right, by_chance], -1)


def cut_short(module: Transformer, batch: Batch, mask: Tensor, *, modulus: int) -> Tensor:
    """Share of right values where a number, and nothing else, may stand behind the problem [model]."""
    problem = problem_length(batch["targets"])
    numbers = torch.arange(expressions.vocabulary_size(modulus)) >= expressions.ZERO
    own = written(module, batch["tokens"][..., :problem], mask, 1, allowed=numbers)[..., 0]
    truth = answers(batch["targets"].cpu())[..., 0]
    return (own == truth).double().mean(-1)


def lines_follow(config: Config, module: Transformer, rows: Derivations, arm: str) -> np.ndarray:
    """Of derivations written freely by one network: whether every line follows, and whether the value is right [2, row]."""
    problem, length = int(rows.prefix_length[0]), rows.tokens.shape[1]
    prompts = rows.tokens[: config.read_expressions, :problem]
    own = written(module, prompts[None], mask_of(arm, length - 1, problem)[None], length - problem)[0]
    found = []
    for prompt, answer in zip(prompts.tolist(), own.tolist(), strict=True):
        problem_itself = [token for token in prompt if token != PAD]
        value = expressions.evaluate(problem_itself[:-1], config.modulus)
        ends, row = STOP in answer, problem_itself + answer
        follow = ends and PAD not in answer and expressions.first_wrong_step(row, config.modulus) is None
        found.append((follow, ends and expressions.answer_of(answer) == value))
    return np.array(found).T


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=5)
def calculated(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """By what is written, mask and operators: right values; on the way; of derivations cut short; and lines that follow."""
    sizes = range(1, config.operators + 1)
    fitted = {kind: train_expressions(config, seeds, kind) for kind in FORMATS}

    def asked(kind: str, operators: int) -> np.ndarray:
        given = tests(config, seeds, operators, kind)
        return fitted[kind].ask(given, right_values, pairing=PAIRINGS).values

    right = np.stack([np.stack([asked(kind, number) for number in sizes], 2) for kind in FORMATS], 2)
    steps, largest = fitted["steps"], tests(config, seeds, config.operators, "steps")
    follow = [
        [lines_follow(config, steps.of(seeds=[seed], arms=[arm]).module, largest[seed], arm) for arm in ARMS]
        for seed in seeds
    ]  # [seed][arm] of [what, row]
    lines, values = np.moveaxis(np.array(follow), 2, 0)
    axes = {"seed": seeds, "arm": ARMS}
    return {
        "right": labelled(right, **axes, written=tuple(FORMATS), operators=sizes, pairing=PAIRINGS),
        "cut short": steps.ask(largest, partial(cut_short, modulus=config.modulus)),
        "every line follows": labelled(lines.mean(-1), **axes),
        "right in spite of a line": labelled((values & ~lines).mean(-1), **axes),
        "on the way": labelled(
            np.stack([one.history["right"].values for one in fitted.values()], 2),
            **axes,
            written=tuple(FORMATS),
            update=steps.history["update"].values.tolist(),
        ),
    }


@TASK.claim(
    "chain-of-thought/T2",
    where="section 4, table of accuracies",
    kind="training",
    statement="After 1,500 updates on 8 expressions each, networks of two layers that write every step are right about the value of "
    "expressions with 3 operators over $Z_5$ in more than 0.5 of all cases (free greedy writing, mean over trainings), networks that "
    "answer at once in less than 0.4, and the first lead by more than 0.2, under the causal and under the prefix mask.",
    controls=[
        control("the networks that write steps, made to answer at once", first="cut short"),
        control("networks that answer at once, in the place of those that write steps", first="at once"),
    ],
)
def steps_are_learnt_sooner(results: Results, first: str = "steps") -> Evidence:
    measured, most = results[calculated], results.config.operators
    largest = measured["right"].sel(operators=most, pairing=PAIRINGS[0])
    stepwise = measured["cut short"] if first == "cut short" else largest.sel(written=first)
    direct = largest.sel(written="at once")
    parts = []
    for arm in ARMS:
        lead = stepwise.sel(arm=arm) - direct.sel(arm=arm)
        parts += [
            Evidence.over_seeds(stepwise.sel(arm=arm), ">", 0.5, f"steps, {arm}; {PILOTS}"),
            Evidence.over_seeds(direct.sel(arm=arm), "<", 0.4, f"at once, {arm}; {PILOTS}"),
            Evidence.over_seeds(lead, ">", 0.2, f"lead of steps, {arm}; {PILOTS}"),
        ]
    return Evidence.all(*parts)


@TASK.claim(
    "chain-of-thought/T2.guess",
    where="derived",
    kind="training",
    statement="What is learnt at once is more than nothing: after 1,500 updates networks that answer at once are right about more than "
    "0.22 of expressions with 3 operators, where a guess is right with probability 1/5 exactly, under both masks.",
    controls=[control("the same values, behind the problems of other rows", pairing=PAIRINGS[1])],
)
def at_once_beats_a_guess(results: Results, pairing: str = PAIRINGS[0]) -> Evidence:
    config = results.config
    found = results[calculated]["right"].sel(written="at once", operators=config.operators, pairing=pairing)
    level = 1 / config.modulus + 0.02
    return Evidence.all(
        *(Evidence.over_seeds(found.sel(arm=arm), ">", level, f"{arm}: 1/p + 0.02; {PILOTS}") for arm in ARMS)
    )


@TASK.claim(
    "chain-of-thought/O1.operators",
    where="section 4, table of accuracies",
    kind="ordering",
    statement="With the number of operators direct accuracy falls: after 1,500 updates networks that answer at once are right about "
    "expressions with one operator more often than about those with two, and about those more often than about three, by more than "
    "0.05 each, under both masks.",
    controls=[control("the same values, behind the problems of other rows", pairing=PAIRINGS[1])],
)
def more_operators_are_harder_at_once(results: Results, pairing: str = PAIRINGS[0]) -> Evidence:
    direct = results[calculated]["right"].sel(written="at once", pairing=pairing)
    return Evidence.all(
        *(
            Evidence.over_seeds(
                direct.sel(arm=arm, operators=few) - direct.sel(arm=arm, operators=few + 1),
                ">",
                0.05,
                f"{few} to {few + 1}, {arm}; {PILOTS}",
            )
            for arm in ARMS
            for few in range(1, results.config.operators)
        )
    )


@TASK.claim(
    "chain-of-thought/T2.lines",
    where="derived",
    kind="training",
    statement="Right values come with right lines: of the derivations with 3 operators that networks write freely after 1,500 updates, "
    "fewer than 0.1 end in the right value although some line does not follow from the one before, under both masks.",
    controls=[control("derivations of which every line follows", quantity="every line follows")],
)
def right_values_have_right_lines(results: Results, quantity: str = "right in spite of a line") -> Evidence:
    found = results[calculated][quantity]
    return Evidence.all(*(Evidence.over_seeds(found.sel(arm=arm), "<", 0.1, f"{arm}; {PILOTS}") for arm in ARMS))


@TASK.figure
def expressions_by_operators(results: Results) -> Sheet:
    """Share of expressions whose value is right, by the number of operators, and on the way for the largest number of them."""
    config, measured = results.config, results[calculated]
    sheet = Sheet(columns=2, width=5.2, height=4.2)
    panel = sheet.panel(
        "each operator costs more at once",
        x="operators",
        y="share of right values",
        xticks=range(1, config.operators + 1),
        ylim=(-0.03, 1.05),
    )
    for variant, kind in enumerate(FORMATS):
        for arm in ARMS:
            found = measured["right"].sel(written=kind, arm=arm, pairing=PAIRINGS[0])
            panel.points(found, "operators", name=f"{kind}, {arm}", arm=arm, variant=variant, join=True)
    panel.level(1 / config.modulus, "a guess, $1/p$")
    panel = sheet.panel(
        f"{config.operators} operators on the way", x="updates", y="share of right values", ylim=(-0.03, 1.05)
    )
    for variant, kind in enumerate(FORMATS):
        for arm in ARMS:
            found = measured["on the way"].sel(written=kind, arm=arm)
            panel.curve(found, "update", name=f"{kind}, {arm}", arm=arm, variant=variant)
    panel.level(1 / config.modulus, "a guess, $1/p$")
    return sheet


# %%
TASK.show(expressions_by_operators)
TASK.show(steps_are_learnt_sooner)
TASK.show(at_once_beats_a_guess)
TASK.show(more_operators_are_harder_at_once)
TASK.show(right_values_have_right_lines)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
