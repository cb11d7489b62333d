"""One transformer as one file: its weights as safetensors, everything else about it in the header as plain JSON.

    save_model(Path("model.safetensors"), trained.module.select([0]), mask="causal")
    stored = load_model(Path("model.safetensors"))

or several, as `lab.study` keeps them beside a measurement, of which one is chosen by its seed and arm:

    stored = load_model(Path("…/seeds-0-3.networks/train.safetensors"), seed=2, arm="causal")

Reading such a file cannot execute code. A file of another format is refused with the reason.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from lab.configuration import config_from_dict
from lab.errors import LabError
from lab.files import write
from lab.models.transformer import Architecture, Transformer

MASKS = ("causal", "prefix")


@dataclass(frozen=True)
class StoredModel:
    """A transformer and how it is asked.

    Args:
        transformer: an ensemble of one model.
        mask: "causal", or "prefix" where the tokens of the context see each other.
        sign: of the answer: 1, or -1 where the label slot of a query ends at minus the prediction, as in networks
            that descend on residuals (`lab.domains.regression.linear_attention`).

    Raises:
        LabError: an ensemble of several models, an unknown mask, or a sign that is none.
    """

    transformer: Transformer
    mask: str
    sign: int = 1

    def __post_init__(self) -> None:
        if self.transformer.models != 1:
            raise LabError(
                f"A file holds one model but this ensemble has {self.transformer.models}; choose one with "
                "select([place])."
            )
        if self.mask not in MASKS or self.sign not in (1, -1):
            raise LabError(
                f"mask = {self.mask!r} and sign = {self.sign} must be one of {', '.join(MASKS)} and 1 or -1; change them."
            )


def save_model(path: Path | str, transformer: Transformer, mask: str, sign: int = 1) -> None:
    """Write one model; arguments and errors as in `StoredModel`."""
    stored = StoredModel(transformer, mask, sign)
    weights = {name: value.detach().clone() for name, value in transformer.named_parameters()}
    header = {"architecture": dataclasses.asdict(transformer.architecture), "mask": stored.mask, "sign": stored.sign}
    write(Path(path), safetensors.torch.save(weights, {"lab": json.dumps(header)}))


def load_model(
    path: Path | str, *, seed: int | None = None, arm: str | None = None, mask: str | None = None
) -> StoredModel:
    """Read what `save_model` wrote, or one of the networks that a study kept.

    Args:
        path: the file.
        seed, arm: which of a study's networks.
        mask: how it is asked, where neither the file nor the name of the arm says so.

    Raises:
        LabError: no such file, a pickle, a damaged file, tensors without an architecture, tensors that are not those
            of the architecture named, or a network that the file does not hold.
    """
    path = Path(path)
    if not path.is_file():
        raise LabError(f"there is no file {path}; give the path of a checkpoint")
    with path.open("rb") as file:
        begin = file.read(9)
    if _is_pickle(begin):
        raise LabError(
            f"{path} is a pickle, as torch.save writes it, and reading one can execute code; "
            "write a model of this lab with lab.models.checkpoint.save_model, and give any other as FILE.py:FUNCTION"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("lab", "null"))
            weights = {name: file.get_tensor(name) for name in file.keys()}
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise LabError(f"{path} is damaged or no safetensors file ({error}); write it anew") from error
    if header is None:
        raise LabError(
            f"{path} holds {len(weights)} tensors but does not say of which architecture; "
            "write the model with lab.models.checkpoint.save_model"
        )
    try:
        architecture, members, stored_mask, sign = _of_header(header)
    except (LabError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
        raise LabError(f"{path} names an architecture that is not this lab's transformer: {error}") from error
    _check_models(path, weights, len(members) or 1)
    if members:
        place, stored_mask = _place(path, members, seed, arm)
        weights = {key: value[place : place + 1] for key, value in weights.items()}
    return StoredModel(built(path, architecture, weights), mask or stored_mask, sign)


def _of_header(header: Any) -> tuple[Architecture, list[list], str, int]:
    """Architecture, members (none in a file of one model), mask and sign, each of the type that it must have.

    Raises:
        LabError, TypeError, KeyError: one of them is missing or of another type, or the architecture cannot be.
    """
    hints, values = typing.get_type_hints(Architecture), header["architecture"]
    for name, value in values.items():
        if name in hints and not _is_of(hints[name], value):
            raise LabError(f"its {name} is {str(value)[:80]!r}, and it must be {Architecture.__annotations__[name]}")
    members = header.get("members")
    if members is not None and not (_is_of(list[tuple[int, str]], members) and members):
        raise LabError(
            f"its members are {str(members)[:80]!r}, and each must be a pair of a seed and the name of an arm"
        )
    mask, sign = ("", 1) if members else (header["mask"], header.get("sign", 1))
    if not (_is_of(str, mask) and _is_of(int, sign)):
        raise LabError(
            f"its mask is {str(mask)[:80]!r} and its sign {str(sign)[:80]!r}, and they must be a name and 1 or -1"
        )
    return config_from_dict(Architecture, values), members or [], mask, sign


def _is_of(hint: Any, value: Any) -> bool:
    """Whether plain data are of a type: whole numbers that fit 64 bits, finite numbers, and JSON's lists for tuples too."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_is_of(argument, value) for argument in inner)
    if origin in (tuple, list):
        each = origin is list or inner[-1] is Ellipsis
        hints = [inner[0]] * len(value) if each and isinstance(value, list) else list(inner)
        return isinstance(value, list) and len(value) == len(hints) and all(map(_is_of, hints, value))
    if hint in (int, float) and isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, hint) and (hint is not float or math.isfinite(value))


def _check_models(path: Path, weights: dict[str, torch.Tensor], models: int) -> None:
    """Refuse weights that are not those of as many models as the header names, one along the first axis."""
    for name, value in weights.items():
        if value.shape[:1] != (models,):
            raise LabError(
                f"{path} names {models} network{'s' * (models > 1)} and holds {name!r} of shape {list(value.shape)}, whose "
                "first number must be that of the networks; save it anew"
            )


def _is_pickle(begin: bytes) -> bool:
    """Whether a file that begins so was written by `torch.save`: a zip archive since torch 1.6, a bare pickle before.

    A safetensors file begins with the length of its header, which can look like a pickle's first bytes, and goes on
    with the header's brace.
    """
    pickle = len(begin) > 1 and begin[0] == 0x80 and 2 <= begin[1] <= 5
    return begin.startswith(b"PK\x03\x04") or (pickle and begin[8:9] != b"{")


def _place(path: Path, members: list[list], seed: int | None, arm: str | None) -> tuple[int, str]:
    """Place and arm of the one network asked for."""
    places = [place for place, member in enumerate(members) if seed in (None, member[0]) and arm in (None, member[1])]
    if len(places) != 1:
        known = ", ".join(f"(seed {member[0]}, arm {member[1]!r})" for member in members)
        raise LabError(
            f"{path} holds {len(places)} networks of seed {seed} and arm {arm!r} but one is read; choose among {known}"
        )
    return places[0], members[places[0]][1]


def _check_sizes(path: Path, architecture: Architecture, weights: dict[str, torch.Tensor]) -> None:
    """Refuse weights that are no numbers, and an architecture that they cannot be of, before any of its size is made."""
    for name, value in weights.items():
        if not value.dtype.is_floating_point:
            raise LabError(
                f"{path} holds {name!r} as {value.dtype}, and weights are floating-point numbers; save it anew"
            )
        finite = value.double().isfinite()  # there are types that cannot be asked themselves
        if not bool(finite.all()):
            bad = int((~finite).sum())
            raise LabError(
                f"{path} holds {name!r} with {bad} of {value.numel()} weights that are not finite, so that it answers "
                "nothing; save a network whose training did not diverge"
            )
    if not math.isfinite(architecture.mlp_ratio):
        raise LabError(f"{path} names mlp_ratio = {architecture.mlp_ratio}, of which no MLP is made; save it anew")
    hidden = round(architecture.mlp_ratio * architecture.width) if architecture.layers else 0
    sizes = {
        "width": architecture.width,
        "vocabulary": architecture.vocabulary,
        "output_size": architecture.output_size,
    }
    sizes |= {"input_size": architecture.input_size, "hidden size of the MLP": hidden or None}
    sizes |= {"heads * head_size": architecture.heads * architecture.size_of_head if architecture.layers else None}
    sizes |= {"maximum_length": architecture.maximum_length if architecture.positions == "learned" else None}
    known = {size for value in weights.values() for size in value.shape}
    layers = sum(name.endswith(".attention.query.weight") for name in weights)
    for name, size in sizes.items():
        if size is not None and size not in known:
            raise LabError(
                f"{path} is of another architecture than it names: it says {name} {size}, and no tensor has such a size; "
                "save it anew"
            )
    if not architecture.share_layers and architecture.layers != layers:
        raise LabError(
            f"{path} is of another architecture than it names: it says {architecture.layers} layers and holds {layers}; "
            "save it anew"
        )


def built(path: Path, architecture: Architecture, weights: dict[str, torch.Tensor]) -> Transformer:
    dtype = next((value.dtype for value in weights.values()), torch.float64)
    _check_sizes(path, architecture, weights)
    with np.errstate(over="ignore"):  # numbers of a beginning that the weights of the file replace
        transformer = Transformer(architecture, [0], dtype)
    needed = {name for name, _ in transformer.named_parameters()}
    missing, foreign = sorted(needed - weights.keys()), sorted(weights.keys() - needed)
    if missing or foreign:
        lack = f"lacks {missing[0]!r}" if missing else f"has {foreign[0]!r} too many"
        raise LabError(
            f"{path} is of another architecture than it names: it {lack} "
            f"({len(missing)} missing, {len(foreign)} foreign); save it anew"
        )
    try:
        return transformer.load_weights(weights)
    except LabError as error:
        raise LabError(f"{path} is of another architecture than it names: {error}") from error
