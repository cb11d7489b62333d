"""What batching the recursions of in-context regression is worth: ratios measured in one run, against plain loops.

The plain loops are what one writes from the formulas: loops over layers, sequences and places in numpy, with vectors
for inputs. Sizes are the published ones: 64 sequences in 16 dimensions; 40 examples, 20 queries and 50 layers for
convergence; 20, 40, .. 300 examples and 200 queries for the stationary points of the causal network.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from lab.domains.regression.causal_recursions import Trajectory, causal_recursion, prefix_recursion
from lab.domains.regression.kaczmarz import kaczmarz
from lab.domains.regression.prompts import RegressionPrompts, linear_regression
from lab.streams import stream

DIMENSION, BATCH, STEP, LAYERS = 16, 64, 0.04, 50
LENGTHS = range(20, 301, 20)
ROUNDS = 7
# Examples of the long context, and how many copies of its data the pass over it may hold, temporaries of the
# generator (the draw, its shift, noise, labels) included.
LONG = 100_000
COPIES = 8.0


def prompts(context_length: int, query_length: int, batch: int = BATCH) -> RegressionPrompts:
    return linear_regression(
        stream(0, "benchmark", context_length),
        batch,
        dimension=DIMENSION,
        context_length=context_length,
        query_length=query_length,
    )


def loop_recursion(batch: RegressionPrompts, causal: bool) -> np.ndarray:
    """Residual labels of examples and (negative) predictions of queries, place by place [layers, batch, places]."""
    x = np.concatenate([batch.x_context.numpy(), batch.x_query.numpy()], axis=1)
    context = batch.x_context.shape[1]
    delta = np.concatenate([batch.y_context.numpy(), np.zeros(batch.y_query.shape)], axis=1)
    deltas = []
    for _ in range(LAYERS):
        changed = delta.copy()
        for b in range(len(x)):
            for j in range(x.shape[1]):
                visible = min(j + 1, context) if causal else context
                changed[b, j] -= STEP * (delta[b, :visible] @ (x[b, :visible] @ x[b, j]))
        delta = changed
        deltas.append(delta)
    return np.stack(deltas)


def batched_recursion(batch: RegressionPrompts, recursion: Callable[..., Trajectory]) -> np.ndarray:
    trajectory = recursion(batch.x_context, batch.y_context, batch.x_query, step=STEP, layers=LAYERS)
    return torch.cat([trajectory.context_residual, -trajectory.query_prediction], dim=2)[1:].numpy()


def loop_stationary(batches: list[RegressionPrompts]) -> np.ndarray:
    predictions = []
    for batch in batches:
        x, y, queries = batch.x_context.numpy(), batch.y_context.numpy(), batch.x_query.numpy()
        for b in range(len(x)):
            weights = np.zeros(DIMENSION)
            for j in range(x.shape[1]):
                weights = weights + (y[b, j] - weights @ x[b, j]) * x[b, j] / (x[b, j] @ x[b, j])
            predictions.append([weights @ query for query in queries[b]])
    return np.array(predictions)


def batched_stationary(batches: list[RegressionPrompts]) -> np.ndarray:
    predict = kaczmarz()
    predictions = [predict(batch.x_context, batch.y_context, batch.x_query) for batch in batches]
    return torch.cat(predictions).numpy()


def compare(name: str, required: float, loop: Callable[[], np.ndarray], batched: Callable[[], np.ndarray]) -> None:
    start = time.process_time()
    expected = loop()
    loop_seconds = time.process_time() - start
    actual, times = batched(), []
    for _ in range(ROUNDS):
        start = time.process_time()
        batched()
        times.append(time.process_time() - start)
    ratio = loop_seconds / statistics.median(times)
    verdict = "ok" if ratio >= required else "TOO LOW"
    print(
        f"  {name:<44} {ratio:6.1f}  required >= {required:.0f}  {verdict:<8} "
        f"(max difference {np.abs(actual - expected).max():.1e}; {loop_seconds:.2f} -> {statistics.median(times):.4f} s)",
        flush=True,
    )


def long_pass(length: int) -> tuple[float, int]:
    """Query error of one pass, and peak bytes of the process that drew the data and made it: run in a fresh one."""
    torch.set_num_threads(1)
    batch = prompts(length, 200, batch=1)
    predictions = kaczmarz()(batch.x_context, batch.y_context, batch.x_query)
    error = float((predictions - batch.y_query).square().mean())
    # Not getrusage: its maximum survives exec, so that a child starts from the peak of its parent.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return error, 1024 * int(status.split("VmHWM:")[1].split()[0])


def fresh(length: int) -> tuple[float, int]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(long_pass, length).result()


def memory_of_a_long_pass() -> None:
    _, floor = fresh(LONG // 1000)
    for length in (LONG, 2 * LONG):
        error, peak = fresh(length)
        copies = (peak - floor) / (8 * length * (DIMENSION + 1))
        verdict = "ok" if copies <= COPIES else "TOO HIGH"
        print(
            f"  {f'memory of one pass over {length:,} examples':<44} {copies:6.1f}  required <= {COPIES:.0f}  {verdict:<8} "
            f"(copies of the data, drawing them included; a Gram matrix: {length / (DIMENSION + 1):.0f}; "
            f"query error {error:.0e})",
            flush=True,
        )


def main() -> None:
    torch.set_num_threads(1)
    batch = prompts(40, 20)
    compare(
        "prefix recursion, 50 layers",
        20,
        lambda: loop_recursion(batch, causal=False),
        lambda: batched_recursion(batch, prefix_recursion),
    )
    compare(
        "causal recursion, 50 layers",
        20,
        lambda: loop_recursion(batch, causal=True),
        lambda: batched_recursion(batch, causal_recursion),
    )
    batches = [prompts(length, 200) for length in LENGTHS]
    compare(
        "causal stationary point, 20 .. 300 examples",
        10,
        lambda: loop_stationary(batches),
        lambda: batched_stationary(batches),
    )
    memory_of_a_long_pass()


if __name__ == "__main__":
    main()
