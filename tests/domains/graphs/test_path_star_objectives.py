"""What the trainings of the path-star sheet read and are asked, and the preset that is the paper's own, for a few updates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.domains.graphs.path_star_prompts import NO_TARGET, PathStars
from tasks.next_token_pitfalls._shared import PAPER_SIZE, PAPER_TRAINING, SMOKE_TRAINING, Comparison, Size, encoding


def star() -> PathStars:
    """Two graphs: 0 -> 1 -> 2 -> 3 and 0 -> 4 -> 5 -> 6, the goal is 3; and the same with the arms exchanged."""
    arms = torch.tensor([[[0, 1, 2, 3], [0, 4, 5, 6]], [[0, 4, 5, 6], [0, 1, 2, 3]]])
    edges = torch.tensor([[1, 2], [0, 4], [5, 6], [0, 1], [4, 5], [2, 3]])
    return PathStars(arms, edges.expand(2, -1, -1))


@pytest.mark.parametrize("format", ["compact", "authors"])
def test_what_each_objective_asks(format: str) -> None:
    size = Size(format=format)
    copy = [0] * size.copied
    standard = encoding("standard", size)(star())
    assert standard["targets"][0, :, 0].tolist() == standard["answer"][0].tolist() == [*copy, 1, 2, 3]
    assert bool(standard["asked"].all())
    assert standard["tokens"].shape[1] == size.time
    first = encoding("first-step", size)(star())
    assert first["targets"][0, :, 0].tolist() == [*copy, 1, NO_TARGET, NO_TARGET]
    assert first["asked"][0].tolist() == [True] * size.copied + [True, False, False]
    assert torch.equal(first["tokens"], standard["tokens"])
    hidden = encoding("teacherless", size)(star())
    assert torch.equal(hidden["targets"], standard["targets"])
    assert torch.equal(hidden["tokens"][:, : size.prompt], standard["tokens"][:, : size.prompt])
    assert len(hidden["tokens"][:, size.prompt :].unique()) == 1
    assert encoding("shuffled", size)(star())["targets"][0, :, 0].tolist() == [*copy, 1, 5, 3]
    assert encoding("reversed", size)(star())["answer"][0].tolist() == ([3, 2, 1, 0] if copy else [2, 1, 0])
    ahead = encoding("multi-token", size, heads=3)(star())
    assert ahead["targets"][0, size.copied].tolist() == [1, 2, 3]


def test_the_papers_own_setting_runs() -> None:
    training = replace(
        PAPER_TRAINING, steps=2, batch=4, warmup_steps=1, evaluate_every=1, validation=4, test=4, layers=2, width=96
    )
    architecture = training.architecture(PAPER_SIZE)
    assert architecture.tie_embedding
    assert architecture.output_size == architecture.vocabulary == 54
    measured = Comparison(("standard", "teacherless"), ("causal",), PAPER_SIZE, training, pool=8).fit([0], "paper")
    assert measured["steps over training"].sizes["step"] == 5
    assert np.isfinite(measured["loss"]).all()
    assert not measured["escaped"].any()


def test_a_training_ends_at_its_second_good_check() -> None:
    training = replace(SMOKE_TRAINING, steps=24, level=0.0, evaluate_every=6)
    measured = Comparison(("standard",), ("prefix",), Size(), training).fit([0, 1], "ends")
    assert measured["escaped"].all()
    assert measured["updates"].values.ravel().tolist() == [12, 12]
    assert measured["curve"].sizes["update"] == 4
    never = Comparison(("standard",), ("prefix",), Size(), replace(training, level=1.1)).fit([0], "goes on")
    assert not never["escaped"].any()
    assert float(never["updates"].max()) == 24
