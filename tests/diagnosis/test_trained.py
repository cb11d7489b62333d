"""Networks that were trained and kept, and released folders, by the names that the command line takes."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lab import LabError, context
from lab.catalogue import find_parts
from lab.cli import main
from lab.diagnosis import adapt, kept, subject, trained
from lab.diagnosis.comparison import attention
from lab.diagnosis.settings import Chains
from lab.execution import Session
from lab.models.checkpoint import StoredModel
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.streams import stream
from tests.models.test_released import release

ARCHITECTURE = Architecture(width=8, layers=1, heads=2, input_size=4, output_size=1)
SHEET = "small-sheet"
# In the order of its argument; the second part was trained last.
TASKS = [
    SimpleNamespace(key=f"{SHEET}/first-part", measurements={"drawn": None, "trained": None}),
    SimpleNamespace(key=f"{SHEET}/second-part", measurements={"later": None}),
]


def keep(
    root: Path, place: str, arms: tuple[str, ...], seeds: tuple[int, ...], age: float, **changes: object
) -> Transformer:
    """Networks of a training as a job leaves them; those of all arms of the first seed, then of the next."""
    architecture = dataclasses.replace(ARCHITECTURE, **changes)  # type: ignore[arg-type]
    measurement, _, name = place.rpartition("/")
    folder = root / SHEET / measurement / f"key{age:g}" / "seeds.networks"
    members = [[seed, arm] for seed in seeds for arm in arms]
    network = Transformer(architecture, list(range(len(members))))
    with context.job(context.JobContext(networks=folder)):
        header = {"members": members, "architecture": dataclasses.asdict(architecture)}
        context.keep(name, dict(network.named_parameters()), header)
    os.utime(folder / f"{name}.safetensors", (1e9 - age, 1e9 - age))
    return network


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(trained, "find_parts", lambda sheet: TASKS)
    monkeypatch.setattr(trained, "_presets", lambda sheet: {})
    monkeypatch.setenv("LAB_RESULTS", str(tmp_path))
    keep(tmp_path, "second-part/later/again", ("causal", "prefix"), (7,), age=0.0)
    keep(tmp_path, "first-part/trained/squares", ("causal", "prefix", "halved"), (3, 5), age=20.0)
    keep(tmp_path, "first-part/trained/squares", ("causal", "prefix"), (4, 5), age=10.0)
    return tmp_path


def same(stored: StoredModel, network: Transformer, place: int) -> bool:
    pairs = zip(stored.transformer.parameters(), network.select([place]).parameters(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def test_a_name_means_the_first_of_the_argument_trained_last(root: Path) -> None:
    named = trained.load_trained(f"{SHEET}:prefix")
    assert named.about == (
        f"{SHEET}:prefix is {SHEET}/first-part/trained/squares:prefix@4, of 2 seeds, at sizes of no preset; 1 more trainings have this "
        f"arm, such as {SHEET}/second-part/later/again:prefix"
    )
    assert named.model.mask == "prefix"
    network = Transformer(ARCHITECTURE, list(range(4)))
    assert same(named.model, network, 1)
    assert same(trained.load_trained(f"{SHEET}:prefix@5").model, network, 3)
    assert "second-part/later/again:causal@7" in trained.load_trained(f"{SHEET}/later:causal").about


def test_networks_whose_stream_are_the_tokens_end_at_minus_the_prediction(root: Path) -> None:
    keep(root, "first-part/drawn/linear", ("causal",), (0,), age=5.0, input_size=None, output_size=None)
    assert trained.load_trained(f"{SHEET}/drawn:causal").model.sign == -1
    assert trained.load_trained(f"{SHEET}/trained:causal").model.sign == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (f"{SHEET}/third:causal", f"keeps no networks of {SHEET}/third; choose among {SHEET}/first-part/trained"),
        (f"{SHEET}:casual", "has the arm 'casual' (did you mean 'causal'?)"),
        (f"{SHEET}:causal@9", "has no seed 9; its seeds are 4, 5"),
        (f"{SHEET}:halved", "the arm 'halved' does not say under which mask it is asked"),
        ("other-sheet:causal", "keeps no networks of other-sheet; `lab run other-sheet --again '*'` trains"),
    ],
)
def test_a_name_that_means_nothing_is_one_sentence(root: Path, name: str, sentence: str) -> None:
    with pytest.raises(LabError) as caught:
        trained.load_trained(name)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("causallm-icl:causal", True),
        ("causallm-icl/transformers-in-regression/trained_transformers/linear, layers shared:causal@3", True),
        ("next-token-pitfalls:standard, prefix", True),
        ("package.module:function", False),
        ("my-file.py:model", False),
        ("addition:causal", False),
    ],
)
def test_names_of_networks_are_told_from_modules_and_files(spec: str, expected: bool) -> None:
    assert trained.is_name(spec) == expected


def test_the_sizes_of_the_pages_come_before_a_later_training(root: Path, monkeypatch) -> None:
    measurement = (SHEET, "first-part", "trained")
    presets = {(*measurement, "key20"): "ci", (*measurement, "key10"): "smoke"}
    monkeypatch.setattr(trained, "_presets", lambda sheet: presets)
    assert "squares:prefix@3, of 2 seeds, at preset ci" in trained.load_trained(f"{SHEET}:prefix").about
    assert "squares:prefix@4, of 2 seeds, at preset smoke" in trained.load_trained(f"{SHEET}:prefix@4").about


def test_presets_are_told_by_the_keys_of_their_results() -> None:
    (task,) = (part for part in find_parts("copying") if part.key == "copying/recalled-pairs")
    measurement = task.measurements["trained"]
    (job, *_) = Results(task, task.config("smoke"), Session(quiet=True)).jobs([measurement])
    assert trained._presets("copying")[("copying", "recalled-pairs", "trained", job.key)] == "smoke"


def test_the_command_diagnoses_a_network_by_name(root: Path, tmp_path: Path, capsys, unchecked: None) -> None:
    assert main(["diagnose", f"{SHEET}:causal@5", "--prompts", "40", "--out", str(tmp_path / "out")]) == 0
    assert f"{SHEET}/first-part/trained/squares:causal@5, of 2 seeds" in capsys.readouterr().out.replace("\n", " ")
    record = json.loads((tmp_path / "out" / "diagnosis.json").read_text(encoding="utf-8"))
    assert record["setting"]["dimension"] == 3  # its own, not that of the prompts
    assert {look["relation"] for look in record["attention"]} >= {"own example", "examples, from the query"}


def test_a_released_folder_is_a_predictor_of_its_symbols(tmp_path: Path) -> None:
    """As a checkpoint of all its ids, or as a language model of some of them."""
    release(tmp_path, "gpt2", vocab_size=11)
    stored = subject.load(str(tmp_path), Chains.arguments)
    assert isinstance(stored, StoredModel)
    setting = Chains(states=3, length=8)
    with pytest.raises(LabError, match="a vocabulary of 11 but the prompts here have 3 symbols"):
        setting.stored(stored)
    prompts = setting.sample(stream(0, "trained"), 5)
    adapted = adapt.adapted(stored, "causal-lm", symbols=(2, 4, 6))
    predictions = adapted(*setting.inputs_of(prompts))
    assert predictions.shape == (5, 8, 3)
    torch.testing.assert_close(predictions.exp().sum(-1), torch.ones(5, 8))
    assert {look.layer for look in attention(adapted, adapted, setting, prompts)} == {1, 2}
    with pytest.raises(LabError, match="the adapter paired has no place"):
        adapt.adapted(stored, "paired")


def test_a_seed_that_only_an_older_training_has_is_found(root: Path) -> None:
    assert "squares:causal@3, of 2 seeds" in trained.load_trained(f"{SHEET}:causal@3").about


def test_what_a_page_says_is_what_the_command_finds(root: Path, tmp_path: Path, capsys, unchecked: None) -> None:
    names = [f"{SHEET}/trained:causal@4", f"{SHEET}/trained:prefix@5"]
    diagnoses = kept.of_networks(names, "linear-regression", {"context_length": 6, "noise": 0.0}, 40, root)
    records = [kept.record(diagnosis) for diagnosis in diagnoses]
    options = ["--context-length", "6", "--noise", "0.0", "--prompts", "40", "--out", str(tmp_path / "out")]
    assert main(["diagnose", *names, *options]) == 0
    printed = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    for record, shown in zip(records, printed, strict=True):
        assert record["name"] == shown["subject"]
        assert record["nearest"] == shown["match"]["name"]
        assert record["distance"]["mean"] == pytest.approx(shown["match"]["rows"][0]["distance"]["mean"], rel=1e-5)
        assert record["error"]["high"] == pytest.approx(shown["match"]["error"]["high"], rel=1e-5)
    with pytest.raises(LabError, match="has no seed 9"):
        kept.of_networks([f"{SHEET}/trained:causal@9"], "linear-regression", {}, 40, root)
