"""The page that builds a task in ten steps and breaks each on purpose: ``python -m lab.own.tutorial`` writes it to `PAGE`.

The code on it is that of the file which ``lab new`` writes, and every answer is what the lab says when the page is made.
"""

from __future__ import annotations

import ast
import io
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from lab import listing
from lab.cli import main
from lab.files import PROJECT, write
from lab.own.new import NAME, new, text

PAGE = PROJECT / "figures" / "tutorial.md"
FILE = "my_paper.py"
RUN = f"lab run {FILE} --preset smoke"
CHECK = f"lab check {FILE} --preset smoke"


@dataclass(frozen=True)
class Break:
    """A change that is wrong, and what the lab is asked then.

    Attributes:
        change: what is changed, in words that follow "Break it:".
        old, new: the text in the file and what it becomes; nothing is changed where both are empty.
        command: what is asked.
        shows: of the answer, the lines that hold one of these.
    """

    change: str
    old: str
    new: str
    command: str = CHECK
    shows: tuple[str, ...] = ("lab: ",)


@dataclass(frozen=True)
class Step:
    """One step: a heading, prose, the definitions of the file that it is about, and what happens if it is wrong."""

    heading: str
    prose: str
    defines: tuple[str, ...]
    broken: Break


STEPS = (
    Step(
        "Begin with something that runs",
        f"`lab new {NAME}` writes `{FILE}`: a generator, a closed form, two arms of a small network, a figure and two claims with "
        "controls, in about 220 lines. `--folder` writes a folder, with the generator and the closed form in a module beside the "
        "task. Nothing is registered anywhere: every command takes the path of the file. A file is at the same time a notebook "
        "(cells begin with `# %%`), so that prose and code stand together.",
        (),
        Break("ask for it a second time.", "", "", f"lab new {NAME}"),
    ),
    Step(
        "Sizes: one frozen dataclass, three presets",
        "Every field is an option of `lab run`, with its text as help. `smoke` shows that everything runs (seconds), `ci` is what "
        "you judge on, `paper` holds the sizes of the paper. What is measured is kept under its configuration, so that a number "
        "is never taken for one at other sizes.",
        ("Config", "TASK"),
        Break("leave a preset out.", '        "ci": Config(),\n', "", f"lab show {FILE}", ("lab: ",)),
    ),
    Step(
        "Prompts from a stream",
        "A generator is a function `(stream, batch, **sizes) -> dataclass of tensors`. It draws from its stream alone, a child of "
        "it for each thing that is drawn, so that prompt 5 is the same in a batch of 10 and of 1000. `@generator` names "
        "sizes at which that is checked, by `lab run` and `lab check`, before anything is measured.",
        ("Readings", "noisy_readings"),
        Break(
            "draw the errors from numpy's global state.",
            'source.child("errors").rng().standard_normal((batch, readings))',
            "np.random.standard_normal((batch, readings))",
        ),
    ),
    Step(
        "What is known exactly",
        "A closed form answers under the same protocol as a network: `(x_context, y_context, x_query) -> predictions`. Registered, "
        "it is checked, and `lab diagnose MODEL --candidates my_paper.py` compares models with it.",
        ("posterior_mean", "least_error"),
        Break(
            "let it sum over the whole batch.",
            "mean = y_context.sum(1) /",
            "mean = y_context.sum() * torch.ones(len(y_context)) /",
        ),
    ),
    Step(
        "An identity, and a control that must fail",
        "`TASK.identity` takes a function that returns deviations and the bound of their rounding. Each control calls the same "
        "function with another setting, in which some deviation must exceed its bound: a check that nothing can fail shows nothing.",
        ("posterior_mean_is_best",),
        Break(
            "write a control that changes nothing.",
            "believed=0.5)",
            "believed=1.0)",
            f"lab check {FILE}:I1 --preset smoke",
            ("NOT REJECTED", "verdicts are"),
        ),
    ),
    Step(
        "Networks: one architecture, an argument for the mask",
        "`build` makes one network a seed; all of them are trained as one. Causal and prefix are the same network: the mask is all "
        "that differs.",
        ("networks", "error_at_each", "loss"),
        Break("misspell a name of the library.", "masks.causal(config", "masks.casual(config", RUN),
    ),
    Step(
        "A measurement: a function of configuration and seed",
        "`Study.fit` trains every arm of every seed on the same prompts, and `ask` gives an array labelled seed × arm × …. What is "
        "measured is stored; an interrupted run continues. One seed of each measurement is taken twice before anything else, at "
        "the preset `smoke` and from a fresh import, and must agree to the last bit.",
        ("trained",),
        Break(
            "test on prompts that no seed fixes.",
            'draw(stream(seed, "test"), config.test_prompts)',
            'draw(stream(np.random.randint(2**31), "test"), config.test_prompts)',
        ),
    ),
    Step(
        "A figure",
        "A figure takes results and returns a sheet; its docstring is the caption. What panels draw is saved as CSV beside the "
        "picture, and says how many seeds it shows and what its bands are. Blue and red mean prefix and causal.",
        ("error_after_each_reading",),
        Break(
            "ask for an arm that there is not.",
            'for arm in ("prefix", "causal")',
            'for arm in ("prefix", "casual")',
            f"lab run {FILE} --preset smoke --only error_after_each_reading",
        ),
    ),
    Step(
        "A claim about trained networks",
        "An ordering is judged on an interval over independent trainings against a bound that stood before the seeds were drawn. "
        "The control keeps the pipeline and breaks the cause: here the last reading alone, where the two masks are one.",
        ("causal_errs_more",),
        Break(
            "give the control a setting that the check does not have.",
            'where the masks are one", last=True)',
            'where the masks are one", lst=True)',
        ),
    ),
    Step(
        "Seeds, and what they decide",
        "`lab run my_paper.py` judges at `ci`; with `--dry-run` it lists what would be measured and how long it took the last "
        "time; `--only O1` measures what one claim needs; `--sweep readings=4,8,16` makes a table and a curve. A verdict that "
        "the interval does not decide is `inconclusive` and says how many more seeds would, at the spread seen. A file that "
        "stands alone may divide the 5 % budget of false alarms over its own judgements: `Task(..., judgements=4)`. `lab export "
        "my_paper.py:O1` writes the claim as one script that runs without the lab.",
        (),
        Break(
            "ask a single seed.",
            "",
            "",
            f"lab run {FILE} --preset smoke --seeds 5 --only O1",
            ("no verdict", "One seed"),
        ),
    ),
)


def page(folder: Path) -> str:
    """The page in Markdown; its breaks are carried out in subfolders of ``folder``."""
    lines = [
        "# A task of one's own, in ten steps",
        "",
        "Each step shows what the file of `lab new` holds, and then what the lab answers when it is wrong. `python -m "
        "lab.own.tutorial` makes this page; the suite makes it again and compares.",
        "",
    ]
    for number, step in enumerate(STEPS, 1):
        lines += [f"## {number}. {step.heading}", "", step.prose, ""]
        if step.defines:
            lines += ["```python", excerpt(text(NAME), step.defines), "```", ""]
        broken = step.broken
        lines += [f"**Break it**: {broken.change}", ""]
        if broken.old:
            lines += ["```diff", *_changed(text(NAME), broken), "```", ""]
        answer = answered(broken, folder / f"step-{number}")
        lines += ["```console", f"$ {broken.command}", *answer, "```", ""]
    return "\n".join(lines)


def excerpt(source: str, names: tuple[str, ...]) -> str:
    """The definitions called ``names``, decorators included, as they stand in a source."""
    lines, definitions = source.splitlines(), []
    for node in ast.parse(source).body:
        called = node.targets[0].id if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else ""
        if getattr(node, "name", called) in names:
            first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
            definitions.append("\n".join(lines[first - 1 : node.end_lineno]))
    return "\n\n\n".join(definitions)


def answered(broken: Break, folder: Path) -> list[str]:
    """What the lab says to the file of ``lab new`` after a change, as far as `Break.shows`, decimals left out."""
    folder.mkdir(parents=True)
    (file,) = new(folder / NAME)
    source = file.read_text(encoding="utf-8")
    assert source.count(broken.old) == 1 or not broken.old, f"{broken.old!r} stands {source.count(broken.old)} times"
    file.write_text(source.replace(broken.old, broken.new) if broken.old else source, encoding="utf-8")
    console = io.StringIO()
    with _inside(folder), redirect_stdout(console), redirect_stderr(console):
        measures = broken.command.split()[1] in ("run", "check")
        main([*broken.command.split()[1:], *(["--workers", "1", "--results", "results"] if measures else [])])
    transcript = re.sub(r"\x1b\[[0-9;]*m", "", console.getvalue()).replace(f"{folder.resolve()}{os.sep}", "")
    transcript = re.sub(r"\d+\.\d+(e-\d+)?", "…", transcript)  # numbers that chance or the processor decides
    return [line.strip() for line in transcript.splitlines() if any(fragment in line for fragment in broken.shows)]


def _changed(source: str, broken: Break) -> list[str]:
    """The lines that a change touches, as a difference."""
    before, after = source.splitlines(), source.replace(broken.old, broken.new).splitlines()
    old = [line.strip() for line in before if line not in after]
    added = [line.strip() for line in after if line not in before]
    return [*(f"- {line}" for line in old), *(f"+ {line}" for line in added)]


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder, with tables as narrow as a page."""
    working_directory, width = Path.cwd(), listing.PLAIN_WIDTH
    os.chdir(folder)
    listing.PLAIN_WIDTH = 100
    try:
        yield
    finally:
        listing.PLAIN_WIDTH = width
        os.chdir(working_directory)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write(PAGE, page(Path(folder)).encode())
    print(f"wrote {PAGE}")
