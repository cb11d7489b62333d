"""The measurements of a task, taken when first asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import filelock
import numpy as np

from lab.configuration import plain
from lab.errors import LabError
from lab.execution import Session, run
from lab.runs import Job
from lab.tasks import Measurement, Task


class Results:
    """The measurements of one task at one configuration, taken when first asked for.

    ``results[measurement]`` maps names to arrays whose first axis is the seed.
    """

    def __init__(self, task: Task, config: Any, session: Session, seeds: Sequence[int] | None = None) -> None:
        self.task = task
        self.config = config
        self.session = session
        self._seeds = None if seeds is None else tuple(seeds)
        self._loaded: dict[str, dict[str, np.ndarray]] = {}

    def __getitem__(self, measurement: Measurement) -> dict[str, np.ndarray]:
        if measurement.name not in self._loaded:
            jobs = self.jobs([measurement])
            if not jobs:
                raise LabError(
                    f"{self.task.key} measures {measurement.name} at 0 seeds, which shows nothing; "
                    "ask for at least 1 in its configuration or with --seeds"
                )
            parts = ensure(jobs, self.session)
            self._loaded[measurement.name] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return self._loaded[measurement.name]

    def vary(self, **changes: Any) -> Results:
        """The same task with some fields of its configuration changed (for controls)."""
        return Results(self.task, dataclasses.replace(self.config, **changes), self.session, self._seeds)

    def seeds(self, measurement: Measurement) -> tuple[int, ...]:
        """The seeds that stand along the first axis of a measurement's arrays."""
        return self._seeds if self._seeds is not None else tuple(range(measurement.seeds(self.config)))

    def jobs(self, measurements: Sequence[Measurement]) -> list[Job]:
        """The calls that these measurements take."""
        config = plain(self.config)
        return [
            Job(
                self.task.file,
                self.task.key,
                measurement.name,
                config,
                chunk,
                self.session.device,
                measurement.fingerprint,
            )
            for measurement in measurements
            for chunk in measurement.chunks(self.seeds(measurement))
        ]


def ensure(jobs: Sequence[Job], session: Session) -> list[dict[str, np.ndarray]]:
    """The results of ``jobs``: stored ones where they can be trusted, the others measured now."""
    store = session.store
    found = {job.path: store.load(job) for job in jobs}
    missing = [job for job in jobs if found[job.path] is None]
    if missing:
        locks = [store.lock(name) for name in sorted({job.task for job in missing})]
        try:
            for lock in locks:
                lock.acquire()
        except filelock.Timeout:
            for lock in locks:
                lock.release()
            raise LabError(
                f"another process is measuring {missing[0].task} into {store.root}; wait for it, "
                "or name another folder with --results"
            ) from None
        try:
            run(missing, session, lambda job, data: found.__setitem__(job.path, data))
        finally:
            for lock in locks:
                lock.release()
    return [_present(found[job.path]) for job in jobs]


def _present(data: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    assert data is not None
    return data
