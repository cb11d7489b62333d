"""The trained half of the sheet on derivations: its words, its questions, and its networks at the paper's sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lab.domains.derivations import automata
from lab.domains.derivations.automaton_transformer import automaton_transformer
from lab.models.masks import causal
from tasks.chain_of_thought import thinned, words
from tasks.chain_of_thought._shared import CAUSAL
from tasks.chain_of_thought._words import Words, after_a_wrong_step, answers, questions, train

SMALL = Words(things=3, length=5, held_out=8)


def asked_of_the_exact_network(metric, problem: Words) -> list[float]:
    rows = questions(problem, [0])[0]
    module = automaton_transformer(problem.table, problem.length)
    batch = {"tokens": rows.tokens[None, :, :-1], "targets": rows.targets[None, :, :-1]}
    return metric(module, batch, causal(problem.sizes[0])[None]).flatten().tolist()


def test_held_out_words_are_never_shown() -> None:
    shown, held_out = SMALL.split(3)
    every = {tuple(word) for word in torch.cat([shown, held_out]).tolist()}
    assert len(every) == 2**5
    assert len(held_out) == 8
    assert not torch.equal(held_out, SMALL.split(4)[1])


def test_kinds_are_asked_about_the_same_words() -> None:
    for other in (replace(SMALL, every=2), replace(SMALL, every=5), replace(SMALL, misleading=True)):
        mine, theirs = questions(SMALL, [0])[0], questions(other, [0])[0]
        assert torch.equal(mine.tokens[:, :6], theirs.tokens[:, :6])
        assert torch.equal(mine.tokens[:, -2], theirs.tokens[:, -2])


def test_the_exact_network_answers_all_and_follows_every_wrong_step() -> None:
    assert asked_of_the_exact_network(answers(SMALL), SMALL) == [1.0]
    assert asked_of_the_exact_network(after_a_wrong_step(SMALL, 2), SMALL) == [1.0, 0.0]
    first = asked_of_the_exact_network(answers(SMALL, 0), SMALL)
    rows = questions(SMALL, [0])[0].tokens - automata.LETTERS - 2
    assert first == [pytest.approx(float((rows[:, 6] == rows[:, 10]).double().mean()))]


@pytest.mark.parametrize("part", [words, thinned])
def test_networks_train_at_the_papers_width(part) -> None:
    config = part.TASK.config("paper")
    network = replace(config.network, steps=1, batch=2)
    problem = replace(config.words, things=3, length=6, held_out=4)
    fitted = train(problem, network, 3, [0], "paper")
    assert bool(fitted.history["loss"].sel(arm=CAUSAL).notnull().all())
