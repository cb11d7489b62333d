"""Generators as datasets of other libraries: ``torch.utils.data`` and, where it is installed, Hugging Face ``datasets``.

In a training loop of one's own, with the sizes of the generator:

    train = PromptDataset(Source("linear_regression", linear_regression, sizes, part="train"), seed=0)
    loader = DataLoader(train, batch_size=64, num_workers=2)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from lab.data.answers import Column, added
from lab.data.formats import arrow_table
from lab.data.sources import BLOCK, Part, Source
from lab.errors import LabError


class PromptDataset(IterableDataset[dict[str, Tensor]]):
    """The prompts of a source one by one, each a dict of tensors without a batch axis; without end, or ``count`` of them.

    With one process they come in the order of the file that `lab.data.export` writes. Several workers of a ``DataLoader``
    take turns with the blocks, so that each prompt comes once.

    Args:
        source: generator, sizes and part.
        seed: root of the stream.
        count: how many prompts; None is without end. Workers share them evenly.
        also: columns to add, as in `lab.data.export`.

    Raises:
        LabError: a count below 1.
    """

    def __init__(self, source: Source, seed: int = 0, count: int | None = None, also: tuple[Column, ...] = ()) -> None:
        if count is not None and count < 1:
            raise LabError(f"count = {count} is below 1; ask for at least one prompt, or None for prompts without end")
        self.source, self.seed, self.count, self.also = source, seed, count, also

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        left = None if self.count is None else len(range(worker, self.count, workers))
        for block in self.source.blocks(self.seed, worker, workers):
            if left == 0:
                return
            prompts = block | added(self.source, block, self.also)
            rows = len(next(iter(block.values())))
            for row in range(rows if left is None else min(rows, left)):
                yield {name: value[row] for name, value in prompts.items()}
            left = None if left is None else max(left - rows, 0)


def huggingface_builder(
    source: Source, seed: int, train: int, held_out: int, also: tuple[Column, ...] = (), cache_dir: str | None = None
) -> Any:
    """A builder of Hugging Face ``datasets`` with the splits "train" and "test", which share no question.

    ``builder.download_and_prepare()`` writes both to its cache, ``builder.as_dataset()`` opens them; nothing is downloaded.

    Args:
        source: generator and sizes; its share is what is held out.
        train, held_out: prompts of each split.
        cache_dir: where it keeps them; the library's own place if None.

    Raises:
        LabError: the library is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise LabError(
            "Hugging Face datasets is not installed; pip install 'theory-lab[datasets]', or use PromptDataset with torch"
        ) from error
    parts: dict[Part, int] = {"train": train, "held-out": held_out}

    class Prompts(datasets.ArrowBasedBuilder):
        VERSION = datasets.Version("1.0.0")

        def _info(self) -> Any:
            first = _columns(dataclasses.replace(source, part="train"), seed, 1, also)
            return datasets.DatasetInfo(features=datasets.Features.from_arrow_schema(arrow_table(next(first)).schema))

        def _split_generators(self, manager: Any) -> list[Any]:
            names = {"train": datasets.Split.TRAIN, "held-out": datasets.Split.TEST}
            return [
                datasets.SplitGenerator(name=names[part], gen_kwargs={"part": part, "count": count})
                for part, count in parts.items()
                if count
            ]

        def _generate_tables(self, part: Part, count: int) -> Iterator[tuple[int, Any]]:
            chunks = _columns(dataclasses.replace(source, part=part), seed, count, also)
            yield from enumerate(map(arrow_table, chunks))

    name = f"{source.name}-seed-{seed}-{_digest(source, train, held_out, also)}"
    return Prompts(cache_dir=cache_dir, config_name=name)


def _columns(source: Source, seed: int, count: int, also: tuple[Column, ...]) -> Iterator[dict[str, Any]]:
    for prompts in source.chunks(seed, count, min(count, BLOCK)):
        yield {name: value.numpy() for name, value in (prompts | added(source, prompts, also)).items()}


def _digest(source: Source, *more: Any) -> str:
    """What tells two caches apart."""
    import hashlib

    text = repr((sorted((name, str(value)) for name, value in source.sizes.items()), source.share, more))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
