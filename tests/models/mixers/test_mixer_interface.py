"""Mixers: a broken one is found by its contract, and bad input ends in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from lab.checks import BrokenContract, checks, mixer_checks
from lab.contracts import all_registered
from lab.errors import LabError
from lab.models import masks
from lab.models.mask_patterns import PATTERNS
from lab.models.mixers.bidirectional import BidirectionalLinearAttention
from lab.models.mixers.fast_weights import DeltaRule, RecursiveLeastSquares
from lab.models.mixers.features import FEATURE_MAPS, feature_map
from lab.models.mixers.interface import Mixer, State, Streams, has_reach, reach, sequence_mixer
from lab.models.mixers.linear import DecayedLinearAttention, LinearAttention
from lab.models.mixers.linear_gradient import causal_sums
from lab.streams import stream

CAUSAL = ({"name": "causal", "length": 5},)
SIZES = {"query": 3, "key": 3, "value": 2, "decay": 1, "rate": 1}


class Late(LinearAttention):
    """It reads before it writes."""

    def recurrent(self, streams: Streams, mask: Tensor) -> Tensor:
        return super().recurrent(streams, mask.tril(-1))


class Leaking(LinearAttention):
    """Statistics over all tokens."""

    def parallel(self, streams: Streams, mask: Tensor) -> Tensor:
        return super().parallel({**streams, "value": streams["value"] - streams["value"].mean(-2, keepdim=True)}, mask)


class Boasting(LinearAttention):
    """A state half as large as it is."""

    def state_size(self, sizes: Mapping[str, int], written: int) -> int:
        return super().state_size(sizes, written) // 2


class Changing(LinearAttention):
    """It changes its values."""

    def parallel(self, streams: Streams, mask: Tensor) -> Tensor:
        streams["value"].mul_(2)
        return super().parallel(streams, mask)


class HeadsMixed(LinearAttention):
    """Heads that are added up."""

    def parallel(self, streams: Streams, mask: Tensor) -> Tensor:
        return super().parallel(streams, mask) + streams["value"].sum(2, keepdim=True)


class Forgetful(LinearAttention):
    """Chunks that carry nothing."""

    def _written(self, sums: Tensor, tokens: Streams) -> Tensor:
        return torch.zeros_like(sums)


class Unbounded(LinearAttention):
    """Several forms, and no bound of their difference."""

    rounding = Mixer.rounding


def broken(mixer: Mixer) -> set[str]:
    """The first words of the checks that fail."""
    failed = set()
    for check in mixer_checks(mixer, CAUSAL, SIZES):
        try:
            check.run()
        except BrokenContract:
            failed.add(" ".join(check.name.split(" ")[:3]))
    return failed


@pytest.mark.parametrize(
    ("mixer", "violation"),
    [
        (Late, "all forms agree"),
        (Leaking, "the Jacobian has"),
        (Boasting, "the state is"),
        (Changing, "one finite output"),
        (HeadsMixed, "models, prompts and"),
        (Forgetful, "all forms agree"),
        (Unbounded, "all forms agree"),
    ],
)
def test_a_broken_mixer_is_found(mixer: type[Mixer], violation: str) -> None:
    assert violation in broken(mixer())


def test_a_good_mixer_passes() -> None:
    assert broken(LinearAttention()) == set()


def test_a_users_mixer_is_registered_and_checked() -> None:
    @sequence_mixer(patterns=CAUSAL, value=2)
    class Sums(Mixer):
        streams: ClassVar = {"value": None}

        def parallel(self, streams: Streams, mask: Tensor) -> Tensor:
            return mask.to(streams["value"]) @ streams["value"]

        def reads(self, mask: Tensor) -> Tensor:
            return mask

    registered: Any = Sums.__contract__  # type: ignore[attr-defined]
    names = [check.name for check in checks(registered)]
    for check in checks(registered):
        check.run()
    assert len(names) == 5
    with pytest.raises(LabError, match="Sums has no recurrent form"):
        Sums().run("recurrent", {"value": torch.zeros(1, 1, 1, 5, 2)}, masks.causal(5))


def test_the_library_registers_its_mixers() -> None:
    names = {registration.part.__name__ for registration in all_registered("lab.models.mixers")}
    assert {"LinearAttention", "DecayedLinearAttention", "BidirectionalLinearAttention", "DeltaRule"} <= names


@pytest.mark.parametrize(
    ("pattern", "written"),
    [
        (masks.causal(4), [1, 2, 3, 4]),
        (masks.prefix_lm(4, 3), [3, 3, 3, 4]),
        (masks.full(3), [3, 3, 3]),
        (masks.block_causal([1, 2]), [1, 3, 3]),
        (masks.in_context_causal(2, 2), [1, 2, 2, 2]),
        (masks.in_context_prefix(0, 2), [0, 0]),
    ],
)
def test_reach_counts_what_is_written_before_a_token_is_read(pattern: Tensor, written: list[int]) -> None:
    assert reach(pattern).tolist() == written


@pytest.mark.parametrize("pattern", [masks.sliding_window(4, 2), masks.causal(3).T, masks.segment([0, 1, 0])])
def test_a_pattern_without_one_state_is_refused(pattern: Tensor) -> None:
    assert not has_reach(pattern)
    with pytest.raises(LabError, match="One state cannot serve this pattern"):
        reach(pattern)
    for form in ("recurrent", "chunked"):
        with pytest.raises(LabError, match=f"LinearAttention has no {form} form"):
            LinearAttention().run(form, streams(len(pattern)), pattern, 2)


def streams(length: int, **changes: Tensor) -> dict[str, Tensor]:
    rng = stream(0, "streams").rng()
    drawn = {
        name: torch.from_numpy(rng.standard_normal((1, 2, 1, length, SIZES[name])))
        for name in ("query", "key", "value")
    }
    return {**drawn, **changes}


def decays(value: float, length: int = 4) -> Tensor:
    return torch.full((1, 2, 1, length, 1), value, dtype=torch.float64)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: LinearAttention("identity"), "weights of the feature map 'identity' can be negative"),
        (lambda: BidirectionalLinearAttention("identity"), "weights of the feature map 'identity' can be negative"),
        (lambda: LinearAttention("elo"), r"no feature map 'elo' \(did you mean 'elu'\?\)"),
        (lambda: RecursiveLeastSquares(0.0), "penalty = 0.0"),
        (lambda: LinearAttention().run("chunked", streams(4), masks.causal(4), 0), "chunk = 0 .* at least 1 token"),
        (lambda: LinearAttention().run("chunked", streams(4), masks.causal(4)), "chunk = None"),
        (
            lambda: LinearAttention().run("parallel", {}, masks.causal(4)),
            "takes the streams query, key, value but got nothing",
        ),
        (
            lambda: DecayedLinearAttention().run("parallel", streams(4, decay=decays(0.0)), masks.causal(4)),
            r"A decay of DecayedLinearAttention is 0 but must lie in \(0, 1\]",
        ),
        (
            lambda: BidirectionalLinearAttention().run("parallel", streams(4, decay=decays(1.25)), masks.full(4)),
            r"is 1.25 but must lie in \(0, 1\]",
        ),
        (
            lambda: DeltaRule().run("parallel", streams(4, rate=decays(-0.5)), masks.causal(4)),
            r"A rate of DeltaRule is -0.5 but must lie in \(0, inf\]",
        ),
        (
            lambda: LinearAttention().run("parallel", streams(4, value=torch.zeros(1, 2, 1, 3, 2)), masks.causal(4)),
            "alike but for the size",
        ),
        (lambda: causal_sums(*(torch.zeros(3, 2) for _ in range(3)), chunk=0), "chunk = 0 of causal linear attention"),
    ],
)
def test_bad_input_ends_in_one_sentence(run: Any, message: str) -> None:
    with pytest.raises(LabError, match=message) as caught:
        run()
    assert "\n" not in str(caught.value)


def test_decays_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(LabError, match="is nan but must lie"):
        DecayedLinearAttention().run("parallel", streams(4, decay=decays(float("nan"))), masks.causal(4))


def test_more_keys_than_the_state_can_hold_are_no_error() -> None:
    assert LinearAttention().run("recurrent", streams(9), masks.causal(9)).isfinite().all()


@pytest.mark.parametrize("name", sorted(FEATURE_MAPS))
def test_feature_maps_have_the_size_and_the_sign_they_declare(name: str) -> None:
    chosen, x = feature_map(name), torch.from_numpy(stream(0, "x").rng().standard_normal((50, 3)))
    features = chosen.map(x)
    assert features.shape == (50, chosen.size(3))
    if chosen.never_negative:
        assert float((features @ features.T).min()) >= 0


def test_states_are_mappings_of_tensors() -> None:
    state: State = DeltaRule().start(streams(4, rate=decays(1.0)))
    assert {name: tuple(value.shape) for name, value in state.items()} == {"memory": (1, 2, 1, 2, 3)}
    assert "full" in PATTERNS
