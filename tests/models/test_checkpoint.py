from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from random import Random

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


def test_a_path_may_be_text(tmp_path: Path) -> None:
    save_model(str(tmp_path / "m.safetensors"), Transformer(ARCHITECTURE, [0]), "causal")
    assert load_model(str(tmp_path / "m.safetensors")).mask == "causal"


def test_weights_of_eight_bits_are_read_or_refused(file: Path) -> None:
    header = {"architecture": dataclasses.asdict(ARCHITECTURE), "mask": "causal", "sign": 1}
    with_header(file, header)
    small = {name: value.to(torch.float8_e4m3fn) for name, value in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(small, file, {"lab": json.dumps(header)})
    assert load_model(file).transformer.architecture == ARCHITECTURE


def test_an_infinite_ratio_is_refused(file: Path) -> None:
    header = {
        "architecture": dataclasses.asdict(ARCHITECTURE) | {"mlp_ratio": float("inf")},
        "mask": "causal",
        "sign": 1,
    }
    with_header(file, header)
    with pytest.raises(LabError, match="its mlp_ratio is 'inf'"):
        load_model(file)


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
        (
            {"architecture": {"width": 8, "layers": 3, "input_size": 4}, "mask": "causal", "sign": 1},
            "says 3 layers and holds 2",
        ),
        (
            {
                "architecture": {"width": 8, "layers": 2, "heads": 2, "input_size": 5, "output_size": 1},
                "mask": "causal",
                "sign": 1,
            },
            "says input_size 5, and no tensor has such a size",
        ),
        ({"architecture": {"width": -1, "layers": 2}, "mask": "causal", "sign": 1}, "width = -1"),
        ([], "not this lab's transformer"),
    ],
)
def test_an_architecture_that_is_not_that_of_the_tensors_is_refused(file: Path, header: object, reason: str) -> None:
    with_header(file, header)
    with pytest.raises(LabError, match=reason):
        load_model(file)


def test_every_length_of_the_header_is_read(file: Path) -> None:
    """Also one whose first byte is that of a pickle, as in one file of 32."""
    beginnings = set()
    for width in range(8, 8 + 2 * 80, 2):
        architecture = Architecture(width=width, layers=1 + width % 3, heads=2, input_size=width % 7 + 1)
        save_model(file, Transformer(architecture, [0]), "causal")
        beginnings.add(file.read_bytes()[0])
        assert load_model(file).transformer.architecture == architecture
    begin = file.read_bytes()
    padded = begin[8:] + b""
    for length in (0x280, 0x380, 0x480, 0x580):
        header = padded[: int.from_bytes(begin[:8], "little")].rstrip()
        if len(header) <= length:
            body = padded[int.from_bytes(begin[:8], "little") :]
            file.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + body)
            assert load_model(file).transformer.architecture == architecture
            beginnings.add(file.read_bytes()[0])
    assert 0x80 in beginnings


MEMBERS = [3, "ab", {}, [], [[0]], [[0, 1]], [["0", "a"]], [[0, "causal"], [1, "causal"]], [[True, "causal"]], [None]]


@pytest.mark.parametrize("members", MEMBERS)
def test_members_that_are_no_pairs_or_not_as_many_as_the_networks_are_refused(file: Path, members: object) -> None:
    with_header(file, {"architecture": dataclasses.asdict(ARCHITECTURE), "members": members})
    with pytest.raises(LabError, match="its members are|names 2 networks and holds"):
        load_model(file)


def test_a_header_of_other_types_is_refused_before_anything_is_built(file: Path) -> None:
    """Fields of the header, and the header itself, replaced at random by what JSON can hold."""
    rng = Random(0)
    odd = [
        None,
        True,
        0,
        -1,
        3,
        8.0,
        10**400,
        2**62,
        1e308,
        float("nan"),
        float("inf"),
        "",
        "causal",
        "softmax",
        [],
        [[]],
    ]
    odd += [[0], [[0]], ["linear", "linear"], [None, 2], [1, "a"], {}, {"width": 8}, [[0, "causal"]], "\N{PARROT}"]
    fields = [field.name for field in dataclasses.fields(Architecture)]
    read = 0
    for _ in range(400):
        header = {"architecture": dataclasses.asdict(ARCHITECTURE), "mask": "causal", "sign": 1}
        for _ in range(rng.randint(1, 2)):
            place = (
                rng.choice([*[header["architecture"]] * 8, header])
                if isinstance(header["architecture"], dict)
                else header
            )
            names = fields if place is not header else ["architecture", "mask", "sign", "members"]
            place[rng.choice(names)] = rng.choice(odd)
        with_header(file, header)
        try:
            load_model(file)
            read += 1
        except LabError:
            continue
    assert 0 < read < 200
    with_header(file, {"architecture": dataclasses.asdict(ARCHITECTURE) | {"width": 8.0}, "mask": "causal", "sign": 1})
    with pytest.raises(LabError, match="its width is '8.0', and it must be int"):
        load_model(file)


@pytest.mark.parametrize(
    "size", [{"width": 1_000_000}, {"layers": 1_000_000_000}, {"mlp_ratio": 1e9}, {"heads": 1, "head_size": 10**9}]
)
def test_a_header_that_asks_for_more_than_the_file_holds_is_refused_at_once(file: Path, size: dict[str, int]) -> None:
    header = {"architecture": {"width": 8, "layers": 2, "heads": 2, "input_size": 4, "output_size": 1} | size}
    with_header(file, header | {"mask": "causal", "sign": 1})
    with pytest.raises(LabError, match="is of another architecture than it names"):
        load_model(file)


def test_weights_that_are_no_floating_numbers_are_refused(file: Path) -> None:
    save_model(file, Transformer(ARCHITECTURE, [0]), "causal")
    with safetensors.safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = {name: value.to(torch.int64) for name, value in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(tensors, file, metadata)
    with pytest.raises(LabError, match="weights are floating-point numbers"):
        load_model(file)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(file: Path, value: float) -> None:
    model = Transformer(ARCHITECTURE, [0])
    with torch.no_grad():
        model.read_out.weight[0, 2] = value
    save_model(file, model, "causal")
    with pytest.raises(LabError, match=r"'read_out.weight' with 1 of 8 weights that are not finite"):
        load_model(file)
