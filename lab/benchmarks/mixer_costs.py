"""How time grows with the number of tokens, mixer by mixer: log-log slopes of CPU time beside those of the exact laws.

What is counted is an identity (`lab.models.mixers.laws`) and stands in the proofs. What is timed here is how closely a
processor follows it: the slope of least CPU times over four lengths in one run, of forward passes of one head. A law without logarithms
has a slope of its own; small lengths and memory let a measured one stray from it, hence the room on either side.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from lab.models import masks
from lab.models.mixers.axial import Axial
from lab.models.mixers.combiner import Combiner
from lab.models.mixers.interface import Mixer
from lab.models.mixers.laws import cost
from lab.models.mixers.linear import LinearAttention
from lab.models.mixers.monarch import Monarch, random_factors
from lab.models.mixers.relation_network import RelationNetwork
from lab.models.mixers.softmax import SoftmaxAttention
from lab.models.mixers.visible import VisibleAttention
from lab.statistics import slope
from lab.streams import stream

SIZES = {"query": 32, "key": 32, "value": 32, "stream": 32}
ROOM, REPEATS = 0.4, 3


def streams_of(mixer: Mixer, length: int) -> dict[str, Tensor]:
    """Normal streams [1, 1, 1, token, 32] in float32."""
    rng = stream(0, "slopes", length).rng()
    return {
        name: torch.from_numpy(rng.standard_normal((1, 1, 1, length, SIZES[name]))).float() for name in mixer.streams
    }


def least(work: Callable[[], object]) -> float:
    """Least CPU time of several calls, after one that is not counted."""
    found = []
    for _ in range(REPEATS + 1):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found[1:])


def compare(
    name: str, lengths: Sequence[int], run: Callable[[dict[str, Tensor], int], object], law: Callable[[int], float]
) -> None:
    """Print the slope of time against tokens beside that of the law."""
    times = []
    for length in lengths:
        given = streams(length)
        with torch.no_grad():
            times.append(least(partial(run, given, length)))
    expected, found = slope(lengths, np.array([law(length) for length in lengths])), slope(lengths, np.array(times))
    verdict = "ok" if abs(found - expected) <= ROOM else "STRAYS"
    print(
        f"  {name:<44} slope {found:.2f}, law {expected:.2f} +- {ROOM:g}  {verdict:<7}({lengths[-1]} tokens: "
        f"{1e3 * times[-1]:.1f} ms)",
        flush=True,
    )


def visible(window: int | None) -> tuple[Callable[[dict[str, Tensor], int], object], Callable[[int], float]]:
    """Attention over visible pairs, causal or in a window, and its law."""
    mixer = VisibleAttention(window) if window else VisibleAttention()

    def seen(length: int) -> Tensor:
        return masks.sliding_window(length, window) if window else masks.causal(length)

    return (
        lambda given, length: mixer.parallel(given, seen(length)),
        lambda length: cost(mixer, seen(length), SIZES).multiply_adds,
    )


def main() -> None:
    torch.set_num_threads(1)
    lengths, few, squares = (512, 1024, 2048, 4096), (64, 128, 256, 512), (1024, 2304, 4096, 9216)
    for name, mixer in (("softmax attention, causal", SoftmaxAttention()), ("linear attention, masked", LinearAttention())):
        compare(name, lengths, lambda given, n, one=mixer: one.parallel(given, masks.causal(n)), square)
    compare("linear attention, chunks", (4096, 8192, 16384, 32768), lambda given, n: chunked(given), float)
    pairs, plain = RelationNetwork("pairs"), RelationNetwork("none")
    compare("relation network, norm of pairs", few, lambda given, n: pairs.parallel(only(given), masks.causal(n)), square)
    compare("attention over visible pairs, causal", lengths, *visible(None))
