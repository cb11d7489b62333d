"""Structured mixers: Monarch, transforms, axial, patches, Combiner, ProbSparse, auto-correlation, visible pairs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lab.errors import LabError
from lab.models import masks
from lab.models.masks import flow
from lab.models.mixers import autocorrelation, axial, combiner, fourier, local, monarch, patches, prob_sparse, visible
from lab.models.mixers.heads import weights
from lab.models.mixers.interface import Mixer
from lab.streams import stream


def normal(name: str, *shape: int) -> Tensor:
    return torch.from_numpy(stream(0, name).rng().standard_normal(shape))


def streams(mixer: Mixer, length: int, batch: int = 1) -> dict[str, Tensor]:
    sizes = {"query": 6, "key": 6, "value": 5, "stream": 4}
    return {name: normal(f"{name} {length}", 1, batch, 1, length, sizes[name]) for name in mixer.streams}


def read_pattern(mixer: Mixer, mask: Tensor) -> Tensor:
    """Which streams each output depends on: all streams are one tensor, cut."""
    inputs = streams(mixer, len(mask))
    sizes = [value.shape[-1] for value in inputs.values()]

    def outputs(x: Tensor, _: Tensor) -> Tensor:
        cut = dict(zip(inputs, x.unsqueeze(2).split(sizes, dim=-1), strict=True))
        return mixer.run("parallel", cut, mask)[:, :, 0]

    return flow(outputs, torch.cat([value[0, 0, 0] for value in inputs.values()], dim=-1), mask) != 0


LEVELS = patches.random_levels(stream(0, "levels"), 4, 3)
STACK = axial.random_stack(stream(0, "stack"), 4)
WITH_PATTERNS: list[tuple[Mixer, Tensor]] = [
    (visible.VisibleAttention(), masks.causal(7)),
    (visible.VisibleAttention(), masks.prefix_lm(7, 3)),
    (visible.VisibleAttention(), masks.block_causal([2, 3, 2])),
    (visible.VisibleAttention(3), masks.sliding_window(7, 3)),
    (monarch.Monarch(monarch.random_factors(stream(0, "monarch"), 9)), masks.full(9)),
    (fourier.MaskedFourier(8), masks.causal(8)),
    (fourier.MaskedFourier(7), masks.prefix_lm(7, 3)),
    (axial.Axial(2, 3), masks.full(6)),
    (axial.AxialStack(STACK, 3), masks.causal(6)),
    (patches.TwoLevelPatches(LEVELS, 3), masks.causal(9)),
    (combiner.Combiner(3), masks.causal(8)),
    (combiner.Combiner(3, "max"), masks.causal(8)),
    (autocorrelation.AutoCorrelation(), masks.full(6)),
]


@pytest.mark.parametrize(
    ("mixer", "mask"), [pytest.param(m, p, id=f"{type(m).__name__}-{i}") for i, (m, p) in enumerate(WITH_PATTERNS)]
)
def test_a_mixer_reads_what_it_declares_and_its_forms_agree(mixer: Mixer, mask: Tensor) -> None:
    if not isinstance(mixer, autocorrelation.AutoCorrelation):  # an unused lag hides a value
        assert torch.equal(read_pattern(mixer, mask), mixer.reads(mask))
    inputs = streams(mixer, len(mask), batch=2)
    parallel = mixer.run("parallel", inputs, mask)
    for form in mixer.forms(mask)[1:]:
        assert float((mixer.run(form, inputs, mask) - parallel).abs().max()) <= mixer.rounding(inputs, mask)
    if "recurrent" in mixer.forms(mask):
        state = mixer.start(inputs)
        for place in range(len(mask)):
            state = mixer.write(state, {name: value[..., place, :] for name, value in inputs.items()})
            held = sum(value[0, 0, 0].numel() for value in state.values())
            assert held == mixer.state_size({name: value.shape[-1] for name, value in inputs.items()}, place + 1)


@settings(deadline=None, max_examples=20, derandomize=True)
@given(length=st.integers(1, 12), low=st.integers(0, 12))
def test_visible_pairs_are_masked_attention(length: int, low: int) -> None:
    prefix = min(low, length)
    for mask in (masks.prefix_lm(length, prefix), masks.sliding_window(length, prefix + 1)):
        inputs = streams(visible.VisibleAttention(), length)
        expected = weights(inputs["query"], inputs["key"], mask) @ inputs["value"]
        torch.testing.assert_close(visible.VisibleAttention().run("parallel", inputs, mask), expected)
        groups = visible.groups(mask)
        assert sum((end - first) * (high - low) for first, end, low, high in groups) == int(mask.sum())


@settings(deadline=None, max_examples=20, derandomize=True)
@given(side=st.integers(1, 6), width=st.integers(1, 3))
def test_monarch_blocks_are_the_dense_matrix(side: int, width: int) -> None:
    factors = monarch.random_factors(stream(side, "factors"), side**2)
    values = normal(f"values {side} {width}", side**2, width)
    torch.testing.assert_close(monarch.multiply(factors, values), monarch.dense(factors) @ values)
    eye = torch.eye(side**2, dtype=torch.float64)
    torch.testing.assert_close(monarch.dense(monarch.inverse(factors)) @ monarch.dense(factors), eye, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        monarch.multiply(monarch.fourier_factors(side**2), values), torch.fft.fft(values.to(torch.complex128), dim=0)
    )
    assert monarch.parameter_count(side**2) == sum(block.numel() for block in factors)


def test_a_causal_monarch_map_is_the_mixed_product() -> None:
    factors = monarch.polynomial_factors(monarch.causal_polynomials(stream(0, "basis"), 16))
    kernel, mixer = normal("kernel", 8, 4), monarch.CausalMonarch(factors, normal("kernel", 8, 4))
    inputs = streams(mixer, 8)
    outputs = mixer.run("parallel", inputs, masks.causal(8))
    torch.testing.assert_close(outputs, monarch.mixed(factors, kernel, inputs["stream"]))
    impulse = torch.zeros(8, 1, dtype=torch.float64)
    impulse[3] = 1.0
    assert float(monarch.mixed(factors, kernel[:, :1], impulse)[:3].abs().max()) < 1e-14


@settings(deadline=None, max_examples=20, derandomize=True)
@given(length=st.integers(1, 40))
def test_chirps_are_the_masked_table(length: int) -> None:
    values = normal(f"chirps {length}", 2, length, 3)
    difference = fourier.masked_transform_by_chirps(values) - fourier.masked_transform(values)
    assert float(difference.abs().max()) <= fourier.chirp_rounding(values)
    direct = [sum(values[:, n] * math.cos(2 * math.pi * n * t / length) for n in range(t + 1)) for t in range(length)]
    torch.testing.assert_close(fourier.masked_transform(values), torch.stack(direct, dim=1))


def test_long_prompts_go_by_chirps() -> None:
    mixer = fourier.MaskedFourier(300)
    inputs = streams(mixer, 300)
    outputs = mixer.run("parallel", inputs, masks.causal(300))
    assert not torch.equal(outputs, fourier.masked_transform(inputs["stream"]))
    torch.testing.assert_close(outputs, fourier.masked_transform(inputs["stream"]))


@settings(deadline=None, max_examples=15, derandomize=True)
@given(length=st.integers(1, 40), size=st.integers(1, 9))
def test_regions_are_partitions_of_the_past(length: int, size: int) -> None:
    for regions in (combiner.segments(length, size), combiner.powers(length)):
        assert torch.equal(regions.multiplicity(), masks.causal(length).long())
    token = torch.arange(length)
    assert combiner.segments(length, size).pairs() == int((token % size + 1 + token // size).sum())


@settings(deadline=None, max_examples=25, derandomize=True)
@given(length=st.integers(1, 30), columns=st.integers(1, 7))
def test_axial_variants_cover_a_grid_once_or_twice(length: int, columns: int) -> None:
    token = torch.arange(length)
    row, column = token // columns, token % columns
    off = (row != row.unsqueeze(1)) & (column != column.unsqueeze(1))
    rows, mixture = combiner.row_major(length, columns), combiner.axial_mixture(length, columns)
    assert torch.equal(rows.multiplicity(), masks.causal(length).long())
    assert torch.equal(mixture.multiplicity(), masks.causal(length) * (1 + off.long()))
    assert rows.pairs() == int((column + 1 + row).sum())
    for regions in (rows, mixture):
        assert bool(regions.visible.any(0).all() and regions.members.any(1).all())
        query, key = normal("axial q", 2, length, 4), normal("axial k", 2, length, 4)
        weights = combiner.law(query, key, regions, "mean and size").weights()
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, length).double())
        assert torch.equal(weights > 0, masks.causal(length).expand(2, -1, -1))


def test_a_row_is_asked_by_the_token_of_the_own_column() -> None:
    regions = combiner.row_major(6, 3)
    query, key = normal("row q", 6, 4), normal("row k", 6, 4)
    law = combiner.law(query, key, regions, "mean")
    torch.testing.assert_close(law.inside[1, :3], (query[1] @ key[:3].mT / 2).softmax(-1))
    assert regions.visible.nonzero().tolist() == [[3, 0], [4, 1], [5, 2]]


@pytest.mark.parametrize("logit", combiner.LOGITS)
@pytest.mark.parametrize("length", [1, 7, 8, 9])
def test_a_combiner_is_its_law(logit: str, length: int) -> None:
    mixer = combiner.Combiner(4, logit)
    inputs = streams(mixer, length)
    law = combiner.law(inputs["query"], inputs["key"], combiner.segments(length, 4), logit)
    outputs = mixer.run("parallel", inputs, masks.causal(length))
    torch.testing.assert_close(outputs, law.weights() @ inputs["value"])
    assert mixer.forms(masks.causal(length)) == (("parallel",) if logit == "logsumexp" else ("parallel", "recurrent"))


def test_sampling_counts_its_runs() -> None:
    uniforms = torch.from_numpy(stream(0, "uniforms").rng().random((2, 3)))
    runs = [axial.sample(STACK, normal("words", 5, 4), uniforms, row_by_row=way) for way in (True, False)]
    assert torch.equal(runs[0].tokens, runs[1].tokens)
    assert [(run.outer_runs, run.inner_runs) for run in runs] == [(2, 6), (6, 6)]


def test_prob_sparse_attends_for_the_chosen_queries_alone() -> None:
    length = 20
    sampled = prob_sparse.sampled_keys(stream(0, "sampled"), length, 1)
    mixer = prob_sparse.ProbSparse(sampled)
    inputs = streams(mixer, length)
    query, key, value = (inputs[name][0, 0, 0] for name in ("query", "key", "value"))
    for mask, idle in ((masks.causal(length), value.cumsum(0)), (masks.full(length), value.mean(0).expand(length, 5))):
        outputs = mixer.run("parallel", inputs, mask)[0, 0, 0]
        chosen = set(prob_sparse.estimates(query, key, sampled).topk(3).indices.tolist())
        full = weights(query, key, mask) @ value
        for token in range(length):
            torch.testing.assert_close(outputs[token], full[token] if token in chosen else idle[token])
    mended = prob_sparse.ProbSparse(sampled, sight="past")
    assert not bool(read_pattern(mended, masks.causal(length)).triu(1).any())


def test_auto_correlation_moves_values_back_by_the_period() -> None:
    wave = torch.tensor([1.0, 0.0, 0.0] * 4, dtype=torch.float64).unsqueeze(-1)
    values = torch.arange(12).double().unsqueeze(-1)
    assert int(autocorrelation.best_lag(wave[:, 0])) % 3 == 0
    outputs = autocorrelation.auto_correlation(wave, wave, values, factor=0.1)
    torch.testing.assert_close(outputs % 3, values % 3)


def test_squares_windows_and_means() -> None:
    image = normal("image", 2, 4, 6, 3)
    assert torch.equal(local.split_squares(local.merge_squares(image, 2), 2), image)
    assert torch.equal(local.merge_squares(image, 2)[0, 0, 0, :3], image[0, 0, 0])
    tokens = normal("tokens", 6, 2)
    assert torch.equal(local.neighbour_maxima(tokens, 2)[4], tokens[2:5].amax(0))
    torch.testing.assert_close(local.running_mean(tokens)[3], tokens[:4].mean(0))


CAUSAL = masks.causal(12)
BAD = [
    (lambda: monarch.random_factors(stream(0, "x"), 12), "12 tokens, which is no square; pad or cut them to 9"),
    (lambda: monarch.causal_polynomials(stream(0, "x"), 9), "odd side 3 but needs an even one"),
    (lambda: monarch.multiply(monarch.fourier_factors(9), normal("x", 16, 1)), "side 3 mix 9 tokens but got 16"),
    (
        lambda: monarch.Monarch(monarch.random_factors(stream(0, "x"), 9)).parallel({}, masks.causal(9)),
        "mixes all tokens with all",
    ),
    (lambda: fourier.MaskedFourier(0), "length = 0"),
    (lambda: fourier.MaskedFourier(5).parallel({}, CAUSAL), "length 5 got 12 tokens"),
    (lambda: patches.patches_of(10, 3), "10 tokens are no multiple of a patch of 3; pad them to 12"),
    (lambda: patches.patches_of(10, 0), "patch = 0"),
    (lambda: patches.TwoLevelPatches(LEVELS, 3).parallel({}, masks.full(6)), "one pattern, causal"),
    (lambda: axial.Axial(2, 3).parallel({}, masks.full(7)), "7 tokens do not fill an image of 2 x 3"),
    (lambda: axial.Axial(2, 6).parallel({}, CAUSAL), "one pattern, full"),
    (lambda: axial.Axial(0, 3), "0 x 3"),
    (lambda: axial.AxialStack(STACK, 5).parallel({}, CAUSAL), "no multiple of the 5 columns"),
    (lambda: combiner.segments(5, 0), "size = 0"),
    (lambda: combiner.row_major(0, 3), "length = 0 and columns = 3"),
    (lambda: combiner.axial_mixture(4, 0), "length = 4 and columns = 0"),
    (lambda: combiner.Combiner(0), "segment = 0"),
    (lambda: combiner.Combiner(2, "median"), "no region logit 'median'"),
    (lambda: combiner.Combiner(2).parallel({}, masks.full(4)), "one pattern, causal"),
    (lambda: prob_sparse.chosen_count(5, 0), "factor = 0"),
    (lambda: prob_sparse.ProbSparse(torch.zeros(4, 1).long()).parallel({}, CAUSAL), "sampled for 4 queries"),
    (lambda: autocorrelation.AutoCorrelation().parallel({}, CAUSAL), "its one pattern is full"),
    (lambda: local.merge_squares(normal("x", 3, 4, 1), 2), "3 x 4 tokens cannot be cut"),
    (lambda: local.split_squares(normal("x", 3, 4, 6), 2), "width 6 cannot be split"),
    (lambda: visible.VisibleAttention(0), "window = 0"),
    (lambda: visible.groups(masks.segment([0, 1, 0])), "more than one run"),
    (lambda: visible.groups(torch.zeros(2, 2).bool()), "Token 0 sees nothing"),
]


@pytest.mark.parametrize(("call", "sentence"), BAD, ids=[sentence[:30] for _, sentence in BAD])
def test_bad_input_is_refused_in_one_sentence(call, sentence: str) -> None:
    with pytest.raises(LabError, match=sentence):
        call()


def test_prob_sparse_refuses_what_it_does_not_know() -> None:
    x, sampled = normal("x", 4, 2), torch.zeros(4, 1).long()
    with pytest.raises(LabError, match="full and causal"):
        prob_sparse.prob_sparse(x, x, x, sampled, masks.sliding_window(4, 2))
    with pytest.raises(LabError, match="'median'"):
        prob_sparse.prob_sparse(x, x, x, sampled, masks.causal(4), lazy="median")
    with pytest.raises(LabError, match="'half'"):
        prob_sparse.estimates(x, x, sampled, score="half")
    with pytest.raises(LabError, match="factor = 0"):
        autocorrelation.auto_correlation(x, x, x, factor=0.0)
