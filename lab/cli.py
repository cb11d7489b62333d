"""The commands of ``lab`` (`lab.options` lists them); ``lab --version``; ``--debug`` shows where an error is from."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import re
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.logging import RichHandler

from lab import checks, coverage, dictionary, kept_networks, listing, pages, repeat, replication, showing
from lab.catalogue import discover, find_claims, find_parts
from lab.claims import Claim
from lab.configuration import smaller_sizes
from lab.errors import LabError, described, nearest, told_exits
from lab.execution import Session, check_device, is_named
from lab.files import FOLDERS, require_clone, require_room, require_writable, write
from lab.options import (
    Check,
    Cite,
    Compare,
    Data,
    Diagnose,
    Export,
    List,
    New,
    Notebooks,
    Power,
    Reproduce,
    Run,
    Show,
    Site,
    Stored,
    Where,
    parse,
)
from lab.rehearsal import rehearse
from lab.report import terminal_table
from lab.reproduction import Chosen, Verdicts, apart, choose, judge_all, measure_and_draw, reproduce, warn_of_few_seeds
from lab.results import Results, ensure
from lab.tasks import Measurement, Task

# How the one argument of a command looks that is no option.
TASK_NAMES = re.compile(r".*\.py|[a-z][a-z0-9/-]*")
PREDICTORS = re.compile(r".+:\w+(@\d+)?|.+\.(safetensors|pt|pth|ckpt|bin|pkl)")
# Options of every command, which a configuration's fields cannot have as names.
OF_ALL = {"debug", "help"}
# Options of `lab diagnose` that an adapter reads.
ADAPTING = ("label", "place", "read", "dtype", "batch", "symbols", "start")

logger = logging.getLogger("lab")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 good, 1 a verdict is not the expected one or a FINDING stopped a diagnosis, 2 an
    error of use.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=Console(stderr=True), show_time=False, show_path=False)],
    )
    logger.setLevel(logging.DEBUG if "--debug" in arguments else logging.NOTSET)
    try:
        with told_exits():
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
    for_help = bool({"-h", "--help"} & set(arguments))
    if arguments[:1] == ["run"] and ((ordered := _name_first(arguments[1:], Run, TASK_NAMES)) or not for_help):
        return _parse_and_run(ordered)
    if arguments[:1] == ["data"] and not arguments[1:2] == ["--help"]:
        return _parse_and_export(arguments[1:])
    if arguments[:1] == ["diagnose"] and ((ordered := _predictors_first(arguments[1:])) or not for_help):
        return _parse_and_diagnose(ordered)
    command = parse(arguments)
    match command:
        case List():
            return _list(command)
        case Show():
            return showing.show(command.name, _console())
        case Check():
            return _check(command)
        case Power():
            return _power(command)
        case Notebooks():
            return _notebooks(command)
        case Site():
            return _site(command)
        case Reproduce():
            return _reproduce(command)
        case Stored():
            return _stored(command)
        case Compare():
            return _compare(command)
        case Cite():
            return _cite(command)
        case New():
            return _new(command)
        case Export():
            return _export(command)
    raise AssertionError(f"{command} is carried out before its options are read")


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
    valued = {
        f"--{field.name}" for kind in (options, Where) for field in dataclasses.fields(kind) if field.type != "bool"
    }
    places = [
        place
        for place, (argument, option) in enumerate(zip(arguments, ["", *arguments], strict=False))
        if not argument.startswith("-") and (place == 0 or (option not in valued and looks.fullmatch(argument)))
    ]
    if len(places) > 1 and places[0] != 0:
        known = {name for task in discover() for name in (task.key, task.name)}
        places = [at for at in places if arguments[at] in known or ".py" in arguments[at]] or places[-1:]
    return [arguments[places[0]], *arguments[: places[0]], *arguments[places[0] + 1 :]] if places else []


def _predictors_first(arguments: list[str]) -> list[str]:
    """The command line of ``lab diagnose`` with all predictors in front; empty where there is none."""
    leading = next((at for at, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    valued = {f"--{field.name}" for field in dataclasses.fields(Diagnose)}
    later = [
        at
        for at in range(leading, len(arguments))
        if PREDICTORS.fullmatch(arguments[at]) and arguments[at - 1] not in valued and not arguments[at].startswith("-")
    ]
    places = [*range(leading), *later]
    return (
        [*(arguments[at] for at in places), *(argument for at, argument in enumerate(arguments) if at not in places)]
        if places
        else []
    )


def _parse_and_run(arguments: list[str]) -> int:
    """``lab run``: its own options and the fields of the task's configuration on one command line.

    The fields of a sheet of several parts stand below the name of their part.
    """
    if not arguments:
        raise LabError("name the task to run; `lab list` names them all")
    parts = find_parts(arguments[0])
    preset = _value(arguments, "--preset", "ci")
    configs = {part.part or part.name: part.config(preset) for part in parts}
    default = next(iter(configs.values())) if len(parts) == 1 else _together(configs)
    about = f"Measure {arguments[0]}, draw its figures and judge its paper's claims."
    options, parsed = _parse(arguments, Run, default, "run", about)
    chosen = (
        [parsed] if len(parts) == 1 else [getattr(parsed, _field(name), config) for name, config in configs.items()]
    )
    return _run(parts, options, chosen)


def _check_own(task: Task, measurements: Sequence[Measurement], session: Session) -> None:
    """Refuse a file of one's own whose generators, predictors or measurements are not what they say; the suite checks the
    project's.
    """
    if task.place not in FOLDERS:
        checks.require_contracts(task)
        repeat.require_repeatable(task, measurements, session)


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
    from lab.diagnosis import trained
    from lab.diagnosis.settings import find_setting

    if not arguments:
        raise LabError(
            "name the predictor to diagnose: MODULE:FUNCTION, FILE.py:FUNCTION, a checkpoint, the folder of a released network, "
            "or SHEET:ARM"
        )
    by_name = trained.is_name(arguments[0])
    if by_name and not any(argument.partition("=")[0] == "--task" for argument in arguments):
        with contextlib.suppress(LabError):  # its own sheet's prompts, where that offers some
            find_setting(trained.sheet_of(arguments[0]))
            arguments = [*arguments, "--task", trained.sheet_of(arguments[0])]
    setting = find_setting(_value(arguments, "--task", Diagnose.task))
    if by_name:
        setting = trained.for_its_size(setting, trained.load_trained(arguments[0]).model)
    about = f"Name the algorithm that a predictor carries out. {type(setting).__doc__}"
    return _diagnose(*_parse(arguments, Diagnose, setting, "diagnose", about))


def _parse_and_export(arguments: list[str]) -> int:
    """``lab data``: its own options and the sizes of the generator on one command line."""
    from lab.data import sources
    from lab.data.export import export, recurrence_sentence

    if not arguments:
        for registered in sources.generators():
            print(
                f"{registered.part.__name__}  {' '.join((registered.part.__doc__ or '').split(chr(10) * 2)[0].split())}"
            )
        return 0
    if arguments[0].startswith("-"):
        raise LabError(f"`lab data {arguments[0]}` names no generator; name it first, `lab data` alone lists them")
    generator = sources.find_generator(arguments[0])
    about = f"Write prompts of {generator.part.__name__} to a file.\n\n{generator.part.__doc__ or ''}"
    options, sizes = _parse(arguments, Data, sources.options(generator), "data", about)
    source = sources.source_from(generator, sizes, options.part, options.share)
    recurrence = export(
        source, options.count, options.seed, options.out, options.also, options.precision, options.chunk
    )
    print(f"wrote {options.count:,} prompts of {source.name} to {options.out}")
    print(recurrence_sentence(source, recurrence))
    return 0


def _value(arguments: Sequence[str], option: str, default: str) -> str:
    """The value that the command line gives an option."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name == option:
            return value if equals else following
    return default


def _parse(arguments: list[str], options: type, default: Any, command: str, about: str) -> tuple[Any, Any]:
    """Instances of ``options`` and of the class of ``default``, whose fields stand side by side as options."""
    named = {"task", "predictors", "generator", "where"}
    reserved = {field.name for kind in (options, Where) for field in dataclasses.fields(kind)} - named | OF_ALL
    file = Path(getattr(sys.modules[type(default).__module__], "__file__", None) or "")
    for field in dataclasses.fields(default):
        if field.name in reserved:
            raise LabError(
                f"{file.name}: the field {field.name!r} of {type(default).__name__} is called like an option of `lab {command}`; "
                f"give it another name, such as {field.name}_"
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
        raise LabError(f"these options make no configuration: {described(error, file)}") from error
    config = getattr(parsed, "config", default)
    _check_not_emptied(default, config, "--")
    return parsed.options, config


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


def _check_not_emptied(default: Any, value: Any, option: str) -> None:
    """Refuse an option that was given no value where the preset has some: nothing would be measured, drawn or judged."""
    if dataclasses.is_dataclass(value) and type(value) is type(default):
        for field in dataclasses.fields(value):
            name = f"{option}.{field.name}" if option != "--" else f"--{field.name}"
            _check_not_emptied(getattr(default, field.name), getattr(value, field.name), name)
    elif isinstance(value, tuple | list | dict) and default and not value:
        raise LabError(
            f"{option.replace('_', '-')} is given no value, so that nothing could be shown; give at least one"
        )


def _console() -> Console:
    return listing.console()


def _print_table(verdicts: Verdicts, title: str) -> int:
    """Print the verdicts, and below them what kept a claim or a figure from coming out; returns the exit status."""
    console = _console()
    statements = {judgement.claim.id: judgement.claim.statement for judgement in verdicts.judgements}
    if records := [judgement.record() for judgement in verdicts.judgements]:
        console.print(terminal_table(records, statements, title, console.width))
    for sentence in verdicts.sentences:
        console.print(sentence, highlight=False, markup=False)
    return _status(verdicts)


def _status(verdicts: Verdicts) -> int:
    for error in verdicts.errors:
        _say(error)
    return 2 if verdicts.errors else 0 if all(judgement.as_expected for judgement in verdicts.judgements) else 1


def _run(parts: Sequence[Task], options: Run, configs: Sequence[Any]) -> int:
    session = options.where.session(options.fresh)
    if options.sweep is not None:
        return _sweep(parts, options, options.sweep, configs, session)
    seeds = options.seeds or None
    if seeds and options.fresh is not None:
        raise LabError(
            f"--seeds {' '.join(map(str, seeds))} and --fresh {options.fresh} both say which seeds to measure; name one of them"
        )
    # The proofs of a paper are judged with its task.
    proofs = [
        task
        for task in (discover() if parts[0].place == "tasks" else [])
        if task.name == parts[0].name and task.place == "proofs_check" and (len(parts) > 1 or options.task == task.name)
    ]
    chosen = choose([*parts, *proofs], options.only)
    results = [Results(part, config, session, seeds) for part, config in zip(parts, configs, strict=True)]
    results += [Results(task, task.config(options.preset), session) for task in proofs]
    if options.dry_run:
        return _dry_run(results, chosen, options.where.workers)
    _check_again(session, results)
    require_room(session.results)
    for task_results in results:
        _check_sizes(task_results)
        rehearse(task_results, chosen[task_results.task.key])
        warn_of_few_seeds(task_results, chosen[task_results.task.key].claims, options.preset)
    for part in parts:
        _check_own(part, chosen[part.key].measurements, session)
    verdicts = measure_and_draw(results, options.preset, chosen)
    if options.only and not any(choice.claims for choice in chosen.values()):
        return _status(verdicts)
    if options.preset == "smoke" and not options.only:
        judged = len(verdicts.judgements)
        print(
            f"{judged} of {judged + len(verdicts.lost)} claims were judged. The smoke preset shows that everything runs; it is too "
            "small for verdicts to count, and `lab check --preset smoke` shows them."
        )
        return 2 if _status(verdicts) == 2 else 0
    status = _print_table(verdicts, f"{parts[0].paper.citation}, preset {options.preset}")
    if parts[0].judgements is not None:
        print(
            f"Each verdict may be wrong by chance with probability {parts[0].allowance:.2g}: the budget of this file."
        )
    if options.preset == "smoke":
        print("The smoke preset shows that everything runs; it is too small for verdicts to count.")
        return 2 if verdicts.errors else 0
    lone = status == 1 and all(judgement.as_expected or judgement.lone for judgement in verdicts.judgements)
    return 0 if lone else status


def _dry_run(results: Sequence[Results], chosen: Mapping[str, Chosen], workers: int) -> int:
    from lab import planning

    planned = planning.plan(results, chosen)
    _console().print(planning.table(planned))
    print(planning.summary(planned, workers))
    return 0


def _sweep(parts: Sequence[Task], options: Run, field: str, configs: Sequence[Any], session: Session) -> int:
    from lab import sweeps

    if options.only or options.dry_run:
        raise LabError("--sweep measures everything at every value; leave out --only and --dry-run")
    sweeps.points_of(parts, configs, field)  # a mistake in it is reported before anything is measured
    require_room(session.results)
    for part in parts:
        _check_own(part, list(part.measurements.values()), session)
    sweep = sweeps.sweep(parts, configs, field, session, options.preset, options.seeds or None)
    _console().print(sweeps.table(sweep))
    for error in sweep.errors:
        _say(error)
    if picture := sweeps.draw(sweep, apart(session.results / sweep.task / "sweeps", parts[0])):
        print(f"wrote {picture}")
    return 2 if sweep.errors else 0


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
    _check_again(session, list(results.values()))
    jobs = []
    for key, (task, claims) in tasks.items():
        needed = {measurement.name: measurement for claim in claims for measurement in task.needs(claim.check)}
        jobs += results[key].jobs(list(needed.values()))
        warn_of_few_seeds(results[key], claims, preset)
        _check_own(task, list(needed.values()), session)
    verdicts = Verdicts()
    with redirect_stdout(sys.stderr):  # what a check prints is no verdict
        ensure(jobs, session)
        for key, (_, claims) in tasks.items():
            judge_all(results[key], claims, preset, verdicts)
    return verdicts


def _power(options: Power) -> int:
    if options.show < 1:
        raise LabError(f"--show {options.show} shows no claim; name at least 1, or leave it out for 20")
    verdicts = _judged(options.patterns, options.preset, options.where.session())
    chances = verdicts.chances
    if chances.sampled:
        _console().print(chances.table(options.show))
    print(chances.summary)
    return _status(verdicts) if verdicts.errors else 1 if chances.unlikely else 0


def _diagnose(options: Diagnose, setting: Any) -> int:
    from lab.diagnosis import adapt, comparison, presentation, subject, trained
    from lab.diagnosis.closed_forms import UserFile

    names = options.predictors
    if len(names) > presentation.SIDE_BY_SIDE or len(set(names)) < len(names):
        raise LabError(
            f"{len(names)} predictors, {len(set(names))} of them different: give each once, and at most "
            f"{presentation.SIDE_BY_SIDE}"
        )
    check_device(options.device)
    base = options.out or Session().results / "diagnosis" / _slug(options.task)
    folders = dict(zip(names, _folders(names, base, options.out is not None), strict=True))
    require_writable(*folders.values())
    user_file = UserFile.of(subject.file_module(options.candidates), options.candidates) if options.candidates else None
    adapter_options = {name: getattr(options, name) for name in ADAPTING if getattr(options, name) is not None}
    convention = adapt.CONVENTIONS.get(options.adapter)
    arguments = (convention and convention.arguments) or setting.arguments
    networks = {name: trained.load_trained(name) for name in names if trained.is_name(name)}
    predictors = {name: networks[name].model if name in networks else subject.load(name, arguments) for name in names}
    if options.adapter or adapter_options:
        predictors = {
            name: adapt.adapted(predictor, options.adapter, **adapter_options) for name, predictor in predictors.items()
        }
    console, diagnoses = _console(), []
    for network in networks.values():
        console.print(network.about, highlight=False, markup=False)
    for name, predictor in predictors.items():
        diagnoses.append(
            comparison.diagnose(
                predictor,
                setting,
                name=name,
                task=options.task,
                prompts=options.prompts,
                seed=options.seed,
                device=options.device,
                user_file=user_file,
            )
        )
        for table in presentation.tables(diagnoses[-1], console.width):
            console.print(table)
        for sentence in presentation.sentences(diagnoses[-1]):
            console.print(sentence, highlight=False, markup=False)
        _say_written(console, presentation.store(diagnoses[-1], folders[name]))
    if len(diagnoses) > 1:
        console.print(presentation.table_of_all(diagnoses, console.width))
        _say_written(console, presentation.store_all(diagnoses, base))
    return 1 if any(diagnosis.stopped for diagnosis in diagnoses) else 0


def _folders(names: Sequence[str], base: Path, named: bool) -> list[Path]:
    """Where each predictor's diagnosis is kept: a folder of its own below ``base``, or the one that was named for only one."""
    if named and len(names) == 1:
        return [base]
    slugs = [_slug(name) for name in names]
    twice = {slug for slug in slugs if slugs.count(slug) > 1}
    return [base / (f"{slug}-{at + 1}" if slug in twice else slug) for at, slug in enumerate(slugs)]


def _slug(name: str) -> str:
    """A predictor's or a task's name as that of a folder: of a path its last part."""
    return re.sub(r"\W+", "-", Path(name).name.removesuffix(".safetensors")).strip("-") or "predictor"


def _say_written(console: Console, paths: Sequence[Path]) -> None:
    for path in paths:
        console.print(f"wrote {path}", highlight=False, markup=False, soft_wrap=True)


def _stored(options: Stored) -> int:
    from lab import stored

    configurations = stored.survey(options.results, options.tasks)
    if options.prune:
        for sentence in stored.prune(options.results, configurations):
            print(sentence)
        return 0
    if options.json:
        print(json.dumps([held.record() for held in configurations], indent=1))
        return 0
    if configurations:
        _console().print(stored.table(configurations))
    print(stored.summary(options.results, configurations))
    return 0


def _compare(options: Compare) -> int:
    from lab import comparing

    require_writable(options.out)
    comparing.require_one_task(options.first, options.second)
    session = options.where.session()
    first, second = (comparing.side(text, session) for text in (options.first, options.second))
    comparison = comparing.compare(first, second)
    console = _console()
    for table in comparing.tables(comparison, options.everything):
        console.print(table)
    print(comparing.summary(comparison))
    if picture := comparing.draw(comparison, options.out):
        print(f"wrote {picture}")
    return 0 if comparison.same_verdicts else 1


def _cite(options: Cite) -> int:
    from lab import citations

    print(citations.bibtex(options.names))
    return 0


def _new(options: New) -> int:
    from lab.own.new import new

    files = new(options.name, options.folder)
    for file in files:
        print(f"wrote {file}")
    print(f"`lab run {files[0]} --preset smoke` runs it in seconds, without `--preset smoke` in about ten")
    return 0


def _export(options: Export) -> int:
    from lab.export import export

    pairs = find_claims([options.claim])
    if len(pairs) > 1:
        raise LabError(f"{options.claim} names {len(pairs)} claims, such as {pairs[0][1].id}; name one")
    (task, claim), session = pairs[0], options.where.session()
    path = export.place(claim, options.out)
    require_writable(path.parent)
    (judgement,) = _judged([options.claim], options.preset, session).require()
    write(path, export.script(task, claim, judgement, session).encode())
    print(
        f"wrote {path}: it runs without the lab, and found here {judgement.evidence.measured:.6g}, {judgement.verdict}"
    )
    return 0


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
    coverages = coverage.coverage(strict=False)
    if options.json:
        print(json.dumps([covered.record() for covered in coverages], indent=1))
        return 0
    coverage.show(coverages, _console())
    return 0


def _list(options: List) -> int:
    if options.papers:
        return _list_papers(options)
    stamp = listing.stamp()  # before the files are read
    records = _records()
    listing.keep(records, stamp)
    listing.show(records, options.json, _console())
    return 0


def _records() -> list[dict[str, Any]]:
    """Every sheet with its paper, presets, figures and claims, as plain data."""
    papers: dict[str, list[Task]] = {}
    for task in discover():
        papers.setdefault(task.name, []).append(task)
    return [
        {
            "task": next((task.key for task in tasks if task.place == "tasks"), None),
            "paper": {"slug": name, **dataclasses.asdict(tasks[0].paper)},
            "citation": tasks[0].paper.citation,
            "presets": list(tasks[0].presets),
            "figures": [figure for task in tasks for figure in task.figures],
            "claims": [_claim_record(claim) for task in tasks for claim in task.claims.values()],
        }
        for name, tasks in papers.items()
    ]


def _chosen(names: Sequence[str]) -> list[Task]:
    """The tasks called ``names``, all if none is: the name of a paper means its parts and its proofs."""
    known = [] if names and all(name.endswith(".py") for name in names) else discover()
    tasks = [] if names else known
    for name in names:
        tasks += [task for task in known if task.name == name] or find_parts(name)
    return tasks


def _notebooks(options: Notebooks) -> int:
    from lab.notebooks import execute, folder_of

    chosen = _chosen(options.tasks)
    session = options.where.session()
    if session.device != "cpu":
        raise LabError(f"notebooks show what was measured on the cpu, not on {session.device}; leave --device out")
    for name in options.tasks:
        if all(task.place == "proofs_check" for task in _chosen([name])):
            raise LabError(f"{name} holds proofs, which are code to be read and have no notebook; name its task")
    lectures = [Results(task, task.config("ci"), session) for task in chosen if task.place != "proofs_check"]
    _check_again(session, lectures)
    require_writable(*{folder_of(part.task, session) for part in lectures})
    for part in lectures:  # proofs are code to be read
        task = part.task
        _check_own(task, list(task.measurements.values()), session)
        ensure(part.jobs(list(task.measurements.values())), session)
        print(f"executed {execute(task, session, folder_of(task, session))}", flush=True)
    return 0


def _site(options: Site) -> int:
    from lab.site.build import build

    built = build(options.out, options.sheets)
    for fault in built.faults:
        print(fault, file=sys.stderr)
    print(f"wrote {built.pages} pages; open {built.out / 'index.html'}")
    return 1 if built.faults else 0


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


def _diagnose_kept(sheets: Sequence[str], root: Path) -> None:
    """Write the diagnosis of the networks that the pages of ``sheets`` show, where they are kept below ``root``."""
    for sheet in [sheet for sheet in sheets if sheet in kept_networks.SHOWN]:
        from lab.diagnosis import kept

        file = kept_networks.stored_file(sheet)
        try:
            groups = [
                kept.of_networks(group.names, kept_networks.TASK, group.sizes, kept_networks.PROMPTS, root)
                for group in kept_networks.SHOWN[sheet]
            ]
        except LabError as error:
            logger.warning("what the page of %s says of its trained networks is left as it is: %s", sheet, error)
            continue
        for place, group in enumerate(groups):
            print(f"drew {kept.draw(group, file.parent, kept_networks.picture(place))}", flush=True)
        records = [[kept.record(diagnosis) for diagnosis in group] for group in groups]
        write(file, (json.dumps(records, indent=1, allow_nan=False) + "\n").encode())


def _replicate(options: Reproduce, chosen: Sequence[Task], session: Session) -> int:
    contradicted, (tasks, errors) = 0, replication.readable(chosen, bool(options.weakest))
    for error in errors:
        _say(error)
    only = set(list(replication.chances_of(tasks))[: options.weakest]) if options.weakest else None
    for task in tasks:
        for root, outcomes in replication.replicate(task, session, options.roots, only).items():
            for claim, outcome in outcomes.items():
                if outcome != "as expected":
                    print(f"{claim} below the root {root}: {outcome}", flush=True)
                    contradicted += outcome != "inconclusive"
    _write_pages()
    return 2 if errors else 1 if contradicted else 0


def _reproduce(options: Reproduce) -> int:
    from lab.notebooks import execute

    require_clone("lab reproduce")
    chosen, session = _chosen(options.tasks), options.where.session()
    _check_again(session, [Results(task, task.config("ci"), session) for task in chosen])
    if options.weakest < 0 or (options.weakest and not options.roots):
        raise LabError(f"--weakest {options.weakest} is a number of claims, 1 or more, and goes with --roots ROOT ...")
    if options.roots:
        return _replicate(options, chosen, session)
    status = _print_table(Verdicts(reproduce(chosen, session)), "claims at preset ci")
    for task in [task for task in chosen if task.place != "proofs_check"]:
        print(f"executed {execute(task, session, task.file.parent)}", flush=True)
    _diagnose_kept(list(dict.fromkeys(task.name for task in chosen)), session.results)
    _write_pages()
    return status


if __name__ == "__main__":
    sys.exit(main())
