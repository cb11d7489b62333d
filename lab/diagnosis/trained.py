"""Networks that `lab run` trained and kept, by name: ``SHEET:ARM``, or ``SHEET/PART/MEASUREMENT/FILE:ARM@SEED``.

They lie beside their measurements, one file a training with the networks of all its seeds and arms. Of several files that hold
the arm the first in the order of the sheet's argument is taken, of that the training at the sizes of the pages (``ci``) or else the
latest (with the seed that is named), and its first seed; parts of the name choose another. A measurement that came with the lab was
not taken here, so that its networks are not here either.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors

from lab.catalogue import find_parts
from lab.diagnosis.setting import Setting
from lab.errors import LabError, nearest
from lab.execution import Session
from lab.files import results_folder
from lab.models.checkpoint import MASKS, StoredModel, load_model
from lab.results import Results

# No module and no file of Python is called so: a sheet's name has a hyphen.
NAME = re.compile(r"(?P<place>[a-z][a-z0-9]*(?:-[a-z0-9]+)+(?:/[^:]+)?):(?P<arm>[^:@]+)(?:@(?P<seed>\d+))?")


@dataclass(frozen=True)
class Kept:
    """One file of networks.

    Args:
        path: the file.
        place: sheet, part if it has any, measurement, and name of the training.
        members: seed and arm of every network.
    """

    path: Path
    place: tuple[str, ...]
    members: tuple[tuple[int, str], ...]

    @property
    def arms(self) -> list[str]:
        """The arms, in order."""
        return list(dict.fromkeys(arm for _, arm in self.members))


@dataclass(frozen=True)
class Named:
    """A network that a name was found to mean.

    Args:
        model: the network.
        about: which one it is, in words.
    """

    model: StoredModel
    about: str


def is_name(spec: str) -> bool:
    """Whether it names a trained network, and no module, file or folder."""
    match = NAME.fullmatch(spec)
    return match is not None and not match["place"].endswith(".py") and not Path(match["place"]).exists()


def sheet_of(spec: str) -> str:
    """The sheet of a name."""
    return spec.partition(":")[0].partition("/")[0]


def load_trained(spec: str, root: Path | None = None) -> Named:
    """The network called ``spec``.

    Args:
        spec: of a form that `is_name` accepts.
        root: the results folder.

    Raises:
        LabError: there is no such sheet, nothing was trained here, no such arm or seed, an arm whose name does not say under which
            mask it is asked, or a network that is not the lab's transformer.
    """
    match = NAME.fullmatch(spec)
    if match is None:
        raise LabError(f"{spec!r} names no trained network; write SHEET:ARM or SHEET/PART:ARM@SEED")
    folder, segments, arm = root or results_folder(), match["place"].split("/"), match["arm"]
    presets = _presets(segments[0])
    every = _in_order(segments[0], kept(folder / segments[0]), presets)
    matching = [file for file in every if _within(segments, file.place)]
    if not matching:
        known = sorted({"/".join(file.place[:-1]) for file in every})
        choose = (
            f"choose among {', '.join(known)}"
            if known
            else f"`lab run {segments[0]} --again '*'` trains and keeps them, `--again NAME` those of one measurement, `--preset "
            "smoke` small ones in a minute; with --dry-run it says how long that takes"
        )
        raise LabError(f"{folder} keeps no networks of {match['place']}; {choose}")
    holding = [file for file in matching if arm in file.arms]
    if not holding:
        arms = list(dict.fromkeys(name for file in matching for name in file.arms))
        raise LabError(
            f"no network of {match['place']} has the arm {arm!r}{nearest(arm, arms)}; the arms are {', '.join(map(repr, arms))}"
        )
    member = (int(match["seed"]), arm) if match["seed"] else None
    chosen = next((file for file in holding if member in file.members), holding[0])
    seeds = [seed for seed, name in chosen.members if name == arm]
    seed = int(match["seed"] or seeds[0])
    if seed not in seeds:
        raise LabError(f"{'/'.join(chosen.place)} has no seed {seed}; its seeds are {', '.join(map(str, seeds))}")
    stored = _loaded(chosen.path, seed, arm)
    places = list(dict.fromkeys("/".join(file.place) for file in holding))
    more = f"; {len(places) - 1} more trainings have this arm, such as {places[1]}:{arm}" if len(places) > 1 else ""
    preset = presets.get(_key(chosen))
    sizes = f"at preset {preset}" if preset else "at sizes of no preset"
    return Named(stored, f"{spec} is {'/'.join(chosen.place)}:{arm}@{seed}, of {len(seeds)} seeds, {sizes}{more}")


def for_its_size(setting: Setting, model: StoredModel) -> Setting:
    """The setting with inputs or symbols as the network reads them, where it has such a size."""
    architecture, known = (
        model.transformer.architecture,
        {field.name for field in dataclasses.fields(cast(Any, setting))},
    )
    if architecture.vocabulary is not None:
        return dataclasses.replace(cast(Any, setting), states=architecture.vocabulary) if "states" in known else setting
    size = (architecture.input_size or architecture.width) - 1  # the label beside
    return dataclasses.replace(cast(Any, setting), dimension=size) if setting.kind == "regression" else setting


def kept(folder: Path) -> list[Kept]:
    """The files of networks below the folder of a sheet, the latest first; what is damaged is left out."""
    dated_files = []
    for path in folder.glob("**/*.networks/*.safetensors"):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                members = json.loads((file.metadata() or {})["lab"])["members"]
            # SHEET[/PART]/MEASUREMENT/KEY/SEEDS.networks/TRAINING.safetensors
            place = (folder.name, *path.relative_to(folder).parts[:-3], path.stem)
            dated_files.append((path.stat().st_mtime, Kept(path, place, tuple((int(a), str(b)) for a, b in members))))
        except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue
    return [file for _, file in sorted(dated_files, key=lambda pair: (-pair[0], pair[1].path))]


def _key(file: Kept) -> tuple[str, ...]:
    """Its measurement and the key of its sizes and code: PLACE/KEY/SEEDS.networks/TRAINING.safetensors."""
    return (*file.place[:-1], file.path.parents[1].name)


def _presets(sheet: str) -> dict[tuple[str, ...], str]:
    """The presets of a sheet's measurements, by place and key as the code is now."""
    presets = {}
    for task in find_parts(sheet):
        for name, config in task.presets.items():
            for job in Results(task, config, Session(quiet=True)).jobs(list(task.measurements.values())):
                presets[(*task.key.split("/"), job.measurement, job.key)] = name
    return presets


def _in_order(sheet: str, files: Sequence[Kept], presets: Mapping[tuple[str, ...], str]) -> list[Kept]:
    """In the order of the sheet's argument; of one measurement ``ci`` first, then the latest, of one training by name."""
    order = [(*task.key.split("/"), name) for task in find_parts(sheet) for name in task.measurements]
    rank = {place: at for at, place in enumerate(order)}
    latest: dict[tuple[str, ...], int] = {}
    for at, file in enumerate(files):
        latest.setdefault(_key(file), at)

    def key(file: Kept) -> tuple[int, bool, int, str]:
        official = presets.get(_key(file)) == "ci"
        return rank.get(file.place[:-1], len(order)), not official, latest[_key(file)], file.place[-1]

    return sorted(files, key=key)


def _within(segments: Sequence[str], place: Sequence[str]) -> bool:
    """Whether the segments occur in the place, in order, the sheet first."""
    rest = iter(place)
    return segments[0] == place[0] and all(segment in rest for segment in segments)


def _loaded(path: Path, seed: int, arm: str) -> StoredModel:
    masks = [mask for mask in MASKS if mask in re.findall(r"\w+", arm)]
    if len(masks) != 1:
        raise LabError(
            f"the arm {arm!r} does not say under which mask it is asked, causal or prefix; load it with "
            f"lab.models.checkpoint.load_model({str(path)!r}, seed={seed}, arm={arm!r}, mask=...), and give that as FILE.py:NAME"
        )
    stored = load_model(path, seed=seed, arm=arm, mask=masks[0])
    architecture = stored.transformer.architecture
    # Networks whose tokens are their stream are trained to end at minus the prediction in the label slot of a query.
    residual = architecture.input_size is architecture.vocabulary is architecture.output_size is None
    return dataclasses.replace(stored, sign=-1) if residual else stored
