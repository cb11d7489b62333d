from __future__ import annotations

from rich.progress import Progress

from lab.progress import Work, _Left, _Live, open_progress


def test_plain_lines_where_nobody_watches(capsys) -> None:
    with open_progress({"one": None, "other": 0.5}, quiet=False) as progress:
        for label in ("one", "other"):
            progress.start(label)
            progress.update(label, 0.5)
            progress.finish(label)
    errors = capsys.readouterr().err
    assert "other: measured in" in errors
    assert "(2 of 2)" in errors, "nothing is left"
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


def test_the_time_left_begins_with_what_the_jobs_took_before() -> None:
    """One long job among 40 short ones on two workers: neither the count of jobs nor a first second of beginning misleads."""
    work = Work({"long": 60.0} | {f"short {number}": 1.0 for number in range(40)}, workers=2)
    assert work.left(0.0) == 50.0
    work.finish("short 0")
    assert work.left(9.0) == 49.5, "one hundredth of the work says nothing of the speed"
    for number in range(1, 11):
        work.finish(f"short {number}")
    assert work.left(22.0) == 22.0 * 89 / 11, "eleven of a hundred seconds took 22"
    work.update("long", 0.5)
    assert work.done == 41.0
    work.again("long")
    assert work.done == 11.0


def test_what_is_not_known_is_taken_for_the_mean() -> None:
    work = Work({"one": 2.0, "two": 4.0, "three": None})
    assert work.all == work.left(0.0) == 9.0


def test_where_nothing_is_known_the_jobs_count_alike_and_the_first_one_tells_nothing() -> None:
    work = Work(dict.fromkeys(map(str, range(4034))), workers=2)
    work.finish("0")
    assert work.left(669.0) is None
    few = Work(dict.fromkeys(map(str, range(13))), workers=2)
    for number in range(3):
        few.finish(str(number))
        assert few.left(8.4) is None
    few.finish("3")
    assert few.left(8.0) == 18.0
    assert Work({}).left(1.0) == 0.0
    assert Work({"instant": 0.0}).left(1.0) is None


def test_the_bar_moves_by_the_expected_seconds() -> None:
    with Progress(disable=True) as rich:
        live = _Live(rich, Work({"long": 9.0, "short": 1.0}))
        for label, done in (("short", 1.0), ("long", 10.0)):
            live.start(label)
            live.finish(label)
            assert rich.tasks[0].completed == done
        assert _Left().render(rich.tasks[0]).plain == "0:00:00"
