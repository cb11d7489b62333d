"""Arrays whose axes have names and whose places have labels: what measurements return and results give back.

A measurement hands out xarray; a stored result is plain (``Measured``: arrays, names of axes, labels), so that files,
worker processes and clusters see nothing but numbers and JSON. xarray is imported where it is first needed.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lab.errors import LabError

if typing.TYPE_CHECKING:
    import xarray as xr

    # What a measurement returns; a task file writes this name and need not import xarray for it.
    LabelledArrays = Mapping[str, xr.DataArray | float]
    Labelled = typing.TypeVar("Labelled", xr.DataArray, xr.Dataset)
else:
    LabelledArrays = Mapping

Label = str | int | float | bool
# Numbers and booleans; everything else has no meaning as a measured value.
NUMERIC = "biuf"


def labelled(values: Any, **axes: Sequence[Label] | None) -> xr.DataArray:
    """An array with named axes and labelled places.

        labelled(errors, arm=("prefix", "causal"), layer=range(L + 1))

    Args:
        values: tensor, array, nested list or number.
        axes: for each axis in order, its name and its labels (text, numbers or booleans, all of one kind and each
            once), or None where places have no more than a position.

    Raises:
        LabError: axes or labels do not fit the shape, or the values are not numbers.
    """
    import xarray

    array = _array(values)
    if array.ndim != len(axes):
        raise LabError(
            f"an array of shape {array.shape} has {array.ndim} axes, but {len(axes)} are named "
            f"({', '.join(axes) or 'none'}); name each axis once, in order"
        )
    coordinates = {}
    for (axis, labels), size in zip(axes.items(), array.shape, strict=True):
        if labels is None:
            continue
        checked = _checked_labels(axis, labels)
        if len(checked) != size:
            raise LabError(
                f"the axis {axis!r} has {size} places but {len(checked)} labels; give one label for each place"
            )
        coordinates[axis] = np.asarray(checked)
    return xarray.DataArray(array, coordinates, dims=tuple(axes))


def _array(values: Any) -> np.ndarray:
    """``values`` as an array of numbers; tensors are taken from their device."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = (values.float() if str(values.dtype) == "torch.bfloat16" else values).numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise LabError(f"the values do not form an array ({error}); give rows of equal length") from error
    if array.dtype.kind not in NUMERIC:
        raise LabError(f"the values have dtype {array.dtype}; give numbers or booleans")
    return array


def _checked_labels(axis: str, labels: Any) -> tuple[Label, ...]:
    if isinstance(labels, str):
        raise LabError(f"the labels of the axis {axis!r} are the single text {labels!r}; give a sequence of labels")
    plain = [
        label.item() if isinstance(label, np.generic) else label
        for label in getattr(labels, "tolist", lambda: labels)()
    ]
    kinds = {type(label) for label in plain}
    if kinds == {int, float}:
        plain, kinds = [float(label) for label in plain], {float}
    if not kinds <= {str, int, float, bool} or len(kinds) > 1:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise LabError(
            f"the labels of the axis {axis!r} are of type {names}; give text, numbers or booleans, all of one kind"
        )
    repeated = next((label for index, label in enumerate(plain) if label in plain[:index]), None)
    if repeated is not None:
        raise LabError(f"the label {repeated!r} stands twice on the axis {axis!r}; give each place its own label")
    if any(isinstance(label, float) and math.isnan(label) for label in plain):
        raise LabError(f"a label of the axis {axis!r} is not a number (nan), so nothing can be found by it; name it")
    return tuple(plain)


@dataclass(frozen=True, eq=False)
class Measured(Mapping[str, np.ndarray]):
    """What one or several jobs measured, in plain data; a mapping of names to arrays.

    Attributes:
        arrays: arrays by name; the first axis of each is the seed (or the case).
        axes: names of the other axes of each array; None for a measurement that returns plain arrays.
        labels: the labels of the axes that have any.
    """

    arrays: Mapping[str, np.ndarray]
    axes: Mapping[str, tuple[str, ...]] | None = None
    labels: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def rows(self, places: Sequence[int]) -> Measured:
        """The same at some places of the first axis."""
        return Measured({name: value[list(places)] for name, value in self.arrays.items()}, self.axes, self.labels)

    def dataset(self, first: str, labels: Sequence[Label]) -> xr.Dataset:
        """Every array on its named axes; the first one, called ``first``, has ``labels``."""
        import xarray

        assert self.axes is not None
        coordinates = {first: np.asarray(labels)} | {
            axis: np.asarray(axis_labels) for axis, axis_labels in self.labels.items()
        }
        return xarray.Dataset(
            {name: ((first, *self.axes[name]), value) for name, value in self.arrays.items()}, coordinates
        )


def is_labelled(returned: Any) -> bool:
    """Whether a measurement returned labelled arrays: a Dataset, or a mapping with at least one DataArray."""
    return hasattr(returned, "data_vars") or any(hasattr(value, "dims") for value in returned.values())


def measured(name: str, returned: Any, first: str, labels: Sequence[Label], leading: bool) -> Measured:
    """The labelled arrays that the measurement ``name`` returned, checked and made plain.

    Args:
        returned: Dataset, or mapping of names to DataArrays and numbers. Coordinates that are not the labels of an
            axis (what ``.sel`` leaves behind) are dropped.
        first: name of the axis that stands first in a stored result, ``seed`` or ``case``.
        labels: its labels in this call.
        leading: whether the arrays already have that axis (an ensemble measurement); else it is added.

    Raises:
        LabError: an array has no named axes, an axis is missing or too much, or one name means two things.
    """
    arrays: dict[str, np.ndarray] = {}
    axes: dict[str, tuple[str, ...]] = {}
    known: dict[str, tuple[Label, ...]] = {}
    sizes: dict[str, tuple[int, str]] = {}
    for array_name, value in (returned.data_vars if hasattr(returned, "data_vars") else returned).items():
        says = f"{name} returned {array_name!r}"
        dims = _dims(says, value)
        if leading:
            _check_leading(says, value, dims, first, labels)
            dims = dims[1:]
        if first in dims:
            raise LabError(f"{says} with an axis {first!r}, which the lab adds itself; return it without")
        array = np.asarray(value) if leading else np.asarray(value)[None]
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.dtype.kind not in NUMERIC:
            raise LabError(f"{says} with dtype {array.dtype}; return numbers or booleans")
        for axis, size in zip(dims, array.shape[1:], strict=True):
            axis_labels = _checked_labels(axis, value.coords[axis].values) if axis in value.coords else ()
            other = sizes.setdefault(axis, (size, array_name))
            if other[0] != size or (known.setdefault(axis, axis_labels) != axis_labels):
                raise LabError(
                    f"{says} with an axis {axis!r} of {_places(size, axis_labels)}, but the axis {axis!r} of {other[1]!r} is of "
                    f"{_places(other[0], known.get(axis, ()))}; in one measurement a name means one axis, name them apart"
                )
        arrays[array_name], axes[array_name] = array, dims
    if clash := sorted(set(arrays) & {*sizes, first}):
        raise LabError(f"{name} returned an array called {clash[0]!r} like one of its axes; give it another name")
    return Measured(arrays, axes, {axis: axis_labels for axis, axis_labels in known.items() if axis_labels})


def _dims(says: str, value: Any) -> tuple[str, ...]:
    if hasattr(value, "dims"):
        return tuple(str(axis) for axis in value.dims)
    try:
        array = _array(value)
    except LabError as error:
        raise LabError(f"{says}, but {error}") from error
    if array.ndim:
        raise LabError(
            f"{says} as a plain array of shape {array.shape} beside labelled ones; name its axes with lab.labels.labelled"
        )
    return ()


def _check_leading(says: str, value: Any, dims: tuple[str, ...], first: str, labels: Sequence[Label]) -> None:
    if not dims or dims[0] != first:
        raise LabError(
            f"{says} with the axes {', '.join(dims) or 'none'}; the first axis of an ensemble's arrays must be {first!r}"
        )
    axis_labels = value.coords[first].values.tolist() if first in value.coords else None
    if axis_labels != list(labels):
        raise LabError(
            f"{says} with the axis {first!r} labelled {axis_labels}; it must be labelled by the {first}s {list(labels)}"
        )


def _places(size: int, labels: Sequence[Label]) -> str:
    return f"{size} places ({', '.join(map(repr, labels)) or 'no labels'})"


def join(name: str, parts: Sequence[Measured], origins: Sequence[str]) -> Measured:
    """The results of several jobs of the measurement ``name``, one after the other along the first axis.

    Args:
        origins: what each part was measured at, for messages: "seed 3", "case deep".

    Raises:
        LabError: arrays, shapes, axes or labels differ between parts.
    """
    first = parts[0]
    for part, origin in zip(parts, origins, strict=True):
        for expected, actual, aspect in (
            (sorted(first), sorted(part), "the arrays"),
            (first.axes, part.axes, "the axes"),
            (dict(first.labels), dict(part.labels), "the labels"),
            *(
                (first[array_name].shape[1:], part[array_name].shape[1:], f"{array_name!r} of shape")
                for array_name in first
                if array_name in part
            ),
        ):
            if expected != actual:
                raise LabError(
                    f"{name} returned {aspect} {actual} at {origin}, but {expected} at {origins[0]}; "
                    "return the same axes everywhere, and fill places that do not exist with nan"
                )
    return Measured(
        {array_name: np.concatenate([part[array_name] for part in parts]) for array_name in first.arrays},
        first.axes,
        first.labels,
    )


def at_end(array: Labelled, axis: str) -> Labelled:
    """``array`` at the largest label of ``axis``, without that axis: a training at its end, a network at its last layer.

    >>> int(at_end(labelled([3, 1, 2], update=(0, 100, 50)), "update"))
    1

    Raises:
        LabError: the axis has no numbers as labels, or no place.
    """
    if axis not in array.dims or not array.sizes[axis]:
        held = ", ".join(f"{name!r} of {size}" for name, size in array.sizes.items()) or "none"
        raise LabError(
            f"no place of the axis {axis!r} is its end, as it is no axis with places (the axes: {held}); name one of them"
        )
    if axis not in array.coords or array[axis].dtype.kind not in "iuf":
        raise LabError(
            f"no place of the axis {axis!r} is its end, as it has no numbers as labels; choose one with .sel"
        )
    return array.sel({axis: array[axis].max()}, drop=True)


def deviations(pairs: Sequence[tuple[float, float]]) -> LabelledArrays:
    """What an identity gives: every deviation between its two sides, and the bound of its rounding.

    >>> list(deviations([(1e-16, 1e-15), (0.0, 1e-15)])["bound"].dims)
    ['check']
    """
    values, bounds = zip(*pairs, strict=True)
    return {"deviation": labelled(values, check=None), "bound": labelled(bounds, check=None)}
