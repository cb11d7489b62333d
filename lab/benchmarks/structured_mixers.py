"""What structure is worth: ratios measured in one run, against the dense product that computes the same outputs.

The masked Fourier transform of 4,096 tokens by chirps against its table, made beforehand (complex; and the real part that the
mixer uses, by a table of cosines, which is half as much to read); and a Monarch matrix of
4,096 tokens by blocks against the dense matrix.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lab.models.masks import causal
from lab.models.mixers.fourier import chirp_plan, masked_spectrum, transform_table
from lab.models.mixers.monarch import dense, multiply, random_factors
from lab.streams import stream

TOKENS, ROUNDS = 4096, 7


def seconds(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Median processor time of several runs, after one that warms up, and the result."""
    computed, times = run(), []
    for _ in range(ROUNDS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times), computed


def compare(name: str, required: float, plain: Callable[[], Tensor], structured: Callable[[], Tensor]) -> None:
    """Prints how many times faster the structured way is, and how far apart the results."""
    before, expected = seconds(plain)
    after, actual = seconds(structured)
    ratio = before / after
    verdict = "ok" if ratio >= required else "TOO LOW"
    print(
        f"  {name:<52} {ratio:6.1f}  required >= {required:.0f}  {verdict:<8} "
        f"(relative difference {float((actual - expected).abs().max() / expected.abs().max()):.1e}; "
        f"{1e3 * before:.1f} -> {1e3 * after:.2f} ms)",
        flush=True,
    )


def main() -> None:
    torch.set_num_threads(1)
    table, plan = transform_table(TOKENS) * causal(TOKENS), chirp_plan(TOKENS)
    values = torch.from_numpy(stream(0, "benchmark").rng().standard_normal((TOKENS, 1)))
    compare(
        "masked Fourier transform by chirps, complex",
        20.0,
        lambda: table @ values.to(table.dtype),
        lambda: masked_spectrum(values, plan),
    )
    cosines = table.real.contiguous()
    for channels in (1, 8):
        values = torch.from_numpy(stream(0, "benchmark").rng().standard_normal((TOKENS, channels)))
        compare(
            f"its real part alone, {channels} channel{'s' * (channels > 1)}",
            5.0,
            lambda values=values: cosines @ values,  # type: ignore[misc]
            lambda values=values: masked_spectrum(values, plan).real,  # type: ignore[misc]
        )
    factors = random_factors(stream(0, "monarch"), TOKENS)
    matrix = dense(factors)
    values = torch.from_numpy(stream(0, "benchmark").rng().standard_normal((TOKENS, 8)))
    compare("Monarch matrix by blocks, 8 channels", 5.0, lambda: matrix @ values, lambda: multiply(factors, values))


if __name__ == "__main__":
    main()
