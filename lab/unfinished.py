"""Trainings on their way, as files: what a job that was interrupted finds again.

A file is written in one step and names the run it belongs to; one that is damaged or of another run is ignored.
It holds tensors and plain JSON, so that reading it cannot execute code.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lab import files

log = logging.getLogger("lab")


def digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    """SHA-256 of named tensors (names, types, shapes and bits) and of the text ``facts``."""
    total = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        total.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def write(path: Path, identity: str, place: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write where the run ``identity`` stands; a disk that refuses costs the checkpoint, no more."""
    # Clones, because safetensors refuses tensors that share memory, as views made by `select` may.
    copies = {key: value.cpu().contiguous().clone() for key, value in tensors.items()}
    text = json.dumps({"run": identity, "place": place})
    try:
        files.write(path, safetensors.torch.save(copies, {"lab": text, "sha256": digest(copies, text)}))
    except files.NotWritten as error:
        log.warning("Checkpoint %s could not be written (%s); training goes on without it.", path, error.reason)


def read(path: Path, identity: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Where the run ``identity`` stood when it was written; None where there is no such file that can be trusted."""
    try:
        if not path.exists():
            return None
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        text = metadata.get("lab", "")
        if metadata.get("sha256") != digest(tensors, text):
            raise ValueError("its content was changed")
        state = json.loads(text)
        if state["run"] != identity:
            raise ValueError("it belongs to another run")
        return state["place"], tensors
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        log.warning("Checkpoint %s is ignored (%s); training starts afresh.", path, error)
        return None
