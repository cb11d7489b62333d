"""What lies in a results folder, read from the headers of its files; and removing what this code can no longer use."""

from __future__ import annotations

import json
import re
import shutil
import time
from calendar import timegm
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import safetensors
from rich.markup import escape

from lab.catalogue import discover, load
from lab.configuration import plain
from lab.errors import LabError, nearest
from lab.files import FOLDERS, PROJECT
from lab.report import Rows
from lab.results import Results
from lab.runs import Store, minor_versions
from lab.tasks import Measurement, Task

KEY = re.compile(r"[0-9a-f]{16}")
DAY = 24 * 3600.0
CURRENT, ELSEWHERE = "current", "of a file of one's own"
OLD_CODE, OLD_VERSIONS, GONE = "of older code", "of other versions", "of a task that is gone"
DAMAGED, UNFINISHED = "damaged", "unfinished"
STALE = (OLD_CODE, OLD_VERSIONS, GONE, DAMAGED)


@dataclass(frozen=True)
class Held:
    """The results of one measurement at one configuration.

    Attributes:
        folder: where they lie.
        task, measurement: whose they are.
        configuration: a preset, and what differs from it.
        members: their seeds in ascending order, or names of cases.
        seconds: what they cost to measure.
        finished: seconds since 1970 at which the last of them was; of the last write where nothing is finished.
        size: bytes, networks and unfinished work included.
        state: whether this code would use them, and if not, why.
        unfinished: folders of work that is not finished.
    """

    folder: Path
    task: str
    measurement: str
    configuration: str
    members: tuple[int | str, ...]
    seconds: float
    finished: float
    size: int
    state: str
    unfinished: tuple[Path, ...]

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            **{
                name: getattr(self, name)
                for name in ("task", "measurement", "configuration", "seconds", "size", "state")
            },
            "members": list(self.members),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.finished)),
            "unfinished": len(self.unfinished),
            "folder": str(self.folder),
        }


def survey(root: Path, names: Sequence[str] = ()) -> list[Held]:
    """What lies in the results folder ``root``, of the tasks called ``names`` (paths of files too) or of all.

    Raises:
        LabError: there is no such folder, or a name stands for nothing in it.
    """
    if not root.is_dir():
        raise LabError(
            f"there is no results folder {root}; `lab run TASK` makes it, or name another one with --results"
        )
    file_tasks = [load(Path(name)) for name in names if name.endswith(".py")]
    tasks = {task.key: task for task in [*discover(), *file_tasks]}
    wanted = [next((task.key for task in file_tasks if str(task.file) == str(Path(n).resolve())), n) for n in names]
    configurations = [_held(root, folder, tasks) for folder in _key_folders(root)]
    for name in wanted:
        if not any(_is_of(held, name) for held in configurations):
            hint = nearest(name, {held.task for held in configurations})
            raise LabError(f"nothing of {name!r} is stored in {root}{hint}; `lab results` names what is")
    chosen = [held for held in configurations if not wanted or any(_is_of(held, name) for name in wanted)]
    return sorted(chosen, key=lambda held: (held.task, held.measurement, -held.finished))


def _is_of(held: Held, name: str) -> bool:
    return held.task == name or held.task.startswith(f"{name}/")


def _key_folders(root: Path) -> Iterator[Path]:
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if KEY.fullmatch(folder.name):
            yield folder
        elif folder.suffix not in (".unfinished", ".networks"):
            yield from _key_folders(folder)


def _held(root: Path, folder: Path, tasks: Mapping[str, Task]) -> Held:
    name, measurement = "/".join(folder.parent.parent.relative_to(root).parts), folder.parent.name
    files = sorted(folder.glob("*.safetensors"))
    manifests = [manifest for file in files if (manifest := _manifest(file)) is not None]
    identities = [manifest["identity"] for manifest in manifests]
    task = tasks.get(name)
    unfinished = tuple(sorted(folder.glob("*.unfinished")))
    if identities:
        state = _state(task, measurement, identities[0]) if len(identities) == len(files) else DAMAGED
        if task is None and not (PROJECT / FOLDERS[0] / manifests[0].get("file", "")).exists() and "/" not in name:
            state = ELSEWHERE  # a file of one's own: whether it has changed can be told only where it is named
        configuration = _configuration(task, identities[0]["config"])
        ended = max(timegm(time.strptime(manifest["finished"], "%Y-%m-%dT%H:%M:%SZ")) for manifest in manifests)
    else:
        known = _known_keys(task, measurement)
        state = DAMAGED if files else UNFINISHED if folder.name in known else f"{UNFINISHED}, of another key"
        configuration, ended = known.get(folder.name, "unknown"), 0
    # Calls of several seeds may share some, as where other numbers of seeds were asked for.
    members = {call.get("case") or seed for call in map(_members, manifests) for seed in call.get("seeds", [""])}
    sizes = [(path.stat().st_size, path.stat().st_mtime) for path in folder.rglob("*") if path.is_file()]
    return Held(
        folder,
        name,
        measurement,
        configuration,
        tuple(sorted(members, key=lambda member: (isinstance(member, str), member))),
        sum(manifest["seconds"] for manifest in manifests),
        ended or max((written for _, written in sizes), default=folder.stat().st_mtime),
        sum(size for size, _ in sizes),
        state,
        unfinished,
    )


def _members(manifest: Mapping[str, Any]) -> dict[str, Any]:
    identity = manifest["identity"]
    return {"seeds": identity["seeds"]} if "seeds" in identity else {"case": manifest["case"]}


def _manifest(file: Path) -> dict[str, Any] | None:
    """The header of a result file, without its numbers; None where it is damaged."""
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            manifest = json.loads((opened.metadata() or {})["manifest"])
        manifest["identity"]["config"], manifest["finished"], manifest["seconds"]
        return {**manifest, "case": file.stem.removeprefix("case-")}
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None


def _state(task: Task | None, measurement: str, identity: Mapping[str, Any]) -> str:
    if task is None or measurement not in task.measurements:
        return GONE
    if identity["source"] != task.measurements[measurement].fingerprint:
        return OLD_CODE
    return CURRENT if identity["versions"] == minor_versions() else OLD_VERSIONS


def _configuration(task: Task | None, config: Mapping[str, Any]) -> str:
    """The preset that differs least, and the fields in which it does."""
    if task is None:
        return ", ".join(f"{name}={value}" for name, value in config.items())
    presets = {name: plain(preset) for name, preset in task.presets.items()}
    changes = {
        name: [f"{field}={value}" for field, value in config.items() if preset.get(field, _NOTHING) != value]
        for name, preset in presets.items()
    }
    best = min(changes, key=lambda name: len(changes[name]))
    return f"{best} but {', '.join(changes[best])}" if changes[best] else best


_NOTHING = object()


def _known_keys(task: Task | None, measurement: str) -> dict[str, str]:
    """The keys that the presets have in this code."""
    if task is None or measurement not in task.measurements:
        return {}
    definition: Measurement = task.measurements[measurement]
    from lab.execution import Session

    jobs = {name: Results(task, config, Session()).jobs([definition]) for name, config in task.presets.items()}
    return {job.key: name for name, calls in jobs.items() for job in calls}


def prune(root: Path, configurations: Sequence[Held]) -> list[str]:
    """Remove stale results, and unfinished work of keys that no preset has and nobody touched for a day.

    A task that another process is measuring is left alone. Results of files of one's own stay, unless their file is among
    the names that were surveyed.

    Returns:
        What was removed and what was left, in sentences.
    """
    removed, freed, sentences = 0, 0, []
    for name in sorted({held.task for held in configurations}):
        stale = [held for held in configurations if held.task == name and _goes(held)]
        if not stale:
            continue
        lock = Store(root).lock(name)
        try:
            lock.acquire()
        except filelock.Timeout:
            sentences.append(f"{name} is being measured by another process and is left as it is")
            continue
        try:
            for held in stale:
                try:
                    shutil.rmtree(held.folder)
                except OSError as error:
                    reason = (error.strerror or str(error)).lower()
                    raise LabError(f"{held.folder} cannot be removed: {reason}; ask its owner for the right") from error
                removed, freed = removed + 1, freed + held.size
                if not any(held.folder.parent.iterdir()):
                    held.folder.parent.rmdir()
        finally:
            lock.release()
    return [*sentences, f"removed {removed} of {len(configurations)} configurations and freed {bytes_text(freed)}"]


def _goes(held: Held) -> bool:
    abandoned = held.state == f"{UNFINISHED}, of another key" and time.time() - held.finished > DAY
    return held.state in STALE or abandoned


def table(configurations: Sequence[Held]) -> Rows:
    """A row for each measurement and configuration."""
    columns = ("task", "measurement", "configuration", "seeds or cases", "age", "size", "state")
    rows = []
    for held in configurations:
        state = held.state + (f", {len(held.unfinished)} unfinished" if held.unfinished and held.members else "")
        named = (held.task, held.measurement, held.configuration, _members_text(held.members))
        age = age_text(time.time() - held.finished)
        rows.append([*map(escape, named), age, bytes_text(held.size), state])
    return Rows(columns, rows, ("configuration", "seeds or cases", "state"))


def summary(root: Path, configurations: Sequence[Held]) -> str:
    """How much there is, and what `--prune` would free."""
    gone = [held for held in configurations if _goes(held)]
    total = sum(held.size for held in configurations)
    return (
        f"{len(configurations)} configurations in {root}, {bytes_text(total)}; --prune would remove {len(gone)} of them and free "
        f"{bytes_text(sum(held.size for held in gone))}"
    )


def _members_text(members: Sequence[int | str]) -> str:
    seeds = [member for member in members if isinstance(member, int)]
    if not seeds or len(seeds) < len(members):
        return ", ".join(map(str, members)) or "none"
    if len(seeds) > 1 and seeds == [seeds[0] + place for place in range(len(seeds))]:
        return span(seeds[0], seeds[-1])
    return f"{len(seeds)} from {seeds[0]} to {seeds[-1]}" if len(seeds) > 4 else ", ".join(map(str, seeds))


def span(first: int, last: int) -> str:
    """All whole numbers between two.

    >>> span(0, 5), span(-4, -1)
    ('0-5', '-4 to -1')
    """
    return f"{first}-{last}" if first >= 0 else f"{first} to {last}"


def bytes_text(size: float) -> str:
    """A size in the largest unit that it has one of.

    >>> bytes_text(1536), bytes_text(12)
    ('1.5 kB', '12 B')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def age_text(seconds: float) -> str:
    """An age in the largest unit that it has two of.

    >>> age_text(7300), age_text(3 * 86400)
    ('2 hours', '3 days')
    """
    for unit, length in (("days", DAY), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} seconds"
