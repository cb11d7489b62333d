"""What the commands of ``lab`` are called and which options they take; light, so that ``lab --help`` is there at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from lab.errors import LabError
from lab.files import PROJECT, path_from, results_folder

if TYPE_CHECKING:
    from lab.execution import Session


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# The type of every option and argument that is a path.
AnyPath = Annotated[
    Path,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: path_from(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    ),
]


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
    results: AnyPath = dataclasses.field(default_factory=results_folder)
    """folder of finished measurements"""
    again: tuple[str, ...] = ()
    """measurements to take again although they come with the lab, by name or part, with shell wildcards: '*' takes all,
    '!name' spares one"""

    def session(self, root: int | None = None) -> Session:
        from lab.execution import Session, check_cluster, check_device

        if self.workers < 1:
            raise LabError(f"--workers {self.workers} is below 1; name the number of processes to use")
        if root is not None and root < 0:
            raise LabError(f"--fresh {root} is below 0; name a root: 1, 2 and so on")
        check_device(self.device)
        check_cluster(self.cluster)
        return Session(self.results.absolute(), self.device, self.workers, self.cluster, root=root, again=self.again)


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
    """name of a task, id of a claim (or of several, with shell wildcards), slug of a paper, FILE.py, FILE.py:CLAIM, or
    'dictionary'"""


@dataclass(frozen=True)
class Run:
    """Measure one task, draw its figures beside the results and judge its paper's claims.

    Of a file of your own, what it registers is checked first, and one seed of every measurement is taken twice (at the
    preset smoke, until its code changes): both must agree bit for bit. Figures are drawn below results/TASK/figures/; those of
    a file of your own in a folder there that is named after the path of the file, as two files may name their tasks alike.
    """

    task: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TASK")]
    """name of a task, or path of a file that defines one"""
    preset: str = "ci"
    """smoke (seconds), ci (about a minute) or paper (the paper's sizes)"""
    seeds: tuple[int, ...] = ()
    """the seeds to measure, instead of the preset's number of them"""
    fresh: int | None = None
    """draw the seeds below this root (1, 2, …) instead of the one that the evidence was drawn below"""
    sweep: str | None = None
    """FIELD=A,B,C: measure and judge at each of these values of a field of the configuration, as a table and a curve"""
    only: tuple[str, ...] = ()
    """names of figures, claims or measurements: these alone, with what they need"""
    dry_run: bool = False
    """list what would be measured and how long it took the last time, and end"""
    where: Located = Where()


@dataclass(frozen=True)
class Check:
    """Judge claims. Exit status 0 only if every verdict is the expected one and every control was rejected."""

    patterns: tyro.conf.Positional[tuple[str, ...]] = ()
    """claim ids with shell wildcards, names of tasks, paths of files with claims, or FILE.py:CLAIM; all if left out"""
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
    """Name the algorithm that predictors carry out: compare them with every closed form on fresh prompts.

    Exit status 0 if every predictor was compared, whatever a FINDING says of it; 1 if a FINDING stopped a comparison.
    """

    predictors: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PREDICTOR [PREDICTOR ...]")]
    """MODULE:FUNCTION, FILE.py:FUNCTION, a checkpoint written by lab.models.checkpoint.save_model, the folder of a released GPT-2,
    GPT-NeoX or LLaMA, or SHEET:ARM of networks that `lab run` trained; one or several"""
    task: str = "linear-regression"
    """the prompts: linear-regression, regression-mixtures, function-classes, markov-chains, switching-chains, latent-graph,
    navigation, path-star, column-addition, next-state, or a task (name or file) that offers its own"""
    prompts: int = 512
    """fresh prompts, half of them to fit parameters, half to judge"""
    seed: int = 0
    """root of the prompts"""
    out: AnyPath | None = None
    """folder of diagnosis.json, diagnosis.png and the data behind it, with a folder for each of several predictors;
    results/diagnosis/TASK, with a folder for each, if left out"""
    candidates: AnyPath | None = None
    """FILE.py with closed forms of your own: those it registers, and CANDIDATES = {"name": predictor}"""
    device: str = "cpu"
    """where the predictors compute: cpu, cuda or cuda:N"""
    adapter: str = ""
    """how the model is called if not by the protocol: interleaved, paired, flagged (tokens made of x and y), positions
    ((xs, ys) to a prediction at every place), causal-lm (token ids to logits), arrays (numpy or JAX)"""
    label: str | None = None
    """adapter interleaved: coordinate of y in its token, first or last"""
    place: int | None = None
    """adapters: place of the output that is the prediction; -1, the query's, if left out"""
    read: int | None = None
    """adapters: coordinate of the output that is the prediction; the last if left out"""
    dtype: str | None = None
    """adapters: float16, bfloat16, float32 or float64; that of the model's parameters if left out"""
    batch: int | None = None
    """adapters: the most sequences of one call"""
    symbols: tuple[int, ...] | None = None
    """adapter causal-lm: token ids that stand for the symbols 0, 1, ..."""
    start: int | None = None
    """adapter causal-lm: token id that every sequence begins with"""


@dataclass(frozen=True)
class Notebooks:
    """Make and execute the notebooks of tasks."""

    tasks: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of tasks, or paths of files of your own; all tasks if left out"""
    where: Located = Where()


@dataclass(frozen=True)
class New:
    """Write a complete task to begin with: a file that runs, to be changed line by line."""

    name: Annotated[AnyPath, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """its name, such as my-paper, or the folder to write it to and its name; nothing there is overwritten"""
    folder: bool = False
    """write a folder, with the generator and the closed form in a module beside the task"""


@dataclass(frozen=True)
class Export:
    """Write one claim as a script that runs without the lab: generator, model, measurement, check and controls."""

    claim: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="CLAIM")]
    """id of a claim, or FILE.py:CLAIM"""
    out: AnyPath | None = None
    """the script; named after the claim, in the working directory, if left out"""
    preset: str = "ci"
    """smoke, ci or paper"""
    where: Located = Where()


@dataclass(frozen=True)
class Reproduce:
    """Make what is official at the ci preset: evidence, figures, verdicts, notebooks, pages."""

    tasks: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of tasks; all if left out"""
    roots: tuple[int, ...] = ()
    """instead, judge the sampled claims on the seeds below these roots and keep what comes out"""
    weakest: int = 0
    """of these claims only so many, which fresh seeds are least likely to judge alike; all if left out"""
    where: Located = Where()


@dataclass(frozen=True)
class Data:
    """Write prompts of a registered generator to a file, to train on elsewhere; a list of generators without a name."""

    generator: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="GENERATOR")]
    """name of a generator, or FILE.py:NAME"""
    count: int
    """number of prompts"""
    out: AnyPath
    """the file: .parquet, .npz, .jsonl or .safetensors"""
    seed: int = 0
    """root of the stream; the first prompts are the same for every count and chunk"""
    part: Literal["all", "train", "held-out"] = "all"
    """train and held-out share no question, below any seed"""
    share: float = 0.1
    """of all questions, what is held out"""
    also: tuple[Literal["mask", "answer", "risk"], ...] = ()
    """further columns: where a prompt is scored, what the exact predictor answers, what it loses on average"""
    precision: Literal["float64", "float32"] = "float64"
    """of the numbers in the file; they are drawn in float64"""
    chunk: int = 8192
    """prompts held in memory at once"""


@dataclass(frozen=True)
class Stored:
    """Show what is stored: task, configuration, seeds, age, size; --prune removes what this code can no longer use."""

    tasks: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of tasks; all if left out"""
    prune: bool = False
    """remove results of older code or other versions, and unfinished work of old keys"""
    json: bool = False
    """machine-readable output"""
    results: AnyPath = dataclasses.field(default_factory=results_folder)
    """folder of finished measurements"""


@dataclass(frozen=True)
class Compare:
    """Compare two configurations, presets or stores of one task: what differs, intervals side by side, one picture.

    Exit status 0 only if no verdict differs.
    """

    first: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="A")]
    """TASK[:PRESET][,FIELD=VALUE…][@FOLDER], where FOLDER is a results folder that is only read; or the output of
    `lab check --json` in a file that ends in .json"""
    second: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="B")]
    """the same"""
    everything: bool = False
    """show claims that do not differ, too"""
    out: AnyPath = dataclasses.field(default_factory=lambda: results_folder() / "comparison")
    """folder of comparison.png and the data behind it"""
    where: Located = Where()


@dataclass(frozen=True)
class Cite:
    """Print BibTeX of the papers behind tasks or claims, and of the lab."""

    names: tyro.conf.Positional[tuple[str, ...]]
    """names of tasks, ids of claims (shell wildcards), or keys of papers"""


@dataclass(frozen=True)
class Site:
    """Build the static site: sheets, claims, pictures, notebooks, papers, API; no server and no network are needed."""

    sheets: tyro.conf.Positional[tuple[str, ...]] = ()
    """names of sheets to show; all if left out"""
    out: AnyPath = PROJECT / "build" / "site"
    """folder of the site; one that is there is replaced"""


COMMANDS = {
    "new": New,
    "list": List,
    "show": Show,
    "run": Run,
    "check": Check,
    "power": Power,
    "compare": Compare,
    "results": Stored,
    "data": Data,
    "diagnose": Diagnose,
    "cite": Cite,
    "export": Export,
    "notebooks": Notebooks,
    "site": Site,
    "reproduce": Reproduce,
}


ABOUT = f"lab: {', '.join(COMMANDS)}; lab --version; --debug shows where an error is from."


def parse(arguments: Sequence[str]) -> Any:
    """An instance of one of the classes above; help and errors of use end the process."""
    return tyro.extras.subcommand_cli_from_dict(dict(COMMANDS), prog="lab", args=list(arguments), description=ABOUT)
