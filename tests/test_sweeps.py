from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from lab import cli, sweeps
from lab.catalogue import load
from lab.cli import main
from lab.errors import LabError
from lab.execution import Session

TINY = Path(__file__).parent / "examples" / "tiny.py"
TASK = load(TINY)


def changed(change: str):
    return sweeps.changed([TASK], {TASK.key: TASK.config("ci")}, change)[TASK.key]


def test_a_sweep_is_a_table_and_a_curve_and_is_cached(tmp_path: Path, capsys) -> None:
    # In two processes both sizes are under way at once.
    arguments = ["run", str(TINY), "--workers", "2", "--results", str(tmp_path), "--sweep", "size=4,8"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "size = 8" in captured.out
    (file,) = (tmp_path / "tiny" / "sweeps").rglob("size.csv")
    curve = pd.read_csv(file)
    assert set(curve["x"].dropna()) == {4, 8}  # the line of a bound has no place
    assert file.with_suffix(".png").stat().st_size > 1000
    assert "bound" in captured.out
    assert "chosen before the draw" in " ".join(captured.out.split())
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("seeds-*.safetensors")}
    assert main([*arguments[:-1], "size=4,8,6"]) == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert len(list(tmp_path.rglob("seeds-*.safetensors"))) == len(before) * 3 // 2


def test_fields_of_every_kind_can_be_changed() -> None:
    assert changed("size=7").size == 7
    assert changed("flag=x").flag == "x"
    assert changed("inner.scales=[3,4.5]").inner.scales == (3, 4.5)
    assert changed("inner.scales=3").inner.scales == (3,)
    assert changed("tiny.size=7").size == 7


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        (
            "sise=1",
            "no configuration of tiny has a field 'sise' .did you mean 'size'..; the fields are draws, flag, inner, size",
        ),
        ("inner.scale=1", "Inner has no field 'scale' .did you mean 'scales'"),
        ("size.x=1", "has no fields of its own"),
        ("size=a", "size=a is a str, and the field 'size' is an int, such as 10; change the value"),
        ("size=", "names no values; write FIELD=A,B,C"),
        ("size", "names no values; write FIELD=A,B,C"),
        ("size=4,5,4", "names size=4 twice"),
    ],
)
def test_mistakes_are_sentences_before_anything_is_measured(assignment: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(LabError, match=sentence):
        sweeps.sweep([TASK], [TASK.config("ci")], assignment, Session(tmp_path, quiet=True))
    assert not list(tmp_path.iterdir())


def test_a_mistake_in_a_sweep_is_told_before_the_file_is_tried(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(cli, "_check_own", lambda *_: pytest.fail("the file was tried first"))
    assert main(["run", str(TINY), "--results", str(tmp_path), "--sweep", "sise=4,8"]) == 2
    assert "no configuration of tiny has a field 'sise' (did you mean 'size'?)" in capsys.readouterr().err.replace(
        "\n", " "
    )


def test_places_are_numbers_where_all_values_are() -> None:
    assert sweeps._places(["1", "2.5"]) == (1.0, 2.5)
    assert sweeps._places(["1", "deep"]) == ("1", "deep")


def test_nothing_is_drawn_of_one_point(tmp_path: Path) -> None:
    record = {"measured": 1.0, "interval": None, "bound": 2.0, "samples": 1}
    sweep = sweeps.Sweep("p", "f", ("1", "2"), (1.0, 2.0), {"p/A": (record, None)}, ())
    assert sweeps.draw(sweep, tmp_path) is None
