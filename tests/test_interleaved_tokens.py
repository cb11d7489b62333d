"""The released form of prompts of function classes: tokens, curriculum, loss at every position, and the paper's preset."""

from __future__ import annotations

from dataclasses import replace

import torch

from lab.models import masks
from lab.models.transformer import Transformer
from lab.streams import stream
from tasks.icl_function_classes import interleaved_tokens as part


def test_tokens_alternate_and_the_last_label_is_not_shown() -> None:
    points = part.sample_points(part.CI, stream(0, "test"), 3, 1, 4)
    batch = part.encode(points)
    assert batch["tokens"].shape == (3, 7, 2)
    torch.testing.assert_close(batch["tokens"][:, ::2], points["x"])
    torch.testing.assert_close(batch["tokens"][:, 1::2, 0], points["y"][:, :-1])
    assert not batch["tokens"][:, 1::2, 1:].any()
    assert not points["x"][..., 1:].any(), "coordinates that the curriculum has not reached are 0"


def test_the_curriculum_of_the_paper_ends_after_thirty_thousand_updates() -> None:
    paper = part.TASK.config("paper")
    assert paper.at(0) == (5, 11)
    assert paper.at(1999) == (5, 11)
    assert paper.at(2000) == (6, 13)
    assert paper.at(29_999) == (19, 39)
    assert paper.at(30_000) == (20, 41)
    assert paper.at(500_000) == (20, 41)


def test_no_prediction_sees_its_own_label() -> None:
    points = part.sample_points(part.CI, stream(1, "test"), 2, 2, 5)
    network = Transformer(part.CI.architecture, (0,))
    changed = dict(points) | {"shown": points["shown"].clone()}
    changed["shown"][:, 2] += 1.0
    with torch.no_grad():
        before, after = (
            network(part.encode(batch)["tokens"][None], masks.causal(9))[0, :, ::2, 0] for batch in (points, changed)
        )
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert bool((before[:, 3:] != after[:, 3:]).all())


def test_the_paper_preset_runs() -> None:
    paper = part.TASK.config("paper")
    few = replace(paper.optimisation, steps=1)
    measured = part.points_in_turn.function(replace(paper, optimisation=few, test_prompts=2, batch=2), (0,))
    assert measured["error"].shape == (1, 2, 41)
