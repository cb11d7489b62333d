from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lab.cli import main
from lab.data.identity import fingerprints
from lab.data.loaders import PromptDataset, huggingface_builder
from lab.data.sources import BLOCK, Source
from lab.domains.regression.prompts import linear_regression
from lab.errors import LabError

SOURCE = Source("linear_regression", linear_regression, {"dimension": 2, "context_length": 3, "query_length": 1})


def test_prompts_come_in_the_order_of_the_file() -> None:
    known = next(SOURCE.chunks(5, BLOCK + 3, BLOCK + 3))
    rows = list(PromptDataset(SOURCE, 5, BLOCK + 3))
    assert all(torch.equal(torch.stack([row[name] for row in rows]), value) for name, value in known.items())
    endless = PromptDataset(dataclasses.replace(SOURCE, part="held-out"), also=("risk",))
    assert {"x_context", "risk"} <= set(next(iter(endless)))
    with pytest.raises(LabError, match="count = 0 is below 1"):
        PromptDataset(SOURCE, count=0)


def test_workers_share_the_prompts(monkeypatch) -> None:
    """Two workers of a loader, one after the other in this process."""
    marks: list[tuple[float, ...]] = []
    for worker in range(2):
        monkeypatch.setattr("lab.data.loaders.get_worker_info", lambda at=worker: SimpleNamespace(id=at, num_workers=2))
        marks += [tuple(row["weights"].tolist()) for row in PromptDataset(SOURCE, count=2001)]
    assert len(marks) == len(set(marks)) == 2001


def test_a_loader_makes_batches() -> None:
    first = next(iter(DataLoader(PromptDataset(SOURCE), batch_size=8)))
    assert torch.equal(first["x_context"], next(SOURCE.chunks(0, 8))["x_context"])


@pytest.mark.skipif(
    find_spec("datasets") is None or find_spec("pyarrow") is None,
    reason="Hugging Face datasets is not installed (extra: datasets)",
)
@pytest.mark.filterwarnings("ignore")
def test_a_builder_of_hugging_face_has_splits_that_share_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = dataclasses.replace(SOURCE, share=0.3)
    builder = huggingface_builder(source, seed=0, train=1500, held_out=40, also=("answer",), cache_dir=str(tmp_path))
    builder.download_and_prepare()
    splits = builder.as_dataset()
    assert {name: len(split) for name, split in splits.items()} == {"train": 1500, "test": 40}
    known = next(dataclasses.replace(source, part="held-out").chunks(0, 40, 40))
    shown = splits["test"][:]
    assert torch.equal(torch.tensor(list(shown["x_context"]), dtype=torch.float64), known["x_context"])
    assert "answer" in shown
    train = next(dataclasses.replace(source, part="train").chunks(0, 1500, 1500))
    assert not set(fingerprints(train).tolist()) & set(fingerprints(known).tolist())


def test_without_the_library_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(LabError, match=r"pip install 'theory-lab\[datasets\]'"):
        huggingface_builder(SOURCE, 0, 10, 10)


def test_what_is_exported_trains_a_network_elsewhere(tmp_path: Path) -> None:
    """`lab data` writes a file; numpy and plain PyTorch are enough to learn from it."""
    file = tmp_path / "prompts.npz"
    assert main(["data", "linear-regression", "--count", "2000", "--dimension", "2", "--out", str(file)]) == 0
    with np.load(file) as prompts:
        x, y, query, answer = (
            torch.from_numpy(prompts[name]).float() for name in ("x_context", "y_context", "x_query", "y_query")
        )
    moment = (x * y[..., None]).mean(1, keepdim=True)
    features = torch.cat([query, moment.expand_as(query), query * moment], -1)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(features.shape[-1], 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    torch.set_rng_state(state)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = (network(features)[..., 0] - answer).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
