from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from lab import LabError
from lab.models import masks
from lab.models.checkpoint import load_model, save_model
from lab.models.transformer import Architecture, Transformer

ARCHITECTURE = Architecture(width=8, layers=2, heads=2, input_size=4, output_size=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_read_is_what_was_written(file: Path, dtype: torch.dtype) -> None:
    model = Transformer(ARCHITECTURE, [3], dtype)
    save_model(file, model, "prefix", sign=-1)
    stored = load_model(file)
    assert (stored.mask, stored.sign) == ("prefix", -1)
    assert stored.transformer.architecture == ARCHITECTURE
    tokens = torch.linspace(-1, 1, 20, dtype=dtype).view(1, 1, 5, 4)
    assert torch.equal(stored.transformer(tokens, masks.causal(5)), model(tokens, masks.causal(5)))


def test_only_one_model_is_stored(file: Path) -> None:
    with pytest.raises(LabError, match="one model but this ensemble has 2"):
        save_model(file, Transformer(ARCHITECTURE, [0, 1]), "causal")
    with pytest.raises(LabError, match="'full'"):
        save_model(file, Transformer(ARCHITECTURE, [0]), "full")


def with_header(file: Path, header: object) -> None:
    """The same tensors under another header."""
    save_model(file, Transformer(ARCHITECTURE, [0]), "causal")
    tensors = safetensors.torch.load_file(file)
    safetensors.torch.save_file(tensors, file, {"lab": json.dumps(header)})


def test_other_files_are_refused_with_the_reason(file: Path) -> None:
    with pytest.raises(LabError, match="there is no file"):
        load_model(file)
    torch.save({"weight": torch.ones(2)}, file)
    with pytest.raises(LabError, match="is a pickle.*can execute code"):
        load_model(file)
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(LabError, match="damaged or no safetensors file"):
        load_model(file)
    safetensors.torch.save_file({"weight": torch.ones(2)}, file)
    with pytest.raises(LabError, match="1 tensors but does not say of which architecture"):
        load_model(file)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"architecture": {"width": 8, "layers": 2, "colour": 1}, "mask": "causal", "sign": 1}, "colour"),
        ({"architecture": {"width": 8, "layers": 2}, "sign": 1}, "has|mask"),
        ({"architecture": {"width": 8, "layers": 3, "input_size": 4}, "mask": "causal", "sign": 1}, "lacks"),
        (
            {
                "architecture": {"width": 8, "layers": 2, "heads": 2, "input_size": 5, "output_size": 1},
                "mask": "causal",
                "sign": 1,
            },
            "read_in.weight has the shape",
        ),
        ({"architecture": {"width": -1, "layers": 2}, "mask": "causal", "sign": 1}, "width = -1"),
        ([], "not this lab's transformer"),
    ],
)
def test_an_architecture_that_is_not_that_of_the_tensors_is_refused(file: Path, header: object, reason: str) -> None:
    with_header(file, header)
    with pytest.raises(LabError, match=reason):
        load_model(file)
