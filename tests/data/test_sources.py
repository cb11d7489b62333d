from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from lab.data.sources import BLOCK, Source, find_generator, generators, options, source_from
from lab.domains.attention.position_tasks import pointer_prompts
from lab.domains.regression.prompts import linear_regression
from lab.errors import LabError

POINTERS = Source("pointer_prompts", pointer_prompts, {"length": 5})
SIZES = {"dimension": 2, "context_length": 3, "query_length": 1}
REGRESSION = Source("linear_regression", linear_regression, SIZES)


def together(source: Source, count: int, size: int, seed: int = 0) -> dict[str, torch.Tensor]:
    parts = list(source.chunks(seed, count, size))
    assert all(len(next(iter(part.values()))) == size for part in parts[:-1])
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@settings(max_examples=25, deadline=None)
@given(
    count=some.integers(1, 3 * BLOCK),
    size=some.integers(1, 2 * BLOCK),
    part=some.sampled_from(["all", "train", "held-out"]),
)
def test_the_numbers_are_the_same_whatever_the_chunk(count: int, size: int, part) -> None:
    source = dataclasses.replace(POINTERS, part=part, share=0.4)
    uncut, cut = together(source, count, count), together(source, count, max(size, count // 50 + 1))
    for name, value in uncut.items():
        assert len(value) == count
        assert torch.equal(value, cut[name])


def test_fewer_prompts_are_the_first_of_more() -> None:
    few, more = together(REGRESSION, 10, 10), together(REGRESSION, BLOCK + 10, BLOCK)
    assert all(torch.equal(few[name], more[name][:10]) for name in few)
    other = together(REGRESSION, 10, 10, seed=1)
    assert not torch.equal(few["x_context"], other["x_context"])


@pytest.mark.parametrize(
    "generator", [pytest.param(generator, id=generator.part.__name__) for generator in generators()]
)
def test_every_generator_is_a_source_at_its_registered_sizes(generator) -> None:
    source = source_from(generator, options(generator))
    prompts = next(source.chunks(0, 3))
    assert all(len(value) == 3 and not value.is_complex() for value in prompts.values())
    assert find_generator(generator.part.__name__.replace("_", "-")) == generator


def test_sizes_are_options_and_matrices_are_text() -> None:
    generator = find_generator("regression_mixture")
    sizes = dataclasses.replace(options(generator), length=4, components="[[1, 0], [0, 1], [1, 1]]")
    prompts = next(source_from(generator, sizes).chunks(0, 5))
    assert prompts["x"].shape == (5, 4, 2)
    with pytest.raises(LabError, match=r"--components \[\[1 is no matrix .* write rows in brackets"):
        source_from(generator, dataclasses.replace(sizes, components="[[1"))


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no generator is called 'linear_regresion' .did you mean 'linear_regression'"):
        find_generator("linear_regresion")
    with pytest.raises(LabError, match="--count 0 is below 1"):
        next(REGRESSION.chunks(0, 0))
    with pytest.raises(LabError, match="--share 1.5 must lie between 0 and 1"):
        dataclasses.replace(REGRESSION, share=1.5)
    nothing = dataclasses.replace(POINTERS, sizes={"length": 1}, part="held-out", share=0.01)
    with pytest.raises(LabError, match="too few different prompts at these sizes"):
        next(nothing.chunks(0, 1))


def test_a_generator_of_ones_own_file(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "examples" / "tiny.py").read_text(encoding="utf-8")
    definition = """
import torch
from lab.contracts import generator
@dataclass(frozen=True)
class Own:
    x: torch.Tensor
@generator(width=2)
def own_prompts(stream, batch: int, width: int) -> Own:
    return Own(torch.from_numpy(stream.rng().normal(size=(batch, width))))
"""
    file = tmp_path / "mine.py"
    file.write_text(text + definition, encoding="utf-8")
    generator = find_generator(f"{file}:own_prompts")
    sizes = dataclasses.replace(options(generator), width=3)
    assert next(source_from(generator, sizes).chunks(0, 4))["x"].shape == (4, 3)
    with pytest.raises(LabError, match="registers own_prompts"):
        find_generator(f"{file}:other")
