"""Models of other conventions: what each adapter hands over and reads off, and the sentence where that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lab import LabError
from lab.cli import main
from lab.diagnosis import adapt
from lab.diagnosis.comparison import diagnose
from lab.diagnosis.settings import Chains, Regression
from lab.diagnosis.subject import Subject, unread_query
from lab.domains.chains.markov import markov_posterior
from lab.domains.regression.function_classes import averaging
from lab.domains.regression.least_squares import least_squares
from lab.streams import stream

EXAMPLES = Path(__file__).parents[1] / "examples" / "adapters"
SETTING = Regression(dimension=4, context_length=6, queries=3)
PROMPTS = SETTING.inputs_of(SETTING.sample(stream(0, "adapt"), 5))


@pytest.mark.parametrize(
    ("layout", "label", "width"),
    [("interleaved", "first", 4), ("interleaved", "last", 5), ("paired", "first", 5), ("flagged", "first", 6)],
)
def test_tokens_hold_every_prompt_and_one_query(layout: adapt.Layout, label: adapt.Label, width: int) -> None:
    inputs: list[Tensor] = []

    def model(tokens: Tensor) -> Tensor:
        inputs.append(tokens)
        return tokens.sum(-1)

    x, y, queries = PROMPTS
    predictions = adapt.module(model, layout, label=label, dtype="float64")(x, y, queries)
    (tokens,) = inputs
    assert tokens.shape == (15, 13 if layout == "interleaved" else 7, width)
    assert torch.equal(tokens[7, -1, :4], queries[2, 1])
    expected = queries.sum(-1) + (layout == "flagged")
    torch.testing.assert_close(predictions, expected)
    if layout == "interleaved":
        assert torch.equal(tokens[3, 1::2, 0 if label == "first" else -1], y[1])
    else:
        assert torch.equal(tokens[3, :-1, 4], y[1])


@pytest.mark.parametrize("batch", [0, 1, 4])
def test_an_average_written_for_any_convention_is_the_average(batch: int) -> None:
    def at_every_place(xs: Tensor, ys: Tensor) -> Tensor:
        assert not batch or len(xs) <= batch
        moments = (xs * ys[..., None])[:, :-1].mean(1, keepdim=True)
        return (xs * moments).sum(-1)

    expected = averaging()(*PROMPTS)
    torch.testing.assert_close(adapt.positions(at_every_place, dtype="float64", batch=batch)(*PROMPTS), expected)


def test_arrays_are_numpy_of_the_given_dtype() -> None:
    def function(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
        assert x.dtype == np.float32
        return np.einsum("bnd,bn,bmd->bm", x, y, query) / 6

    predictions = adapt.arrays(function, dtype="float32")(*PROMPTS)
    torch.testing.assert_close(predictions.double(), averaging()(*PROMPTS), rtol=1e-4, atol=1e-5)


class Logits(nn.Module):
    """A language model of a bigram count, with ids that are moved by one."""

    def forward(self, ids: Tensor) -> Tensor:
        law = markov_posterior(3, 1, 1.0)(ids[:, 1:] - 1, torch.zeros(len(ids)))
        return nn.functional.pad(torch.cat([law[:, :1], law], 1), (1, 0)) + 7


def test_logits_become_laws_of_the_symbols() -> None:
    tokens = Chains(length=9).sample(stream(0, "adapt"), 4).tokens
    predictions = adapt.causal_lm(Logits(), symbols=(1, 2, 3), start=0)(tokens, torch.zeros(4))
    torch.testing.assert_close(predictions, markov_posterior(3, 1, 1.0)(tokens, torch.zeros(4)))


def test_a_module_is_taken_out_of_training_and_that_is_said() -> None:
    class Dropped(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return nn.functional.dropout(tokens.sum(-1), 0.5, self.training)

    diagnosis = diagnose(adapt.module(Dropped(), "paired"), SETTING, prompts=40)
    assert [finding.what for finding in diagnosis.findings if finding.where == "mode"] == [adapt.MODES]
    assert not diagnosis.stopped


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        (lambda tokens: tokens, {"read": 9}, "read 9 does not exist in its output of shape [15, 7, 5]"),
        (lambda tokens: tokens, {"place": 7}, "place 7 does not exist in its output"),
        (lambda tokens: tokens.sum(), {}, "its output has shape [] for 15 sequences"),
        (lambda tokens: tokens.long(), {}, "it returned int64, but a prediction is a real number"),
        (lambda tokens: "no", {}, "it returned str, not a tensor"),
    ],
)
def test_an_output_of_the_wrong_place_or_type_is_one_sentence(model: object, options: dict, sentence: str) -> None:
    with pytest.raises(LabError) as caught:
        adapt.module(model, "paired", **options)(*PROMPTS)  # type: ignore[arg-type]
    assert sentence in str(caught.value)
    diagnosis = diagnose(adapt.module(model, "paired", **options), SETTING, prompts=40)  # type: ignore[arg-type]
    assert diagnosis.stopped


def test_an_output_before_the_query_is_told_by_answers_that_do_not_read_it() -> None:
    def running_mean(tokens: Tensor) -> Tensor:  # of labels times the token's first coordinate
        x, y = tokens[..., 0], tokens[..., -1]
        return x * (x * y).cumsum(-1) / torch.arange(1, tokens.shape[1] + 1)

    for place, unread in ((-1, False), (-2, True)):
        subject = Subject("mine", adapt.module(running_mean, "paired", place=place), SETTING.shape, False)
        findings = unread_query(subject, SETTING.arguments, SETTING.inputs_of(SETTING.sample(stream(0, "judge"), 4)))
        assert ["the queries are others" in finding.what for finding in findings] == [True] * unread


@pytest.mark.parametrize(
    ("convention", "options", "sentence"),
    [
        ("interleave", {}, "did you mean 'interleaved'?"),
        ("paired", {"symbols": (1,)}, "--symbols is no option of the adapter paired"),
        ("paired", {"dtype": "float23"}, "did you mean 'float32'?"),
        ("paired", {"batch": -1}, "must be at least 0"),
        ("interleaved", {"label": "middle"}, "choose one of first, last"),
        ("arrays", {"dtype": "bfloat16"}, "numpy has no bfloat16"),
        ("", {"batch": 3}, "--batch belongs to an adapter"),
    ],
)
def test_impossible_adapters_are_one_sentence(convention: str, options: dict, sentence: str) -> None:
    with pytest.raises(LabError) as caught:
        adapt.adapted(lambda tokens: tokens, convention, **options)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "adapter", "extra", "options"),
    [
        ("interleaved", "interleaved", "", []),
        ("paired", "paired", "", []),
        ("flagged", "flagged", "", []),
        ("positions", "positions", "", ["--dtype", "float64"]),
        ("arrays", "arrays", "", []),
        ("arrays_of_jax", "arrays", "jax", []),
        ("causal_lm", "causal-lm", "transformers", ["--task", "markov-chains", "--length", "12"]),
        ("embedded", "interleaved", "transformers", []),
    ],
)
def test_every_example_of_an_adapter_is_diagnosed(
    name: str, adapter: str, extra: str, options: list[str], tmp_path: Path, unchecked: None
) -> None:
    if extra:
        pytest.importorskip(extra, reason=f"{extra} is not installed (pip install 'theory-lab[diagnose]')")
    command = ["diagnose", f"{EXAMPLES / name}.py:model", "--adapter", adapter, "--prompts", "40", *options]
    assert main([*command, "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "diagnosis.json").read_text(encoding="utf-8"))
    if not extra or extra == "jax":
        assert record["match"]["name"] == "averaging"


def test_a_module_without_an_adapter_is_told_of_them(tmp_path: Path, capsys) -> None:
    assert main(["diagnose", f"{EXAMPLES / 'paired'}.py:model", "--out", str(tmp_path)]) == 1
    assert "needs --adapter" in " ".join(capsys.readouterr().out.split())


def test_a_device_that_is_not_there_is_one_sentence(tmp_path: Path, capsys) -> None:
    spec = "lab.domains.regression.least_squares:least_squares"
    assert main(["diagnose", spec, "--device", "cuda:77", "--out", str(tmp_path)]) == 2
    assert "the device 'cuda:77' is not available here" in capsys.readouterr().err


def test_inputs_are_given_where_the_predictor_computes() -> None:
    subject = Subject("mine", least_squares(), SETTING.shape, False, "meta")
    assert {tensor.device.type for tensor in subject.copies(PROMPTS)} == {"meta"}


def test_least_squares_is_still_itself_beside_an_adapter() -> None:
    adapted = adapt.arrays(lambda *arrays: least_squares()(*map(torch.from_numpy, arrays)).numpy())
    torch.testing.assert_close(adapted(*PROMPTS), least_squares()(*PROMPTS))
