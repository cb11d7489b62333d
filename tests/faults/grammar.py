"""Command lines drawn at random: most of the words are right, and of some wrong ones it is known that they must be refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from lab.tasks import PRESETS

WHOLE_NUMBER = re.compile(r"\s*[+-]?\d+(_\d+)*\s*")
NOTHING = "nothing-of-the-kind"
ODD = (
    NOTHING,
    *"nan inf -inf -0 1e309 0 -1 0.5 1e-320 1.0 1e3 0x10 1_000 +5 1,2 None True false [] {} [bold] [/bold] $(touch `id`".split(),
    *"| && ' \" \\ %s {0} ? [ [a ~ ~nobody ~nobody/x.py .. ../.. /dev/null /dev/null/x /proc/x/y - -- --- -h @x".split(),
    *"x.py asked.py a/b : :: a:b x.safetensors".split(),
    *("", " ", "\t", "\n", "; ls", "\x1b[31m", "9" * 25, "-" + "9" * 25, "1" + "0" * 4000, "a" * 300),
    *(
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
        "\N{CJK UNIFIED IDEOGRAPH-65E5}",
        "\N{PARROT}",
        "\N{RIGHT-TO-LEFT OVERRIDE}",
    ),
    *("\N{ARABIC-INDIC DIGIT THREE}", "\N{SUPERSCRIPT TWO}"),
)


@dataclass(frozen=True)
class Line:
    """A command line.

    Attributes:
        arguments: its words.
        wrong: those parts of it that no answer but a refusal fits.
    """

    arguments: tuple[str, ...]
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Words that belong together, and what in them must be refused."""

    words: tuple[str, ...]
    wrong: tuple[str, ...] = ()


Draw = Callable[[Random], Piece]


def line(rng: Random) -> Line:
    """A command line drawn at random."""
    command, weight = zip(*COMMANDS.items(), strict=True)
    name = rng.choices(command, weight)[0]
    pieces = PIECES[name](rng)
    if rng.random() < 0.06 and pieces:
        pieces.pop(rng.randrange(len(pieces)))
    if rng.random() < 0.06:
        pieces.insert(rng.randrange(len(pieces) + 1), Piece(("--nothing", "3"), ("--nothing",)))
    if rng.random() < 0.3:
        rng.shuffle(pieces)
    if rng.random() < 0.04 and pieces:  # an option twice
        twice = rng.choice(pieces)
        option = twice.words[0].partition("=")[0] if twice.words else ""
        pieces.append(Piece(twice.words, (*twice.wrong, *((f"{option} twice",) if option[:2] == "--" else ()))))
    pieces = [piece for piece in pieces if piece.words]
    # After an option that takes any number of words a name is one of them.
    pieces = [
        Piece(piece.words) if before.words[0].partition("=")[0] == "--again" and piece.words[0][:1] != "-" else piece
        for before, piece in zip([Piece((name,)), *pieces], pieces, strict=False)
    ]
    words = [name, *(word for piece in pieces for word in piece.words)]
    wrong = tuple(word for piece in pieces for word in piece.wrong)
    if rng.random() < 0.03:
        words.insert(
            rng.randrange(len(words) + 1), rng.choice(("--help", "-h", "--debug", "--version", "--json", "extra"))
        )
        wrong = ()  # what a word too many does to the others is not worked out here
    if any(word in ("-h", "--help", "--") for word in words):
        wrong = ()  # help is given whatever else is there, and after -- nothing is an option
    return Line(tuple(words), wrong)


def _odd_or(rng: Random, good: Sequence[str], share: float) -> tuple[str, bool]:
    """A right word, or an odd one."""
    return (rng.choice(ODD), True) if rng.random() < share else (rng.choice(list(good)), False)


def _option(
    name: str, good: Sequence[str], refused: Callable[[str], bool], chance: float = 0.3, share: float = 0.25
) -> Draw:
    """An option of one value, which must be refused where ``refused`` says so."""

    def draw(rng: Random) -> Piece:
        if rng.random() > chance:
            return Piece(())
        word, odd = _odd_or(rng, good, share)
        words = (f"{name}={word}",) if rng.random() < 0.25 else (name, word)
        return Piece(words, (" ".join(words),) if odd and refused(word) else ())

    return draw


def _several(name: str, good: Sequence[str], refused: Callable[[str], bool], distinct: bool) -> Draw:
    """An option of several values."""

    def draw(rng: Random) -> Piece:
        if rng.random() > 0.25:
            return Piece(())
        drawn = [_odd_or(rng, good, 0.15) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        wrong = [f"{name} {word}" for word, odd in drawn if odd and refused(word)]
        words = [word for word, _ in drawn]
        right = [word for word, odd in drawn if not odd]
        if not words:
            wrong.append(f"{name} of nothing")
        elif distinct and len(right) == len(words) and len(set(right)) < len(right):
            wrong.append(f"{name} {' '.join(words)}")
        return Piece((name, *words), tuple(wrong))

    return draw


def _no_whole_number(word: str) -> bool:
    return not word.startswith("-") and not WHOLE_NUMBER.fullmatch(word)


def _no_whole_number_nor_none(word: str) -> bool:
    return word.strip() != "None" and _no_whole_number(word)


def _no_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return not word.startswith("-")
    return False


def _no_preset(word: str) -> bool:
    return word not in PRESETS and not word.startswith("-")


def _no_device(word: str) -> bool:
    return not word.startswith(("cpu", "cuda", "-"))


def _no_cluster(word: str) -> bool:
    return bool(word) and not word.startswith("-")


def _unknown(word: str) -> bool:
    return False


PRESET = _option("--preset", ("smoke", "ci", "ci"), _no_preset)
FRESH = _option("--fresh", ("0", "1", "3"), _no_whole_number_nor_none, 0.1)
SEEDS = _several("--seeds", ("0", "1", "2", "7"), _no_whole_number, True)
AGAIN = _option("--again", ("*", "means", "!means"), lambda word: word == NOTHING, 0.08)


def _flag(name: str, chance: float) -> Draw:
    return lambda rng: Piece((name,) if rng.random() < chance else ())


def _workers(rng: Random) -> Piece:
    if rng.random() < 0.9:
        return Piece(("--workers", "1"))
    word = rng.choice(("0", "-1", "nan", "1.5", "", "one", "1e3", "[]"))
    return Piece(("--workers", word), (f"--workers {word}",))


def _where(rng: Random) -> list[Piece]:
    cluster = ("nonsense", "tcp://", ":", "http://", "inproc://x", "\N{LATIN SMALL LETTER E WITH ACUTE}")
    pieces = [
        _workers(rng),
        _option("--device", ("cpu", "cpu", "cpu:0"), _no_device, 0.12)(rng),
        _option("--results", ("r1", "r2", "./r1"), _unknown, 0.12)(rng),
        AGAIN(rng),
    ]
    if rng.random() < 0.03:
        word = rng.choice(cluster)
        pieces.append(Piece(("--cluster", word), (f"--cluster {word}",)))
    return pieces


def _name(rng: Random, good: Sequence[str], share: float = 0.12) -> Piece:
    """The name of a task, a claim or a file."""
    if rng.random() < share:
        word = rng.choice((NOTHING, "tyni", "nothing.py", "tiny/nothing", "sheet/one/two"))
        return Piece((word,), (word,))
    return Piece((rng.choice(list(good)),)) if rng.random() < 0.93 else Piece((rng.choice(ODD),))


def _run(rng: Random) -> list[Piece]:
    name = _name(rng, ("own.py",) * 12 + ("./own.py", "drawn.py", "tiny", "sheet", "sheet/one"))
    prefix = "--one." if name.words == ("sheet",) else "--"
    sizes = [
        _option("--sweep", ("size=3,4",), lambda word: not word.startswith("-"), 0.05)(rng)
        if prefix == "--"
        else Piece(()),
        _option(f"{prefix}size", ("3", "10", "4"), _no_whole_number)(rng),
        _option(f"{prefix}draws", ("2", "6", "3"), _no_whole_number)(rng),
        _several(f"{prefix}inner.scales", ("1.0", "2", "0.5"), _no_number, False)(rng),
    ]
    return [name, PRESET(rng), SEEDS(rng), FRESH(rng), *sizes, *_where(rng)]


CLAIMS = ("own.py",) * 6 + ("own.py", "tiny", "tiny/*", "sheet/A1", "sheet/one", "*", "tiny/A*")


def _check(rng: Random) -> list[Piece]:
    names = [_name(rng, CLAIMS) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
    return [*names, PRESET(rng), FRESH(rng), _flag("--json", 0.4)(rng), *_where(rng)]


def _power(rng: Random) -> list[Piece]:
    names = [_name(rng, CLAIMS) for _ in range(rng.choice((0, 1, 1, 2)))]
    return [*names, PRESET(rng), _option("--show", ("1", "20"), _no_whole_number)(rng), *_where(rng)]


def _list(rng: Random) -> list[Piece]:
    extra = Piece(("extra",), ("extra",)) if rng.random() < 0.2 else Piece(())
    return [_flag("--json", 0.4)(rng), _flag("--papers", 0.4)(rng), extra]


def _show(rng: Random) -> list[Piece]:
    good = ("tiny", "tiny/A1", "tiny/*", "dictionary", "own.py", "sheet", "sheet/one", "ding-2024-causallm")
    name = _name(rng, good, 0.3)
    if rng.random() < 0.1:
        return [Piece((*name.words, "tiny"), (*name.wrong, "a second name"))]
    return [name]


def _diagnose(rng: Random) -> list[Piece]:
    """Mostly what cannot be diagnosed: what can takes seconds."""
    if rng.random() < 0.03:
        return [Piece(("asked.py:zero", "--prompts", "16", "--dimension", "2", "--context-length", "3"))]
    word = rng.choice(
        ("asked.py:nothing", "asked.py:five", "nothing:f", "x.safetensors", "asked.py:", ":zero", "asked.py")
    )
    return [
        Piece((word,), (word,)),
        _option("--prompts", ("16", "40"), _no_whole_number)(rng),
        _option("--task", ("linear-regression", "markov-chains", "tiny"), _unknown, 0.15)(rng),
        _option("--seed", ("0", "1"), _no_whole_number, 0.2)(rng),
        _option("--dimension", ("1", "2"), _no_whole_number)(rng),
        _option("--context-length", ("1", "4"), _no_whole_number)(rng),
        _option("--noise", ("0", "0.5"), _no_number, 0.2)(rng),
        _option("--out", ("o1", "o2"), _unknown, 0.3)(rng),
    ]


def _makes_files(rng: Random) -> list[Piece]:
    """Names for commands that take many seconds where all of them are right."""
    if rng.random() < 0.01:
        return [Piece((rng.choice(("tiny", "sheet/one")),)), *_where(rng)]
    wrong = Piece((NOTHING,), (NOTHING,))
    return [wrong, *([_name(rng, ("tiny", "sheet"))] if rng.random() < 0.5 else []), *_where(rng)]


def _reproduce(rng: Random) -> list[Piece]:
    pieces = _makes_files(rng)
    if NOTHING not in pieces[0].words:
        return pieces
    return [*pieces, _several("--roots", ("1", "2"), _no_whole_number, False)(rng)]


def _nothing(rng: Random) -> list[Piece]:
    return [_name(rng, ("tiny", "own.py")) for _ in range(rng.choice((0, 1, 2)))]


# Words for paths below the folder of the trial: nothing outside it is written or removed.
PATHS = tuple(word for word in ODD if not word.startswith((".", "/")))


def _path(name: str, good: Sequence[str], chance: float = 0.3) -> Draw:
    """An option that is a path, now and then an odd one."""
    return lambda rng: Piece((name, rng.choice(PATHS if rng.random() < 0.2 else good)) if rng.random() < chance else ())


def _new(rng: Random) -> list[Piece]:
    name = rng.choice(PATHS) if rng.random() < 0.4 else f"task-{rng.randrange(10**6)}"
    return [Piece((name,)), _flag("--folder", 0.3)(rng)]


def _side(rng: Random) -> Piece:
    good = ("own.py", "own.py:smoke", "own.py,size=3", "own.py:smoke,draws=2", "tiny", "sheet/one", "tiny@results")
    if rng.random() < 0.7:
        return Piece((rng.choice(good),))
    wrong = ("own.py:nonsense", "own.py,nothing=3", "own.py,size=x", "nothing.py", "own.py@nowhere", "nothing.json")
    word = rng.choice((*wrong, f"own.py@{'a' * 300}", f"{'a' * 300}.json", "own.py@~nobody_of_this_name/x"))
    return Piece((word,), (word,))


def _compare(rng: Random) -> list[Piece]:
    sides = [_side(rng), _side(rng)]
    return [*sides, _flag("--everything", 0.2)(rng), _path("--out", ("c1", "~/c2"), 0.5)(rng), *_where(rng)]


def _results(rng: Random) -> list[Piece]:
    names = [_name(rng, ("tiny", "sheet", "own.py")) for _ in range(rng.choice((0, 1, 1)))]
    flags = [_flag("--prune", 0.1)(rng), _flag("--json", 0.3)(rng)]
    return [*names, *flags, _path("--results", ("results", "~/results", "r1"))(rng)]


def _data(rng: Random) -> list[Piece]:
    sizes = ("--dimension", "2", "--context-length", "3", "--query-length", "1")
    count, odd = _odd_or(rng, ("1", "20", "300"), 0.3)
    return [
        _name(rng, ("linear-regression",), 0.1),
        Piece(("--count", count), (f"--count {count}",) if odd and _no_whole_number(count) else ()),
        Piece(("--out", rng.choice(("d.npz", "d.jsonl", "~/d.safetensors", "nowhere/d.npz", *PATHS)))),
        Piece(sizes if rng.random() < 0.9 else ()),
        _option("--seed", ("0", "1"), _no_whole_number, 0.2)(rng),
        _option("--part", ("all", "train", "held-out"), lambda word: not word.startswith("-"), 0.2)(rng),
        _option("--share", ("0.1", "0.5"), _no_number, 0.2)(rng),
        _option("--chunk", ("1", "8"), _no_whole_number, 0.2)(rng),
    ]


def _cite(rng: Random) -> list[Piece]:
    return [_name(rng, ("tiny", "tiny/A1", "sheet", "ding-2024-causallm"), 0.2) for _ in range(rng.choice((1, 1, 2)))]


def _export(rng: Random) -> list[Piece]:
    claim = _name(rng, ("own.py:A1", "tiny/A1", "sheet/A1", "tiny/*"), 0.4)
    return [claim, PRESET(rng), _path("--out", ("e1.py", "~/e2.py", "nowhere/e.py"), 0.6)(rng), *_where(rng)]


def _site(rng: Random) -> list[Piece]:
    """Mostly names of no sheet: a site takes many seconds."""
    wrong = Piece((NOTHING,), (NOTHING,))
    return [wrong, _path("--out", ("s1", "~/s2"), 0.5)(rng)]


PIECES: dict[str, Callable[[Random], list[Piece]]] = {
    "run": _run,
    "check": _check,
    "power": _power,
    "list": _list,
    "show": _show,
    "diagnose": _diagnose,
    "notebooks": _makes_files,
    "reproduce": _reproduce,
    "new": _new,
    "compare": _compare,
    "results": _results,
    "data": _data,
    "cite": _cite,
    "export": _export,
    "site": _site,
    **dict.fromkeys(("lis", "runn", "Run", "help", "check ", "", "--version", "version", "\N{PARROT}"), _nothing),
}
COMMANDS = (
    {"run": 45, "check": 14, "power": 5, "list": 4, "show": 9, "diagnose": 8, "notebooks": 4, "reproduce": 4}
    | ({"new": 3, "compare": 6, "results": 5, "data": 5, "cite": 2, "export": 5, "site": 1})
    | (dict.fromkeys(("lis", "runn", "Run", "help", "check ", "", "--version", "version", "\N{PARROT}"), 0.8))
)
