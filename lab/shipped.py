"""The measurements that ship with the lab: one file a measurement, ``evidence/<key>/<measurement>.safetensors``.

A pack holds all seeds (or cases) of the ``ci`` preset, one after the other along the first axis, with the identity that
their calls share, a digest, and the provenance of each call. Figures, verdicts and notebooks are there at once after
a clone; what is asked for with other code, versions, sizes or seeds is measured as if there were no pack.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from lab.errors import LabError
from lab.files import PROJECT, write
from lab.labels import Measured, join
from lab.runs import CHANGED, DAMAGED, Job, Store, Stored, Unusable, content, digest, read

logger = logging.getLogger("lab")

FOLDER = PROJECT / "evidence"


@dataclass(frozen=True)
class Pack:
    """All calls of one measurement.

    Attributes:
        data: the numbers; the first axis runs over the members.
        identity: what the calls share of their identities.
        members: ``{"seeds": [0, 1, …]}`` or ``{"cases": {name: settings}}``.
        calls: provenance of each call, as in ``lab.runs.Stored``.
    """

    data: Measured
    identity: Mapping[str, Any]
    members: Mapping[str, Any]
    calls: tuple[Mapping[str, Any], ...]

    @property
    def seconds(self) -> float:
        """What it cost to measure, on one thread."""
        return sum(call["seconds"] for call in self.calls)

    def differs(self, job: Job) -> str:
        """Why ``job`` cannot be answered although it asks for the same configuration; empty if it can, seeds aside."""
        shipped_versions, job_versions = self.identity["versions"], job.common["versions"]
        for name in job_versions:
            if shipped_versions.get(name) != job_versions[name]:
                return (
                    f"it was measured with {name} {shipped_versions.get(name)}, and this is {name} {job_versions[name]}"
                )
        if self.identity["source"] != job.source:
            return "the code that it depends on has changed"
        if job.case:
            cases = self.members.get("cases", {})
            if job.case not in cases:
                return f"it has no case {job.case}"
            return "" if cases[job.case] == job.settings else f"its case {job.case} has other settings"
        return ""

    def holds(self, seeds: Sequence[int]) -> bool:
        """Whether it has all of these seeds."""
        return set(seeds) <= set(self.members.get("seeds", ()))

    def of(self, job: Job) -> Stored:
        """The part of it that ``job`` asks for, which it must hold and not differ from."""
        if job.case:
            calls = [call for call in self.calls if call["case"] == job.case]
            places = [list(self.members["cases"]).index(job.case)]
        else:
            calls = [call for call in self.calls if set(call["seeds"]) & set(job.seeds)]
            places = [self.members["seeds"].index(seed) for seed in job.seeds]
        return Stored(self.data.rows(places), tuple(calls))


def file_of(folder: Path, job: Job) -> Path:
    """Where the pack that holds ``job`` lies."""
    return folder / job.task / f"{job.measurement}.safetensors"


def unpack(path: Path) -> Pack:
    """The pack in ``path``.

    Raises:
        lab.runs.Unusable: it is damaged, or something in it was edited.
    """
    data, manifest = read(path)
    try:
        members: dict[str, Any] = {name: manifest[name] for name in ("seeds", "cases") if name in manifest}
        identity, calls = manifest["identity"], tuple(manifest["calls"])
        if manifest["digest"] != digest(data, [identity, _ordered(members)]):
            raise Unusable(CHANGED)
        return Pack(data, identity, members, calls)
    except (KeyError, TypeError) as error:
        raise Unusable(DAMAGED) from error


def find(folder: Path, job: Job) -> Stored | None:
    """The shipped result of ``job``; None if none was shipped, or none that can be used (which is said once)."""
    path = file_of(folder, job)
    if not path.is_file():
        return None
    stamp = path.stat().st_mtime_ns
    pack = _opened(path, stamp)
    if isinstance(pack, Unusable):
        _say(path, stamp, job.task, str(pack))
        return None
    if any(pack.identity[name] != job.common[name] for name in ("measurement", "config", "device")):
        return None  # another size was asked for: nothing is wrong
    if reason := pack.differs(job):
        _say(path, stamp, job.task, reason)
        return None
    return pack.of(job) if pack.holds(job.seeds) else None  # other seeds were asked for: nothing is wrong


def duration(folder: Path, job: Job) -> float | None:
    """Seconds that ``job`` took when it was measured for ``folder``, whatever has changed since; None if it was not."""
    pack = _opened(path, path.stat().st_mtime_ns) if (path := file_of(folder, job)).is_file() else None
    if not isinstance(pack, Pack) or pack.identity["config"] != job.common["config"]:
        return None
    members = [
        call for call in pack.calls if call.get("case", "") == job.case and call.get("seeds", []) == list(job.seeds)
    ]
    return float(members[0]["seconds"]) if members else None


def last_seconds(root: Path, job: Job) -> float | None:
    """Seconds that ``job`` took when it was last measured at its configuration, below ``root`` or for what ships."""
    timings: list[tuple[str, float]] = []
    for file in (root / job.task / job.measurement).glob(f"*/{job.path.name}"):
        try:
            _, manifest = read(file)
            if manifest["identity"]["config"] == job.common["config"]:
                timings.append((str(manifest["finished"]), float(manifest["seconds"])))
        except (Unusable, KeyError, TypeError, ValueError):
            continue
    return max(timings)[1] if timings else duration(FOLDER, job)


@lru_cache(maxsize=64)
def _opened(path: Path, _: int) -> Pack | Unusable:
    try:
        return unpack(path)
    except Unusable as error:
        return error


@cache
def _say(path: Path, _: int, task: str, reason: str) -> None:
    logger.warning(
        "%s is not used (%s), what is missing is measured; `lab reproduce %s` writes it anew", path, reason, task
    )


def pack(jobs: Sequence[Job], store: Store) -> bytes:
    """All calls of one measurement as the content of a file.

    Raises:
        LabError: one of them has not been measured.
    """
    results = []
    for job in jobs:
        stored = store.find(job)
        if stored is None:
            raise LabError(f"{job.label} is not measured yet, so it cannot be shipped; run `lab reproduce {job.task}`")
        results.append(stored)
    data = join(jobs[0].measurement, [result.data for result in results], [job.place for job in jobs])
    members: dict[str, Any] = (
        {"cases": {job.case: dict(job.settings) for job in jobs}}
        if jobs[0].case
        else {"seeds": [seed for job in jobs for seed in job.seeds]}
    )
    calls: list[Mapping[str, Any]] = []
    for result in results:
        calls += [call for call in result.calls if call not in calls]
    identity = jobs[0].common
    about = {"identity": identity, **members, "calls": calls, "digest": digest(data, [identity, _ordered(members)])}
    return content(data, about)


def _ordered(members: Mapping[str, Any]) -> list[Any]:
    """Members with the order of their places, which the digest covers too."""
    return [[name, list(values.items()) if isinstance(values, dict) else values] for name, values in members.items()]


def ship(jobs: Sequence[Job], store: Store, folder: Path) -> list[Path]:
    """Write the packs of all measurements of one task, and remove those of measurements that it no longer has."""
    by_file: dict[Path, list[Job]] = {}
    for job in jobs:
        by_file.setdefault(file_of(folder, job), []).append(job)
    for path, calls in by_file.items():
        write(path, pack(calls, store))
    for place in {path.parent for path in by_file}:
        for path in set(place.glob("*.safetensors")) - set(by_file):
            path.unlink()
    return list(by_file)
