"""``lab``: list, show, run, check, diagnose, notebooks, reproduce; ``lab --version``; ``--debug`` shows where an error is from."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from lab import checks, coverage, dictionary, pages, replication
from lab.catalogue import discover, find, find_claims, find_parts
from lab.claims import Claim
from lab.configuration import smaller_sizes
from lab.errors import LabError, nearest, told
from lab.execution import Session, check_cluster, check_device, is_named
from lab.files import FOLDERS, require_clone, require_writable, write
from lab.power import ENOUGH
from lab.report import terminal_table
from lab.reproduction import Verdicts, judge_all, measure_and_draw, reproduce, warn_of_few_seeds
from lab.results import Results, ensure
from lab.tasks import Task

# How the one argument of a command looks that is no option.
TASK_NAMES = re.compile(r".*\.py|[a-z][a-z0-9/-]*")
PREDICTORS = re.compile(r".*[:.].*")
# Where the output is no terminal there is no width to fit.
PLAIN_WIDTH = 180

logger = logging.getLogger("lab")


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Where:
    """Where measurements are taken and kept."""

    device: str = "cpu"
    """compute device: cpu, cuda or cuda:N"""
    workers: int = dataclasses.field(default_factory=_processors)
    """processes on this machine, or jobs on a cluster"""
    cluster: str = ""
    """'local' (Dask on this machine), the address of a Dask scheduler, or a batch system set up for
    dask-jobqueue (slurm, pbs, sge, lsf, htcondor, oar)"""
    results: Path = dataclasses.field(default_factory=lambda: Session().results)
    """folder of finished measurements"""
    again: tuple[str, ...] = ()
    """measurements to take again although they come with the lab, by name or part, with shell wildcards: '*' takes all,
    '!name' spares one"""

    def session(self, root: int | None = None) -> Session:
        if self.workers < 1:
            raise LabError(f"--workers {self.workers} is below 1; name the number of processes to use")
        if root is not None and root < 0:
            raise LabError(f"--fresh {root} is below 0; name a root: 1, 2 and so on")
        check_device(self.device)
        check_cluster(self.cluster)
        try:
            folder = self.results.expanduser().absolute()
        except RuntimeError as error:  # the home of nobody
            raise LabError(f"--results {self.results} is no folder ({error}); name another one") from error
        return Session(folder, self.device, self.workers, self.cluster, root=root, again=self.again)


Located = Annotated[Where, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class List:
    """List the tasks and their claims, or the papers."""

    papers: bool = False
    """every paper and where it stands: verified, planned, nothing to check"""
    json: bool = False
    """machine-readable output"""


@dataclass(frozen=True)
class Show:
    """Show a task, a claim, a paper, or the dictionary of attention and optimisation."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """name of a task, id of a claim (or of several, with shell wildcards), slug of a paper, or 'dictionary'"""


@dataclass(frozen=True)
class Run:
    """Measure one task, draw its figures beside the results and judge its paper's claims."""

    task: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]
    """name of a task, or path of a file that defines one"""
    preset: str = "ci"
    """smoke (seconds), ci (about a minute) or paper (the paper's sizes)"""
    seeds: tuple[int, ...] = ()
    """the seeds to measure, instead of the preset's number of them"""
    fresh: int | None = None
    """draw the seeds below this root (1, 2, …) instead of the one that the evidence was drawn below"""
    where: Located = Where()


@dataclass(frozen=True)
class Check:
    """Judge claims. Exit status 0 only if every verdict is the expected one and every control was rejected."""

    patterns: tyro.conf.Positional[tuple[str, ...]] = ()
    """claim ids with shell wildcards, names of tasks, or paths of files with claims; all claims if left out"""
    preset: str = "ci"
    """smoke, ci or paper"""
    fresh: int | None = None
    """judge on seeds below this root (1, 2, …) instead of those that the evidence was drawn from"""
    json: bool = False
    """machine-readable output"""
    where: Located = Where()


@dataclass(frozen=True)
class Power:
    """Say how likely fresh seeds are to give the verdicts again. Exit status 0 only if all are likely enough.

    An estimate from the samples that were judged; `lab reproduce --roots` measures what it estimates.
    """

    patterns: tyro.conf.Positional[tuple[str, ...]] = ()
    """claim ids with shell wildcards, or paths of files with claims; all claims if left out"""
    preset: str = "ci"
    """smoke, ci or paper"""
    show: int = 20
    """how many claims to show, the least certain first"""
    where: Located = Where()


@dataclass(frozen=True)
class Diagnose:
    """Name the algorithm that a predictor carries out: compare it with every closed form on fresh prompts."""

    predictor: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PREDICTOR")]
    """MODULE:FUNCTION, FILE.py:FUNCTION, or a checkpoint written by lab.models.checkpoint.save_model"""
    task: str = "linear-regression"
    """the prompts: linear-regression, markov-chains, or a task (name or file) that offers its own"""
    prompts: int = 512
    """fresh prompts, half of them to fit parameters, half to judge"""
    seed: int = 0
    """root of the prompts"""
    out: Path = dataclasses.field(default_factory=lambda: Session().results / "diagnosis")
    """folder of diagnosis.json, diagnosis.png and the data behind it"""


@dataclass(frozen=True)
class Notebooks:
    """Make and execute the notebooks of tasks."""

    tasks: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of tasks; all if left out"""
    where: Located = Where()


@dataclass(frozen=True)
class Reproduce:
    """Make what is official at the ci preset: evidence, figures, verdicts, notebooks, pages."""

    tasks: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of tasks; all if left out"""
    roots: tuple[int, ...] = ()
    """instead, judge the sampled claims on the seeds below these roots and keep what comes out"""
    where: Located = Where()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status (0 good, 1 a verdict is not the expected one, 2 an error of use)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_time=False, show_path=False)],
    )
    logger.setLevel(logging.DEBUG if "--debug" in arguments else logging.NOTSET)
    try:
        return _dispatch([argument for argument in arguments if argument != "--debug"])
    except LabError as error:
        _say(error)
        return 2
    except MemoryError as error:
        _say(LabError(f"these sizes need more memory than there is ({error or 'MemoryError'}); choose smaller ones"))
        return 2
    except KeyboardInterrupt as error:
        print(f"\nlab: {str(error) or 'interrupted; finished measurements are kept'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _dispatch(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"lab {version('theory-lab')}")
        return 0
    _check_named_once(arguments)
    if arguments[:1] == ["run"] and (ordered := _name_first(arguments[1:], Run, TASK_NAMES)):
        return _parse_and_run(ordered)
    if arguments[:1] == ["diagnose"] and (ordered := _name_first(arguments[1:], Diagnose, PREDICTORS)):
        return _parse_and_diagnose(ordered)
    commands = {
        "list": List,
        "show": Show,
        "run": Run,
        "check": Check,
        "power": Power,
        "diagnose": Diagnose,
        "notebooks": Notebooks,
        "reproduce": Reproduce,
    }
    command: Any = tyro.extras.subcommand_cli_from_dict(
        {name: kind for name, kind in commands.items()}, prog="lab", args=arguments, description=__doc__
    )
    match command:
        case List():
            return _list(command)
        case Show():
            return _show(command.name)
        case Check():
            return _check(command)
        case Power():
            return _power(command)
        case Notebooks():
            return _notebooks(command)
        case Reproduce():
            return _reproduce(command)
    if isinstance(command, Diagnose):
        raise LabError("name the predictor to diagnose: MODULE:FUNCTION, FILE.py:FUNCTION or a checkpoint")
    raise LabError("name the task to run; `lab list` names them all")


def _say(error: LabError) -> None:
    """An error as a sentence; with ``--debug`` below everything that led to it."""
    if logger.isEnabledFor(logging.DEBUG):
        traceback.print_exception(error, file=sys.stderr)
    print(f"lab: {error}", file=sys.stderr)


def _check_named_once(arguments: Sequence[str]) -> None:
    counts = Counter(
        argument.partition("=")[0] for argument in arguments if argument.startswith("--") and argument != "--"
    )
    for option, times in counts.items():
        if times > 1:
            raise LabError(f"{option} is given {times} times, and only one of them could count; give it once")
    for option, following in zip(arguments, [*arguments[1:], "--"], strict=False):
        if option == "--seeds" and (following.startswith("--") or following.endswith(".py")):
            raise LabError("--seeds names no seed; name at least one, or leave it out for the preset's number of them")


def _name_first(arguments: list[str], options: type, looks: re.Pattern[str]) -> list[str]:
    """The command line with the one argument that is no option in front; empty where there is none.

    A configuration's own options are known only when the name is, so that it is found by where it stands and how it looks.
    """
    valued = {f"--{one.name}" for kind in (options, Where) for one in dataclasses.fields(kind) if one.type != "bool"}
    places = [
        place
        for place, (argument, option) in enumerate(zip(arguments, ["", *arguments], strict=False))
        if not argument.startswith("-") and (place == 0 or (option not in valued and looks.fullmatch(argument)))
    ]
    if len(places) > 1 and places[0] != 0:
        known = {name for task in discover() for name in (task.key, task.name)}
        places = [at for at in places if arguments[at] in known or ".py" in arguments[at]] or places[-1:]
    return [arguments[places[0]], *arguments[: places[0]], *arguments[places[0] + 1 :]] if places else []


def _parse_and_run(arguments: list[str]) -> int:
    """``lab run``: its own options and the fields of the task's configuration on one command line.

    The fields of a sheet of several parts stand below the name of their part.
    """
    parts = find_parts(arguments[0])
    preset = _value(arguments, "--preset", "ci")
    configs = {part.part or part.name: part.config(preset) for part in parts}
    default = next(iter(configs.values())) if len(parts) == 1 else _together(configs)
    about = f"Measure {arguments[0]}, draw its figures and judge its paper's claims."
    options, found = _parse(arguments, Run, default, "run", about)
    chosen = [found] if len(parts) == 1 else [getattr(found, _field(name), config) for name, config in configs.items()]
    return _run(parts, options, chosen)


def _check_contracts(tasks: Sequence[Task]) -> None:
    """Refuse files of one's own whose generators or predictors are not what they say; the suite checks the project's."""
    for task in tasks:
        if task.place not in FOLDERS:
            checks.require_contracts(task)


def _together(configs: Mapping[str, Any]) -> Any:
    """An instance of a dataclass with a field for each configuration that has any."""
    fields = [
        (_field(name), type(config), dataclasses.field(default=config))
        for name, config in configs.items()
        if dataclasses.fields(config)
    ]
    return dataclasses.make_dataclass("Parts", fields, frozen=True)()


def _field(name: str) -> str:
    return name.replace("-", "_")


def _parse_and_diagnose(arguments: list[str]) -> int:
    """``lab diagnose``: its own options and the sizes of the prompts on one command line."""
    from lab.diagnosis.settings import find_setting

    setting = find_setting(_value(arguments, "--task", Diagnose.task))
    about = f"Name the algorithm that a predictor carries out. {type(setting).__doc__}"
    return _diagnose(*_parse(arguments, Diagnose, setting, "diagnose", about))


def _value(arguments: Sequence[str], option: str, default: str) -> str:
    """The value that the command line gives an option."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name == option:
            return value if equals else following
    return default


def _parse(arguments: list[str], options: type, default: Any, command: str, about: str) -> tuple[Any, Any]:
    """Instances of ``options`` and of the class of ``default``, whose fields stand side by side as options."""
    own = {one.name for kind in (options, Where) for one in dataclasses.fields(kind)} - {"task", "predictor", "where"}
    for one in dataclasses.fields(default):
        if one.name in own:
            raise LabError(
                f"the field {one.name!r} of {type(default).__name__} is called like an option of `lab {command}`; "
                f"give it another name, such as {one.name}_"
            )
    fields: list[Any] = [("options", Annotated[options, tyro.conf.arg(name="")])]
    if dataclasses.fields(default):
        fields.append(("config", Annotated[type(default), tyro.conf.arg(name="")], dataclasses.field(default=default)))
    both = dataclasses.make_dataclass("Both", fields)
    both.__doc__ = about
    try:
        parsed: Any = tyro.cli(both, args=arguments, prog=f"lab {command}")
    except LabError:
        raise
    except Exception as error:
        where = told(error, Path(sys.modules[type(default).__module__].__file__ or ""))
        raise LabError(f"these options make no configuration: {where}") from error
    found = getattr(parsed, "config", default)
    _check_not_emptied(default, found, "--")
    return parsed.options, found


def _check_sizes(results: Results) -> None:
    """Refuse sizes below 0, and say before the work which are smaller than in every preset: nobody has tried those."""
    task = results.task
    small = smaller_sizes(results.config, list(task.presets.values()))
    for name, (size, least) in small.items():
        if size < 0 <= least:
            raise LabError(
                f"--{name.replace('_', '-')} {size} is below 0, so that nothing can be measured; in every preset of {task.key} "
                f"it is {least} or more"
            )
    for name, (size, least) in small.items():
        logger.warning(
            "--%s: %s is less than in every preset of %s, where it is %s or more; a figure or claim may have nothing to show",
            name.replace("_", "-"),
            size,
            task.key,
            least,
        )


def _check_not_emptied(default: Any, found: Any, option: str) -> None:
    """Refuse an option that was given no value where the preset has some: nothing would be measured, drawn or judged."""
    if dataclasses.is_dataclass(found) and type(found) is type(default):
        for one in dataclasses.fields(found):
            name = f"{option}.{one.name}" if option != "--" else f"--{one.name}"
            _check_not_emptied(getattr(default, one.name), getattr(found, one.name), name)
    elif isinstance(found, tuple | list | dict) and default and not found:
        raise LabError(
            f"{option.replace('_', '-')} is given no value, so that nothing could be shown; give at least one"
        )


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)


def _print_table(verdicts: Verdicts, title: str) -> int:
    """Print the verdicts, and below them what kept a claim or a figure from coming out; returns the exit status."""
    console, judgements = _console(), verdicts.judgements
    statements = {judgement.claim.id: judgement.claim.statement for judgement in judgements}
    records = [judgement.record() for judgement in judgements]
    console.print(terminal_table(records, statements, title, console.width))
    good = sum(judgement.as_expected for judgement in judgements)
    console.print(f"{good} of {len(judgements)} verdicts are the expected ones, with every control rejected.")
    return _status(verdicts)


def _status(verdicts: Verdicts) -> int:
    for error in verdicts.errors:
        _say(error)
    return 2 if verdicts.errors else 0 if all(judgement.as_expected for judgement in verdicts.judgements) else 1


def _run(parts: Sequence[Task], options: Run, configs: Sequence[Any]) -> int:
    session = options.where.session(options.fresh)
    seeds = options.seeds or None
    if seeds and options.fresh is not None:
        raise LabError(
            f"--seeds {' '.join(map(str, seeds))} and --fresh {options.fresh} both say which seeds to measure; name one of them"
        )
    _check_contracts(parts)
    results = [Results(part, config, session, seeds) for part, config in zip(parts, configs, strict=True)]
    # The proofs of a paper are judged with its task.
    proofs = [
        task
        for task in (discover() if parts[0].place == "tasks" else [])
        if task.name == parts[0].name and task.place == "proofs_check" and not (len(parts) == 1 and parts[0].part)
    ]
    results += [Results(task, task.config(options.preset), session) for task in proofs]
    _check_again(session, results)
    for part in results:
        _check_sizes(part)
        warn_of_few_seeds(part, list(part.task.claims.values()), options.preset)
    verdicts = measure_and_draw(results, options.preset)
    status = _print_table(verdicts, f"{parts[0].paper.citation}, preset {options.preset}")
    if options.preset == "smoke":
        print("The smoke preset shows that everything runs; it is too small for verdicts to count.")
        return 2 if verdicts.errors else 0
    return status


def _check_again(session: Session, parts: Sequence[Results]) -> None:
    """Raise LabError where ``--again`` has a pattern that names nothing in ``parts``."""
    jobs = [job for part in parts for job in part.jobs(list(part.task.measurements.values()))]
    for pattern in session.again:
        if not any(is_named(job, [pattern.removeprefix("!")]) for job in jobs):
            known = {name for job in jobs for name in (job.measurement, job.task.rpartition("/")[2])}
            raise LabError(
                f"--again {pattern} names no measurement and no part of what is asked for{nearest(pattern, known)}; "
                f"the names are {', '.join(sorted(known))}"
            )


def _check(options: Check) -> int:
    verdicts = _judged(options.patterns, options.preset, options.where.session(options.fresh))
    if options.json:
        print(json.dumps([judgement.record() for judgement in verdicts.judgements], indent=1))
        return _status(verdicts)
    return _print_table(verdicts, f"preset {options.preset}")


def _judged(patterns: Sequence[str], preset: str, session: Session) -> Verdicts:
    """The claims that fit ``patterns``, judged on what they need, which is measured first."""
    tasks: dict[str, tuple[Task, list[Claim]]] = {}
    for task, claim in find_claims(patterns):
        tasks.setdefault(task.key, (task, []))[1].append(claim)
    results = {key: Results(task, task.config(preset), session) for key, (task, _) in tasks.items()}
    _check_contracts([task for task, _ in tasks.values()])
    _check_again(session, list(results.values()))
    jobs = []
    for key, (task, claims) in tasks.items():
        needed = {one.name: one for claim in claims for one in task.needs(claim.check)}
        jobs += results[key].jobs(list(needed.values()))
        warn_of_few_seeds(results[key], claims, preset)
    verdicts = Verdicts()
    with redirect_stdout(sys.stderr):  # what a check prints is no verdict
        ensure(jobs, session)
        for key, (_, claims) in tasks.items():
            judge_all(results[key], claims, preset, verdicts)
    return verdicts


def _power(options: Power) -> int:
    verdicts = _judged(options.patterns, options.preset, options.where.session())
    chances = {one.claim.id: one.chance for one in verdicts.judgements if one.chance is not None}
    unlikely = sum(chance < ENOUGH for chance in chances.values())
    if chances:
        table = Table("claim", "chance of the same outcome", box=None)
        for claim, chance in sorted(chances.items(), key=lambda entry: entry[1])[: options.show]:
            table.add_row(claim, f"{chance:.3f}")
        _console().print(table)
    print(
        f"{len(chances)} of {len(verdicts.judgements)} claims are sampled; fresh seeds give the outcome of {unlikely} of "
        f"them again with an estimated chance below {ENOUGH}."
    )
    return _status(verdicts) if verdicts.errors else 1 if unlikely else 0


def _diagnose(options: Diagnose, setting: Any) -> int:
    from lab.diagnosis import comparison, presentation, subject

    require_writable(options.out)
    made = subject.load(options.predictor, setting.arguments)
    found = comparison.diagnose(
        made, setting, name=options.predictor, task=options.task, prompts=options.prompts, seed=options.seed
    )
    console = _console()
    for table in presentation.tables(found, console.width):
        console.print(table)
    for sentence in presentation.sentences(found):
        console.print(sentence, highlight=False, markup=False)
    for path in presentation.store(found, options.out):
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)
    return 1 if found.stopped else 0


def _claim_record(claim: Claim) -> dict[str, str]:
    return {
        "id": claim.id,
        "kind": claim.kind,
        "expected": claim.expected,
        "statement": claim.statement,
        "where": claim.where,
        "paper": claim.paper,
    }


def _list_papers(options: List) -> int:
    found = coverage.coverage()
    if options.json:
        print(json.dumps([one.record() for one in found], indent=1))
        return 0
    console = _console()
    for heading, group in coverage.by_family(found):
        console.print(f"[bold]{heading}[/bold]")
        for one in group:
            where = f" ({', '.join(one.sheets)})" if one.sheets else ""
            console.print(
                f"  {one.entry.paper.key}  {one.entry.paper.citation}\n    {one.sentence}{where}",
                highlight=False,
                markup=False,
            )
    console.print(coverage.summary(found), highlight=False, markup=False)
    return 0


def _list(options: List) -> int:
    if options.papers:
        return _list_papers(options)
    papers: dict[str, list[Task]] = {}
    for task in discover():
        papers.setdefault(task.name, []).append(task)
    records: list[dict[str, Any]] = [
        {
            "task": next((task.key for task in tasks if task.place == "tasks"), None),
            "paper": {"slug": name, **dataclasses.asdict(tasks[0].paper)},
            "presets": list(tasks[0].presets),
            "figures": [figure for task in tasks for figure in task.figures],
            "claims": [_claim_record(claim) for task in tasks for claim in task.claims.values()],
        }
        for name, tasks in papers.items()
    ]
    if options.json:
        print(json.dumps(records, indent=1))
        return 0
    console = _console()
    for record in records:
        paper = record["paper"]
        console.print(f"[bold]{paper['slug']}[/bold]  {escape(papers[paper['slug']][0].paper.citation)}")
        console.print(f"  figures: {', '.join(record['figures']) or 'none'}", highlight=False, markup=False)
        for claim in record["claims"]:
            console.print(f"  {claim['id']}  {claim['kind']}, {claim['where']}", highlight=False, markup=False)
    return 0


def _show(name: str) -> int:
    console = _console()
    if name == "dictionary":
        console.print(dictionary.terminal_table())
        return 0
    tasks = discover()
    claims = [(task, claim) for task in tasks for claim in task.claims.values() if claim.id == name]
    if claims:
        _show_claim(console, *claims[0])
        return 0
    alike = [claim.id for task in tasks for claim in task.claims.values() if claim.id.endswith(f"/{name}")]
    if alike:
        raise LabError(f"{name} alone names no claim; there is {' and '.join(alike[:5])}; write one of these")
    shown = [task for task in tasks if name in (task.key, task.name)]
    if not shown:
        shown = [find(name)] if "/" not in name or name.endswith(".py") else []
    if not shown:
        for task, claim in find_claims([name]):  # or names the nearest claim in its error
            _show_claim(console, task, claim)
    for task in shown:
        console.print(f"{task.key} ({task.file})\n{task.paper.citation}", highlight=False, markup=False)
        for preset, config in task.presets.items():
            console.print(f"preset {preset}: {config}", highlight=False, markup=False)
        for measurement in task.measurements.values():
            console.print(f"measurement {measurement.name}", highlight=False, markup=False)
        for figure, draw in task.figures.items():
            caption = " ".join((draw.__doc__ or "without a caption").split("\n\n")[0].split())
            console.print(f"figure {figure}: {caption}", highlight=False, markup=False)
        for claim in task.claims.values():
            console.print(f"claim {claim.id}: {claim.statement}", highlight=False, markup=False)
    return 0


def _show_claim(console: Console, task: Task, claim: Claim) -> None:
    console.print(f"[bold]{claim.id}[/bold] ({claim.kind}; {escape(claim.where)}; expected: {claim.expected})")
    console.print(claim.statement, highlight=False, markup=False)
    if claim.condition:
        console.print(f"It holds {claim.condition}.", highlight=False, markup=False)
    for one in claim.controls:
        console.print(f"control: {one.name} {dict(one.setting)}", highlight=False, markup=False)
    console.print(f"check: {claim.check.__name__} in {task.file}", highlight=False, markup=False)


def _chosen(names: Sequence[str]) -> list[Task]:
    """The tasks called ``names``, all if none is: the name of a paper means its parts and its proofs."""
    known = discover()
    found = [] if names else known
    for name in names:
        found += [task for task in known if task.name == name] or find_parts(name)
    return found


def _notebooks(options: Notebooks) -> int:
    from lab.notebooks import execute

    chosen = _chosen(options.tasks)
    if any(task.place in FOLDERS for task in chosen):
        require_clone("lab notebooks")
    session = options.where.session()
    if session.device != "cpu":
        raise LabError(f"notebooks show what was measured on the cpu, not on {session.device}; leave --device out")
    for name in options.tasks:
        if all(task.place == "proofs_check" for task in _chosen([name])):
            raise LabError(f"{name} holds proofs, which are code to be read and have no notebook; name its task")
    require_writable(*{task.file.parent for task in chosen if task.place != "proofs_check"})
    for task in chosen:
        if task.place == "proofs_check":
            continue  # code to be read, not a lecture
        ensure(Results(task, task.config("ci"), session).jobs(list(task.measurements.values())), session)
        print(f"executed {execute(task, session)}", flush=True)
    return 0


def _write_pages() -> None:
    """Write every page that can be made; a damaged record of one paper leaves the pages of the others alone."""
    makers: dict[Path, Callable[[], str]] = {
        dictionary.PAGE: dictionary.page,
        coverage.PAGE: coverage.page,
        replication.PAGE: lambda: replication.page(pages.sheets()),
        **pages.makers(),
    }
    for path, make in makers.items():
        try:
            text = make()
        except LabError as error:
            logger.warning("%s is left as it is: %s", path, error)
            continue
        write(path, text.encode())
        print(f"wrote {path}")


def _replicate(options: Reproduce) -> int:
    contradicted = 0
    for task in _chosen(options.tasks):
        for root, outcomes in replication.replicate(task, options.where.session(), options.roots).items():
            for claim, outcome in outcomes.items():
                if outcome != "as expected":
                    print(f"{claim} below the root {root}: {outcome}", flush=True)
                    contradicted += outcome != "inconclusive"
    _write_pages()
    return 1 if contradicted else 0


def _reproduce(options: Reproduce) -> int:
    require_clone("lab reproduce")
    if options.roots:
        return _replicate(options)
    chosen = _chosen(options.tasks)
    status = _print_table(Verdicts(reproduce(chosen, options.where.session())), "claims at preset ci")
    lectures = tuple(task.key for task in chosen if task.place != "proofs_check")
    if lectures:
        _notebooks(Notebooks(lectures, options.where))
    _write_pages()
    return status


if __name__ == "__main__":
    sys.exit(main())
