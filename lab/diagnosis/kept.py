"""The diagnosis of kept networks as the pages show it: small records, and one picture of those trained on the same prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from lab.diagnosis import trained
from lab.diagnosis.comparison import Diagnosis, diagnose
from lab.diagnosis.presentation import plain, plot_all
from lab.diagnosis.settings import find_setting
from lab.errors import LabError
from lab.figures import save

DIGITS = 6  # of a stored number; what a second processor makes of the same network may differ further on


def of_networks(names: Sequence[str], task: str, sizes: Mapping[str, Any], prompts: int, root: Path) -> list[Diagnosis]:
    """What ``lab diagnose NAMES --task TASK SIZES`` finds.

    Args:
        names: of networks that are kept below ``root``.
        task: the prompts.
        sizes: their fields that are not the usual ones; inputs are as wide as the network reads.
        prompts: how many.
        root: the results folder.

    Raises:
        LabError: a network is not kept there, or cannot be compared.
    """
    setting = dataclasses.replace(cast(Any, find_setting(task)), **sizes)
    networks = [trained.load_trained(name, root).model for name in names]
    diagnoses = []
    for name, network in zip(names, networks, strict=True):
        diagnosis = diagnose(network, trained.for_its_size(setting, network), name=name, task=task, prompts=prompts)
        if diagnosis.match is None:
            raise LabError(f"{name} cannot be compared: {'; '.join(finding.what for finding in diagnosis.findings)}")
        diagnoses.append(diagnosis)
    return diagnoses


def record(diagnosis: Diagnosis) -> dict[str, Any]:
    """What a page says of one network, as plain data."""
    match = diagnosis.match
    assert match is not None
    row = match.row(match.name)
    return plain(
        _rounded(
            {
                "name": diagnosis.subject,
                "setting": dict(diagnosis.setting),
                "kind": match.kind,
                "nearest": match.name,
                "fitted": dict(row.fitted),
                "distance": dataclasses.asdict(row.distance),
                "tied": list(match.tied[1:]),
                "error": dataclasses.asdict(match.error),
                "error_of_nearest": dataclasses.asdict(row.error),
            }
        )
    )


def draw(diagnoses: Sequence[Diagnosis], folder: Path, name: str) -> Path:
    """Write the picture ``name`` of distances and errors side by side, each network by its arm and seed, with its numbers."""
    return save(
        plot_all(
            [dataclasses.replace(diagnosis, subject=diagnosis.subject.rpartition(":")[2]) for diagnosis in diagnoses]
        ),
        folder,
        name,
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(element) for key, element in value.items()}
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
