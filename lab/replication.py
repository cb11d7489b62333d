"""Claims on seeds that nobody has used: every sampled claim judged again below other roots, and what came out.

A verdict that ships was taken once, on the seeds below the root that its task names. Whether it says something about the
claim or about those seeds is a question for other seeds, and its answer is kept beside the verdicts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from lab.claims import Judgement
from lab.errors import LabError
from lab.execution import Session
from lab.files import PROJECT, write
from lab.power import ENOUGH
from lab.report import stored_records
from lab.reproduction import Verdicts, judge_all
from lab.results import Results, ensure
from lab.tasks import Task

PAGE = PROJECT / "figures" / "verification.md"
Outcome = Literal["as expected", "inconclusive", "opposite", "control not rejected"]


def outcome(judgement: Judgement) -> Outcome:
    """What a judgement on other seeds says of a claim: an inconclusive one is no contradiction, an opposite one is."""
    if judgement.verdict == judgement.claim.expected:
        return "as expected" if judgement.as_expected else "control not rejected"
    return "inconclusive" if judgement.verdict == "inconclusive" else "opposite"


def replication_file(task: Task) -> Path:
    """Where the outcomes of ``task`` are kept."""
    return PROJECT / "evidence" / task.key / "replication.json"


def replicate(
    task: Task, session: Session, roots: Sequence[int], only: Collection[str] | None = None
) -> dict[str, dict[str, Outcome]]:
    """Judge the sampled claims of ``task`` at its ``ci`` preset below each of ``roots``, and keep the outcomes.

    Args:
        only: ids of the claims; all if left out.

    Returns:
        Outcome of each claim by root; those of other roots that were kept before, with the same code, are among them.

    Raises:
        LabError: a root is the one that the evidence was drawn below.
    """
    used = {task.root} | {
        measurement.root for measurement in task.measurements.values() if measurement.root is not None
    }
    if used & set(roots):
        raise LabError(f"evidence of {task.key} was drawn below the root {min(used & set(roots))}; name other roots")
    outcomes_by_root = outcomes(task)
    claims = [claim for claim in task.claims.values() if only is None or claim.id in only]
    for root in roots if claims else ():
        results = Results(task, task.config("ci"), replace(session, root=root))
        needed = {measurement.name: measurement for claim in claims for measurement in task.needs(claim.check)}
        ensure(results.jobs(list(needed.values())), results.session)
        verdicts = Verdicts()
        judge_all(results, claims, "ci", verdicts)
        judged = {judgement.claim.id: outcome(judgement) for judgement in verdicts.require() if _sampled(judgement)}
        outcomes_by_root[str(root)] = outcomes_by_root.get(str(root), {}) | judged
    if any(outcomes_by_root.values()):
        kept = {"code": _code(task), "roots": dict(sorted(outcomes_by_root.items(), key=lambda entry: int(entry[0])))}
        write(replication_file(task), (json.dumps(kept, indent=1) + "\n").encode())
    return outcomes_by_root


def outcomes(task: Task) -> dict[str, dict[str, Outcome]]:
    """The outcomes kept for the claims of ``task``, by root; none where its measurements or sizes have changed since."""
    file = replication_file(task)
    if not file.is_file():
        return {}
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        wrong = _damage(kept)
    except (OSError, ValueError, RecursionError) as error:
        wrong = str(error)
    if wrong:
        raise LabError(f"{file} is damaged ({wrong}); delete it, and `lab reproduce --roots` writes it anew")
    if kept["code"] != _code(task):
        return {}
    return {
        root: {claim: outcome for claim, outcome in judged.items() if claim in task.claims}
        for root, judged in kept["roots"].items()
    }


def readable(tasks: Iterable[Task], with_records: bool) -> tuple[list[Task], list[LabError]]:
    """The tasks whose outcomes (and, ``with_records``, verdicts) can be read, and why those of the others cannot."""
    readable_tasks, errors = [], []
    for task in tasks:
        try:
            outcomes(task)
            if with_records:
                stored_records(task)
            readable_tasks.append(task)
        except LabError as error:
            errors.append(error)
    return readable_tasks, errors


def _damage(kept: Any) -> str:
    """Why these are no outcomes by root; empty if they are."""
    if not isinstance(kept, dict) or set(kept) != {"code", "roots"} or not isinstance(kept["roots"], dict):
        return "it does not hold the code and the roots"
    for root, judged in kept["roots"].items():
        if not re.fullmatch("[0-9]{1,40}", root):
            return f"{root[:100]!r} is no root"
        if not isinstance(judged, dict):
            return f"below the root {root} it holds {repr(judged)[:100]}"
        for claim, outcome in judged.items():
            if outcome not in get_args(Outcome):
                return f"the outcome of {claim[:100]} below the root {root} is {repr(outcome)[:100]}"
    return ""


def _sampled(judgement: Judgement) -> bool:
    return any(
        evidence.sampled for evidence in (judgement.evidence, *(control.evidence for control in judgement.controls))
    )


def _code(task: Task) -> str:
    """Sixteen hex digits of what its numbers depend on, seeds and versions aside."""
    results = Results(task, task.config("ci"), Session())
    jobs = results.jobs(list(task.measurements.values()))
    about = sorted({json.dumps([job.measurement, job.config, job.source], sort_keys=True) for job in jobs})
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]


def page(sheets: Mapping[str, Sequence[Task]]) -> str:
    """The page of verification in Markdown: what a verdict promises, and how often it came out again."""
    lines = [
        "# Verification",
        "",
        "Exact claims (identities, enumerations, quadratures) are measured again with every change of the code and have no",
        "seeds. A sampled claim ships with the verdict of seeds that were drawn once, below a root that its task names.",
        "`lab check --fresh ROOT` draws all seeds below another root; the table counts what came out at other roots",
        "(`lab reproduce --roots ROOT ...` measures them and writes it). An inconclusive outcome contradicts nothing; an",
        "opposite one would. Where a root left a claim undecided, the claim was given more samples or rewritten, which its sheet's",
        "table of changes tells; that root is then no longer fresh for it.",
        "",
        "| sheet | roots | judgements | as expected | inconclusive | opposite | control not rejected |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    total: Counter[str] = Counter()
    missed: list[str] = []
    for name, parts in sheets.items():
        counts: Counter[str] = Counter()
        roots: set[str] = set()
        for task in parts:
            for root, judged in outcomes(task).items():
                if judged:
                    roots.add(root)
                counts.update(judged.values())
                missed += [
                    f"| `{claim}` | {root} | {outcome} |"
                    for claim, outcome in judged.items()
                    if outcome != "as expected"
                ]
        total += counts
        lines.append(
            f"| [{name}]({name}/README.md) | {', '.join(sorted(roots, key=int)) or 'none yet'} | {_cells(counts)} |"
        )
    lines.append(f"| all | | {_cells(total)} |")
    if missed:
        lines += ["", "Not as expected:", "", "| claim | root | outcome |", "| --- | --- | --- |", *missed]
    return "\n".join([*lines, *_least_certain(sheets)]) + "\n"


def chances_of(tasks: Iterable[Task]) -> dict[str, float]:
    """Of every sampled claim of ``tasks`` the chance that fresh seeds give its outcome again; the least certain comes first."""
    records = [record for task in tasks for record in stored_records(task)]
    chances = {record["id"]: record["chance"] for record in records if record.get("chance") is not None}
    return dict(sorted(chances.items(), key=lambda entry: entry[1]))


def _least_certain(sheets: Mapping[str, Sequence[Task]], shown: int = 20) -> list[str]:
    """A section on the claims whose outcome fresh seeds are least likely to give again."""
    chances = chances_of(task for parts in sheets.values() for task in parts)
    elsewhere: dict[str, list[str]] = {}
    for task in (task for parts in sheets.values() for task in parts):
        for root, judged in outcomes(task).items():
            for claim, outcome in judged.items():
                elsewhere.setdefault(claim, []).append(f"{root}: {outcome}")
    low = sum(chance < ENOUGH for chance in chances.values())
    return [
        "",
        "## The least certain outcomes",
        "",
        "From the samples that were judged one can estimate how likely fresh ones are to give the same verdict, with every",
        "control rejected (`lab power`). Mean and deviation, and the rate of a count or of a median, are averaged over what the samples",
        "tell of them; parts and controls count as independent. Where the first samples promised less than",
        f"{ENOUGH}, others were added below the same root, as the code says there, and the claim was judged again: such a claim was",
        "looked at twice, and may err twice. The estimate does not know of tails that were not seen; other roots, where measured",
        f"(`lab reproduce --roots ROOT ... --weakest {shown}`), stand beside it. Of {len(chances)} sampled claims {low} are below",
        f"{ENOUGH}; the {min(shown, len(chances))} least certain ones:",
        "",
        "| claim | chance | below other roots |",
        "| --- | --- | --- |",
        *(
            f"| `{claim}` | {chance:.3f} | {'; '.join(sorted(elsewhere.get(claim, [])))} |"
            for claim, chance in list(chances.items())[:shown]
        ),
    ]


def _cells(counts: Counter[str]) -> str:
    kinds: tuple[Outcome, ...] = ("as expected", "inconclusive", "opposite", "control not rejected")
    return " | ".join([str(counts.total()), *(str(counts[kind]) for kind in kinds)])
