"""``lab export``: a claim as one script that runs with installed packages alone and prints the number that the lab has.

The script holds what the check, its measurements and the configuration depend on, as the lab's own rule of what a number
depends on follows it; the registering decorators, checkpoints and files are left out, and shapes are not checked. Its seeds,
and how many of them one call measures, are those of the lab.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import math
import re
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lab.claims import Claim, Judgement
from lab.errors import LabError
from lab.execution import Session
from lab.export import running
from lab.export.gather import Entity, Gathered, source_of
from lab.export.script import RULE, Script, check_complete
from lab.results import Results
from lab.tasks import Measurement, NoConfig, Task

OUT_OF_IDENTITIES = """\
def check(results: Results, case: str = "claimed") -> Evidence:
    found = results[{function}].sel(case=case)
    return {evidence}.within(found["deviation"].values, found["bound"].values, {origin!r})
"""


def place(claim: Claim, out: Path | None = None) -> Path:
    """Where the script of a claim goes: ``out``, or a file named after it in the working directory.

    Raises:
        LabError: there is such a file, it is none of Python, or its folder is not there.
    """
    path = out or Path(re.sub(r"[^A-Za-z0-9]+", "_", claim.id).strip("_") + ".py")
    if path.suffix != ".py":
        raise LabError(f"--out {path} is no Python file; give it a name that ends in .py")
    if path.exists() or path.is_symlink():
        raise LabError(f"{path} is there already and is left as it is; remove it, or name another file with --out")
    if not path.parent.is_dir():
        raise LabError(f"there is no folder {path.parent} to write {path.name} to; make it first, or name another one")
    return path


def script(task: Task, claim: Claim, judgement: Judgement, session: Session) -> str:
    """The text of the script."""
    check = inspect.unwrap(claim.check)
    of_identity = Path(check.__code__.co_filename).resolve() != task.file
    measurements = task.needs(claim.check)
    results = Results(task, task.config(judgement.preset), session)
    gathered = Gathered({task.module: task.file})
    roots = [Entity(task.module, measurement.name) for measurement in measurements]
    evidence = Entity("lab.evidence", "Evidence")
    roots.append(evidence if of_identity else Entity(task.module, check.__name__))
    roots += [_entity(kind) for kind in _types(results.config)]
    runtime = [Entity(running.__name__, name) for name in ("Results", "Taken", "verdict_beside")]
    for entity in roots:
        if not source_of(entity.module, task.file if entity.module == task.module else None).defined.get(entity.name):
            raise LabError(f"{claim.id} depends on {entity.name}, which is not defined by itself in {entity.module}")
    gathered.methods |= {"within"} if of_identity else set()
    try:
        gathered.take([*roots, *runtime])
        script = Script(gathered, task.module)
    except LabError as error:
        raise LabError(f"{claim.id} cannot be exported: {error}") from error
    name = {entity.name: script.name(entity) for entity in (*roots, *runtime)}
    body = [*script.sections(), _ending(task, claim, judgement, results, measurements, script, name, of_identity)]
    text = "\n\n".join([_head(claim, judgement, script, task), script.imports(), *body])
    check_complete(text)
    return text


def _head(claim: Claim, judgement: Judgement, script: Script, task: Task) -> str:
    packages = script.packages()
    needs = ", ".join(f"{package} {version(package)}" for package in packages) or "nothing but Python"
    interval = ""
    if judgement.evidence.interval is not None:
        low, high = judgement.evidence.interval
        interval = f" (interval {low:.4g} to {high:.4g}, {judgement.evidence.samples} samples)"
    paragraphs = [
        f"{claim.id}: {claim.statement}",
        f"{task.paper.citation}; {claim.where}." if task.paper.citation else claim.where,
        f"The lab measured {judgement.evidence.measured:.6g}{interval}, required {judgement.evidence.requirement}: "
        f"{judgement.verdict}, at the preset {judgement.preset}.",
        f"This script needs {needs}, and no lab. It holds the source that the claim depends on, in the order of the argument: "
        "prompts, networks, training, the measurement and its check, how evidence is judged, and the controls. Checks of shapes, "
        "checkpoints and stored results are left out. Other versions or processors may change the last digits.",
    ]
    wrapped = ["\n".join(textwrap.wrap(paragraph.replace('"""', "'''"), 118)) for paragraph in paragraphs]
    metadata = [
        "# /// script",
        f'# requires-python = ">={sys.version_info[0]}.{sys.version_info[1]}"',
        "# dependencies = [",
    ]
    metadata += [f'#     "{package}=={version(package).split("+")[0]}",' for package in packages]
    return "\n".join([*metadata, "# ]", "# ///", 'r"""' + "\n\n".join(wrapped) + '\n"""'])


def _ending(
    task: Task,
    claim: Claim,
    judgement: Judgement,
    results: Results,
    measurements: list[Measurement],
    script: Script,
    name: dict[str, str],
    of_identity: bool,
) -> str:
    """The claim itself: configuration, seeds, check, controls, and what the lab found."""
    check = inspect.unwrap(claim.check)
    lines = [RULE, f"# The claim {claim.id}", RULE, ""]
    called = name.get(check.__name__, check.__name__)
    if of_identity:
        closure = inspect.getclosurevars(check).nonlocals
        text = OUT_OF_IDENTITIES.format(function=called, evidence=name["Evidence"], origin=closure["origin"])
        lines += [text, ""]
        called = "check"
    lines.append(
        f"CONFIG = {_literal(results.config, script)}" if dataclasses.fields(results.config) else "CONFIG = None"
    )
    lines += [
        "# How the lab takes its measurements: at which seeds, and how many of them in one call; or in which cases.",
        "HOW = {",
    ]
    for measurement in measurements:
        lines.append(
            f"    {_literal(script.name(Entity(task.module, measurement.name)), script)}: "
            f"{name['Taken']}({_how(measurement, results, script)}),"
        )
    lines += ["}", "# Each breaks the cause and keeps the rest: the check must come out the other way.", "CONTROLS = {"]
    lines += [
        f"    {_literal(control.name, script)}: {_literal(dict(control.setting), script)},"
        for control in claim.controls
    ]
    lines += ["}", "IN_THE_LAB = {"]
    in_the_lab = {"the claim": judgement.evidence} | {control.name: control.evidence for control in judgement.controls}
    lines += [
        f"    {_literal(key, script)}: {_literal((evidence.measured, evidence.verdict), script)},"
        for key, evidence in in_the_lab.items()
    ]
    lines += ["}", "", 'if __name__ == "__main__":']
    expected = {"not reproduced": "does not hold at these sizes"}.get(claim.expected, claim.expected)
    expected = {"refuted": "is refuted"}.get(expected, expected)
    lines += [
        f"    results = {name['Results']}(CONFIG, HOW)",
        f"    sys.exit({name['verdict_beside']}({called}, results, CONTROLS, {claim.allowance!r}, "
        f"{_literal(expected, script)}, IN_THE_LAB))",
        "",
    ]
    return "\n".join(lines)


def _how(measurement: Measurement, results: Results, script: Script) -> str:
    if measurement.cases:
        return f"cases={_literal({case: dict(setting) for case, setting in measurement.cases.items()}, script)}"
    seeds = results.seeds(measurement)
    run = seeds == tuple(range(seeds[0], seeds[-1] + 1))
    written = f"tuple(range({seeds[0]}, {seeds[-1] + 1}))" if run and len(seeds) > 2 else repr(seeds)
    return f"{written}, together={measurement.seeds_per_job}" if measurement.ensemble else written


def _types(value: Any) -> list[type]:
    """The classes of the dataclasses and members of enumerations inside a configuration."""
    if dataclasses.is_dataclass(value) and not isinstance(value, NoConfig):
        inner = [kind for field in dataclasses.fields(value) for kind in _types(getattr(value, field.name))]
        return [type(value), *inner]
    if isinstance(value, enum.Enum):
        return [type(value)]
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [kind for element in value for kind in _types(element)] if isinstance(value, list | tuple) else []


def _entity(kind: type) -> Entity:
    return Entity(kind.__module__, kind.__name__)


def _literal(value: Any, script: Script) -> str:
    """A value as code of the script."""
    if dataclasses.is_dataclass(value):
        called = script.name(_entity(type(value)))
        return (
            f"{called}("
            f"{', '.join(f'{field.name}={_literal(getattr(value, field.name), script)}' for field in dataclasses.fields(value))})"
        )
    if isinstance(value, enum.Enum):
        return f"{script.name(_entity(type(value)))}.{value.name}"
    if isinstance(value, dict):
        return (
            "{"
            + ", ".join(f"{_literal(key, script)}: {_literal(element, script)}" for key, element in value.items())
            + "}"
        )
    if isinstance(value, list | tuple):
        inner = ", ".join(_literal(element, script) for element in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool | int | float | None):
        return repr(value)
    raise LabError(f"{value!r} is no number, text or dataclass of these, so that it cannot be written into a script")
