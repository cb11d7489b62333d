"""Which trained networks the pages show the diagnosis of, and what a page says of them.

The networks are those that `lab run` keeps beside its measurements, named with their seeds. What was found is stored in
``figures/<sheet>/trained_networks.json``; `lab reproduce` writes it where the networks are kept, and the command that every
entry names finds the same numbers again.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.files import PROJECT
from lab.report import number

TITLE = "What its kept networks answer most like"
TASK = "linear-regression"  # the prompts of all networks below, at the sizes that they were trained at
PROMPTS = 512


@dataclass(frozen=True)
class Shown:
    """Networks that were trained on the same prompts, diagnosed side by side.

    Args:
        training: what they are, in words.
        names: of the networks (`lab.diagnosis.trained`), each with its seed: the first of the shipped trainings.
        sizes: of the prompts, as they were trained on.
    """

    training: str
    names: tuple[str, ...]
    sizes: Mapping[str, Any]

    @property
    def command(self) -> str:
        """What finds the same numbers again where the networks are kept."""
        options = [f"--{name.replace('_', '-')} {value}" for name, value in self.sizes.items()]
        return " ".join(["lab diagnose", *map(shlex.quote, self.names), *options])


def _arms(place: str, seed: int) -> tuple[str, ...]:
    return tuple(f"{place}:{arm}@{seed}" for arm in ("causal", "prefix"))


SHOWN: Mapping[str, tuple[Shown, ...]] = {
    "causallm-icl": (
        Shown(
            "two layers of linear attention",
            _arms("causallm-icl/trained-linear-attention", 2032000000),
            {"context_length": 20, "inputs": "uniform", "half_width": 0.5, "noise": 0.0},
        ),
        Shown(
            "softmax transformers of three layers",
            _arms("causallm-icl/transformers-in-regression", 2031000000),
            {"context_length": 6, "inputs": "uniform", "noise": 0.0},
        ),
    ),
    "icl-gradient-descent": (
        Shown(
            "two layers of linear attention that share their weights",
            _arms("icl-gradient-descent/two-layers", 2034000000),
            {"context_length": 10, "inputs": "uniform", "half_width": 0.5, "noise": 0.0},
        ),
    ),
}


def stored_file(sheet: str) -> Path:
    """Where the diagnoses of a sheet's networks are kept."""
    return PROJECT / "figures" / sheet / "trained_networks.json"


def picture(place: int) -> str:
    """Name of the picture of the networks that stand at this place of a sheet's."""
    return f"trained_networks_{place + 1}"


def section(sheet: str) -> list[str]:
    """Lines of Markdown about a sheet's trained networks; none for a sheet whose networks are not diagnosed.

    Raises:
        LabError: what is stored is damaged, or is of other networks.
    """
    groups = SHOWN.get(sheet, ())
    if not groups:
        return []
    lines = [f"## {TITLE}", ""]
    if not stored_file(sheet).is_file():
        return [
            *lines,
            f"No network was kept where this page was made. `lab run {sheet} --again '*'` trains and keeps them, then",
            "",
            *(f"    {group.command}" for group in groups),
            "",
            f"diagnoses them, and `lab reproduce {sheet}` shows that here.",
            "",
        ]
    for place, (group, records) in enumerate(zip(groups, _stored(sheet, groups), strict=True)):
        lines += [f"**{group.training[0].upper()}{group.training[1:]}**", ""]
        lines += ["| network | nearest | distance | not told apart from | squared error | of the nearest |"]
        lines += ["| --- | --- | --- | --- | --- | --- |", *map(_row, records), ""]
        lines += [f"![distances of {group.training}]({picture(place)}.png)", ""]
        lines += [f"    {group.command}", ""]
    return [
        *lines,
        f"One network a row, by its name and seed; intervals are over {PROMPTS // 2} prompts, not over trainings. Distance 0 is "
        f"identical, 1 as far as no answer. `lab run {sheet} --again '*'` trains and keeps the networks; [the protocol]"
        "(../diagnosis.md) says what is compared.",
        "",
    ]


def _stored(sheet: str, groups: Sequence[Shown]) -> list[list[dict[str, Any]]]:
    file = stored_file(sheet)
    remedy = f"`lab reproduce {sheet}` writes it anew where the networks are kept"
    try:
        records = json.loads(file.read_text(encoding="utf-8"))
        names = [tuple(record["name"] for record in group) for group in records]
        if names != [group.names for group in groups]:
            raise LabError(f"{file} is not of the networks that the page shows; {remedy}")
        for group, shown in zip(records, groups, strict=True):
            for record in group:
                _row(record)
                if {name: record["setting"][name] for name in shown.sizes} != dict(shown.sizes):
                    raise LabError(f"{file} is not of the prompts that the page names for {record['name']}; {remedy}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LabError(f"{file} is damaged ({error!r}); {remedy}") from error
    return records


def _row(record: Mapping[str, Any]) -> str:
    fitted = ", ".join(f"{name} {number(value)}" for name, value in record["fitted"].items())
    nearest = f"{record['nearest']} ({fitted})" if fitted else record["nearest"]
    words = {"identical": f"identical to {nearest}", "closest": nearest, "none": f"none; the nearest is {nearest}"}
    numbers = [_interval(record[part]) for part in ("distance", "error", "error_of_nearest")]
    tied = "; ".join([nearest, *record["tied"]]) if record["tied"] else ""
    conclusion = "not identified" if record["tied"] else words[record["kind"]]
    return f"| `{record['name']}` | {conclusion} | {numbers[0]} | {tied} | {numbers[1]} | {numbers[2]} |"


def _interval(ends: Mapping[str, float]) -> str:
    return f"{number(ends['mean'])} [{number(ends['low'])}, {number(ends['high'])}]"
