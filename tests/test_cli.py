from __future__ import annotations

import errno
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import cli
from lab.catalogue import discover, find_claims, load
from lab.cli import PREDICTORS, TASK_NAMES, Diagnose, Run, _name_first, main
from lab.options import ABOUT, COMMANDS, parse
from lab.reproduction import apart

TINY = Path(__file__).parent / "examples" / "tiny.py"


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    shutil.copy(TINY, tmp_path / "tiny.py")
    return [str(tmp_path / "tiny.py"), "--workers", "1", "--results", str(tmp_path / "results")]


def test_a_file_outside_the_repository_runs(tiny: list[str], tmp_path: Path, capsys) -> None:
    assert main(["run", *tiny]) == 0
    output = capsys.readouterr().out
    assert "3 of 3 verdicts are the expected ones" in output
    for name in ("scatter.png", "scatter.csv"):
        (drawn,) = (tmp_path / "results" / "tiny" / "figures").rglob(name)
        assert drawn.stat().st_size > 50


def test_two_files_whose_tasks_are_called_alike_draw_into_folders_of_their_own(tmp_path: Path, capsys) -> None:
    drawn = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        shutil.copy(TINY, tmp_path / place / "tiny.py")
        options = ["--only", "scatter", "--workers", "1", "--results", str(tmp_path / "results")]
        assert main(["run", str(tmp_path / place / "tiny.py"), *options]) == 0
        drawn += re.findall(r"drew (.*\.png)", capsys.readouterr().out.replace("\n/", "/"))
    assert len(set(drawn)) == len(drawn) == 2
    assert all(Path(path).is_file() for path in drawn)


def test_pictures_of_the_sheets_of_the_lab_keep_their_place(tmp_path: Path) -> None:
    task = next(iter(discover()))
    assert apart(tmp_path, task) == tmp_path
    assert apart(tmp_path, load(TINY)).parent == tmp_path


def test_claims_that_are_lost_are_counted_and_named(tiny: list[str], capsys) -> None:
    file = Path(tiny[0])
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("-> Evidence:\n", "-> Evidence:\n    return None\n"), encoding="utf-8")
    assert main(["check", *tiny]) == 2
    output = " ".join(capsys.readouterr().out.split())
    assert "0 of 0" not in output
    assert (
        "3 of 3 claims could not be judged and have no verdict, for the reasons given: tiny/A1, tiny/A2, tiny/A3."
        in output
    )


def test_controls_that_are_not_rejected_are_counted(tiny: list[str], capsys) -> None:
    file = Path(tiny[0])
    file.write_text(file.read_text(encoding="utf-8").replace("bound=-3.0", "bound=4.0"), encoding="utf-8")
    assert main(["check", f"{file}:A[13]", *tiny[1:]]) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "2 of 2 verdicts are the expected ones; a control of 1 was not rejected." in output
    text = file.read_text(encoding="utf-8").replace(
        "-> Evidence:\n    difference", "-> Evidence:\n    1 / 0\n    difference"
    )
    file.with_name("lost.py").write_text(text, encoding="utf-8")
    assert main(["check", f"{file.with_name('lost.py')}:A3", *tiny[1:]]) == 2
    output = " ".join(capsys.readouterr().out.split())
    assert "1 of 1 claim could not be judged and has no verdict, for the reason given: tiny/A3." in output


def test_the_smoke_preset_counts_its_verdicts_in_one_line(tiny: list[str], capsys) -> None:
    assert main(["run", *tiny, "--preset", "smoke"]) == 0
    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if not line.startswith(("drew ", "/", " ")) and line.strip()]
    assert line.startswith("3 of 3 claims were judged. The smoke preset shows that everything runs; it is too small")
    assert "NOT REJECTED" not in output


def test_config_fields_and_seeds_are_options(tiny: list[str], tmp_path: Path, capsys) -> None:
    arguments = ["--preset", "smoke", "--size", "4", "--inner.scales", "3", "4", "--seeds", "5", "7", "9"]
    assert main(["run", *tiny, *arguments]) == 0
    assert sorted(file.stem for file in (tmp_path / "results" / "tiny" / "means").rglob("*.safetensors")) == [
        "seeds-5",
        "seeds-7",
        "seeds-9",
    ]


def test_a_fresh_root_draws_seeds_that_no_other_root_has(tiny: list[str], tmp_path: Path, capsys) -> None:
    assert main(["check", *tiny, "--fresh", "3"]) == 0
    seeds = {file.stem for file in (tmp_path / "results" / "tiny" / "means").rglob("*.safetensors")}
    assert seeds == {f"seeds-{3_000_000 + seed}" for seed in range(6)}
    assert main(["run", *tiny, "--fresh", "3", "--seeds", "1"]) == 2
    assert "name one of them" in capsys.readouterr().err
    for claims in (tiny, ["mesa-optimization/T1"]):  # the second has no seeds to draw
        assert main(["check", *claims, "--fresh", "-1"]) == 2
        assert "--fresh -1 is below 0; name a root" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["diagnose", "nothing:f"], ["compare", "a", "b"], ["data", "linear-regression", "--count", "1"], ["site"]],
)
def test_every_path_begins_at_the_home_that_it_names(arguments: list[str], tmp_path: Path, monkeypatch) -> None:
    """As an option with its value behind a sign, where no shell says what `~` is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse([*arguments, "--out=~/here"]).out == tmp_path / "here"
    assert parse(["results", "--results=~/there"]).results == tmp_path / "there"
    assert parse(["new", "~/my-paper"]).name == tmp_path / "my-paper"


def test_a_path_that_is_too_long_is_a_sentence(tiny: list[str], tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    long = "a" * 300
    for command in (
        ["results", "--results", long],
        ["compare", f"{tiny[0]}@{long}", tiny[0], *tiny[1:]],
        ["compare", f"{long}.json", tiny[0], *tiny[1:]],
        ["check", tiny[0], "--results", long],
    ):
        assert main(command) == 2
        assert "cannot be the path of anything (file name too long)" in capsys.readouterr().err


def test_a_sweep_over_nothing_is_refused(tiny: list[str], capsys) -> None:
    assert main(["run", *tiny, "--sweep", ""]) == 2
    assert "--sweep '' names no values" in capsys.readouterr().err


def test_power_says_which_outcomes_are_unlikely_to_come_again(tiny: list[str], capsys) -> None:
    assert main(["power", *tiny, "--show", "1"]) == 1
    output = capsys.readouterr().out
    assert output.count("tiny/A") == 1
    assert "2 of 3 claims are sampled; 2 of them have a chance below 0.99 of the same outcome on fresh seeds." in output
    for number in ("0", "-3"):
        assert main(["power", *tiny, "--show", number]) == 2
        assert f"--show {number} shows no claim; name at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_name_to_measure_again_is_one_of_those_that_there_are(tiny: list[str], command: str, capsys) -> None:
    for pattern, guess in (("meens", " (did you mean 'means'?)"), ("!meens", " (did you mean"), ("x*", "")):
        assert main([command, *tiny, "--again", pattern]) == 2
        errors = " ".join(capsys.readouterr().err.split())
        assert f"--again {pattern} names no measurement" in errors
        assert guess in errors


@pytest.mark.parametrize("more", [[], ["--sweep", "size=4,8"]])
def test_a_results_folder_that_cannot_be_written_is_refused_before_the_file_is_tried(
    more: list[str], tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(cli, "_check_own", lambda *_: pytest.fail("the file was tried first"))
    (tmp_path / "file").touch()
    tiny = str(Path(__file__).parent / "examples" / "tiny.py")
    assert main(["run", tiny, "--results", str(tmp_path / "file" / "results"), *more]) == 2
    assert "cannot be written" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(cli, "_check_own", lambda *_: (_ for _ in ()).throw(cli.LabError("refused")))
    assert main(["run", tiny, "--results", str(tmp_path / "a" / "b"), *more]) == 2
    assert not (tmp_path / "a").exists()  # a folder is made when there is something to keep


@pytest.mark.parametrize("extra", [["--weakest", "5"], ["--weakest", "-1", "--roots", "7"]])
def test_how_many_of_the_weakest_claims_is_asked_for_with_roots(extra: list[str], monkeypatch, capsys) -> None:
    monkeypatch.setattr(cli, "_replicate", lambda *_: pytest.fail("it was measured"))
    assert main(["reproduce", "copying", *extra]) == 2
    assert "is a number of claims, 1 or more, and goes with --roots" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["notebooks"], ["reproduce"], ["reproduce", "--roots", "1"]])
def test_so_is_one_for_the_commands_that_write_what_is_official(
    command: list[str], tmp_path: Path, monkeypatch, capsys
):
    for work in ("reproduce", "ensure", "replication.replicate", "_write_pages"):  # it would be for nothing
        monkeypatch.setattr(f"lab.cli.{work}", None)
    assert main([*command, "--again", "meens", "--results", str(tmp_path)]) == 2
    assert "--again meens names no measurement and no part of what is asked for" in capsys.readouterr().err


def test_check_prints_the_promised_fields(tiny: list[str], capsys) -> None:
    assert main(["check", *tiny, "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    fields = {
        "id",
        "kind",
        "verdict",
        "expected",
        "measured",
        "parts",
        "relation",
        "bound",
        "tolerance",
        "bound_origin",
        "seeds_wanted",
        "controls",
        "preset",
        "seconds",
    }
    assert [record["id"] for record in records] == ["tiny/A1", "tiny/A2", "tiny/A3"]
    assert all(fields <= record.keys() for record in records)
    assert records[0]["controls"][0].keys() == {"name", "measured", "rejected"}


def test_check_fails_when_a_control_is_not_rejected(tiny: list[str], capsys) -> None:
    file = Path(tiny[0])
    file.write_text(file.read_text(encoding="utf-8").replace("bound=-3.0", "bound=4.0"), encoding="utf-8")
    assert main(["check", *tiny]) == 1
    assert "NOT REJECTED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "causallm-icll"], "unknown task 'causallm-icll' (did you mean 'causallm-icl'?)"),
        (["run", "causallm-icl", "--preset", "cii"], "unknown preset 'cii' (did you mean 'ci'?)"),
        (["run", "causallm-icl", "--device", "tpu9"], "the device 'tpu9' is not available here; choose "),
        (["run", "/nowhere/task.py"], "there is no file /nowhere/task.py"),
        (["check", "causallm-icl/T11"], "no claim matches 'causallm-icl/T11' (did you mean"),
        (["show", "causallm-icl/T11"], "no claim matches"),
        (["check", "causalm-icl"], "no claim matches 'causalm-icl' (did you mean 'causallm-icl'?)"),
        (["check", "--results=~nobody_of_this_name"], "'~nobody_of_this_name' cannot be the path of anything"),
        (["check", "--workers", "0"], "--workers 0 is below 1"),
        (["check", "causallm-icl/T1", "--cluster", "nosuch"], "--cluster 'nosuch' names no cluster"),
        (["check", "causallm-icl/T1", "--cluster", "slrum"], "names no cluster (did you mean 'slurm'?)"),
        (["check", "causallm-icl/T1", "--cluster", "nonsense://"], "names no cluster"),
        (["check", "causallm-icl/T1", "--device", "meta"], "the device 'meta' is not available here"),
        (["run", "causallm-icl", "--preset", "smoke", "--preset", "ci"], "--preset is given 2 times"),
        (["run", "causallm-icl", "--seeds", "--preset", "smoke"], "--seeds names no seed"),
        (["show", "causallm-icl/Q*"], "no claim matches"),
        (["notebooks", "mesa-optimization-proofs"], "mesa-optimization-proofs holds proofs"),
        *(([command, ""], "unknown task ''") for command in ("run", "notebooks", "reproduce")),
        (["run", "A" * 300], f"unknown task '{'A' * 100}'"),
        (["run", "A" * 300 + ".py"], "there can be no file /"),
        (
            ["run", "~nobody_of_this_name/x.py"],
            "there can be no file ~nobody_of_this_name/x.py (Could not determine home",
        ),
        (["run", "tasks/causallm_icl/repairs.ipynb"], "(did you mean 'causallm-icl/repairs'?)"),
        (["show", "G2.limit"], "G2.limit alone names no claim; there is causal-structure/G2.limit; write that"),
        (["run"], "name the task"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(arguments: list[str], sentence: str, tmp_path: Path, capsys) -> None:
    has_folder = arguments[0] == "show" or any(argument.startswith("--results") for argument in arguments)
    where = [] if has_folder or len(arguments) == 1 else ["--results", str(tmp_path)]
    try:
        status = main([*arguments, *where])
    except SystemExit as stopped:  # raised by the parser of options itself
        status = stopped.code
    errors = capsys.readouterr().err
    assert status == 2
    if arguments != ["run"]:
        assert sentence in errors
        assert errors.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--sizee", "3"], ["--inner.scale", "3"], ["--size", "many"]])
def test_an_unknown_or_ill_typed_option_stops(tiny: list[str], arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", *tiny, *arguments])
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    "order",
    [
        "{file} --preset smoke --size 4 --seeds 5 7",
        "--preset smoke --size 4 --seeds 5 7 {file}",
        "--preset smoke {file} --size 4 --seeds 5 7",
        "--preset=smoke --size=4 {file} --seeds 5 7",
    ],
)
def test_options_come_before_or_after_the_name(tiny: list[str], order: str, tmp_path: Path, capsys) -> None:
    file, *where = tiny
    assert main(["run", *where, *order.format(file=file).split()]) == 0
    kept = {path.stem for path in (tmp_path / "results" / "tiny" / "means").rglob("*.safetensors")}
    assert kept == {"seeds-5", "seeds-7"}


def test_options_come_before_the_name_of_a_task_too() -> None:
    for arguments in (["--device", "tpu", "mesa-optimization"], ["mesa-optimization", "--device", "tpu"]):
        assert _name_first(arguments, Run, TASK_NAMES)[0] == "mesa-optimization"
    assert _name_first(["--task", "markov-chains", "own.py:law"], Diagnose, PREDICTORS)[0] == "own.py:law"
    assert _name_first(["--preset", "smoke"], Run, TASK_NAMES) == []


def test_usage_says_what_to_name(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "TASK" in capsys.readouterr().out


def test_an_option_without_values_is_refused_before_anything_is_measured(
    tiny: list[str], tmp_path: Path, capsys
) -> None:
    assert main(["run", *tiny, "--inner.scales"]) == 2
    assert "--inner.scales is given no value" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_claims_of_a_task_are_found_by_its_name() -> None:
    of_sheet = {claim.id for _, claim in find_claims(["mesa-optimization"])}
    assert of_sheet == {claim.id for _, claim in find_claims(["mesa-optimization/*"])}
    part = next(task for task in discover() if task.part and task.claims)
    assert [claim for _, claim in find_claims([part.key])] == list(part.claims.values())


def test_sizes_that_no_preset_has_are_said_before_the_work(tiny: list[str], capsys, caplog) -> None:
    assert main(["run", *tiny, "--size", "2", "--inner.scales", "3.0"]) == 0
    assert [message.split(";")[0] for message in caplog.messages] == [
        "--size: 2 is less than in every preset of tiny, where it is 3 or more",
        "--inner.scales: 1 is less than in every preset of tiny, where it is 2 or more",
    ]
    caplog.clear()
    assert main(["run", *tiny, "--size", "20"]) == 0
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--draws", "0"], "tiny measures means at 0 seeds (draws = 0), which shows nothing; ask for at least 1"),
        (
            ["--draws", "-2"],
            "tiny.py, line 47, tiny measures means at -2 seeds (draws = -2), which shows nothing; ask for at least 1",
        ),
        (["--size", "-1"], "--size -1 is below 0, so that nothing can be measured; in every preset of tiny it is 3 or"),
    ],
)
def test_sizes_of_which_nothing_comes_are_one_sentence_before_the_work(
    tiny: list[str], options: list[str], sentence: str, tmp_path: Path, capsys, caplog
) -> None:
    assert main(["run", *tiny, *options]) == 2
    errors = capsys.readouterr().err
    assert sentence in errors
    assert errors.count("\n") == 1
    assert caplog.messages == []
    assert not (tmp_path / "results").exists()


def test_a_preset_without_seeds_is_one_sentence_for_all_claims(tiny: list[str], tmp_path: Path, capsys) -> None:
    file = Path(tiny[0])
    file.write_text(
        file.read_text(encoding="utf-8").replace('"ci": Config()', '"ci": Config(draws=0)'), encoding="utf-8"
    )
    assert main(["check", *tiny]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("command", "options"), [("run", ["--draws", "1"]), ("check", []), ("run", ["--seeds", "4"])])
def test_seeds_that_are_too_few_to_decide_are_said_before_the_work(
    tiny: list[str], command: str, options: list[str], tmp_path: Path, capsys, caplog, monkeypatch
) -> None:
    file = Path(tiny[0])
    text = file.read_text(encoding="utf-8")
    if command == "check":
        text = text.replace('"ci": Config()', '"ci": Config(draws=1)')
    file.write_text(text, encoding="utf-8")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.cli.measure_and_draw", stop)
    monkeypatch.setattr("lab.cli.ensure", stop)
    assert main([command, *tiny, *options]) == 130
    assert "too few seeds to decide tiny/A1, tiny/A2: 1 where at least 2 are needed" in caplog.messages
    assert list((tmp_path / "results").rglob("*.safetensors")) == []


def test_show_takes_wildcards(capsys) -> None:
    assert main(["show", "mesa-optimization/T*"]) == 0
    shown = capsys.readouterr().out
    assert "mesa-optimization/T1 (" in shown
    assert "mesa-optimization/T2 (" in shown


def test_results_may_lie_below_the_home_folder(tiny: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["run", tiny[0], "--workers", "1", "--results=~/kept"]) == 0
    assert (tmp_path / "kept" / "tiny").is_dir()
    assert not (tmp_path / "~").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="rights of folders are others there")
def test_a_folder_without_rights_is_said_before_the_work(tiny: list[str], tmp_path: Path, monkeypatch, capsys) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("", encoding="utf-8")
    assert main(["run", tiny[0], "--workers", "1", "--results", str(blocked)]) == 2
    assert "blocked" in capsys.readouterr().err
    file = tmp_path / "own.py"
    file.write_text("def zero(x, y, q):\n    return 0 * q[..., 0]\n", encoding="utf-8")
    monkeypatch.setattr("lab.diagnosis.comparison.diagnose", None)  # it would be work for nothing
    assert main(["diagnose", f"{file}:zero", "--out", str(blocked)]) == 2
    assert f"{blocked} cannot be written: file exists; move the file that stands in" in capsys.readouterr().err


def test_a_full_disk_is_a_sentence_wherever_something_is_written(tiny: list[str], monkeypatch, capsys) -> None:
    assert main(["run", *tiny]) == 0
    capsys.readouterr()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert main(["run", *tiny]) == 2
    output = capsys.readouterr()
    assert "scatter.png cannot be written: the disk is full; free some space" in output.err
    assert "3 of 3 verdicts are the expected ones" in output.out


def test_a_terminal_without_a_letter_shows_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "prüfung"
    folder.mkdir()
    shutil.copy(TINY, folder / "tiny.py")
    command = [
        sys.executable,
        "-m",
        "lab",
        "run",
        str(folder / "tiny.py"),
        "--workers",
        "1",
        "--results",
        str(folder / "r"),
    ]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr.decode()
    assert b"pr\\xfcfung" in done.stdout


@pytest.mark.filterwarnings("ignore:'lab.cli' found in sys.modules:RuntimeWarning")
def test_an_unknown_command_stops(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["lab", "rnu"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("lab.cli", run_name="__main__", alter_sys=True)
    assert stopped.value.code == 2
    assert "rnu" in capsys.readouterr().err


def test_a_file_that_does_not_import_is_one_sentence(tmp_path: Path, capsys) -> None:
    (tmp_path / "broken.py").write_text("import numpy\nnumpy.nothing\n", encoding="utf-8")
    assert main(["run", str(tmp_path / "broken.py")]) == 2
    assert "broken.py cannot be imported: broken.py, line 2, AttributeError" in capsys.readouterr().err


def test_a_mistake_in_a_module_beside_a_file_is_found_there(tmp_path: Path, capsys) -> None:
    (tmp_path / "helper_with_a_mistake.py").write_text("import numpy as np\nA = np.arrange(3)\n", encoding="utf-8")
    (tmp_path / "own.py").write_text("\nfrom helper_with_a_mistake import A\n", encoding="utf-8")
    assert main(["run", str(tmp_path / "own.py")]) == 2
    sentence = capsys.readouterr().err
    assert "own.py cannot be imported: helper_with_a_mistake.py, line 2, AttributeError" in sentence
    assert "arange" in sentence


def test_a_file_without_a_task_is_one_sentence(tmp_path: Path, capsys) -> None:
    (tmp_path / "empty.py").write_text("", encoding="utf-8")
    assert main(["check", str(tmp_path / "empty.py")]) == 2
    assert "defines 0 tasks" in capsys.readouterr().err


def test_list_names_every_claim_under_its_paper(capsys) -> None:
    assert main(["list", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert all(record.keys() == {"task", "paper", "citation", "presets", "figures", "claims"} for record in records)
    listed = {claim["id"] for record in records for claim in record["claims"]}
    assert listed == {claim for task in discover() for claim in task.claims}
    for record in records:
        assert all(
            claim.keys() == {"id", "kind", "expected", "statement", "where", "paper"} for claim in record["claims"]
        )
        assert all(claim["id"].startswith(record["paper"]["slug"] + "/") for claim in record["claims"])


def test_show_knows_tasks_claims_and_papers(capsys) -> None:
    task = next(task for task in discover() if task.claims)
    for name in (task.key, next(iter(task.claims)), task.name):
        assert main(["show", name]) == 0
    assert "control:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Dictionary", "attention as optimisation"),
        ("CausalLM-ICL/t1", "causallm-icl/T1"),
        ("Mesa-Optimization", "mesa-optimization"),
        ("2308.06912", "causallm-icl"),
        ("arXiv:2308.06912v2", "causallm-icl"),
        ("ding-2024-causallm", "causallm-icl"),
    ],
)
def test_show_knows_names_in_any_case_and_papers_by_number_and_key(name: str, shown: str, capsys) -> None:
    assert main(["show", name]) == 0
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("2412.12095", "has no sheet of its own, and no sheet tests it (planned); `lab list --papers` names"),
        ("9999.99999", "no paper of papers.toml has the arXiv number 9999.99999; `lab list --papers` names them all"),
    ],
)
def test_show_says_where_a_paper_without_a_sheet_stands(name: str, sentence: str, capsys) -> None:
    assert main(["show", name]) == 2
    assert sentence in capsys.readouterr().err


def test_the_summary_of_the_help_names_every_command(capsys) -> None:
    named = ABOUT.removeprefix("lab: ").split(";")[0].split(", ")
    assert named == list(COMMANDS)
    with pytest.raises(SystemExit):
        main(["diagnose", "--help"])
    assert "1 if a FINDING stopped a comparison" in " ".join(re.sub(r"[│\n]", " ", capsys.readouterr().out).split())


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (["--context-length", "0"], "context_length is 0 but must be at least 1"),
        (["--step-size", "0.5"], "The step 0.5 is outside (0, 2/lambda_max)"),
    ],
)
def test_impossible_sizes_are_one_sentence(option: list[str], sentence: str, tmp_path: Path, capsys) -> None:
    task = "causallm-icl/depth-is-iteration"
    arguments = ["run", task, "--preset", "smoke", "--workers", "1", "--results", str(tmp_path), *option]
    assert main(arguments) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence in last


def test_an_interruption_is_said_wherever_it_comes(tiny: list[str], monkeypatch, capsys) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.cli._parse_and_run", interrupt)
    assert main(["run", *tiny]) == 130
    assert "lab: interrupted; finished measurements are kept" in capsys.readouterr().err


def test_the_proofs_of_a_sheet_with_one_task_part_are_run_with_it(capsys) -> None:
    assert main(["run", "autoregressive-trees", "--dry-run"]) == 0
    assert "autoregressive-trees-proofs" in capsys.readouterr().out
    assert main(["run", "autoregressive-trees/grown-trees", "--dry-run"]) == 0
    assert "autoregressive-trees-proofs" not in capsys.readouterr().out
