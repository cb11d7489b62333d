from __future__ import annotations

import contextlib
import dataclasses
import gc
import inspect
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from lab import LabError
from lab.catalogue import load
from lab.cli import main
from lab.execution import Session, _no_cluster, _open_cluster, _ShareFile, _Watch, execute
from lab.files import PROJECT
from lab.results import Results, ensure
from lab.runs import versions

TINY = Path(__file__).parent / "examples" / "tiny.py"
task = load(TINY)


def measured(session: Session, **changes) -> dict[str, np.ndarray]:
    results = Results(task, task.config("ci"), session).vary(**changes)
    ensure(results.jobs(list(task.measurements.values())), session)
    return {
        f"{measurement.name}/{name}": value
        for measurement in task.measurements.values()
        for name, value in results[measurement].items()
    }


@pytest.fixture(scope="module")
def serial(tmp_path_factory) -> dict[str, np.ndarray]:
    return measured(Session(tmp_path_factory.mktemp("serial"), quiet=True))


@pytest.mark.parametrize("where", [{"workers": 2}, {"workers": 2, "cluster": "local"}], ids=["processes", "dask"])
@pytest.mark.filterwarnings("default")
def test_neither_the_place_nor_a_killed_worker_changes_a_bit(tmp_path: Path, serial: dict, caplog, where: dict) -> None:
    flag = tmp_path / "killed"
    with caplog.at_level(logging.WARNING, "lab"):
        arrays = measured(Session(tmp_path / "results", quiet=True, **where), flag=str(flag))
    assert flag.exists()
    assert arrays.keys() == serial.keys()
    for name in serial:
        assert np.array_equal(arrays[name], serial[name]), name


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://127.0.0.1:9"])
def test_a_cluster_that_does_not_answer_is_one_sentence(tmp_path: Path, address: str, monkeypatch) -> None:
    monkeypatch.setattr("lab.execution.CONNECT_SECONDS", 1)
    with pytest.raises(LabError, match="does not answer within 1 s|cannot be used"):
        measured(Session(tmp_path, quiet=True, cluster=address))


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 64], ids=["silence", "http", "noise"]
)
def test_what_is_no_scheduler_has_as_long_as_it_takes_to_connect(answer: bytes, monkeypatch, capfd) -> None:
    monkeypatch.setattr("lab.execution.CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            with contextlib.suppress(OSError), server.accept()[0] as caller:
                caller.sendall(answer)
                caller.recv(10**6)
                time.sleep(20)

        threading.Thread(target=listen, daemon=True).start()
        session = Session(cluster=f"tcp://127.0.0.1:{server.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(LabError, match="does not answer within 1 s|cannot be used"), _open_cluster(session):
            pass
        assert time.monotonic() - begun < 10
    gc.collect()  # a client that was half made would end in a traceback of its destructor
    assert "Traceback" not in capfd.readouterr().err


def test_a_batch_system_that_is_not_set_up_is_no_time_out() -> None:
    sentence = str(_no_cluster("slurm", ValueError("You must specify how much cores to use per job")))
    assert "within" not in sentence
    assert "set it up below `jobqueue: slurm:` in ~/.config/dask/jobqueue.yaml" in sentence
    assert "'tcp://x:1' does not answer within" in str(_no_cluster("tcp://x:1", TimeoutError()))
    assert "'tcp://x:1' cannot be used (no scheduler)" in str(_no_cluster("tcp://x:1", ValueError("no scheduler")))


def test_a_note_of_progress_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    _ShareFile(tmp_path / "file" / "scratch")(0.5)


UNGUARDED = """
from pathlib import Path
import multiprocessing
from lab.catalogue import load
from lab.execution import Session
from lab.results import Results
task = load(Path(__file__).with_name("slow.py"))
multiprocessing.current_process()._inheriting = True  # as while a worker process reads the script that began it
Results(task, task.config("smoke"), Session(Path(__file__).with_name("results"), quiet=True))[task.measurements["wait"]]
"""


def test_a_script_that_a_worker_reads_does_not_measure_again(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    (tmp_path / "script.py").write_text(UNGUARDED, encoding="utf-8")
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True)
    assert "script.py measures while a worker process reads it" in done.stderr
    assert "below `if __name__ == '__main__':`" in done.stderr


@pytest.mark.parametrize(
    ("call", "refused"),
    [
        ("measure()", True),
        ("if __name__ == '__main__':\n    measure()", False),
        ("for _ in range(1):\n    measure()", True),
    ],
)
def test_a_script_that_workers_would_run_again_is_refused_before_they_begin(
    tmp_path: Path, call: str, refused: bool
) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    (tmp_path / "script.py").write_text(
        f"""
from pathlib import Path
from lab.catalogue import load
from lab.execution import Session
from lab.results import Results

def measure():
    task = load(Path(__file__).with_name("slow.py"))
    session = Session(Path(__file__).with_name("results"), quiet=True, workers=2)
    Results(task, task.config("smoke"), session)[task.measurements["wait"]]

{call}
""",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=100)
    assert (done.returncode != 0) == refused, done.stderr
    assert ("script.py measures at its top level" in done.stderr) == refused
    assert "died" not in done.stderr


def test_a_cluster_without_workers_is_said_now_and_then(caplog) -> None:
    now, workers = [0.0], [0]
    watch = _Watch(lambda: workers[0], "tcp://there:1", lambda: now[0])

    def said_until(end: float) -> int:
        caplog.clear()
        while now[0] < end:
            now[0] += 0.5
            watch()
        return len(caplog.messages)

    with caplog.at_level(logging.WARNING, "lab"):
        assert said_until(4.5) == 0
        assert said_until(60.5) == 3  # after 5, 15 and 35 seconds
        assert "tcp://there:1 has no workers, so nothing is measured; start one" in caplog.text
        workers[0] = 1
        assert said_until(100) == 0
        workers[0] = 0
        assert said_until(106) == 1  # the last one is gone


def test_workers_of_a_script_that_is_no_file_are_refused_by_the_reason(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "<stdin>", raising=False)
    with pytest.raises(LabError, match="which is no file .<stdin>. that they could read"):
        measured(Session(tmp_path, quiet=True, workers=2))


def test_an_unknown_device_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="device 'gpu' is not available here; choose (cpu|one of cpu, .*) with"):
        measured(Session(tmp_path, quiet=True, device="gpu"))


SLOW = """
from dataclasses import dataclass
import time
from lab import Evidence, Paper, Task, control
@dataclass(frozen=True)
class Config:
    bad: int = -1
    number: int = 6
    seconds: float = 0.4
TASK = Task("slow", Paper("T", "A", 2024), {"smoke": Config(seconds=0.0), "ci": Config(), "paper": Config()})
@TASK.measurement(seeds=lambda config: config.number)
def wait(config: Config, seed: int):
    if seed == config.bad:
        raise ValueError("seed 2 is bad")
    time.sleep(config.seconds if config.bad < 0 else 0)
    return {"seed": float(seed)}
"""


def stopped(command: list[str], folder: Path, stop: int, known: int) -> str:
    """What ``command`` says when it is told to stop after it has kept more results than are ``known``."""
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A suite that runs in the background has Ctrl-C ignored, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while len(list(folder.rglob("seeds-*.safetensors"))) <= known:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    return errors


def test_a_stop_keeps_what_is_finished_and_the_same_command_continues(tmp_path: Path) -> None:
    """One process, two, and another signal in turn; at last in this process, which takes no time to begin."""
    (tmp_path / "slow.py").write_text(SLOW.replace("number: int = 6", "number: int = 16"), encoding="utf-8")
    folder = tmp_path / "results"
    command = ["run", str(tmp_path / "slow.py"), "--results", str(folder), "--workers"]
    finished_before: dict[Path, int] = {}
    for workers, stop in (("1", signal.SIGINT), ("2", signal.SIGINT), ("2", signal.SIGTERM)):
        errors = stopped([sys.executable, "-m", "lab", *command, workers], folder, stop, len(finished_before))
        finished = {file: file.stat().st_mtime_ns for file in folder.rglob("seeds-*.safetensors")}
        assert "interrupted with" in errors
        assert "Traceback" not in errors
        assert len(finished_before) < len(finished) < 16
        assert finished_before.items() <= finished.items()
        finished_before = finished
    assert main([*command, "1"]) == 0
    assert len(list(folder.rglob("seeds-*.safetensors"))) == 16
    assert all(file.stat().st_mtime_ns == when for file, when in finished_before.items())


def test_a_failing_job_is_named_and_the_others_are_kept(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    failing = load(tmp_path / "slow.py")
    session = Session(tmp_path / "results", quiet=True)
    with pytest.raises(LabError, match=r"seed 2 failed with slow.py, line \d+, ValueError: seed 2 is bad; 5 of 6"):
        Results(failing, failing.config_type(bad=2), session)[failing.measurements["wait"]]
    assert len(list((tmp_path / "results").rglob("*.safetensors"))) == 5


NUMERICS = """
import numpy as np
import torch
from threadpoolctl import threadpool_info
from lab import Paper, Task
from lab.figures import Sheet

TASK = Task("numerics", Paper("A paper", "A. Author", 2024))

@TASK.measurement()
def surroundings(config, seed: int):
    threads = [one["num_threads"] for one in threadpool_info()] + [torch.get_num_threads()]
    return {"threads": np.array(max(threads)), "wide": np.array(torch.ones(1).dtype == torch.float64)}
"""


@pytest.mark.skipif(os.cpu_count() == 1, reason="a machine of one processor gives a library no second thread")
def test_a_measurement_has_one_thread_and_gives_the_user_s_own_back(tmp_path: Path) -> None:
    """In a process of its own, as in a notebook: numpy comes first, with the threads it likes."""
    (tmp_path / "numerics.py").write_text(NUMERICS, encoding="utf-8")
    script = f"""
import sys
import numpy as np, torch
from pathlib import Path
from threadpoolctl import threadpool_info
torch.set_num_threads(2)
torch.set_default_dtype(torch.float64)
before = threadpool_info()
assert max(one["num_threads"] for one in before) > 1, before
from lab.catalogue import load
from lab.execution import Session
from lab.results import Results
task = load(Path({str(tmp_path / "numerics.py")!r}))
found = Results(task, task.config("ci"), Session(Path({str(tmp_path / "results")!r}), quiet=True))
data = found[task.measurements["surroundings"]]
assert (data["threads"], data["wide"]) == (1, 0), data
assert torch.get_num_threads() == 2
assert torch.get_default_dtype() == torch.float64
after = {{one["filepath"]: one["num_threads"] for one in threadpool_info()}}
assert all(after[one["filepath"]] == one["num_threads"] for one in before), after
assert "matplotlib" not in sys.modules  # which takes a second, and draws nothing here
"""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment | {"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_threads_that_overlap_give_the_settings_of_the_process_back(tmp_path: Path) -> None:
    """The first to come is the first to go: what each found on entering is not what the process had before both."""
    file = tmp_path / "overlapping.py"
    file.write_text(
        "import threading\nimport numpy as np\nfrom lab import Task\nfrom dataclasses import dataclass\n\n\n"
        "@dataclass(frozen=True)\nclass Config:\n    pass\n\n\nTASK = Task('overlapping', 'bachmann-2024-pitfalls', "
        "{name: Config() for name in ('smoke', 'ci', 'paper')})\n"
        "BOTH_INSIDE, FIRST_GONE = threading.Event(), threading.Event()\n\n\n"
        "@TASK.measurement(seeds=lambda config: 2)\ndef wait(config, seed):\n"
        "    if seed % 2:\n        BOTH_INSIDE.set()\n        assert FIRST_GONE.wait(20)\n"
        "    assert BOTH_INSIDE.wait(20)\n    print('inside')\n    return {'zero': np.zeros(1)}\n",
        encoding="utf-8",
    )
    overlapping = load(file)
    measurement = overlapping.measurements["wait"]
    results = Results(overlapping, overlapping.config("ci"), Session(tmp_path, quiet=True, evidence=None))
    first, second = results.jobs([measurement])
    gone = inspect.getmodule(measurement.function).FIRST_GONE
    before, number = sys.stdout, torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with ThreadPoolExecutor(2) as pool:
            earlier, later = (pool.submit(execute, job, None, None, None) for job in (first, second))
            earlier.result()
            assert sys.stdout is not before  # the other still measures
            gone.set()
            later.result()
        assert sys.stdout is before
        assert torch.get_default_dtype() == torch.float64
    finally:
        gone.set()
        torch.set_default_dtype(number)


def test_workers_end_with_the_process_that_hands_out_work(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW.replace("0.4", "300"), encoding="utf-8")
    command = [sys.executable, "-m", "lab", "run", str(tmp_path / "slow.py"), "--workers", "2"]
    process = subprocess.Popen([*command, "--results", str(tmp_path / "results")], stderr=subprocess.DEVNULL)
    parent = psutil.Process(process.pid)
    while len(workers := [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]) < 2:
        time.sleep(0.1)
    time.sleep(1)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []


CRASH = SLOW.replace('raise ValueError("seed 2 is bad")', "import os; os.kill(os.getpid(), 9)")


def test_a_job_that_takes_its_worker_down_costs_itself_alone_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "crash.py").write_text(CRASH, encoding="utf-8")
    crashing = load(tmp_path / "crash.py")
    session = Session(tmp_path / "results", quiet=True, workers=2)
    with pytest.raises(LabError, match="the worker measuring slow wait seed 1 died 3 times"):
        Results(crashing, crashing.config_type(bad=1, number=3), session)[crashing.measurements["wait"]]
    assert len(list((tmp_path / "results").rglob("*.safetensors"))) == 2


def test_a_measurement_that_calls_exit_fails(tmp_path: Path) -> None:
    text = SLOW.replace('raise ValueError("seed 2 is bad")', "raise SystemExit(0)")
    (tmp_path / "leaves.py").write_text(text, encoding="utf-8")
    leaving = load(tmp_path / "leaves.py")
    with pytest.raises(
        LabError, match=r"seed 2 failed with leaves.py, line \d+, SystemExit: it called sys.exit or os._exit \(0\)"
    ):
        Results(leaving, leaving.config_type(bad=2), Session(tmp_path, quiet=True))[leaving.measurements["wait"]]
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    with pytest.raises(LabError, match="exits.py cannot be imported: exits.py, line 2, SystemExit: 0"):
        load(tmp_path / "exits.py")


def test_a_number_of_other_code_or_versions_is_never_kept(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    slow = load(tmp_path / "slow.py")
    (job, *_) = Results(slow, slow.config("ci"), Session(tmp_path)).jobs([slow.measurements["wait"]])
    data, measured_by = execute(job, None, None, None)
    assert data["seed"].tolist() == [0.0]
    assert measured_by["versions"] == versions()
    with pytest.raises(LabError, match="holds another version of slow.py.*start it again"):
        execute(dataclasses.replace(job, source="0" * 16), None, None, None)
    with pytest.raises(LabError, match="has numpy .*asked for with 1.0"):
        execute(dataclasses.replace(job, versions={**job.versions, "numpy": "1.0"}), None, None, None)


def test_threads_wait_for_a_task_that_is_being_imported(tmp_path: Path) -> None:
    file = tmp_path / "long.py"
    file.write_text(SLOW.replace("import time", "import time\ntime.sleep(0.5)"), encoding="utf-8")
    with ThreadPoolExecutor(4) as pool:
        assert len({id(task) for task in pool.map(load, [file] * 4)}) == 1
