"""Verdicts do not depend on the kind of processor: the same claims judged under several sets of instructions.

Each kind is what a processor without the newer instructions would choose, asked for in the environment of a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lab.files import PROJECT

# For each: what torch's own kernels, its linear algebra, its neural network library and numpy's are told.
KINDS = {
    "default": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3",
    },
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512"},
}
ORDER = list(KINDS)
MEASURE = """
import json, sys
from pathlib import Path
import torch
from lab.catalogue import load
from lab.claims import judge
from lab.execution import Session
from lab.results import Results

task = load(Path(sys.argv[1]))
results = Results(task, task.config("ci"), Session(Path(sys.argv[2]), quiet=True))
records = [judge(claim, results).record() for claim in task.claims.values()]
after = results[task.measurements["trained"]]["after"].tolist()
print(json.dumps({"kind": torch.backends.cpu.get_cpu_capability(), "records": records, "after": after}))
"""


def has(kind: str) -> bool:
    """Whether this processor is of a kind, or of a newer one that can stand in for it."""
    capability = torch.backends.cpu.get_cpu_capability().lower()
    return capability in ORDER and ORDER.index(kind) <= ORDER.index(capability)


def measured(kind: str, results: Path) -> dict[str, Any]:
    file = PROJECT / "tests" / "examples" / "processors.py"
    environment = os.environ | KINDS[kind] | {"PYTHONPATH": str(PROJECT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", MEASURE, str(file), str(results / kind)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert report["kind"].lower() == kind
    return report


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processors")
    return {kind: measured(kind, folder) for kind in KINDS if has(kind)}


@pytest.mark.skipif(not has("avx2"), reason="this processor has one kind of instructions only")
def test_the_kinds_do_differ(reports: dict) -> None:
    """Otherwise the other tests would show nothing."""
    assert len({tuple(report["after"]) for report in reports.values()}) > 1


def test_verdicts_are_the_same_under_every_kind_of_processor(reports: dict) -> None:
    for kind, report in reports.items():
        for record in report["records"]:
            assert record["verdict"] == "holds", (kind, record)
            assert all(control["rejected"] for control in record["controls"]), (kind, record)
