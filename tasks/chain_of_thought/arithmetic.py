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
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.derivations import arithmetic as expressions
from lab.domains.derivations.sequences import NO_TARGET, PAD, Derivations
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
    accuracy,
    as_read,
    mask_of,
    next_token_loss,
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
        return {"accuracy": networks.numbers(asked, accuracy)}

    return study.fit(
        seeds,
        lambda seed, number, count: mixed_expressions(config, stream(seed, "train", number), count, kind),
        network.optimisation,
        blocks=network.blocks,
        measure=under_way,
        measure_every=-(-network.updates // config.records),
        name=kind.replace(" ", "-"),
    )


def guessed_at_once(module: Transformer, batch: Batch, mask: Tensor, *, modulus: int, problem: int) -> Tensor:
    """Share of values that stand first where only a number may be written [model]."""
    truth = batch["targets"].cpu()
    place = (truth >= 0).int().mul(torch.arange(truth.shape[-1])).amax(-1, keepdim=True) - 1  # before the stop token
    numbers = torch.arange(expressions.vocabulary_size(modulus)) >= expressions.ZERO
    own = written(module, batch["tokens"][..., :problem], mask, 1, allowed=numbers)
    return (own == truth.gather(-1, place)).squeeze(-1).double().mean(-1)


def lines_follow(config: Config, module: Transformer, rows: Derivations, mask: Tensor) -> np.ndarray:
    """Of derivations written freely by one network: whether every line follows, and whether the value is right [2, row]."""
    problem = 4 * config.operators
    prompts = rows.tokens[: config.read_expressions, :problem]
    own = written(module, prompts[None], mask[None], rows.tokens.shape[1] - problem)[0]
    found = []
    for prompt, answer in zip(prompts.tolist(), own.tolist(), strict=True):
        row = [token for token in prompt + answer if token != PAD]
        value = expressions.evaluate([token for token in prompt[:-1] if token != PAD], config.modulus)
        whole = 1 in answer and expressions.first_wrong_step(row, config.modulus) is None
        found.append((whole, expressions.answer_of(answer) == value if 1 in answer else False))
    return np.array(found).T


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=6)
def calculated(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Accuracy by what is written, mask and number of operators; on the way; of derivations cut short; and lines that follow."""
    sizes = range(1, config.operators + 1)
    fitted = {kind: train_expressions(config, seeds, kind) for kind in FORMATS}
    measured = [
        xr.concat([one.ask(tests(config, seeds, number, kind), accuracy) for number in sizes], "operators")
        for kind, one in fitted.items()
    ]
    steps, largest = fitted["steps"], tests(config, seeds, config.operators, "steps")
    cut = partial(guessed_at_once, modulus=config.modulus, problem=4 * config.operators)
    read = expressions.longest(config.operators, FORMATS["steps"]) - 1
    follow = [
        [
            lines_follow(
                config,
                steps.of(seeds=[seed], arms=[arm]).module,
                largest[seed],
                mask_of(arm, read, 4 * config.operators),
            )
            for arm in ARMS
        ]
        for seed in seeds
    ]
    axes = {"seed": seeds, "arm": ARMS}
    values = np.stack([one.transpose("seed", "arm", "operators").values for one in measured], 2)
    whole = np.array(follow)  # [seed, arm, what, row]
    return {
        "accuracy": labelled(values, **axes, written=tuple(FORMATS), operators=sizes),
        "before": steps.study.untrained(seeds).ask(largest, accuracy),
        "cut short": steps.ask(largest, cut),
        "lines": labelled(whole.mean(-1), **axes, what=("every line follows", "the value is right")),
        "wrong lines, right value": labelled((~whole[:, :, 0] & whole[:, :, 1]).mean(-1), **axes),
        "on the way": labelled(
            np.stack([one.history["accuracy"].values for one in fitted.values()], 2),
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
    parts = []
    for arm in ARMS:
        largest = measured["accuracy"].sel(arm=arm, operators=most)
        direct = largest.sel(written="at once")
        stepwise = measured["cut short"].sel(arm=arm) if first == "cut short" else largest.sel(written=first)
        parts += [
            Evidence.over_seeds(stepwise, ">", 0.5, f"steps, {arm}; {PILOTS}"),
            Evidence.over_seeds(direct, "<", 0.4, f"at once, {arm}; {PILOTS}"),
            Evidence.over_seeds(stepwise - direct, ">", 0.2, f"lead of steps, {arm}; {PILOTS}"),
        ]
    return Evidence.all(*parts)
