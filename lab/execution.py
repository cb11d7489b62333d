"""Where measurements are taken: this process, processes on this machine, or a cluster.

Every place is a ``concurrent.futures.Executor``; the loop that feeds it is the same. Results are written as they
arrive, so an interruption or a lost worker costs only what was under way (and of that, only what came after the
last checkpoint). No scheduler of our own: Dask speaks to clusters.
"""

from __future__ import annotations

import ast
import asyncio
import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from lab import context, shipped
from lab.catalogue import load
from lab.configuration import config_from_dict
from lab.errors import LabError, described, located, nearest, place_in
from lab.files import NotWritten, results_folder
from lab.labels import Measured
from lab.progress import Progress, open_progress
from lab.runs import Job, Store, Stored, minor_versions, provenance

logger = logging.getLogger("lab")

BATCH_SYSTEMS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
    "oar": "OARCluster",
}
# A worker can die for reasons of its own (memory, a signal); a job that takes three down with it is at fault.
ATTEMPTS = 3
CONNECT_SECONDS = 10
# A cluster without workers is not said to have none before this, and then now and then.
PATIENCE_SECONDS = 5


@dataclass(frozen=True)
class Session:
    """How and where measurements are taken; nothing in it changes a result (but the device, which is in the key).

    Attributes:
        results: the results folder.
        evidence: folder of the measurements that ship with the lab, which are not taken again; None looks at none.
        device: compute device, ``cpu`` or ``cuda``.
        workers: processes on this machine; 1 measures in this process.
        cluster: ``local``, a scheduler's address, or a batch system (``slurm``, ``pbs`` …); empty for none.
        quiet: no progress lines.
        root: draw all seeds below this root (``lab.tasks.seeds_below``) instead of the one of the task.
        seeds: measure these instead of the numbers of seeds that configurations ask for.
        again: names of measurements, parts or tasks that are taken here although they ship, with shell wildcards; of
            what a name after a ``!`` fits, none.
    """

    results: Path = field(default_factory=results_folder)
    device: str = "cpu"
    workers: int = 1
    cluster: str = ""
    quiet: bool = False
    evidence: Path | None = shipped.FOLDER
    root: int | None = None
    seeds: tuple[int, ...] | None = None
    again: tuple[str, ...] = ()

    @property
    def store(self) -> Store:
        return Store(self.results, self._shipped)

    def _shipped(self, job: Job) -> Stored | None:
        return None if self.evidence is None or self.takes_again(job) else shipped.find(self.evidence, job)

    def takes_again(self, job: Job) -> bool:
        """Whether ``again`` names the measurement of ``job``, its part or its task."""
        spared = [pattern[1:] for pattern in self.again if pattern.startswith("!")]
        return is_named(job, self.again) and not is_named(job, spared)


def is_named(job: Job, patterns: Sequence[str]) -> bool:
    """Whether one of ``patterns`` is the name of the measurement of ``job``, of its part or of its task."""
    names = (job.measurement, job.task, job.task.rpartition("/")[2])
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


class Failed(Exception):
    """A measurement raised; the message says what and where, in words that every process can be sent."""


def execute(
    job: Job, scratch: Path | None, networks: Path | None, listener: Callable[[float], None] | None
) -> tuple[Measured, dict[str, Any]]:
    """Carry out ``job`` in this process; its numbers, and the provenance of this process.

    Raises:
        LabError: this process holds another version of the code, or of a library, than the one the result is for.
    """
    task = load(job.file)
    _check_same_code(job, task.measurements[job.measurement].fingerprint)
    config = config_from_dict(task.config_type, job.config)
    with MEASURING, context.job(context.JobContext(job.device, scratch, networks, listener)):
        try:
            return task.measurements[job.measurement].measure(config, job.seeds, job.case), provenance()
        except (KeyboardInterrupt, NotWritten):
            raise
        except LabError as error:
            raise LabError(located(error, job.file)) from error
        except SystemExit as error:
            raise Failed(
                f"{place_in(error, job.file)}SystemExit: it called sys.exit or os._exit ({error.code!r}), "
                "which ends no measurement"
            ) from error
        except BaseException as error:
            raise Failed(described(error, job.file)) from error


def _check_same_code(job: Job, source: str) -> None:
    """A number is kept under the code and the versions that it was asked for with; here they must be those that make it."""
    if source != job.source:
        raise LabError(
            f"the process that should measure it holds another version of {job.file.name}, or of what that imports, than "
            "the one it is asked for with; start it again (the command, or the workers of the cluster)"
        )
    for name, wanted in job.versions.items():
        if minor_versions()[name] != wanted:
            raise LabError(
                f"the process that should measure it has {name} {minor_versions()[name]}, and it is asked for with {wanted}; "
                "install the same versions for the workers of the cluster"
            )


@contextmanager
def _settings_of_measurements() -> Iterator[None]:
    """One thread and numbers of the usual size inside, as they change the last digits; the user's own choice after it.

    ``lab`` asks for one thread in the environment, which is too late for libraries that a notebook loaded before it.
    What a measurement prints goes to the error stream: it is no part of what the command prints, which a program may read.
    """
    threads, number = torch.get_num_threads(), torch.get_default_dtype()
    with threadpool_limits(limits=1), redirect_stdout(sys.stderr):
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(number)
            torch.set_num_threads(threads)


class _SharedByThreads:
    """A context of the whole process: the first thread that comes enters it, the last one that goes leaves it.

    A worker of a cluster may measure in several threads at once. Each restoring on its own what it found on entering
    would leave the process with the settings of measurements for good.
    """

    def __init__(self, settings: Callable[[], AbstractContextManager[None]]) -> None:
        self._settings, self._lock, self._inside = settings, threading.Lock(), 0
        self._entered: AbstractContextManager[None] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._entered = self._settings()
                self._entered.__enter__()
            self._inside += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0 and self._entered is not None:
                self._entered.__exit__(None, None, None)
                self._entered = None


MEASURING = _SharedByThreads(_settings_of_measurements)


class SerialExecutor(Executor):
    """Runs each call at once in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class _Workers(ProcessPoolExecutor):
    """Processes that do not hear Ctrl-C, not even while they begin: the one that hands out work answers it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if not hasattr(signal, "pthread_sigmask"):
            return super().submit(fn, *args, **kwargs)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # which a process begun now inherits
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def check_device(device: str) -> None:
    """Raise LabError unless tensors with numbers can be put on ``device``."""
    try:
        torch.ones(1, device=device).item()  # a device without memory ("meta") has no number to give
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        available = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise LabError(
            f"the device {device!r} is not available here; choose {'one of ' * (len(available) > 1)}{', '.join(available)} with --device"
        ) from error


def check_cluster(cluster: str) -> None:
    """Raise LabError unless ``cluster`` can name one; whether it answers is seen when it is needed."""
    host, colon, port = cluster.rpartition("://")[2].rpartition(":")
    if cluster in ("", "local", *BATCH_SYSTEMS) or (host and colon and port.isdigit() and 0 < int(port) < 65536):
        return
    raise LabError(
        f"--cluster {cluster!r} names no cluster{nearest(cluster, ['local', *BATCH_SYSTEMS])}; give 'local', the address of a "
        f"running scheduler (tcp://host:port), or one of {', '.join(BATCH_SYSTEMS)} configured for dask-jobqueue"
    )


def run(jobs: Sequence[Job], session: Session, finish: Callable[[Job, Measured], None]) -> None:
    """Carry out ``jobs``; each result is stored and handed to ``finish`` as it arrives.

    Raises:
        LabError: a job failed, or no place to run could be opened. Where a job raised LabError itself the
            configuration is at fault and no further job is begun; after any other error the others are finished.
        KeyboardInterrupt: with the sentence to print.
    """
    check_device(session.device)
    check_cluster(session.cluster)
    store, labels = session.store, _labels(jobs)
    done = 0
    failures: list[tuple[Job, BaseException]] = []
    waiting = [(job, 1) for job in reversed(jobs)]
    # Under way when a worker died: one at a time from then on, so that the one at fault can be named.
    suspects: list[tuple[Job, int]] = []
    serial = session.workers == 1 and not session.cluster
    try:
        with open_progress(_expected(jobs, labels, session), session.quiet, _slots(session)) as progress:
            while waiting or suspects:
                alone = not waiting
                waiting, suspects = (suspects, []) if alone else (waiting, suspects)
                processes = 1 if alone else min(len(waiting), _slots(session))
                with _open_executor(session, processes) as (executor, slots, look):
                    slots = 1 if alone else slots
                    under_way: dict[Future[Any], tuple[Job, int, float]] = {}
                    try:
                        while waiting or under_way:
                            while waiting and len(under_way) < slots:
                                job, attempt = waiting.pop()
                                progress.start(labels[job.path])
                                scratch = store.scratch(job)
                                listener = _listener(progress, labels[job.path], scratch, serial)
                                begun = time.monotonic()
                                future = executor.submit(execute, job, scratch, store.networks(job), listener)
                                under_way[future] = (job, attempt, begun)
                            ready, _ = wait(under_way, timeout=0.5, return_when=FIRST_COMPLETED)
                            look()
                            for job, _, _ in under_way.values():
                                progress.update(labels[job.path], _read_share(store.scratch(job)))
                            for future in ready:
                                job, attempt, begun = under_way[future]
                                try:
                                    data, measured_by = future.result()
                                except (BrokenProcessPool, CancelledError):
                                    raise
                                except Exception as error:
                                    del under_way[future]
                                    if type(error).__name__ == "KilledWorker":
                                        raise _lost_worker(job) from error
                                    failures.append((job, error))
                                    progress.fail(labels[job.path])
                                    if isinstance(error, LabError):
                                        # A configuration that cannot be: the other jobs share it.
                                        waiting.clear()
                                        suspects.clear()
                                else:
                                    del under_way[future]
                                    store.save(job, data, time.monotonic() - begun, measured_by)
                                    store.discard_scratch(job)
                                    progress.finish(labels[job.path])
                                    finish(job, data)
                                    done += 1
                    except (BrokenProcessPool, CancelledError):
                        if alone:
                            suspects, waiting = waiting, []
                        for job, attempt, _ in under_way.values():
                            if alone and attempt >= ATTEMPTS:
                                failures.append((job, _lost_worker(job)))
                                progress.fail(labels[job.path])
                            else:
                                suspects.insert(0, (job, attempt + 1))  # after those that have had fewer
                                progress.again(labels[job.path])
                        logger.warning("a worker process died; its measurements continue in a new one, each alone")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(interrupted_sentence(done, len(jobs), store.root)) from None
    if failures:
        _raise(failures, done, len(jobs), store.root)


def _expected(jobs: Sequence[Job], labels: Mapping[Path, str], session: Session) -> dict[str, float | None]:
    """By the label of every job, the seconds that it took when it was last measured; None where it never was, or nobody looks."""
    return {labels[job.path]: None if session.quiet else shipped.last_seconds(session.results, job) for job in jobs}


def _labels(jobs: Sequence[Job]) -> dict[Path, str]:
    """What to call each job, by the path of its result; jobs of one measurement at several sizes differ in their key alone."""
    several = {label for label, number in Counter(job.label for job in jobs).items() if number > 1}
    return {job.path: f"{job.label} ({job.key[:6]})" if job.label in several else job.label for job in jobs}


def interrupted_sentence(done: int, total: int, root: Path) -> str:
    """What to say after Ctrl-C."""
    return (
        f"interrupted with {done} of {total} measurements finished and kept in {root}; "
        "the same command continues from there"
    )


def _lost_worker(job: Job) -> LabError:
    return LabError(
        f"the worker measuring {job.label} died {ATTEMPTS} times, probably for want of memory unless "
        "something else is said above; choose a smaller size or fewer --workers, finished measurements are kept"
    )


def _raise(failures: list[tuple[Job, BaseException]], done: int, total: int, root: Path) -> None:
    job, error = failures[0]
    more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    if isinstance(error, LabError):
        raise LabError(f"{job.label}{more}: {error}") from error
    reason = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
    raise LabError(
        f"{job.label}{more} failed with {reason}; {done} of {total} measurements are finished and kept in {root}"
    ) from error


def _slots(session: Session) -> int:
    return max(session.workers, 1)


@contextmanager
def _open_executor(session: Session, processes: int) -> Iterator[tuple[Executor, int, Callable[[], None]]]:
    """An executor, how many calls to keep in it, and what to call now and then so that it can say that nobody works."""
    if session.cluster:
        with _open_cluster(session) as cluster:
            yield cluster
    elif session.workers == 1:
        yield SerialExecutor(), 1, _all_is_well
    else:
        main = getattr(sys.modules["__main__"], "__file__", None)
        if main is not None and not Path(main).is_file():
            raise LabError(
                f"{session.workers} worker processes would each begin with this script, which is no file ({main}) that they "
                "could read; save it as one, or measure with 1 worker"
            )
        if main is not None and _measures_at_top_level(Path(main)):
            raise LabError(
                f"{main} measures at its top level, which each of {session.workers} worker processes would run again, for it "
                "begins with this script; put what it does, after what it defines, below `if __name__ == '__main__':`, or "
                "measure with 1 worker"
            )
        context = multiprocessing.get_context("spawn")
        with _Workers(processes, mp_context=context, initializer=_begin_worker) as pool:
            try:
                yield pool, processes, _all_is_well
            except BaseException:
                # Without this, leaving the block would wait for the trainings under way.
                for process in list((pool._processes or {}).values()):
                    process.terminate()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _measures_at_top_level(script: Path) -> bool:
    """Whether a statement of this script that is under no `if` is what measures now."""
    for frame, line in traceback.walk_stack(None):
        if frame.f_code.co_name == "<module>" and frame.f_globals is vars(sys.modules["__main__"]):
            statements = ast.parse(script.read_text(encoding="utf-8")).body
            return any(
                statement.lineno <= line <= (statement.end_lineno or 0)
                for statement in statements
                if not isinstance(statement, ast.If)
            )
    return False


def _begin_worker() -> None:
    """Ctrl-C reaches every process of a terminal: the one that hands out work answers it. A worker ends with that one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)  # nothing to tidy up: a result is written whole by the process that is gone


def _all_is_well() -> None:
    pass


class _Watch:
    """Says now and then that a cluster has no workers, and how to go on.

    Args:
        workers: how many there are at the moment.
        cluster: what to call it.
        clock: seconds.
    """

    def __init__(self, workers: Callable[[], int], cluster: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.workers, self.cluster, self.clock = workers, cluster, clock
        self.say_at, self.pause = clock(), float(PATIENCE_SECONDS)
        self.look_at = clock() + PATIENCE_SECONDS

    def __call__(self) -> None:
        now = self.clock()
        if now < self.look_at:
            return
        self.look_at = now + PATIENCE_SECONDS
        if self.workers():
            self.say_at, self.pause = now, float(PATIENCE_SECONDS)
        elif now >= self.say_at:
            logger.warning(
                "the cluster %s has no workers, so nothing is measured; start one (`dask worker ADDRESS`), or stop with Ctrl-C "
                "and go on without --cluster: what is finished is kept",
                self.cluster,
            )
            self.pause = min(2 * self.pause, 60.0)
            self.say_at = now + self.pause


async def _scheduler_answers(address: str) -> None:
    """Return if a Dask scheduler listens there; what else may listen has as long to answer as it takes to be connected."""
    from distributed.comm import connect

    async def ask() -> None:
        comm = await connect(address, timeout=CONNECT_SECONDS)
        try:
            await comm.write({"op": "identity", "reply": True})
            reply = await comm.read()
            if not isinstance(reply, dict) or reply.get("type") != "Scheduler":
                raise ValueError("what listens there is no Dask scheduler")
        finally:
            comm.abort()

    await asyncio.wait_for(ask(), CONNECT_SECONDS)


@contextmanager
def _open_cluster(session: Session) -> Iterator[tuple[Executor, int, Callable[[], None]]]:
    try:
        import dask
        import distributed
    except ImportError as error:
        raise LabError(
            "--cluster needs Dask, which is not installed; run pip install -e '.[cluster]' in the clone"
        ) from error
    dask.config.set({"distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s"})
    workers = max(session.workers, 1)
    owned: Any = None
    try:
        if session.cluster == "local":
            owned = distributed.LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
            )
            address: Any = owned
        elif session.cluster in BATCH_SYSTEMS:
            import dask_jobqueue

            owned = getattr(dask_jobqueue, BATCH_SYSTEMS[session.cluster])()
            owned.scale(jobs=workers)
            address = owned
        else:
            address = session.cluster
            if not address.startswith("tls://"):  # whose certificates the client alone knows
                asyncio.run(_scheduler_answers(address))
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except Exception as error:  # what listens there may answer anything
        if owned is not None:
            owned.close()
        raise _no_cluster(session.cluster, error) from error
    try:
        slots = max(2 * _workers_of(client), 2 * workers)
        # Dask sends a lost worker's calls to another one by itself.
        yield client.get_executor(pure=False, retries=0), slots, _Watch(partial(_workers_of, client), session.cluster)
    finally:
        client.close()
        if owned is not None:
            owned.close()


def _no_cluster(cluster: str, error: Exception) -> LabError:
    """Why no measurement can be sent to a cluster, and what to do."""
    if cluster in BATCH_SYSTEMS:
        return LabError(
            f"the batch system {cluster} cannot be asked for workers ({_first_line(error)}); set it up below "
            f"`jobqueue: {cluster}:` in ~/.config/dask/jobqueue.yaml (cores and memory at least), or leave --cluster out"
        )
    late = isinstance(error, TimeoutError | OSError)
    problem = f"does not answer within {CONNECT_SECONDS} s" if late else "cannot be used"
    return LabError(
        f"the cluster {cluster!r} {problem} ({_first_line(error)}); give 'local', the address of a running scheduler "
        f"(tcp://host:port), or one of {', '.join(BATCH_SYSTEMS)} configured for dask-jobqueue"
    )


def _workers_of(client: Any) -> int:
    """How many workers the scheduler has; 1 where it does not say, as its end is seen otherwise."""
    try:
        return len(client.scheduler_info(n_workers=-1)["workers"])
    except Exception:
        return 1


def _first_line(error: BaseException) -> str:
    """The first line of a message; its kind where there is none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class _ShareFile:
    """Tells the share of a job that is done through a small file, whatever process the job runs in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = 0.0

    def __call__(self, done: float) -> None:
        now = time.monotonic()
        if now - self.last > 0.5:
            self.last = now
            temporary = self.path / f".share.{os.getpid()}"
            with suppress(OSError):  # a note for a bar on a screen, without which a measurement goes on
                self.path.mkdir(parents=True, exist_ok=True)
                temporary.write_text(f"{done:.6f}", encoding="utf-8")
                os.replace(temporary, self.path / "share")


def _listener(progress: Progress, label: str, scratch: Path, serial: bool) -> Callable[[float], None]:
    if serial:
        return lambda done: progress.update(label, done)
    return _ShareFile(scratch)


def _read_share(scratch: Path) -> float | None:
    try:
        return float((scratch / "share").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
