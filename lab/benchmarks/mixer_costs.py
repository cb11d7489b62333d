"""How time grows with the number of tokens, mixer by mixer: log-log slopes of CPU time beside those of the exact laws.

What is computed is an identity (`lab.models.mixers.laws`) and stands in the proofs. What is timed here is how closely a
processor follows it: least CPU times over several lengths in one run, of forward passes of one head of 32 numbers in float32.
Overheads at short lengths and memory at long ones let a slope stray from its law, hence the room on either side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lab.models import masks
from lab.models.mixers.axial import Axial
from lab.models.mixers.combiner import Combiner
from lab.models.mixers.features import FEATURE_MAPS
from lab.models.mixers.interface import Mixer
from lab.models.mixers.laws import cost
from lab.models.mixers.linear import LinearAttention, augmented, divided
from lab.models.mixers.linear_gradient import causal_sums
from lab.models.mixers.relation_network import RelationNetwork
from lab.models.mixers.softmax import SoftmaxAttention
from lab.statistics import slope
from lab.streams import stream

SIZE, ROOM, REPEATS = 32, 0.5, 3
LENGTHS, SHORT, LONG, SQUARES = (2048, 3072, 4096), (384, 512, 768), (4096, 8192, 16384), (1024, 2304, 4096)
Streams = dict[str, Tensor]


def streams(length: int) -> Streams:
    """Normal queries, keys and values [1, 1, 1, token, 32]."""
    rng = stream(0, "slopes", length).rng()
    drawn = rng.standard_normal((3, 1, 1, 1, length, SIZE))
    return dict(zip(("query", "key", "value"), torch.from_numpy(drawn).float(), strict=True))


def least(work: Callable[[], object]) -> float:
    """Least CPU time of several calls, after one that is not counted."""
    found = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found[1:])


def compare(
    name: str, lengths: Sequence[int], run: Callable[[Streams, Tensor], object], law: Callable[[Tensor], float]
) -> None:
    """Print the slope of time against tokens beside that of the law, a function of the pattern [token, token]."""
    times, counts = [], []
    for length in lengths:
        given, seen = streams(length), masks.causal(length)
        with torch.no_grad():
            times.append(least(partial(run, given, seen)))
        counts.append(law(seen))
    expected, found = slope(lengths, np.array(counts)), slope(lengths, np.array(times))
    verdict = "ok" if abs(found - expected) <= ROOM else "STRAYS"
    print(
        f"  {name:<40} slope {found:.2f}, law {expected:.2f} +- {ROOM:g}  {verdict:<7}({lengths[-1]} tokens: "
        f"{1e3 * times[-1]:.1f} ms)",
        flush=True,
    )


def parallel(mixer: Mixer) -> Callable[[Streams, Tensor], object]:
    """The parallel form, on the streams that the mixer takes."""
    return lambda given, seen: mixer.parallel({name: given[name] for name in mixer.streams}, seen)


def chunked(given: Streams, seen: Tensor) -> Tensor:
    """Causal linear attention in chunks."""
    features = FEATURE_MAPS["elu"].map
    return divided(causal_sums(features(given["query"]), features(given["key"]), augmented(given["value"])))


def side(seen: Tensor) -> int:
    """Tokens of a row of the square."""
    return round(len(seen) ** 0.5)


def multiply_adds(make: Callable[[int], Mixer]) -> Callable[[Tensor], float]:
    """The law of a mixer with rows or segments of so many tokens."""
    sizes = {"query": SIZE, "key": SIZE, "value": SIZE}
    return lambda seen: float(cost(make(side(seen)), seen, sizes).multiply_adds)


def main() -> None:
    torch.set_num_threads(1)

    def squared(seen: Tensor) -> float:
        return float(len(seen)) ** 2

    def linear(seen: Tensor) -> float:
        return float(len(seen))

    compare("softmax attention", LENGTHS, parallel(SoftmaxAttention()), squared)
    compare("linear attention, masked", LENGTHS, parallel(LinearAttention()), squared)
    compare("linear attention, in chunks", LENGTHS, chunked, linear)
    compare("relation network, norm of pairs", SHORT, parallel(RelationNetwork("pairs")), squared)

    def vector(given: Streams, seen: Tensor) -> Tensor:
        return given["query"] + given["key"].logcumsumexp(-2)

    compare("relation network, no norm: its sums", LONG, vector, linear)

    def in_rows(given: Streams, seen: Tensor) -> Tensor:
        return Axial(side(seen), side(seen)).parallel(given, torch.ones_like(seen))

    compare("axial attention, a square", SQUARES, in_rows, multiply_adds(lambda root: Axial(root, root)))

    def in_segments(given: Streams, seen: Tensor) -> Tensor:
        return Combiner(side(seen)).parallel(given, seen)

    compare("Combiner, segments of a root", SQUARES, in_segments, multiply_adds(Combiner))


if __name__ == "__main__":
    main()
