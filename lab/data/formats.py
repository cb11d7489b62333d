"""Files of prompts, written a chunk at a time: ``.npz``, ``.safetensors``, ``.parquet`` and ``.jsonl``.

Every file holds one entry a field with the prompts first, and (but for ``.jsonl``, whose lines are prompts) what it was
drawn from, as JSON. A file appears under its name when it is whole; memory is that of one chunk.
"""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from lab.errors import LabError, nearest
from lab.files import NotWritten, require_writable

Chunk = Mapping[str, np.ndarray]
ABOUT = "theory-lab"
_SAFETENSORS = {"float64": "F64", "float32": "F32", "int64": "I64", "int32": "I32", "bool": "BOOL", "uint8": "U8"}


def check_out(out: Path) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        LabError: an unknown ending, a library that is not installed, a folder in the place of the file, no right to write.
    """
    if out.suffix not in _WRITERS:
        endings = ", ".join(_WRITERS)
        raise LabError(
            f"--out {out} ends in {out.suffix or 'nothing'!r}{nearest(out.suffix, _WRITERS)}; the formats are {endings}"
        )
    if out.suffix == ".parquet":
        _pyarrow()
    if out.is_dir():
        raise LabError(f"--out {out} is a folder; name the file to write in it")
    require_writable(out.parent)


def write_prompts(out: Path, count: int, chunks: Iterable[Chunk], about: Mapping[str, Any]) -> None:
    """Write ``count`` prompts that come in ``chunks`` to ``out``, in the format that its ending names.

    Args:
        chunks: arrays [rows, ...] by field, in all ``count`` rows; every chunk has the same fields, types and shapes.
        about: what they were drawn from, as plain data.

    Raises:
        LabError: see `check_out`; chunks of different shapes; a full disk.
    """
    check_out(out)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        try:
            _WRITERS[out.suffix](temporary, count, _alike(chunks), json.dumps(dict(about), default=str))
            os.replace(temporary, out)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise NotWritten.because(out, error) from error


def _alike(chunks: Iterable[Chunk]) -> Iterable[Chunk]:
    first: dict[str, tuple[Any, ...]] = {}
    for chunk in chunks:
        layout = {name: (value.dtype, value.shape[1:]) for name, value in chunk.items()}
        first = first or layout
        if layout != first:
            name = next(field for field in {**first, **layout} if first.get(field) != layout.get(field))
            raise LabError(
                f"the field {name} is {_shape(first, name)} in the first prompts and {_shape(layout, name)} in later ones; "
                "a generator pads what it draws to one length"
            )
        yield chunk


def _shape(layout: Mapping[str, tuple[Any, ...]], name: str) -> str:
    return f"{layout[name][0]} {list(layout[name][1])}" if name in layout else "absent"


def _write_safetensors(path: Path, count: int, chunks: Iterable[Chunk], about: str) -> None:
    """The header is known from the first chunk, so that every field is written to its own stretch of the file."""
    places: dict[str, int] = {}
    with open(path, "wb") as file:
        for chunk in chunks:
            if not places:
                places = _safetensors_header(file, count, chunk, about)
            for name, value in chunk.items():
                data = np.ascontiguousarray(value).tobytes()
                file.seek(places[name])
                file.write(data)
                places[name] += len(data)


def _safetensors_header(file: IO[bytes], count: int, chunk: Chunk, about: str) -> dict[str, int]:
    entries: dict[str, Any] = {"__metadata__": {ABOUT: about}}
    begins: dict[str, int] = {}
    place = 0
    # Wide numbers first, so that every stretch begins at a multiple of their size.
    for name, value in sorted(chunk.items(), key=lambda entry: -entry[1].itemsize):
        shape = [count, *value.shape[1:]]
        begins[name] = place
        place += math.prod(shape) * value.itemsize
        offsets = [begins[name], place]
        entries[name] = {"dtype": _SAFETENSORS[value.dtype.name], "shape": shape, "data_offsets": offsets}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)
    return {name: 8 + len(header) + begin for name, begin in begins.items()}


def _write_npz(path: Path, count: int, chunks: Iterable[Chunk], about: str) -> None:
    """An archive holds one field after the other: each waits in a file of its own beside it."""
    parts: dict[str, IO[bytes]] = {}
    folder = path.with_name(f"{path.name}.parts")
    folder.mkdir()
    try:
        with ExitStack() as opened:
            for chunk in chunks:
                for name, value in chunk.items():
                    if name not in parts:
                        parts[name] = opened.enter_context(open(folder / f"{name}.npy", "wb"))
                        shape = {"descr": value.dtype.str, "fortran_order": False, "shape": (count, *value.shape[1:])}
                        np.lib.format.write_array_header_1_0(parts[name], shape)
                    parts[name].write(np.ascontiguousarray(value).tobytes())
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name in parts:
                archive.write(folder / f"{name}.npy", f"{name}.npy")
                (folder / f"{name}.npy").unlink()
            text = io.BytesIO()
            np.lib.format.write_array(text, np.array(about), allow_pickle=False)
            archive.writestr("about.npy", text.getvalue())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_jsonl(path: Path, count: int, chunks: Iterable[Chunk], about: str) -> None:
    """One prompt a line; numbers in as many digits as bring them back."""
    with open(path, "w", encoding="utf-8") as file:
        for chunk in chunks:
            # A float32 as Python writes the nearest float64 would show digits that it does not have.
            lists = [
                _shortened(value.tolist()) if value.dtype == np.float32 else value.tolist() for value in chunk.values()
            ]
            for row in zip(*lists, strict=True):
                file.write(json.dumps(dict(zip(chunk, row, strict=True)), separators=(",", ":")) + "\n")


def _shortened(value: Any) -> Any:
    return [_shortened(element) for element in value] if isinstance(value, list) else float(f"{value:.9g}")


def _write_parquet(path: Path, count: int, chunks: Iterable[Chunk], about: str) -> None:
    """Fields of more than one number a prompt are nested lists of fixed size; a group of rows a chunk."""
    arrow, parquet = _pyarrow()
    with ExitStack() as opened:
        writer: Any = None
        for chunk in chunks:
            table = arrow_table(chunk, about)
            if writer is None:
                writer = opened.enter_context(
                    # Drawn numbers repeat too rarely for a dictionary; labels of few values compress without one.
                    parquet.ParquetWriter(path, table.schema, use_dictionary=False, compression="zstd")
                )
            writer.write_table(table, row_group_size=max(table.num_rows, 1))


def arrow_table(chunk: Chunk, about: str = "{}") -> Any:
    """A table of pyarrow with a column for each field, without a copy of its numbers."""
    arrow, _ = _pyarrow()
    columns = {}
    for name, value in chunk.items():
        column = arrow.array(np.ascontiguousarray(value).reshape(-1))
        for size in reversed(value.shape[1:]):
            column = arrow.FixedSizeListArray.from_arrays(column, size)
        columns[name] = column
    return arrow.table(columns).replace_schema_metadata({ABOUT: about})


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise LabError(
            "a .parquet file is written by pyarrow, which is not installed; pip install 'theory-lab[parquet]', "
            "or name a file that ends in .npz, .jsonl or .safetensors"
        ) from error
    return pyarrow, pyarrow.parquet


_WRITERS: Mapping[str, Callable[[Path, int, Iterable[Chunk], str], None]] = {
    ".parquet": _write_parquet,
    ".npz": _write_npz,
    ".jsonl": _write_jsonl,
    ".safetensors": _write_safetensors,
}
