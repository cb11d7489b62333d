"""What the recurrence of linear attention is worth: ratios and slopes of CPU time, measured side by side in one run.

1. Chunked causal linear attention against the masked quadratic form at 4,096 tokens, forward and backward.
2. Generation token by token: log-log slopes of time against length of the recurrence, and of running the masked form anew
   on all that has been generated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lab.models import masks
from lab.models.mixers.features import FEATURE_MAPS
from lab.models.mixers.interface import at, between
from lab.models.mixers.linear import LinearAttention, augmented, divided
from lab.models.mixers.linear_gradient import causal_sums
from lab.statistics import slope
from lab.streams import stream

LENGTH, SIZE, REPEATS = 4_096, 32, 3
RECURRENT, AGAIN = (2_048, 4_096, 8_192), (192, 384, 768)


def prompt(length: int) -> dict[str, Tensor]:
    """Normal queries, keys and values [1, 1, 1, token, 32] in float32."""
    rng = stream(0, "prompt").rng()
    shape = (1, 1, 1, length, SIZE)
    return {name: torch.from_numpy(rng.standard_normal(shape)).float() for name in ("query", "key", "value")}


def chunked(streams: dict[str, Tensor]) -> Tensor:
    """Normalised causal linear attention in chunks, whose gradient is two recurrences."""
    features = FEATURE_MAPS["elu"].map
    return divided(causal_sums(features(streams["query"]), features(streams["key"]), augmented(streams["value"])))


def trained_on(form: Callable[[dict[str, Tensor]], Tensor], streams: dict[str, Tensor]) -> None:
    """One pass forward and backward."""
    held = {name: value.clone().requires_grad_() for name, value in streams.items()}
    form(held).sum().backward()


def generate_by_recurrence(streams: dict[str, Tensor]) -> None:
    """Every token once, through the state."""
    mixer = LinearAttention()
    state = mixer.start(streams)
    for place in range(streams["query"].shape[-2]):
        token = at(streams, place)
        state = mixer.write(state, token)
        mixer.read(state, token)


def generate_anew(streams: dict[str, Tensor]) -> None:
    """The masked form on all tokens so far, for every token."""
    length, mixer = streams["query"].shape[-2], LinearAttention()
    mask = masks.causal(length)
    for end in range(1, length + 1):
        mixer.parallel(between(streams, 0, end), mask[:end, :end])


def seconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def least(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Least CPU time of several calls, after one that is not counted."""
    return min([seconds(work) for _ in range(repeats + 1)][1:])


def main() -> None:
    torch.set_num_threads(1)
    streams, mask, mixer = prompt(LENGTH), masks.causal(LENGTH), LinearAttention()
    worst = float((chunked(streams) - mixer.parallel(streams, mask)).abs().max())
    assert worst < 1e-4, f"the two forms differ by {worst:.2g}"
    forward = least(lambda: mixer.parallel(streams, mask)) / least(lambda: chunked(streams))
    print(f"chunked against masked, {LENGTH} tokens, forward: ratio {forward:.1f} (required >= 10)", flush=True)
    training = least(lambda: trained_on(lambda inputs: mixer.parallel(inputs, mask), streams)) / least(
        lambda: trained_on(chunked, streams)
    )
    print(
        f"chunked against masked, {LENGTH} tokens, forward and backward: ratio {training:.1f} (required >= 10)",
        flush=True,
    )
    for name, generate, lengths, required in (
        ("the recurrence", generate_by_recurrence, RECURRENT, "< 1.2"),
        ("the masked form anew for each token", generate_anew, AGAIN, "> 1.7"),
    ):
        times = [least(partial(generate, prompt(length)), 2) for length in lengths]
        print(
            f"generation by {name}: slope {slope(lengths, np.array(times)):.2f} (required {required}), {lengths[-1]} tokens in "
            f"{times[-1]:.2f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
