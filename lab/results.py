"""The measurements of a task, taken when first asked for."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from lab.configuration import plain, smaller_sizes
from lab.errors import LabError, described, kind_of, nearest, place_of
from lab.execution import Session, run
from lab.labels import Measured, join
from lab.runs import Job
from lab.tasks import Measurement, Task, seeds_below


class Arrays(dict[str, np.ndarray]):
    """Arrays by name; a name that is not there is answered with the nearest one."""

    def __init__(self, measurement: str, arrays: Mapping[str, np.ndarray]) -> None:
        super().__init__(arrays)
        self.measurement = measurement

    def __missing__(self, name: object) -> np.ndarray:
        raise LabError(
            f"{self.measurement} returned no array {name!r}{nearest(str(name), self)}; it returned {', '.join(self)}"
        )


class Results:
    """The measurements of one task at one configuration, taken when first asked for.

    ``results[measurement]`` is an ``xarray.Dataset`` for a measurement that returns labelled arrays: every variable
    has the axis "seed" (or "case") first. For one that returns plain arrays it is a dict of arrays whose first axis
    is the seed.

    Args:
        task: whose measurements.
        config: one of its configurations.
        session: how and where they are taken.
        seeds: the seeds to measure instead of the configuration's number of them; cases are not touched. They belong to the
            session, so that a claim that asks for another part's measurements in it has them at the same seeds.

    Raises:
        LabError: a seed is named twice.
    """

    def __init__(self, task: Task, config: Any, session: Session, seeds: Sequence[int] | None = None) -> None:
        self.task = task
        self.config = config
        self.session = session if seeds is None else dataclasses.replace(session, seeds=tuple(seeds))
        self._loaded: dict[str, Any] = {}
        named = self.session.seeds or ()
        repeated = next((seed for seed in named if named.count(seed) > 1), None)
        if repeated is not None:
            raise LabError(
                f"the seed {repeated} is named more than once, and a repeated seed is no independent sample; "
                "name each seed once"
            )

    def __getitem__(self, measurement: Measurement) -> Any:
        if not isinstance(measurement, Measurement):
            called = getattr(measurement, "__name__", measurement)
            raise LabError(
                f"results are asked for {called!r}, {kind_of(measurement)}{nearest(str(called), self.task.measurements)}; "
                "ask with the measurement itself, as in results[losses]"
            )
        if measurement.name not in self._loaded:
            jobs = self.jobs([measurement])
            parts = ensure(jobs, self.session)
            try:
                data = join(measurement.name, parts, [job.place for job in jobs])
            except LabError as error:
                raise LabError(f"{place_of(measurement.function)}{error}") from error
            first = measurement.first_axis
            labels = tuple(measurement.cases) if first == "case" else self.seeds(measurement)
            self._loaded[measurement.name] = (
                Arrays(measurement.name, data) if data.axes is None else data.dataset(first, labels)
            )
        return self._loaded[measurement.name]

    def vary(self, **changes: Any) -> Results:
        """The same task with some fields of its configuration changed (for controls)."""
        known = [field.name for field in dataclasses.fields(self.config)]
        for name in set(changes) - set(known):
            raise LabError(
                f"{type(self.config).__name__} has no field {name!r}{nearest(name, known)}; its fields are {', '.join(known)}"
            )
        return Results(self.task, dataclasses.replace(self.config, **changes), self.session)

    def seeds(self, measurement: Measurement) -> tuple[int, ...]:
        """The seeds that stand along the first axis of a measurement's arrays; none where there are cases.

        Raises:
            LabError: the configuration asks for less than one seed.
        """
        if measurement.cases:
            return ()
        if self.session.seeds is not None:
            return self.session.seeds
        declared_root = self.task.root if measurement.root is None else measurement.root
        root = declared_root if self.session.root is None else self.session.root
        number = self._number_of_seeds(measurement)
        if number < 1:
            small = smaller_sizes(self.config, list(self.task.presets.values()))
            why = ", ".join(f"{name} = {size}" for name, (size, _) in small.items() if size < 1)
            place, reason = place_of(measurement.function), f" ({why})" if why else ""
            raise LabError(
                f"{place}{self.task.key} measures {measurement.name} at {number} seeds{reason}, which shows "
                "nothing; ask for at least 1 in its configuration or with --seeds"
            )
        try:
            return seeds_below(root, number)
        except LabError as error:
            place = place_of(measurement.function)
            raise LabError(f"{place}the measurement {measurement.name} of {self.task.key}: {error}") from error

    def _number_of_seeds(self, measurement: Measurement) -> int:
        try:
            return operator.index(measurement.seeds(self.config))
        except Exception as error:
            raise LabError(
                f"{measurement.file.name}: the seeds of {measurement.name} cannot be counted: {described(error, measurement.file)}; "
                "give a function of configuration to a whole number"
            ) from error

    def jobs(self, measurements: Sequence[Measurement]) -> list[Job]:
        """The calls that these measurements take."""
        config = plain(self.config)
        calls: list[Job] = []
        for measurement in measurements:
            about = (self.task.file, self.task.key, measurement.name, config)
            device_and_code = (self.session.device, measurement.fingerprint)
            calls += [Job(*about, chunk, *device_and_code) for chunk in measurement.chunks(self.seeds(measurement))]
            calls += [
                Job(*about, (), *device_and_code, case, json.loads(json.dumps(settings)))
                for case, settings in measurement.cases.items()
            ]
        return calls


def ensure(jobs: Sequence[Job], session: Session, arrived: Callable[[Job], None] = lambda job: None) -> list[Measured]:
    """The results of ``jobs``: stored ones where they can be trusted, the others measured now.

    ``arrived`` is told of each as soon as it is there.
    """
    store = session.store
    measured = {job.path: store.load(job) for job in jobs}
    missing = []
    for job in jobs:
        if measured[job.path] is None:
            missing.append(job)
        else:
            arrived(job)

    def finish(job: Job, data: Measured) -> None:
        measured[job.path] = data
        arrived(job)

    if missing:
        _check_not_begun_by_itself()
        if not session.quiet and len(missing) < len(jobs):
            known = len(jobs) - len(missing)
            print(f"{known} of {len(jobs)} calls are known already, {len(missing)} are made now", file=sys.stderr)
        locks = [store.lock(name) for name in sorted({job.task for job in missing})]
        try:
            for lock in locks:
                lock.acquire()
        except (filelock.Timeout, OSError) as error:
            for acquired in locks:
                acquired.release()
            if isinstance(error, filelock.Timeout):
                raise LabError(
                    f"another process is measuring {_measured_by(lock)} into {store.root}; wait for it, "
                    "or name another folder with --results"
                ) from None
            raise LabError(
                f"the folder {store.root} cannot be locked by this process ({error.strerror or error}), as on some network disks "
                "or where another user measured; name another folder with --results"
            ) from error
        try:
            run(missing, session, finish)
        finally:
            for lock in locks:
                lock.release()
    return [_present(measured[job.path]) for job in jobs]


def _check_not_begun_by_itself() -> None:
    """Refuse to measure for a script that a worker process runs again, as it does to know what the script defines."""
    if not getattr(
        multiprocessing.current_process(), "_inheriting", False
    ):  # by which Python itself knows that it reads
        return
    main = getattr(sys.modules.get("__mp_main__") or sys.modules["__main__"], "__file__", None) or "this script"
    raise LabError(
        f"{main} measures while a worker process reads it, which would measure everything again in every worker; put what "
        "it does, after what it defines, below `if __name__ == '__main__':`, or measure with 1 worker"
    )


def _measured_by(lock: filelock.BaseFileLock) -> str:
    """The task whose lock it is."""
    return Path(lock.lock_file).parent.name


def _present(data: Measured | None) -> Measured:
    assert data is not None
    return data
