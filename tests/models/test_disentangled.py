"""The disentangled transformer against its definition, written out with concatenations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lab.errors import LabError
from lab.evaluation import as_token_predictor
from lab.models import masks
from lab.models.disentangled import Disentangled, Reduced, reduced_law, widths
from lab.streams import stream
from lab.training import Ensemble, Member, Optimisation, train

STATES, LENGTH = 3, 6


def draw(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(stream(seed, "test").rng().standard_normal(shape))


def tokens(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(stream(seed, "tokens").rng().integers(0, STATES, shape))


def with_readout(heads: Sequence[int], models: int = 2) -> Disentangled:
    built = Disentangled.normal(list(range(models)), STATES, LENGTH, heads, 0.5)
    with torch.no_grad():
        built.readout.copy_(draw(5, *built.readout.shape))
    return built


def by_definition(model: Disentangled, member: int, prompt: Tensor, mask: Tensor) -> Tensor:
    """Logits [T, S] of one model for one prompt, as the formula reads."""
    h = torch.cat([torch.nn.functional.one_hot(prompt, STATES), torch.eye(LENGTH)], dim=-1).double()
    for matrices in model.attention:
        reads = [
            torch.softmax((h @ matrix @ h.T).masked_fill(~mask, -torch.inf), -1) @ h for matrix in matrices[member]
        ]
        h = torch.cat([h, *reads], dim=-1)
    return h @ model.readout[member]


@pytest.mark.parametrize("heads", [(1, 1), (2, 1), (1,), (1, 2, 1)])
@pytest.mark.parametrize("mask", [masks.causal(LENGTH), masks.prefix_lm(LENGTH, LENGTH - 1)])
def test_forward_is_the_definition(heads: tuple[int, ...], mask: Tensor) -> None:
    model, prompts = with_readout(heads), tokens(0, 2, 4, LENGTH)
    outputs = model(prompts, mask)
    for member in range(2):
        for prompt in range(4):
            expected = by_definition(model, member, prompts[member, prompt], mask)
            assert torch.allclose(outputs[member, prompt], expected)
    assert torch.allclose(model.final(prompts, mask), outputs[:, :, -1])


def test_masks_may_differ_by_model_and_by_prompt() -> None:
    model, prompts = with_readout((1, 1)), tokens(1, 1, 3, LENGTH)
    patterns = torch.stack([masks.causal(LENGTH), masks.prefix_lm(LENGTH, LENGTH - 1)])
    outputs = model(prompts, patterns)
    for member in range(2):
        assert torch.allclose(outputs[member], model(prompts, patterns[member])[member])
    by_prompt = masks.prefix_masks(LENGTH, torch.tensor([0, 3, 5]))
    outputs = model(prompts, by_prompt.unsqueeze(0))
    for prompt in range(3):
        assert torch.allclose(outputs[:, prompt], model(prompts, by_prompt[prompt])[:, prompt])


def test_zeros_attend_evenly_and_predict_uniformly() -> None:
    model = Disentangled.zeros(2, STATES, LENGTH)
    pattern = model.patterns(masks.causal(LENGTH))
    assert torch.allclose(pattern[0, 0, 3, :4], torch.full((4,), 0.25, dtype=torch.float64))
    assert model(tokens(0, 1, 2, LENGTH), masks.causal(LENGTH)).abs().max() == 0


def test_initial_weights_of_a_model_depend_on_its_seed_alone() -> None:
    alone = Disentangled.normal([7], STATES, LENGTH, (2, 1), 0.1)
    together = Disentangled.normal([3, 7], STATES, LENGTH, (2, 1), 0.1).select([1])
    for parameter, selected in zip(alone.parameters(), together.parameters(), strict=True):
        assert torch.equal(parameter, selected)


@settings(deadline=None, max_examples=10, derandomize=True)
@given(st.integers(0, 100))
def test_reduced_model_is_its_formula(seed: int) -> None:
    scale = draw(seed, 2, LENGTH).abs() + 0.5
    model = Reduced(draw(seed + 1, 2, LENGTH, LENGTH), draw(seed + 2, 2, STATES, STATES), scale)
    prompts = tokens(seed, 2, 3, LENGTH)
    for mask in (masks.causal(LENGTH), masks.prefix_lm(LENGTH, LENGTH - 1)):
        outputs = model(prompts, mask)
        for member in range(2):
            first = scale[member].unsqueeze(-1) * model.pattern[member]
            attention = torch.softmax(first.masked_fill(~mask, -torch.inf), -1)
            for prompt in range(3):
                symbols = torch.nn.functional.one_hot(prompts[member, prompt], STATES).double()
                scores = symbols @ model.score[member] @ (attention @ symbols).T
                law = torch.softmax(scores.masked_fill(~mask, -torch.inf), -1) @ symbols
                assert torch.allclose(outputs[member, prompt].exp(), law)
        assert torch.allclose(model.final(prompts, mask), outputs[:, :, -1].exp())
        law = reduced_law(prompts, model.patterns(mask)[:, 0], model.score)
        assert torch.allclose(law, model.final(prompts, mask))


def test_row_scale_sets_the_rate_of_a_row() -> None:
    scale = torch.tensor([[1.0, 2.0, 3.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    plain = Reduced.start(STATES, 0.5, torch.ones(1, LENGTH, dtype=torch.float64))
    scaled = Reduced.start(STATES, 0.5, scale)
    prompts, mask = tokens(0, 1, 8, LENGTH), masks.causal(LENGTH)
    moves = []
    for model in (plain, scaled):
        (model.final(prompts, mask)[..., 0] + 0.1).log().sum().backward()
        assert model.pattern.grad is not None
        moves.append(model.row_scale.unsqueeze(-1) * model.pattern.grad)
    assert torch.allclose(moves[1], moves[0] * scale.unsqueeze(-1) ** 2)


def test_both_are_ensembles_and_token_predictors() -> None:
    prompts = tokens(0, 4, LENGTH)
    for model in (with_readout((1, 1)), Reduced.start(STATES, 1.0, torch.ones(2, LENGTH, dtype=torch.float64))):
        assert isinstance(model, Ensemble)
        law = as_token_predictor(model, masks.causal(LENGTH))(prompts, torch.zeros(4, dtype=torch.long)).exp()
        assert law.shape == (2, 4, LENGTH, STATES)
        assert torch.allclose(law.sum(-1), torch.ones(2, 4, LENGTH, dtype=torch.float64))
        single = model.select([1])
        assert torch.allclose(
            single(prompts[None], masks.causal(LENGTH))[0], model(prompts[None], masks.causal(LENGTH))[1]
        )


def test_training_learns_to_repeat_the_last_token() -> None:
    mask = masks.causal(LENGTH)

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        return {"tokens": torch.from_numpy(stream(seed, "data", step).rng().integers(0, STATES, (32, LENGTH)))}

    def loss(model: Disentangled, data: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        logs = torch.log_softmax(model.final(data["tokens"], mask), -1)
        return -logs.gather(-1, data["tokens"][..., -1:])[..., 0].mean(1)

    trained = train(
        lambda seeds: Disentangled.zeros(len(seeds), STATES, LENGTH),
        [Member(0, "causal"), Member(1, "causal")],
        batch,
        loss,
        Optimisation(30, 6.0, optimiser="sgd"),
        evaluate_every=10,
    )
    assert np.all(trained.history["loss"][-1] < 0.1)


def test_misfits_are_refused() -> None:
    model = Disentangled.zeros(1, STATES, LENGTH)
    with pytest.raises(LabError, match="token 3 lies outside"):
        model(torch.full((1, 1, LENGTH), 3), masks.causal(LENGTH))
    with pytest.raises(LabError, match="token -1 lies outside"):
        model(torch.full((1, 1, LENGTH), -1), masks.causal(LENGTH))
    with pytest.raises(LabError, match="sequences of 5 tokens"):
        model(torch.zeros(1, 1, 5, dtype=torch.long), masks.causal(5))
    with pytest.raises(LabError, match="widths"):
        Disentangled([torch.zeros(1, 1, 5, 5)], torch.zeros(1, 9, 3))
    assert widths(3, 4, [2, 1]) == [7, 21, 42]
