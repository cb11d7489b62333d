"""The predictor that is diagnosed: where it comes from, what it must keep, and what it does wrong.

A fault of the predictor is a `Finding` with the offending values, never an exception of ours. What the user named
wrongly (a module, a function, a file) is a `LabError`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import itertools
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lab.checks import BrokenContract, Check, no_tensor
from lab.diagnosis.adapt import CONVENTIONS
from lab.errors import LabError, described, nearest
from lab.models.checkpoint import StoredModel, load_model
from lab.models.released import load_released

# What a predictor of each kind is given, and prompts of `lab diagnose` that give it.
PROTOCOLS = {
    "regression": (("x_context", "y_context", "x_query"), "linear-regression"),
    "token": (("tokens", "prefix_length"), "markov-chains"),
    "state": (("states",), "next-state"),
}
CHECKPOINTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".pkl")
UNCHANGED = "inputs are not modified"
# Contracts without which no number of a comparison means anything.
NEEDED = (
    "one finite prediction a query",
    "normalised log-probabilities at every position",
    "no state is kept between calls",
    "it never looks at the answer",
)
SHOWN = 4  # numbers of an answer that a finding quotes


@dataclass(frozen=True)
class Finding:
    """Something a predictor should not do.

    Args:
        where: the contract or the part of the diagnosis that showed it.
        what: a sentence with the offending values.
        stops: whether the comparison cannot go on.
    """

    where: str
    what: str
    stops: bool


class Failed(Exception):
    """The predictor raised, or returned what is no answer; the message is a sentence with the values."""


class Subject:
    """A predictor that is only lent copies of its inputs and whose answers are checked: float64, finite, of one shape.

    Args:
        name: what to call it.
        call: the user's callable, or the predictor of a checkpoint.
        shape: inputs to the shape that an answer must have.
        log_answers: whether answers are log-probabilities.
        device: where it is given its inputs.

    Attributes:
        dtype: precision of the inputs it is given.
        gradients: whether it may differentiate.
    """

    def __init__(
        self,
        name: str,
        call: Callable[..., Any],
        shape: Callable[..., tuple[int, ...]],
        log_answers: bool,
        device: str = "cpu",
    ) -> None:
        self.name, self.call, self.shape, self.log_answers, self.device = name, call, shape, log_answers, device
        self.dtype, self.gradients = torch.float64, False

    def __call__(self, *inputs: Tensor) -> Tensor:
        answer = self.ask(self.copies(inputs))
        if not isinstance(answer, Tensor):
            raise Failed(no_tensor(answer))
        expected = self.shape(*inputs)
        if tuple(answer.shape) != expected:
            raise Failed(f"it returned shape {tuple(answer.shape)}, not {expected}, on inputs {_shapes(inputs)}")
        wrong = self.not_finite(answer)
        if bool(wrong.any()):
            place = tuple(wrong.nonzero()[0].tolist())
            raise Failed(
                f"answer {list(place)} is {float(answer[place])}, and {int(wrong.sum())} of {wrong.numel()} "
                "are not finite"
            )
        return answer.detach().to("cpu", torch.float64)

    def not_finite(self, answer: Tensor) -> Tensor:
        """Where an answer is no answer: minus infinity is a log-probability, and nothing else that is not finite is."""
        wrong = torch.isnan(answer) | torch.isposinf(answer)
        return wrong if self.log_answers else wrong | torch.isneginf(answer)

    def copies(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The inputs as it is given them."""
        return [
            tensor.to(self.device, self.dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
            for tensor in inputs
        ]

    def ask(self, inputs: Sequence[Tensor]) -> Any:
        """What it returns, unchecked but for complex numbers."""
        try:
            with torch.set_grad_enabled(self.gradients):
                answer = self.call(*inputs)
        except KeyboardInterrupt:
            raise
        except LabError as error:  # of an adapter or a closed form, which says what is wrong
            raise Failed(str(error)) from error
        except BaseException as error:  # also what is meant to end a program or a generator
            text = (str(error).strip().splitlines() or ["no message"])[0]
            hint = "; if its ids are others than 0, 1, ..., say which stand for the symbols, with --symbols"
            ids = isinstance(error, IndexError) and self.log_answers
            raise Failed(
                f"it raises {type(error).__name__} on inputs {_shapes(inputs)}: {text}{hint if ids else ''}"
            ) from error
        if isinstance(answer, Tensor) and answer.dtype == torch.bool:
            raise Failed("it returned truth values, but an answer is real numbers")
        if isinstance(answer, Tensor) and answer.is_complex():
            raise Failed(f"it returned complex numbers, the first of them {answer.flatten()[:1].tolist()}")
        return answer


def _shapes(inputs: Iterable[Tensor]) -> str:
    return ", ".join(str(list(tensor.shape)) for tensor in inputs)


class _Recorder:
    """The callable of a subject that keeps what its last calls were given and what they returned."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.clear(False)

    def clear(self, exposed: bool) -> None:
        """Forget the calls so far; from now on what is done to a copy is done to the input iff ``exposed``."""
        self.exposed = exposed
        self.changed: list[str] = []
        self.answers: list[Any] = []

    def __call__(self, *inputs: Tensor) -> Any:
        lent, before = self.subject.copies(inputs), self.subject.copies(inputs)
        answer = self.subject.ask(lent)
        for number, (old, new, original) in enumerate(zip(before, lent, inputs, strict=True)):
            if self.exposed and not torch.equal(old, new):
                place = tuple((old != new).nonzero()[0].tolist())
                self.changed.append(
                    f"input {number + 1} at {list(place)} was {old[place].item():.6g} and became {new[place].item():.6g}"
                )
                original.copy_(new)
        self.answers.append(answer.detach().cpu().clone() if isinstance(answer, Tensor) else answer)
        return answer

    def values(self) -> str:
        """The offending values: the input that changed, the number that is none, or the answers that differ."""
        if self.changed:
            return self.changed[0]
        if not self.answers or not isinstance(self.answers[0], Tensor):
            return ""
        first, last = self.answers[0], self.answers[-1]
        wrong = self.subject.not_finite(first)
        if bool(wrong.any()):
            place = tuple(wrong.nonzero()[0].tolist())
            return f"answer {list(place)} is {first[place].item()}"
        if len(self.answers) == 1:
            return f"it begins {_begin(first)}"
        return f"first answer {_begin(first)}, last answer {_begin(last)}"


def _begin(answer: Tensor) -> str:
    """The first numbers of the answer to the first prompt (of tokens: at the middle position)."""
    numbers = answer[0] if answer.dim() > 1 else answer
    numbers = numbers[len(numbers) // 2] if numbers.dim() > 1 else numbers
    return "[" + ", ".join(f"{float(number):.5g}" for number in numbers.flatten()[:SHOWN]) + "]"


def contract_findings(subject: Subject, checks: Callable[[Any], Iterator[Check]]) -> list[Finding]:
    """What the checks of its protocol find.

    Args:
        checks: a predictor to its checks (`lab.contracts.regression_predictor_checks` or of tokens).
    """
    recorder, findings = _Recorder(subject), []
    for check in checks(recorder):
        recorder.clear(check.name == UNCHANGED)
        try:
            check.run()
        except BrokenContract as broken:
            values = recorder.values()
            sentence = f"{broken} ({values})" if values else str(broken)
            findings.append(Finding(check.name, sentence, check.name in NEEDED))
        except Failed as failed:
            findings.append(Finding(check.name, str(failed), True))
        except (RuntimeError, TypeError, IndexError) as error:  # answers so odd that they cannot be compared
            findings.append(Finding(check.name, f"its answers cannot be compared: {error}", True))
        if findings and findings[-1].stops:
            break
    return findings


def settle_precision(subject: Subject, inputs: Sequence[Tensor]) -> list[Finding]:
    """Ask in float64, letting it differentiate only if it must; where only float32 works, go on in float32 and say so."""
    first = ""
    for subject.dtype, subject.gradients in itertools.product((torch.float64, torch.float32), (False, True)):
        try:
            subject.ask(subject.copies(inputs))
        except Failed as failed:
            first = first or str(failed)
        else:
            single = subject.dtype == torch.float32
            sentence = f"it takes float32 only and is asked in it ({first})"
            return [Finding("precision", sentence, False)] if single else []
    subject.dtype, subject.gradients = torch.float64, False
    return []  # the contracts will say so


def unread_query(subject: Subject, arguments: Sequence[str], inputs: Sequence[Tensor]) -> list[Finding]:
    """A finding if no answer moves when every prompt gets the query of another, as where an output before the query is read."""
    if "x_query" not in arguments:
        return []
    exchanged = [
        tensor.roll(1, 0) if name == "x_query" else tensor for name, tensor in zip(arguments, inputs, strict=True)
    ]
    try:
        if not torch.equal(subject(*inputs), subject(*exchanged)):
            return []
    except Failed:  # the contracts have said so, or will
        return []
    sentence = (
        "its answers stay the same when the queries are others; if it is meant to answer them, its prediction stands at "
        "another place or coordinate of its output (--place, --read)"
    )
    return [Finding("the query", sentence, False)]


def answer_needed(call: Callable[..., Any], arguments: Sequence[str]) -> list[Finding]:
    """A finding if the callable cannot be called with the arguments of its protocol."""
    try:
        signature = inspect.signature(call.forward if isinstance(call, torch.nn.Module) else call)
    except (TypeError, ValueError):  # some callables have none
        return []
    try:
        signature.bind(*arguments)
    except TypeError:
        parameters = ", ".join(signature.parameters) or "none"
        hint = (
            f"; a module that reads anything else needs --adapter, one of {', '.join(CONVENTIONS)}"
            if isinstance(call, torch.nn.Module)
            else "; if it makes one, name a predictor that it made, as NAME = function(...) in the file"
        )
        hint = _of_another_protocol(signature, arguments) or hint
        return [
            Finding(
                "arguments",
                f"it takes the arguments ({parameters}) but a predictor is given {len(arguments)}, ({', '.join(arguments)}), "
                f"and never the answer{hint}",
                True,
            )
        ]
    return []


def _of_another_protocol(signature: inspect.Signature, arguments: Sequence[str]) -> str:
    """Where a signature takes what a predictor of another kind is given by name, how to diagnose it."""
    for kind, (others, task) in PROTOCOLS.items():
        if others != tuple(arguments) and set(others) <= set(signature.parameters):
            return f"; it takes what a {kind} predictor is given, which --task {task} diagnoses"
    return ""


def _check_kind(function: Callable[..., Any], spec: str, arguments: Sequence[str]) -> None:
    """Refuse what the lab knows to make predictors of another kind."""
    contract = getattr(function, "__contract__", None)
    kind = {"regression": "regression", "tokens": "token"}.get(getattr(contract, "kind", ""), "")
    protocols = [needed for needed, _ in PROTOCOLS.values()]
    if not kind or tuple(arguments) not in protocols or tuple(arguments) == PROTOCOLS[kind][0]:
        return
    needed, task = PROTOCOLS[kind]
    raise LabError(
        f"{spec} makes a {kind} predictor, which is given ({', '.join(needed)}) and here would be given "
        f"({', '.join(arguments)}); diagnose it with --task {task}"
    )


def load(spec: str, arguments: Sequence[str]) -> Callable[..., Any] | StoredModel:
    """The callable that ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION`` names, or the model in a checkpoint or a released folder.

    What can be called without arguments, but not with those of the protocol, is a factory and is called once.

    Args:
        spec: what the user wrote.
        arguments: names of the arguments of the protocol.

    Raises:
        LabError: there is no such module, file or function, it does not import, or makes predictors of another kind.
    """
    if Path(spec).suffix in CHECKPOINTS:
        return load_model(Path(spec))
    if Path(spec).is_dir():
        return load_released(Path(spec))
    place, colon, name = spec.rpartition(":")
    if not colon or not place or not name:
        raise LabError(
            f"{spec!r} names no predictor; write MODULE:FUNCTION, FILE.py:FUNCTION, a checkpoint.safetensors, the folder of a "
            "released network, or SHEET:ARM of networks that `lab run` trained"
        )
    module = file_module(Path(place)) if place.endswith(".py") else _module(place)
    if not callable(getattr(module, name, None)):
        known = [
            attribute for attribute, value in vars(module).items() if callable(value) and not attribute.startswith("_")
        ]
        raise LabError(f"{place} has no function {name!r}{nearest(name, known)}; name one that it defines")
    _check_kind(getattr(module, name), spec, arguments)
    return _made(getattr(module, name), spec, arguments)


def _made(function: Callable[..., Any], spec: str, arguments: Sequence[str]) -> Callable[..., Any]:
    if isinstance(function, torch.nn.Module):
        return function  # whatever its forward may be called with
    try:
        signature = inspect.signature(function)
        signature.bind()
    except (TypeError, ValueError):
        return function
    try:
        signature.bind(*arguments)
    except TypeError:
        try:
            predictor = function()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise LabError(
                f"{spec} is called to make a predictor but raises {type(error).__name__}: {error}"
            ) from error
        if not callable(predictor):
            raise LabError(
                f"{spec} takes no arguments and returned {type(predictor).__name__}; let it return a predictor"
            ) from None
        return predictor
    return function


def _module(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` has it
    parent, _, leaf = name.rpartition(".")
    if parent:
        folder: Any = getattr(_module(parent), "__path__", [])
    else:
        folder = None
    known = [module.name for module in pkgutil.iter_modules(folder)]
    if leaf not in known and name not in sys.modules:
        raise LabError(f"there is no module {name!r}{nearest(leaf, known)}; give an importable module or a FILE.py")
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise LabError(f"{name} cannot be imported: {type(error).__name__}: {error}") from error


def file_module(path: Path) -> ModuleType:
    """The module in a file, which finds what lies beside it.

    Raises:
        LabError: there is no such file, or it cannot be imported.
    """
    path = path.expanduser().resolve()
    if not path.is_file():
        siblings = [file.name for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise LabError(f"there is no file {path}{nearest(path.name, siblings)}; give the path of a Python file")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # as `python FILE` has it
    name = f"diagnosed_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise LabError(f"{path} cannot be imported: {described(error, path)}") from error
    return module
