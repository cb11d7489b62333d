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


def normal_streams(length: int) -> Streams:
    """Normal queries, keys and values [1, 1, 1, token, 32]."""
    rng = stream(0, "slopes", length).rng()
    drawn = rng.standard_normal((3, 1, 1, 1, length, SIZE))
    return dict(zip(("query", "key", "value"), torch.from_numpy(drawn).float(), strict=True))


def least(work: Callable[[], object]) -> float:
    """Least CPU time of several calls, after one that is not counted."""
    times = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times[1:])


def compare(
    name: str, lengths: Sequence[int], run: Callable[[Streams, Tensor], object], law: Callable[[Tensor], float]
) -> None:
    """Print the slope of time against tokens beside that of the law, a function of the pattern [token, token]."""
    times, counts = [], []
    for length in lengths:
        streams, mask = normal_streams(length), masks.causal(length)
        with torch.no_grad():
            times.append(least(partial(run, streams, mask)))
        counts.append(law(mask))
    expected, measured = slope(lengths, np.array(counts)), slope(lengths, np.array(times))
    verdict = "ok" if abs(measured - expected) <= ROOM else "STRAYS"
    print(
        f"  {name:<40} slope {measured:.2f}, law {expected:.2f} +- {ROOM:g}  {verdict:<7}({lengths[-1]} tokens: "
        f"{1e3 * times[-1]:.1f} ms)",
        flush=True,
    )


def parallel(mixer: Mixer) -> Callable[[Streams, Tensor], object]:
    """The parallel form, on the streams that the mixer takes."""
    return lambda streams, mask: mixer.parallel({name: streams[name] for name in mixer.streams}, mask)


def chunked(streams: Streams, mask: Tensor) -> Tensor:
    """Causal linear attention in chunks."""
    features = FEATURE_MAPS["elu"].map
    return divided(causal_sums(features(streams["query"]), features(streams["key"]), augmented(streams["value"])))


def side(mask: Tensor) -> int:
    """Tokens of a row of the square."""
    return round(len(mask) ** 0.5)


def multiply_adds(make: Callable[[int], Mixer]) -> Callable[[Tensor], float]:
    """The law of a mixer with rows or segments of so many tokens."""
    sizes = {"query": SIZE, "key": SIZE, "value": SIZE}
    return lambda mask: float(cost(make(side(mask)), mask, sizes).multiply_adds)


def main() -> None:
    torch.set_num_threads(1)

    def squared(mask: Tensor) -> float:
        return float(len(mask)) ** 2

    def linear(mask: Tensor) -> float:
        return float(len(mask))

    compare("softmax attention", LENGTHS, parallel(SoftmaxAttention()), squared)
    compare("linear attention, masked", LENGTHS, parallel(LinearAttention()), squared)
    compare("linear attention, in chunks", LENGTHS, chunked, linear)
    compare("relation network, norm of pairs", SHORT, parallel(RelationNetwork("pairs")), squared)

    def vector(streams: Streams, mask: Tensor) -> Tensor:
        return streams["query"] + streams["key"].logcumsumexp(-2)

    compare("relation network, no norm: its sums", LONG, vector, linear)

    def in_rows(streams: Streams, mask: Tensor) -> Tensor:
        return Axial(side(mask), side(mask)).parallel(streams, torch.ones_like(mask))

    compare("axial attention, a square", SQUARES, in_rows, multiply_adds(lambda root: Axial(root, root)))

    def in_segments(streams: Streams, mask: Tensor) -> Tensor:
        return Combiner(side(mask)).parallel(streams, mask)

    compare("Combiner, segments of a root", SQUARES, in_segments, multiply_adds(Combiner))


if __name__ == "__main__":
    main()
