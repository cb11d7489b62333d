from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from lab import LabError
from lab.catalogue import load
from lab.execution import Session
from lab.labels import at_end, labelled, measured
from lab.results import Results

TINY = Path(__file__).parent / "examples" / "tiny.py"
task = load(TINY)
by_scale, together, cases = (task.measurements[name] for name in ("by_scale", "by_scale_together", "square_of_sum"))

HEAD = """from lab import Evidence, Paper, Task, control
from lab.labels import labelled
TASK = Task("t", Paper("T", "A", 1))
"""


def results(folder: Path, seeds: Any = None) -> Results:
    return Results(task, task.config("ci"), Session(folder, quiet=True), seeds)


def test_axes_are_named_in_order_and_places_labelled() -> None:
    array = labelled(torch.arange(6.0).reshape(2, 3), arm=("prefix", "causal"), layer=range(3))
    assert array.dims == ("arm", "layer")
    assert float(array.sel(arm="causal", layer=1)) == 4.0
    assert labelled(3).dims == ()
    assert labelled([1, 2], position=None).coords.keys() == set()


@pytest.mark.parametrize(
    ("values", "axes", "sentence"),
    [
        (np.zeros((2, 3)), {"arm": "ab"}, r"shape \(2, 3\) has 2 axes, but 1 are named \(arm\)"),
        (np.zeros(2), {"arm": ("a",)}, "axis 'arm' has 2 places but 1 labels"),
        (np.zeros(2), {"arm": "ab"}, "single text 'ab'"),
        (np.zeros(2), {"arm": ("a", 1)}, "of type int, str"),
        (np.zeros(2), {"arm": ("a", "a")}, "'a' stands twice"),
        (np.zeros(2), {"arm": (1.0, float("nan"))}, "not a number"),
        ([[1], [2, 3]], {"a": None, "b": None}, "do not form an array"),
        ("text", {}, "dtype"),
    ],
)
def test_labels_that_do_not_fit_are_one_sentence(values: Any, axes: dict, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        labelled(values, **axes)


ARM, STEP = ("prefix", "causal"), (1, 2, 3)


@pytest.mark.parametrize(
    ("returned", "leading", "sentence"),
    [
        ({"x": labelled([1, 2], seed=(0, 1))}, False, "'x' with an axis 'seed', which the lab adds itself"),
        ({"x": labelled([1, 2], arm=ARM), "y": labelled([1, 2, 3], arm=STEP)}, False, "'y' with an axis 'arm' of 3"),
        (
            {"x": labelled([1, 2], arm=ARM), "y": labelled([1, 2], arm=None)},
            False,
            "'y' with an axis 'arm' of 2 .*no lab",
        ),
        ({"x": labelled([1, 2], arm=ARM), "y": np.zeros(3)}, False, r"'y' as a plain array of shape \(3,\)"),
        ({"x": labelled(1), "y": "text"}, False, "'y', but the values have dtype"),
        ({"x": labelled([1, 2], x=ARM)}, False, "an array called 'x' like one of its axes"),
        ({"x": labelled([1, 2], arm=ARM)}, True, "'x' with the axes arm; the first axis .* must be 'seed'"),
        ({"x": labelled([1, 2], seed=(1, 0))}, True, r"labelled \[1, 0\]; it must be labelled by the seeds \[0, 1\]"),
        ({"x": labelled([1, 2], seed=None)}, True, "labelled None"),
        ({"x": 3.0}, True, "'x' with the axes none"),
    ],
)
def test_what_a_measurement_returns_is_checked(returned: dict, leading: bool, sentence: str) -> None:
    with pytest.raises(LabError, match=f"train returned (.* )?{sentence}"):
        measured("train", returned, "seed", (0, 1), leading)


def test_a_dataset_is_as_good_as_a_mapping() -> None:
    dataset = xr.Dataset({"x": labelled([1, 2], arm=ARM).sel(arm="causal"), "y": labelled([1, 2], arm=ARM)})
    data = measured("train", dataset, "seed", (4,), leading=False)
    assert data.axes == {"x": (), "y": ("arm",)}
    assert data.dataset("seed", (4,))["y"].dims == ("seed", "arm")


@pytest.mark.parametrize("again", [False, True], ids=["measured", "stored"])
def test_results_are_labelled_by_true_seeds(tmp_path: Path, again: bool) -> None:
    if again:
        results(tmp_path, (3, 9, 1))[by_scale], results(tmp_path, (3, 9, 1))[together]
    separate, ensemble = results(tmp_path, (3, 9, 1))[by_scale], results(tmp_path, (3, 9, 1))[together]
    assert separate["mean"].dims == ("seed", "scale")
    assert separate["largest"].dims == ("seed",)
    assert separate["seed"].values.tolist() == [3, 9, 1]
    xr.testing.assert_equal(separate["mean"], ensemble["mean"])
    assert float(separate["mean"].sel(seed=9, scale=2.0)) == 2 * float(separate["mean"].sel(seed=9, scale=1.0))


def test_the_end_of_an_axis_is_its_largest_label() -> None:
    losses = labelled([[3.0, 1.0, 2.0], [6.0, 4.0, 5.0]], seed=(7, 8), update=(0, 100, 50))
    assert at_end(losses, "update").to_dict() == losses.sel(update=100, drop=True).to_dict()
    assert list(at_end(xr.Dataset({"loss": losses}), "update")["loss"].values) == [1.0, 4.0]
    for axis, labels in (("update", None), ("arm", ("prefix", "causal", "other"))):
        with pytest.raises(LabError, match=f"no place of the axis '{axis}' is its end"):
            at_end(labelled([3.0, 1.0, 2.0], **{axis: labels}), axis)
    with pytest.raises(LabError, match="no place of the axis 'layer' is its end"):
        at_end(losses, "layer")
    for without_places in (losses.sel(update=100), losses.isel(update=[])):
        with pytest.raises(LabError, match="no place of the axis 'update' is its end"):
            at_end(without_places, "update")


def test_labels_that_differ_by_seed_name_measurement_and_seed(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text(
        HEAD
        + '@TASK.measurement(seeds=lambda config: 3)\ndef m(config, seed):\n    return {"x": labelled([1], a=[seed // 2])}',
        encoding="utf-8",
    )
    other = load(tmp_path / "t.py")
    with pytest.raises(LabError, match=r"m returned the labels {'a': \(1,\)} at seed 2, but {'a': \(0,\)} at seed 0"):
        Results(other, other.config("ci"), Session(tmp_path, quiet=True))[other.measurements["m"]]


def test_cases_are_measured_once_each_whatever_the_seeds(tmp_path: Path) -> None:
    dataset = results(tmp_path, (5, 6))[cases]
    assert dataset["case"].values.tolist() == ["claimed", "halved"]
    assert dataset["difference"].dims == ("case",)
    assert dataset["terms"].dims == ("case", "n")
    assert float(dataset["difference"].sel(case="claimed")) == 0
    assert sorted(file.name for file in tmp_path.rglob("*.safetensors")) == [
        "case-claimed.safetensors",
        "case-halved.safetensors",
    ]
    assert len(results(tmp_path).vary(size=4)[cases]["terms"].isel(case=0)) == 4


def test_the_settings_of_a_case_are_part_of_its_identity(tmp_path: Path) -> None:
    claimed, halved = results(tmp_path).jobs([cases])
    assert halved.identity["settings"] == {"share": 0.5}
    assert "seeds" not in halved.identity
    assert claimed.key != halved.key


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "m has no case"),
        ("a={'sise': 1}", r"the case 'a' of m sets 'sise' \(did you mean 'size'"),
        ("a={'size': object()}", "settings are numbers, text"),
    ],
)
def test_impossible_cases_are_one_sentence(tmp_path: Path, arguments: str, sentence: str) -> None:
    (tmp_path / "t.py").write_text(
        f"{HEAD}@TASK.cases({arguments})\ndef m(config, *, size=1):\n    return {{}}", encoding="utf-8"
    )
    with pytest.raises(LabError, match=sentence):
        load(tmp_path / "t.py")


def test_a_seed_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="the seed 5 is named more than once"):
        results(tmp_path, (5, 3, 5))
