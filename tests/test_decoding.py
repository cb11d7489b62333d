from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from lab.decoding import decode
from lab.errors import LabError
from lab.models.transformer import Architecture, Transformer
from lab.streams import stream

VOCABULARY, POSITIONS, PROMPT, STEPS = 7, 14, 5, 9
MODELS, BATCH = 3, 6


def ensemble(positions: str = "learned", dtype: torch.dtype = torch.float64) -> Transformer:
    """Weights large enough that every token depends on all before it."""
    architecture = Architecture(
        width=16,
        layers=3,
        heads=2,
        vocabulary=VOCABULARY,
        output_size=VOCABULARY,
        positions=positions,
        maximum_length=POSITIONS,
        initial_scale=0.5,
    )
    return Transformer(architecture, seeds=range(MODELS), dtype=dtype)


def pattern(prefix: int, size: int = POSITIONS) -> Tensor:
    """Causal, but the first `prefix` tokens see each other."""
    mask = torch.ones(size, size, dtype=torch.bool).tril()
    mask[:prefix, :prefix] = True
    return mask


def prompts(*shape: int) -> Tensor:
    return torch.from_numpy(stream(0, "prompts").rng().integers(0, VOCABULARY, (*shape, PROMPT)))


@pytest.mark.parametrize("prefix", [0, PROMPT], ids=["causal", "prefix"])
@pytest.mark.parametrize("temperature", [0.0, 0.7], ids=["greedy", "sampled"])
@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_cache_equals_full_forward(prefix: int, temperature: float, positions: str) -> None:
    module, tokens = ensemble(positions), prompts(BATCH)
    decoded, reference = (
        decode(
            module,
            tokens,
            pattern(prefix),
            STEPS,
            stop_token=1,
            temperature=temperature,
            stream=stream(0, "sampling"),
            cached=cached,
        )
        for cached in (True, False)
    )
    assert torch.equal(decoded.tokens, reference.tokens)
    assert torch.equal(decoded.lengths, reference.lengths)
    torch.testing.assert_close(decoded.log_probabilities, reference.log_probabilities, rtol=0, atol=1e-11)
    assert len(decoded.tokens.unique()) > 3  # not one token for ever


@pytest.mark.parametrize("prefix", [0, PROMPT], ids=["causal", "prefix"])
def test_greedy_tokens_are_the_modes_of_one_forward_pass(prefix: int) -> None:
    module, tokens = ensemble(), prompts(MODELS, BATCH)
    decoded = decode(module, tokens, pattern(prefix), STEPS)
    sequences = torch.cat([tokens, decoded.tokens], dim=-1)[..., :-1]
    with torch.no_grad():
        logits = module(sequences, pattern(prefix, sequences.shape[-1]))[..., PROMPT - 1 :, :]
    assert torch.equal(decoded.tokens, logits.argmax(-1))
    expected = logits.log_softmax(-1).amax(-1)
    torch.testing.assert_close(decoded.log_probabilities, expected, rtol=0, atol=1e-11)


def test_prefix_built_causally_differs() -> None:
    module, tokens = ensemble(), prompts(BATCH)
    causal, prefix = (decode(module, tokens, pattern(size), STEPS) for size in (0, PROMPT))
    assert not torch.equal(causal.tokens, prefix.tokens)


@pytest.mark.parametrize("cached", [True, False])
def test_every_prompt_may_have_a_pattern_of_its_own(cached: bool) -> None:
    module, tokens, sizes = ensemble(), prompts(BATCH), [0, PROMPT, 2, 0, PROMPT, 3]
    together = decode(
        module, tokens, torch.stack([pattern(size) for size in sizes]), STEPS, stop_token=1, cached=cached
    )
    for place, size in enumerate(sizes):
        alone = decode(module, tokens[place : place + 1], pattern(size), STEPS, stop_token=1, cached=cached)
        assert torch.equal(together.tokens[:, place], alone.tokens[:, 0])
        torch.testing.assert_close(
            together.log_probabilities[:, place], alone.log_probabilities[:, 0], rtol=0, atol=1e-11
        )


def test_no_prompts_are_continued_by_nothing() -> None:
    decoded = decode(ensemble(), prompts(0), pattern(0), STEPS, stop_token=1)
    assert (decoded.tokens.shape, decoded.lengths.shape) == ((MODELS, 0, STEPS), (MODELS, 0))


def test_one_model_decodes_as_it_does_in_company() -> None:
    module, tokens = ensemble(), prompts(MODELS, BATCH)
    draw = stream(1, "sampling")
    together = decode(module, tokens, pattern(0), STEPS, temperature=1.0, stream=draw)
    alone = decode(module.select([2]), tokens[2:], pattern(0), STEPS, temperature=1.0, stream=draw)
    assert torch.equal(together.tokens[2:], alone.tokens)


def test_first_prompts_do_not_depend_on_the_batch() -> None:
    module, tokens = ensemble(), prompts(BATCH)
    draw = stream(1, "sampling")
    many = decode(module, tokens, pattern(0), STEPS, temperature=1.0, stream=draw)
    few = decode(module, tokens[:2], pattern(0), STEPS, temperature=1.0, stream=draw)
    assert torch.equal(many.tokens[:, :2], few.tokens)


def test_stop_token_ends_a_sequence() -> None:
    module, tokens = ensemble(), prompts(200)
    free = decode(module, tokens, pattern(0), STEPS, temperature=1.0, stream=stream(2, "s"))
    stopped = decode(module, tokens, pattern(0), STEPS, stop_token=4, temperature=1.0, stream=stream(2, "s"))
    step = torch.arange(STEPS)
    first = torch.where(free.tokens == 4, step, STEPS - 1).amin(-1)
    assert torch.equal(stopped.lengths, first + 1)
    assert (stopped.lengths < STEPS).any()
    assert (stopped.lengths == STEPS).any()
    before = step <= first.unsqueeze(-1)
    assert torch.equal(stopped.tokens, torch.where(before, free.tokens, 4))
    assert torch.equal(stopped.log_probabilities == 0, ~before)


def test_decoding_ends_early_when_all_have_stopped() -> None:
    only_stop = torch.arange(VOCABULARY) == 1
    decoded = decode(ensemble(), prompts(BATCH), pattern(0), STEPS, stop_token=1, allowed=only_stop)
    assert bool((decoded.tokens == 1).all())
    assert bool((decoded.lengths == 1).all())


def test_allowed_tokens_at_all_steps_and_step_by_step() -> None:
    module, tokens = ensemble(), prompts(BATCH)
    even = torch.arange(VOCABULARY) % 2 == 0
    decoded = decode(module, tokens, pattern(0), STEPS, temperature=2.0, stream=stream(0, "s"), allowed=even)
    assert bool((decoded.tokens % 2 == 0).all())
    steps = torch.nn.functional.one_hot(torch.arange(STEPS) % VOCABULARY, VOCABULARY).bool()
    forced = decode(module, tokens, pattern(0), STEPS, allowed=steps)
    assert torch.equal(forced.tokens, (torch.arange(STEPS) % VOCABULARY).expand(MODELS, BATCH, STEPS))
    assert bool((forced.log_probabilities == 0).all())


def test_sampled_shares_follow_the_distribution() -> None:
    module, temperature, samples = ensemble().select([0]), 1.7, 4_000
    tokens = prompts(1).expand(samples, PROMPT)
    decoded = decode(module, tokens, pattern(0), 1, temperature=temperature, stream=stream(3, "s"))
    with torch.no_grad():
        law = module(tokens[None, :1], pattern(0, PROMPT))[0, 0, -1].div(temperature).softmax(-1).numpy()
    counts = np.bincount(decoded.tokens.flatten().numpy(), minlength=VOCABULARY)
    statistic = ((counts - samples * law) ** 2 / (samples * law)).sum()
    assert statistic < 40.5  # chi-square with 6 degrees of freedom exceeds it with probability 3.6e-7


def test_float32_cache_agrees_to_rounding() -> None:
    module, tokens = ensemble(dtype=torch.float32), prompts(BATCH)
    decoded = decode(module, tokens, pattern(PROMPT), STEPS)
    assert decoded.log_probabilities.dtype == torch.float32
    sequences = torch.cat([tokens.expand(MODELS, BATCH, PROMPT), decoded.tokens], dim=-1)[..., :-1]
    with torch.no_grad():
        logits = module(sequences, pattern(PROMPT, sequences.shape[-1]))[..., PROMPT - 1 :, :]
    expected = logits.log_softmax(-1).gather(-1, decoded.tokens.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(decoded.log_probabilities, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": 11}, "15 positions but the model has 14"),
        ({"steps": 0}, "must both be at least 1"),
        ({"mask": pattern(0, 8)}, "covers 8 positions but 13"),
        ({"mask": pattern(PROMPT + 2)}, "is not written yet"),
        ({"prompts": prompts(BATCH) + 5}, "outside the vocabulary of 7"),
        ({"prompts": prompts(BATCH).double()}, "prompts are torch.float64 and not the numbers of tokens"),
        ({"temperature": -1.0}, "at least 0"),
        ({"temperature": float("nan")}, "at least 0"),
        ({"temperature": 1.0}, "needs a stream"),
        ({"allowed": torch.zeros(VOCABULARY, dtype=torch.bool)}, "at least one token"),
        ({"allowed": torch.ones(VOCABULARY + 1, dtype=torch.bool)}, r"have the shape \(8,\) but there are 7 tokens"),
        ({"allowed": torch.ones(STEPS - 1, VOCABULARY, dtype=torch.bool)}, "in 9 rows, one a step"),
        ({"mask": None}, "attention pattern is None, not a tensor"),
        ({"prompts": [[1, 2]]}, "prompts are a list, not a tensor"),
        ({"stop_token": VOCABULARY}, "stop token 7 lies outside the vocabulary of 7"),
        ({"stop_token": -1}, "stop token -1 lies outside"),
        ({"mask": pattern(0).expand(BATCH + 1, -1, -1)}, "one for each of the 6 prompts"),
        (
            {"mask": torch.stack([pattern(0)] * (BATCH - 1) + [pattern(PROMPT + 2)])},
            "Position 0 may attend to position 5",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_one_sentence(change: dict[str, object], words: str) -> None:
    arguments = {"prompts": prompts(BATCH), "mask": pattern(0), "steps": STEPS} | change
    with pytest.raises(LabError, match=words) as caught:
        decode(ensemble(), **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_numbers_are_refused(temperature: float) -> None:
    module = ensemble()
    with torch.no_grad():
        module.read_out.weight[1] = torch.nan
    with pytest.raises(LabError, match="logits of model 1 for token 1 after prompt 0 are not numbers"):
        decode(module, prompts(BATCH), pattern(0), 2, temperature=temperature, stream=stream(0))


def test_a_temperature_that_overflows_is_refused_by_its_name() -> None:
    with pytest.raises(LabError, match="temperature = 1e-39 is so near 0"):
        decode(ensemble(dtype=torch.float32), prompts(BATCH), pattern(0), 2, temperature=1e-39, stream=stream(0))


def test_a_model_without_a_read_out_has_as_many_tokens_as_its_stream_is_wide() -> None:
    module = Transformer(Architecture(width=8, layers=1, vocabulary=VOCABULARY), [0])
    with pytest.raises(LabError, match=r"have the shape \(7,\) but there are 8 tokens"):
        decode(module, prompts(BATCH), pattern(0), 2, allowed=torch.ones(VOCABULARY, dtype=torch.bool))
