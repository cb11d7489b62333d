from __future__ import annotations

from lab.progress import open_progress


def test_plain_lines_where_nobody_watches(capsys) -> None:
    with open_progress({"one": None, "other": 0.5}, quiet=False) as progress:
        for label in ("one", "other"):
            progress.start(label)
            progress.update(label, 0.5)
            progress.finish(label)
    errors = capsys.readouterr().err
    assert "other: measured in" in errors
    assert "2 of 2" in errors
    assert "one: " not in errors, "a quick job that is not the last is not worth a line"


def test_failures_are_always_told(capsys) -> None:
    with open_progress({"one": None, "other": 0.5}, quiet=False) as progress:
        progress.start("one")
        progress.fail("one")
    assert "one: FAILED" in capsys.readouterr().err


def test_quiet_is_quiet(capsys) -> None:
    with open_progress({"one": None}, quiet=True) as progress:
        progress.start("one")
        progress.finish("one")
    assert capsys.readouterr().err == ""
