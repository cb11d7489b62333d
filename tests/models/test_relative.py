from __future__ import annotations

import pytest
import torch

from lab.errors import LabError
from lab.models.relative import MinimalInduction
from lab.streams import stream
from lab.training import Ensemble, Member, Optimisation, train


def loss(module: MinimalInduction, batch: dict, arms: tuple[str, ...]) -> torch.Tensor:
    logs = module(batch["tokens"][..., :-1]).log_softmax(-1)
    return -logs.gather(-1, batch["tokens"][:, :, 1:, None])[..., 0].mean((1, 2))


def test_logits_by_hand() -> None:
    rng = stream(0).rng()
    offsets, match = torch.from_numpy(rng.normal(size=(2, 5))), torch.from_numpy(rng.normal(size=(2, 3, 3)))
    tokens = torch.from_numpy(rng.integers(0, 3, (2, 4, 5)))
    logits = MinimalInduction(offsets, match)(tokens).detach()
    for model in range(2):
        for row in range(4):
            x = torch.eye(3, dtype=torch.float64)[tokens[model, row]]
            copies = torch.stack(
                [(offsets[model, : j + 1].flip(0).softmax(0)[:, None] * x[: j + 1]).sum(0) for j in range(5)]
            )
            for i in range(5):
                scores = copies[: i + 1] @ (x[i] @ match[model])
                assert logits[model, row, i].tolist() == pytest.approx((scores @ x[: i + 1]).tolist())


def test_it_is_an_ensemble_and_its_rates_are_those_of_plain_gradient_descent() -> None:
    tokens = torch.from_numpy(stream(1).rng().integers(0, 3, (8, 7)))
    rates = (4.0, 0.25)
    model = MinimalInduction.start(1, 3, 6, rates)
    assert isinstance(model, Ensemble)
    model = MinimalInduction(model.offsets + 0.1 * torch.arange(6), model.match + 0.2 * torch.eye(3), rates)
    v, w = model.offsets.detach().double(), model.match.detach().double()
    v.requires_grad_()
    w.requires_grad_()
    plain = MinimalInduction(v, w)
    value = loss(plain, {"tokens": tokens.unsqueeze(0)}, ("a",)).sum()
    value.backward()
    trained = train(
        lambda seeds: model,
        [Member(0, "a")],
        lambda seed, step: {"tokens": tokens},
        loss,
        Optimisation(1, 1.0, optimiser="sgd"),
        dtype=torch.float64,
    )
    assert plain.scaled_offsets.grad is not None
    assert plain.scaled_match.grad is not None
    assert torch.allclose(trained.module.offsets, v - 4.0 * plain.scaled_offsets.grad, atol=1e-6)
    assert torch.allclose(trained.module.match, w - 0.25 * plain.scaled_match.grad, atol=1e-6)


def test_bad_input_is_one_sentence() -> None:
    model = MinimalInduction.start(1, 3, 4, (1.0, 1.0))
    with pytest.raises(LabError, match="rates"):
        MinimalInduction.start(1, 3, 4, (1.0, 0.0))
    with pytest.raises(LabError, match="5 tokens"):
        model(torch.zeros(1, 1, 5).long())
    with pytest.raises(LabError, match="alphabet"):
        model(torch.tensor([[[0, 3]]]))
