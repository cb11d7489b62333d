from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from lab.cli import main
from lab.data.formats import check_out, write_prompts
from lab.errors import LabError

PARQUET = pytest.mark.skipif(find_spec("pyarrow") is None, reason="pyarrow is not installed (extra: parquet)")
FORMATS = [".npz", ".jsonl", ".safetensors", pytest.param(".parquet", marks=PARQUET)]


def command(out: Path, *more: str) -> list[str]:
    sizes = ["--dimension", "2", "--context-length", "3", "--query-length", "1"]
    return ["data", "linear-regression", "--count", "1500", "--out", str(out), *sizes, *more]


def read(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays if name != "about"}
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}
    import pyarrow.parquet

    return {name: np.array(column) for name, column in pyarrow.parquet.read_table(path).to_pydict().items()}


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_holds_the_same_numbers_whatever_the_chunk(ending: str, tmp_path: Path, capsys) -> None:
    assert main(command(tmp_path / f"whole{ending}", "--also", "mask", "answer", "risk")) == 0
    assert "wrote 1,500 prompts of linear_regression" in capsys.readouterr().out
    assert main(command(tmp_path / f"cut{ending}", "--also", "mask", "answer", "risk", "--chunk", "7")) == 0
    assert main(command(tmp_path / "known.npz", "--also", "mask", "answer", "risk")) == 0
    uncut, cut, known = read(tmp_path / f"whole{ending}"), read(tmp_path / f"cut{ending}"), read(tmp_path / "known.npz")
    assert uncut.keys() == known.keys()
    assert {"x_context", "y_query", "mask", "answer", "risk"} <= set(uncut)
    for name, value in known.items():
        assert value.shape[0] == 1500
        assert np.array_equal(uncut[name], value)
        assert np.array_equal(cut[name], value)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("ending", FORMATS)
def test_single_precision_comes_back_as_it_was_rounded(ending: str, tmp_path: Path) -> None:
    assert main(command(tmp_path / "known.npz")) == 0
    assert main(command(tmp_path / f"single{ending}", "--precision", "float32")) == 0
    known, single = read(tmp_path / "known.npz"), read(tmp_path / f"single{ending}")
    for name, value in known.items():
        assert np.array_equal(single[name].astype(np.float32), value.astype(np.float32))


def test_a_file_says_what_it_was_drawn_from(tmp_path: Path) -> None:
    assert main(command(tmp_path / "a.safetensors", "--part", "held-out", "--seed", "3")) == 0
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        about = json.loads(file.metadata()["theory-lab"])
    assert (about["generator"], about["seed"], about["part"]) == ("linear_regression", 3, "held-out")
    assert main(command(tmp_path / "a.npz")) == 0
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert json.loads(str(arrays["about"]))["sizes"]["dimension"] == "2"


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("lab.data.sources.Source.block", None)  # it would be work for nothing
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "folder.npz").mkdir()
    for out, sentence in (
        (tmp_path / "a.csv", "ends in '.csv'"),
        (tmp_path / "a", "the formats are .parquet, .npz, .jsonl, .safetensors"),
        (tmp_path / "folder.npz", "is a folder; name the file to write in it"),
        (tmp_path / "file" / "a.npz", "cannot be written"),
    ):
        assert main(command(out)) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())


def test_parquet_without_its_library_names_the_extra(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(LabError, match=r"pip install 'theory-lab\[parquet\]'"):
        check_out(tmp_path / "a.parquet")


def test_prompts_of_two_shapes_are_refused(tmp_path: Path) -> None:
    chunks = [{"x": np.zeros((2, 3))}, {"x": np.zeros((2, 4))}]
    with pytest.raises(LabError, match="the field x is float64 .3. in the first prompts and float64 .4. in later ones"):
        write_prompts(tmp_path / "a.npz", 4, chunks, {})
    assert list(tmp_path.iterdir()) == []


def test_generators_are_listed_and_asked_for_by_name(capsys) -> None:
    assert main(["data"]) == 0
    assert "linear_regression" in capsys.readouterr().out
    assert main(["data", "--count", "3"]) == 2
    assert "name it first" in capsys.readouterr().err
