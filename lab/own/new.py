"""``lab new``: a complete task as a file, or as a folder with its prompts beside it, to be changed line by line.

What is written is `lab.own.template` under the name that was asked for.
"""

from __future__ import annotations

import ast
import keyword
import re
import sys
from pathlib import Path

from lab.errors import LabError
from lab.files import require_own_name, write

TEMPLATE = Path(__file__).with_name("template.py")
NAME, TITLE = "my-paper", "Filtering and smoothing"
USABLE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 60
# The cells of the template that a folder keeps in a file of their own: from this heading to the next.
APART = "# %% [markdown]\n# ## Prompts"


def new(path: Path, folder: bool = False) -> list[Path]:
    """Write the task that ``path`` names, "my-paper" or "somewhere/my-paper".

    Args:
        path: the folder it is written to, and its name, which begins the ids of its claims.
        folder: write a folder, with the generator and the closed form in a module beside the task.

    Returns:
        The files written, the task first.

    Raises:
        LabError: the name cannot be used, or there is something of that name already.
    """
    name = path.name.removesuffix(".py").replace("_", "-") if path.suffix == ".py" else path.name
    stem = name.replace("-", "_")
    _check_name(name, stem)
    file = path.parent / stem / f"{stem}.py" if folder else path.parent / f"{stem}.py"
    for target in (path.parent / f"{stem}.py", path.parent / stem):
        if target.exists() or target.is_symlink():
            raise LabError(f"{target} is there already and is left as it is; choose another name, or move it away")
    if not path.parent.is_dir():
        raise LabError(f"there is no folder {path.parent} to write {stem} to; make it first, or name another one")
    texts = {file: text(name)}
    if folder:
        beside = file.with_name(f"{stem}_prompts.py")  # a name of its own: one process may load several tasks
        texts = dict(zip((file, beside), apart(texts[file], beside.stem), strict=True))
    for place, content in texts.items():
        write(place, content.encode())
    return list(texts)


def _check_name(name: str, stem: str) -> None:
    if not USABLE.fullmatch(name) or len(name) > LONGEST:
        raise LabError(
            f"{name[:100]!r} cannot be the name of a task: it begins the ids of claims and names files; use small letters, digits "
            f"and single hyphens, at most {LONGEST} of them, a letter first, such as {NAME}"
        )
    if keyword.iskeyword(stem) or keyword.issoftkeyword(stem) or stem in sys.stdlib_module_names:
        raise LabError(f"{name!r} is a word of Python or the name of one of its modules; choose another name")
    if stem in {"lab", "tasks", "proofs_check"}:
        raise LabError(f"{name!r} is the name of a part of the lab; choose another name")
    require_own_name(name)


def text(name: str) -> str:
    """The template as the task ``name``."""
    return TEMPLATE.read_text(encoding="utf-8").replace(NAME, name)


def apart(source: str, beside: str) -> tuple[str, str]:
    """The task without its prompts, and the module ``beside`` that holds them; each imports what it uses."""
    start = source.index(APART)
    end = source.index("# %% [markdown]", start + 1)
    cells = source[start:end]
    about, code = cells.split("# %%\n", 1)
    prose = [line.removeprefix("#").strip() for line in about.splitlines()[3:] if line.strip("# ")]
    defined = [
        definition.name for definition in ast.parse(code).body if isinstance(definition, ast.FunctionDef | ast.ClassDef)
    ]
    head, imports, body = _imports(source[:start] + source[end:])
    names = [name for name in sorted(defined, key=lambda name: (name.islower(), name)) if _uses(body, name)]
    task = head + _kept(imports, body) + f"\nfrom {beside} import {', '.join(names)}\n" + body
    module = '"""Prompts, and what is known of them exactly.\n\n' + "\n".join(prose) + '\n"""\n\n'
    return task, f"{module}{_kept(imports, code)}\n\n{code.rstrip()}\n"


def _imports(source: str) -> tuple[str, list[str], str]:
    """What stands before the imports of a source, the lines of these, and what follows them."""
    lines = source.splitlines(keepends=True)
    statements = [
        statement for statement in ast.parse(source).body if isinstance(statement, ast.Import | ast.ImportFrom)
    ]
    first, last = statements[0].lineno - 1, statements[-1].end_lineno or 0
    return "".join(lines[:first]), lines[first:last], "".join(lines[last:])


def _kept(imports: list[str], code: str) -> str:
    """Of import lines, those of names that ``code`` uses, blank lines between groups kept."""
    kept: list[str] = []
    for line in imports:
        statements = ast.parse(line).body
        if not statements:
            if kept and kept[-1] != "\n":
                kept.append("\n")
            continue
        (statement,) = statements
        assert isinstance(statement, ast.Import | ast.ImportFrom)
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            kept.append(line)
            continue
        statement.names = [alias for alias in statement.names if _uses(code, alias.asname or alias.name)]
        if statement.names:
            kept.append(f"{ast.unparse(statement)}\n")
    return "".join(kept).rstrip("\n") + "\n"


def _uses(code: str, name: str) -> bool:
    """Whether a name stands in code, in its annotations too (which are no text for them)."""
    return any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(ast.parse(code)))
