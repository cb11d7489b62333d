from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.decoding import decode
from lab.domains.machines import lag
from lab.domains.machines.lag_compilers import compiled, encode
from lab.domains.machines.rule_transformer import Tokens, rule_transformer, signs
from lab.domains.machines.turing import MACHINES, on_word, random_configuration
from lab.errors import LabError
from lab.models import masks
from lab.streams import stream


@pytest.mark.parametrize("window", [2, 3])
def test_greedy_decoding_is_the_lag_system(window: int) -> None:
    machine = MACHINES["BB4"]
    system = compiled(machine, window)
    tokens, steps = Tokens(system), 60
    queues = [encode(machine, random_configuration(stream(seed, "x"), machine, 4), window) for seed in range(4)]
    prompts = torch.tensor([tokens.prompt(queue) for queue in queues])
    mask = masks.causal(prompts.shape[1] + steps)
    written = decode(rule_transformer(system, len(mask)), prompts, mask, steps, stop_token=tokens.halt).tokens[0]
    assert written.tolist() == [tokens.continuation(queue, steps) for queue in queues]
    assert bool((written >= 2 * tokens.given_from).any())  # some tape has grown


def test_it_halts_where_the_system_does() -> None:
    machine = MACHINES["BB2"]
    system = compiled(machine, 2)
    tokens, queue = Tokens(system), encode(machine, on_word(machine, "00"), 2)
    mask = masks.causal(200)
    network = rule_transformer(system, 200)
    decoded = decode(network, torch.tensor([tokens.prompt(queue)]), mask, 150, stop_token=tokens.halt)
    expected = lag.run(system, queue, 1000)
    assert expected.halted
    assert int(decoded.lengths) == expected.written + 1
    assert tokens.queue([*tokens.prompt(queue), *decoded.tokens[0, 0].tolist()]) == expected.queue


def test_logits_are_whole_numbers_at_every_window() -> None:
    """All windows as prompts: the right token where there is a rule, *halt* where there is none, by at least 1."""
    system = compiled(MACHINES["BB2"], 2)
    tokens = Tokens(system)
    windows = [(first, second) for first in system.alphabet for second in system.alphabet]
    prompts = torch.tensor([[tokens.prompt(window) for window in windows]])
    with torch.no_grad():
        logits = rule_transformer(system, 2)(prompts, masks.causal(2))[0, :, -1]
    assert torch.equal(logits, logits.round())
    assert logits.argmax(-1).tolist() == [tokens.written(system.rules.get(window))[0] for window in windows]
    best = logits.topk(2).values
    assert float((best[:, 0] - best[:, 1]).min()) >= 1
    without = torch.tensor([window not in system.rules for window in windows])
    assert int(logits[without].count_nonzero()) == int(without.sum())


@given(seed=st.integers(0, 50), letters=st.integers(2, 4))
@settings(deadline=None, max_examples=2, derandomize=True)
def test_any_lag_system_can_be_built(seed: int, letters: int) -> None:
    rng = stream(seed, "rules").rng()
    alphabet = "abcd"[:letters]
    system = lag.lag_system(
        2,
        alphabet,
        [
            ((first, second), tuple(alphabet[place] for place in rng.integers(letters, size=1 + rng.integers(2))))
            for first in alphabet
            for second in alphabet
        ],
    )
    tokens, queue = Tokens(system), tuple("ab")
    mask = masks.causal(42)
    continuation = (
        decode(rule_transformer(system, 42), torch.tensor([tokens.prompt(queue)]), mask, 40).tokens[0, 0].tolist()
    )
    assert continuation == tokens.continuation(queue, 40)


def test_words_of_signs_are_different() -> None:
    for count in (1, 2, 3, 8, 9):
        rows = signs(count)
        assert len({tuple(row) for row in rows.tolist()}) == count
        assert set(rows.flatten().tolist()) <= {-1.0, 1.0}


def test_bad_input_is_refused_in_one_sentence() -> None:
    system = compiled(MACHINES["BB2"], 2)
    with pytest.raises(LabError, match="100000 tokens are not between 1 and 65536"):
        rule_transformer(system, 100_000)
    with pytest.raises(LabError, match="has 0 rules"):
        rule_transformer(lag.lag_system(1, "a", []), 10)
    with pytest.raises(LabError, match="The letter 'x' is none of the 29 letters"):
        Tokens(system).prompt(("#", "x"))
