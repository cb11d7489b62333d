from __future__ import annotations

import pytest
import torch

from lab.data.answers import _EXACT, added, exact, mask
from lab.data.sources import Source, find_generator, generators, options, source_from
from lab.errors import LabError


def source(name: str, **sizes) -> Source:
    generator = find_generator(name)
    registered = source_from(generator, options(generator))
    return Source(registered.name, registered.sample, {**registered.sizes, **sizes})


def drawn(source: Source, count: int = 6_000) -> dict[str, torch.Tensor]:
    return next(source.chunks(0, count, count))


REGRESSIONS = [
    source("linear_regression", query_noise=0.3),
    source("linear_regression", noise=0.0, weight_scale=2.0),
    source("linear_regression", inputs="normal", spectrum=(2.0, 1.0, 0.5), context_length=2),
    source("fresh_regression"),
    source("fresh_regression", noise=0.0),
    source("regression_mixture"),
    source("regression_mixture", prior=(0.9, 0.1)),
]


@pytest.mark.parametrize("source", REGRESSIONS, ids=lambda source: f"{source.name} {list(source.sizes.values())}")
def test_the_risk_of_a_regression_is_what_its_answer_loses(source: Source) -> None:
    """The mean of loss minus risk is 0: within 5 standard errors at every place."""
    prompts = drawn(source)
    label = prompts["y_query"] if "y_query" in prompts else prompts["y"]
    answer, risk = exact(source, prompts)
    assert answer.shape == risk.shape == label.shape
    gap = (answer - label).square() - risk
    assert bool((gap.mean(0).abs() <= 5 * gap.std(0) / len(gap) ** 0.5 + 1e-12).all())


CHAINS = [
    source("dirichlet_chains"),
    source("unigram_chains", concentration=0.5),
    source("fixed_chains"),
    source("switching_chains"),
    source("causal_sequences", roots="uniform"),
    source("several_parent_sequences"),
]


@pytest.mark.parametrize("source", CHAINS, ids=lambda source: source.name)
def test_the_risk_of_a_chain_is_what_its_answer_loses(source: Source) -> None:
    prompts = drawn(source, 4000)
    answer, risk = exact(source, prompts)
    if "target" in prompts:
        loss = -torch.special.xlogy(prompts["target"], answer.exp()).sum(-1)
    else:
        loss = -answer[:, :-1].gather(2, prompts["tokens"][:, 1:, None])[..., 0]
        risk = risk[:, :-1]
    gap = loss - risk
    assert bool((gap.mean(0).abs() <= 5 * gap.std(0) / len(gap) ** 0.5 + 1e-12).all())


def test_a_determined_answer_has_no_risk() -> None:
    for name in ("whole_sum", "column_window", "pointer_prompts", "first_token_prompts"):
        prompts = drawn(source(name), 50)
        answer, risk = exact(source(name), prompts)
        assert torch.equal(answer, prompts["targets"])
        assert float(risk.abs().max()) == 0


def test_masks_cover_what_is_scored() -> None:
    assert bool(mask(source("linear_regression"), drawn(source("linear_regression"), 3)).all())
    sums = drawn(source("whole_sum"), 3)
    assert torch.equal(mask(source("whole_sum"), sums), sums["loss_mask"])
    assert mask(source("first_token_prompts"), drawn(source("first_token_prompts"), 1)).sum() == 1
    chains = drawn(source("dirichlet_chains"), 1)
    assert mask(source("dirichlet_chains"), chains)[0].tolist() == [True] * 8 + [False]


def test_nothing_is_made_up_where_there_is_no_exact_answer() -> None:
    assert set(_EXACT) <= {generator.part.__name__ for generator in generators()}
    refused = [
        (
            source("multiclass"),
            ("answer",),
            "multiclass has no exact predictor here; there is one for linear_regression",
        ),
        (
            source("linear_regression", output="sigmoid"),
            ("risk",),
            "for output = 'linear' alone, and output is 'sigmoid'",
        ),
        (source("fresh_regression", law="unit"), ("risk",), "for law = 'normal' alone"),
        (source("bernoulli_dag"), ("mask",), "asks nothing, so that it has no scoring mask"),
    ]
    for unanswerable, columns, sentence in refused:
        with pytest.raises(LabError, match=sentence):
            added(unanswerable, drawn(unanswerable, 2), columns)
