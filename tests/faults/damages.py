"""Files that are cut, edited, exchanged or foreign: their numbers are right, or measured again, or refused in a sentence.

A trial damages a copy of finished results, of evidence, of an unfinished training or of a network, in one to three ways, and
asks for the numbers twice.
"""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import struct
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from lab import shipped, unfinished
from lab.catalogue import load
from lab.errors import LabError
from lab.execution import Session
from lab.models.checkpoint import load_model, save_model
from lab.models.transformer import Architecture, Transformer
from lab.results import Results, ensure
from lab.tasks import Task
from tests.faults.counts import Counts, Tally

TINY = Path(__file__).parent.parent / "examples" / "tiny.py"
MEASURED = ("means", "by_scale_together", "square_of_sum")
RUN = "the run that it is of"
VALUES: tuple[Any, ...] = (None, True, -1, 2**70, 1e308, "", "text", [], [1], {}, {"a": 1}, "[" * 50_000)
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E5M2", "C64", "XX")
Damage = Callable[[Path, Random], None]


@dataclass(frozen=True)
class Whole:
    """What is damaged, undamaged.

    Attributes:
        folder: holds ``results``, ``evidence``, ``training.safetensors``, ``network.safetensors``.
        task: whose results they are.
        numbers: what is right, by measurement and array.
    """

    folder: Path
    task: Task
    numbers: Mapping[str, bytes]


class Executes:
    """What a pickle holds that writes a file when it is read."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.flag,)


def damages(trials: int, seed: int, kinds: Sequence[str] = ()) -> Counts:
    """Make ``trials`` trials, drawn from ``seed``, of all kinds of damages or of those named."""
    tally = Tally("damages")
    with TemporaryDirectory() as folder, redirect_stderr(StringIO()):
        original = make_whole(Path(folder, "whole"))
        for trial in range(trials):
            place = Path(folder, f"trial-{trial}")
            shutil.copytree(original.folder, place)
            _trial(original, place, kinds, Random(f"{seed} {trial}"), tally, f"seed {seed}, trial {trial}")
            shutil.rmtree(place)
    return tally.counts


def make_whole(folder: Path) -> Whole:
    """Measure the tiny task, ship what was measured, and write one unfinished training and one network."""
    task = load(TINY)
    session = Session(folder / "results", quiet=True, evidence=None)
    jobs = Results(task, task.config("ci"), session).jobs([task.measurements[name] for name in MEASURED])
    ensure(jobs, session)
    shipped.ship(jobs, session.store, folder / "evidence")
    architecture = Architecture(width=8, layers=1, heads=2, input_size=4, output_size=4)
    save_model(folder / "network.safetensors", Transformer(architecture, [0]), "causal")
    unfinished.write(folder / "training.safetensors", RUN, {"step": 7}, {"weight": torch.arange(6.0)})
    return Whole(folder, task, _numbers(task, session))


def _numbers(task: Task, session: Session) -> dict[str, bytes]:
    numbers: dict[str, bytes] = {}
    for name in MEASURED:
        data = Results(task, task.config("ci"), session)[task.measurements[name]]
        for array in data:
            value = np.asarray(data[array])
            numbers[f"{name}/{array}"] = (
                f"{value.dtype} {value.shape} ".encode() + np.ascontiguousarray(value).tobytes()
            )
    return numbers


def _trial(original: Whole, place: Path, kinds: Sequence[str], rng: Random, tally: Tally, about: str) -> None:
    target = rng.choices(("results", "evidence", "training", "network"), (6, 3, 2, 2))[0]
    done = []
    flag = place / "executed"
    for _ in range(rng.choice((1, 1, 2, 3))):
        victims = [
            file for file in sorted(place.rglob("*")) if file.is_file() and target in file.relative_to(place).parts[0]
        ]
        if not victims:
            break
        victim = rng.choice(victims)
        name = rng.choice(kinds or [*(DAMAGES_OF_FOLDERS if target in ("results", "evidence") else ()), *DAMAGES])
        done.append(f"{name} of {victim.relative_to(place)}")
        {**DAMAGES, **DAMAGES_OF_FOLDERS}[name](victim, rng)
    about = f"{about}: {'; '.join(done)}"
    try:
        tally.ended(_ask(original, place, target, tally, about))
    except Exception:
        tally.ended("escaped")
        tally.failed("tracebacks", f"{about}: {traceback.format_exc().splitlines()[-1]}")
    if flag.exists():
        tally.failed("executed code", about)


def _ask(original: Whole, place: Path, target: str, tally: Tally, about: str) -> str:
    """Ask for what is in a damaged copy; returns how that ended."""
    try:
        if target == "training":
            training = unfinished.read(place / "training.safetensors", RUN)
            right = training is None or (
                training[0] == {"step": 7} and torch.equal(training[1]["weight"], torch.arange(6.0))
            )
            outcome = "training: " + ("begins anew" if training is None else "goes on")
        elif target == "network":
            load_model(place / "network.safetensors")
            right, outcome = True, "network: read"  # it has no numbers but its own
        else:
            evidence = place / "evidence" if target == "evidence" else None
            session = Session(place / ("results" if evidence is None else "new"), quiet=True, evidence=evidence)
            right = all(_numbers(original.task, session) == original.numbers for _ in range(2))
            outcome = f"{target}: right"
    except LabError:
        return f"{target}: refused"
    if not right:
        tally.failed("wrong numbers", about)
    return outcome


def _header(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and numbers of a safetensors file; of what is none, an empty header."""
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        return (header, content[8 + length :]) if isinstance(header, dict) else ({}, content)
    except (struct.error, ValueError, RecursionError, OverflowError):
        return {}, content


def _with_header(header: Mapping[str, Any], numbers: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + numbers


def _bytes(change: Callable[[bytes, Random], bytes]) -> Damage:
    def damage(path: Path, rng: Random) -> None:
        path.write_bytes(change(path.read_bytes(), rng))

    return damage


def _flip(content: bytes, rng: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 8)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(content: bytes, rng: Random) -> bytes:
    begin = rng.randrange(len(content) + 1)
    filling = bytes(16) if rng.random() < 0.5 else rng.randbytes(16)
    return content[:begin] + filling + content[begin + 16 :]


def _last_numbers(content: bytes, rng: Random) -> bytes:
    """Another number at the end, where there are numbers and no words."""
    return content[:-8] + struct.pack("<d", rng.uniform(-1, 1)) if len(content) > 8 else content


def _in_header(content: bytes, rng: Random) -> bytes:
    """An entry of the header gone, another, or doubled under another name."""
    header, numbers = _header(content)
    if not header:
        return content
    name = rng.choice(list(header))
    value = header.pop(name)
    if isinstance(value, dict) and rng.random() < 0.7:
        changes: dict[str, Any] = {
            "dtype": rng.choice(DTYPES),
            "shape": rng.choice([[], [1], [2, 3], [2**62, 8], [-1], [0], None]),
            "data_offsets": rng.choice([[0, 8], [8, 0], [0, 2**63], [-8, 8], None]),
        }
        field = rng.choice(list(changes))
        header[name] = {**value, field: changes[field]}
    elif rng.random() < 0.5:
        header[name + "2"] = value
    return _with_header(header, numbers)


def _in_manifest(content: bytes, rng: Random) -> bytes:
    """A value somewhere in what the file says of itself is gone, or another."""
    header, numbers = _header(content)
    about = header.get("__metadata__", {})
    if not about:
        return content
    key = rng.choice(list(about))
    try:
        record = json.loads(about[key])
    except (ValueError, TypeError, RecursionError):
        record = None
    if not isinstance(record, dict) or not record or rng.random() < 0.1:
        about[key] = rng.choice(("", "{", "null", "[1]", "3", '"text"', "[" * 50_000))
        return _with_header(header, numbers)
    inside = record = copy.deepcopy(record)
    while True:
        name = rng.choice(list(inside))
        below = inside[name]
        if not (isinstance(below, dict) and below and rng.random() < 0.8):
            break
        inside = below
    if rng.random() < 0.3:
        del inside[name]
    elif isinstance(inside[name], list) and inside[name] and rng.random() < 0.5:
        inside[name] = rng.choice((inside[name][1:], inside[name][::-1], inside[name] * 2))
    else:
        inside[name] = rng.choice(VALUES)
    about[key] = json.dumps(record)
    return _with_header(header, numbers)


def _foreign_arrays(_: bytes, rng: Random) -> bytes:
    name = rng.choice(("mean", "weight", "x"))
    return safetensors.numpy.save({name: np.zeros(rng.randrange(4))}, {"manifest": "{}", "lab": "{}"})


def _pickle(path: Path, rng: Random) -> None:
    """A pickle that would write a file if it were read."""
    place = path
    while not place.name.startswith("trial-") and place.parent != place:
        place = place.parent
    path.write_bytes(pickle.dumps(Executes(place / "executed"), rng.choice((0, 1, 2, 4))))


def _torch_pickle(path: Path, rng: Random) -> None:
    torch.save({"weight": torch.ones(2)}, path, _use_new_zipfile_serialization=rng.random() < 0.5)


def _other(path: Path, rng: Random) -> Path:
    """Another file of the copy, of any kind."""
    place = next(folder for folder in path.parents if folder.name.startswith("trial-"))
    beside = [file for file in sorted(path.parent.iterdir()) if file.is_file() and file != path]
    everywhere = [file for file in sorted(place.rglob("*.safetensors")) if file.is_file() and file != path]
    return rng.choice(beside if beside and rng.random() < 0.7 else everywhere or [path])


def _exchange(path: Path, rng: Random) -> None:
    other_path = _other(path, rng)
    content, replacement = path.read_bytes(), other_path.read_bytes()
    path.write_bytes(replacement)
    other_path.write_bytes(content)


def _double(path: Path, rng: Random) -> None:
    other = _other(path, rng)
    path.write_bytes(other.read_bytes())


def _rename(path: Path, rng: Random) -> None:
    if rng.random() < 0.5:
        path.rename(path.with_name(rng.choice(("x.safetensors", f".{path.name}", f"{path.stem}.tmp", "seeds-99"))))
    else:
        path.replace(_other(path, rng))


def _folder_instead(path: Path, rng: Random) -> None:
    path.unlink()
    path.mkdir()
    if rng.random() < 0.5:
        (path / "inside").write_text("text", encoding="utf-8")


def _link_instead(path: Path, rng: Random) -> None:
    path.unlink()
    path.symlink_to(rng.choice((path.name, "nowhere/at-all", "/dev/null")))


def _file_for_folder(path: Path, rng: Random) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text("text", encoding="utf-8")


def _loop_for_folder(path: Path, rng: Random) -> None:
    shutil.rmtree(path.parent)
    path.parent.symlink_to(path.parent.name)


def _odd_neighbours(path: Path, rng: Random) -> None:
    """Leftovers and locks where they are not expected; the file itself is gone, so that it is written again."""
    path.unlink()
    for name in (path.with_suffix(".unfinished").name, path.with_suffix(".networks").name):
        if rng.random() < 0.5:
            (path.parent / name).write_text("text", encoding="utf-8")
    for lock in next(folder for folder in path.parents if folder.name.startswith("trial-")).rglob(".lock"):
        if not lock.is_file():
            continue
        lock.unlink()
        how = rng.randrange(3)
        if how == 0:
            lock.mkdir()
        elif how == 1:
            lock.symlink_to(".lock")
        else:
            lock.write_text("4711", encoding="utf-8")


DAMAGES: dict[str, Damage] = {
    "cut": _bytes(lambda content, rng: content[: rng.randrange(len(content) + 1)]),
    "cut at the end": _bytes(lambda content, rng: content[: -rng.randint(1, 9)]),
    "longer": _bytes(lambda content, rng: content + rng.randbytes(rng.randint(1, 40))),
    "flipped bits": _bytes(_flip),
    "flipped bits again": _bytes(_flip),
    "overwritten": _bytes(_overwrite),
    "another last number": _bytes(_last_numbers),
    "another length of the header": _bytes(
        lambda content, rng: struct.pack("<Q", rng.choice((0, 1, 2**26, 2**40, 2**63))) + content[8:]
    ),
    "another header": _bytes(_in_header),
    "another header still": _bytes(_in_header),
    "another manifest": _bytes(_in_manifest),
    "another manifest still": _bytes(_in_manifest),
    "no text in the header": _bytes(lambda content, rng: content[:12] + b"\xff\xfe" + content[14:]),
    "nothing": _bytes(lambda content, rng: b""),
    "noise": _bytes(lambda content, rng: rng.randbytes(len(content))),
    "words": _bytes(lambda content, rng: b"these are words\n"),
    "foreign arrays": _bytes(_foreign_arrays),
    "a pickle instead": _pickle,
    "a pickle of torch instead": _torch_pickle,
    "exchange": _exchange,
    "doubling": _double,
    "renaming": _rename,
    "a folder instead": _folder_instead,
    "a link instead": _link_instead,
}
DAMAGES_OF_FOLDERS: dict[str, Damage] = {
    "a file for its folder": _file_for_folder,
    "a loop for its folder": _loop_for_folder,
    "odd neighbours": _odd_neighbours,
}
