# ---
# jupyter:
#   jupytext:
#     comment_magics: false
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Costs: what a mixer computes, saves and holds
#
# For every mixer three integers are laws of its sizes (`lab.models.mixers.laws`), and a counter on the running module must find them:
#
# * **multiply-adds** of the parallel form, by torch's operator counter (transforms of $M$ places count as $\tfrac52 M \log_2 M$);
# * **saved numbers**, those that autograd keeps for the backward pass, by its hooks: this is the memory of training;
# * **the state** of the recurrent form, which is the memory of generation: a cache that grows, or a state that does not.
#
# The pattern enters where the code makes use of it. Attention over *visible pairs* groups tokens that see the same run: one product a
# group, $p\,(d + v)$ multiply-adds for $p$ pairs, with $p = n(n+1)/2$ under the causal mask, $p(p-1)/2$ more with a prefix,
# $wn - w(w-1)/2$ in a window. A dense kernel computes $n^2$ whatever the mask.


# %%
from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import costs, masks
from lab.models.counting import count
from lab.models.mixers.autocorrelation import AutoCorrelation
from lab.models.mixers.axial import Axial, AxialStack, random_stack
from lab.models.mixers.combiner import Combiner
from lab.models.mixers.fourier import MaskedFourier
from lab.models.mixers.heads import weights
from lab.models.mixers.interface import Mixer, at
from lab.models.mixers.laws import cost
from lab.models.mixers.monarch import CausalMonarch, Monarch, causal_polynomials, polynomial_factors, random_factors
from lab.models.mixers.patches import TwoLevelPatches, random_levels
from lab.models.mixers.prob_sparse import ProbSparse, sampled_keys
from lab.models.mixers.visible import VisibleAttention
from lab.results import Results
from lab.streams import stream
from proofs_check.structured_mixers._shared import SLUG, normal

PROOFS = Task(SLUG, paper=SLUG, root=2032)
SIZES = {"query": 6, "key": 6, "value": 5, "stream": 4}
COUNTED = "integers, counted in the running module"


class Trial(NamedTuple):
    """A mixer, the pattern it is run under, and the tensors that it trains."""

    mixer: Mixer
    mask: Tensor
    trained: tuple[Tensor, ...] = ()


def flat(tree: Any) -> tuple[Tensor, ...]:
    """All tensors of nested tuples and lists, made to need gradients."""
    if isinstance(tree, Tensor):
        return (tree.requires_grad_(),)
    return tuple(leaf for branch in tree for leaf in flat(branch))


def trial(name: str, scale: int) -> Trial:
    """The mixer called ``name`` at one of two sizes."""
    rows, seed = 3 * scale, stream(0, "weights", name, scale)
    length = 4 * rows
    causal = masks.causal(length)
    if name == "visible, causal":
        return Trial(VisibleAttention(), causal)
    if name == "visible, prefix":
        return Trial(VisibleAttention(), masks.prefix_lm(length, 5))
    if name == "visible, blocks":
        return Trial(VisibleAttention(), masks.block_causal([rows, 2 * rows, rows]))
    if name == "visible, window":
        return Trial(VisibleAttention(4), masks.sliding_window(length, 4))
    if name == "axial":
        return Trial(Axial(rows, 4), masks.full(length))
    if name == "axial stack":
        stack = random_stack(seed, SIZES["stream"], 1, 2)
        return Trial(AxialStack(stack, 4), causal, flat(stack))
    if name == "two levels":
        levels = random_levels(seed, SIZES["stream"], 3)
        return Trial(TwoLevelPatches(levels, 3), causal, flat(levels))
    if name == "combiner":
        return Trial(Combiner(4), causal)
    if name == "monarch":
        factors = random_factors(seed, 16 * scale**2)
        return Trial(Monarch(factors), masks.full(16 * scale**2), flat(factors))
    if name == "causal monarch":
        places = 16 * scale**2
        basis = polynomial_factors(causal_polynomials(seed, places))
        mixer = CausalMonarch(basis, normal("kernel", places // 2, SIZES["stream"]))
        return Trial(mixer, masks.causal(places // 2), (*mixer.factors, *mixer.back, mixer.gain))
    if name == "masked transform":
        return Trial(MaskedFourier(length), causal)
    if name == "masked transform, chirps":
        return Trial(MaskedFourier(256 * scale), masks.causal(256 * scale))
    if name == "prob-sparse":
        return Trial(ProbSparse(sampled_keys(seed, length, 2)), causal)
    return Trial(AutoCorrelation(2.0), masks.full(length))


VISIBLE = ("visible, causal", "visible, prefix", "visible, blocks", "visible, window")
OTHERS = (
    "axial",
    "axial stack",
    "two levels",
    "combiner",
    "monarch",
    "causal monarch",
    "masked transform",
    "masked transform, chirps",
    "prob-sparse",
    "auto-correlation",
)
SCALES = (1, 2)


def streams_of(mixer_trial: Trial) -> dict[str, Tensor]:
    """Random streams of one head for the mixer, of the sizes above."""
    length = len(mixer_trial.mask)
    names = mixer_trial.mixer.streams
    return {name: normal(f"cost {name}", 1, 1, 1, length, SIZES[name]).requires_grad_() for name in names}


@PROOFS.cases(claimed={}, larger={"law_scale": 2}, hidden={"dense": True}, inference={"gradients": False})
def counted_costs(config: object, *, law_scale: int = 1, dense: bool = False, gradients: bool = True) -> LabelledArrays:
    """Counted multiply-adds and saved numbers less the law, for every mixer at two sizes; the law is at
    ``law_scale`` where that is the larger size, visible pairs are computed ``dense``, or nothing is saved for
    ``gradients``."""
    excess = []
    for name in VISIBLE + OTHERS:
        row = []
        for scale in SCALES:
            mixer_trial = trial(name, scale)
            streams = streams_of(mixer_trial)

            def run(mixer_trial: Trial = mixer_trial, streams: dict[str, Tensor] = streams) -> Tensor:
                with torch.set_grad_enabled(gradients):
                    if dense and isinstance(mixer_trial.mixer, VisibleAttention):
                        return weights(streams["query"], streams["key"], mixer_trial.mask) @ streams["value"]
                    return mixer_trial.mixer.run("parallel", streams, mixer_trial.mask)

            counts, law = count(run, mixer_trial.trained), mixer_trial
            if law_scale > scale:
                law = trial(name, law_scale)
            expected = cost(law.mixer, law.mask, SIZES)
            row.append([counts.multiply_adds - expected.multiply_adds, counts.saved - expected.saved])
        excess.append(row)
    return {"excess": labelled(excess, mixer=VISIBLE + OTHERS, scale=SCALES, of=("multiply-adds", "saved"))}


def exact_costs(results: Results, of: str, mixers: tuple[str, ...], case: str) -> Evidence:
    """Evidence that the counted integers are those of the law, a part for each mixer."""
    excess = abs(results[counted_costs]["excess"].sel(case=case, of=of, mixer=list(mixers)))
    return Evidence.all(*(Evidence.exact(int(mixer_excess.max()), "<=", 0, COUNTED) for mixer_excess in excess))


@PROOFS.claim(
    "structured-mixers/cost.pairs",
    where="derived",
    kind="identity",
    statement="Attention over visible pairs computes $p (d + v)$ multiply-adds for the $p$ pairs of a causal, "
    "prefix, block-causal or sliding pattern, "
    "as counted in the running module (12 and 24 tokens).",
    controls=[
        control("all pairs computed, and some hidden", case="hidden"),
        control("the law of twice the size", case="larger"),
    ],
)
def visible_pairs_are_what_is_computed(results: Results, case: str = "claimed") -> Evidence:
    return exact_costs(results, "multiply-adds", VISIBLE, case)


@PROOFS.claim(
    "structured-mixers/cost.saved-pairs",
    where="derived",
    kind="identity",
    statement="For its backward pass it saves the $p$ weights and the streams, $p + n (2 d + v)$ numbers, under "
    "each of the four patterns.",
    controls=[
        control("all pairs computed, and some hidden", case="hidden"),
        control("no gradients wanted", case="inference"),
    ],
)
def visible_pairs_are_what_is_saved(results: Results, case: str = "claimed") -> Evidence:
    return exact_costs(results, "saved", VISIBLE, case)


@PROOFS.claim(
    "structured-mixers/cost.mixers",
    where="derived",
    kind="identity",
    statement="Multiply-adds of axial attention and its stack, two levels of patches, a Combiner, Monarch maps, the "
    "masked transform by table and by "
    "chirps, ProbSparse and auto-correlation are the integers of their laws (two sizes each).",
    controls=[control("the law of twice the size", case="larger")],
)
def mixers_compute_what_the_laws_say(results: Results, case: str = "claimed") -> Evidence:
    return exact_costs(results, "multiply-adds", OTHERS, case)


@PROOFS.claim(
    "structured-mixers/cost.mixers-saved",
    where="derived",
    kind="identity",
    statement="What they save for the backward pass are the integers of their laws: $n^2$ for no mixer but the "
    "masked transform by its table.",
    controls=[
        control(
            "the law of twice the size",
            case="larger",
            mixers=tuple(mixer for mixer in OTHERS if mixer != "causal monarch"),
        ),
        control(
            "no gradients wanted",
            case="inference",
            mixers=tuple(mixer for mixer in OTHERS if mixer != "causal monarch"),
        ),
    ],
)
def mixers_save_what_the_laws_say(
    results: Results, case: str = "claimed", mixers: tuple[str, ...] = OTHERS
) -> Evidence:
    return exact_costs(results, "saved", mixers, case)


# %% [markdown]
# **What generation holds.** A cache under the causal pattern grows by $d + v$ with every token; in a window it stops
# at $w$ of them; a Combiner keeps one key and value for each whole segment; the masked transform holds $N$ running
# sums, as much as a cache of all tokens, from the first token on.

# %%
HOLDERS = ("visible, causal", "visible, window", "combiner", "masked transform")


@PROOFS.cases(claimed={}, late={"late": 1}, unbounded={"window": None})
def held_numbers(config: object, *, late: int = 0, window: int | None = 4) -> LabelledArrays:
    """Numbers in the running state after each of 12 tokens less the law, the law told ``late`` tokens more; queues of another
    ``window`` than the law's 4."""
    excess = []
    for name in HOLDERS:
        mixer_trial = trial(name, 1)
        mixer = VisibleAttention(window) if name == "visible, window" else mixer_trial.mixer
        streams = streams_of(mixer_trial)
        state, row = mixer.start(streams), []
        for place in range(len(mixer_trial.mask)):
            state = mixer.write(state, at(streams, place))
            row.append(
                sum(value[0, 0, 0].numel() for value in state.values())
                - mixer_trial.mixer.state_size(SIZES, place + 1 + late)
            )
        excess.append(row)
    return {"excess": labelled(excess, mixer=HOLDERS, written=range(1, len(excess[0]) + 1))}


@PROOFS.claim(
    "structured-mixers/cost.state",
    where="derived",
    kind="identity",
    statement="After $t$ tokens the state holds $t (d + v)$ numbers under the causal pattern, $\\min(t, w)(d + v)$ "
    "in a window, $(R + t - R s)(d + v) + d$ in a "
    "Combiner of segments $s$ with $R = \\lfloor (t - 1)/s \\rfloor$, and $N w + 1$ in the masked transform (12 tokens, every $t$).",
    controls=[
        control("the law of the next token", case="late", mixers=("visible, causal", "combiner")),
        control("a cache that drops nothing", case="unbounded", mixers=("visible, window",)),
    ],
)
def states_hold_what_the_laws_say(
    results: Results, case: str = "claimed", mixers: tuple[str, ...] = HOLDERS
) -> Evidence:
    excess = abs(results[held_numbers]["excess"].sel(case=case, mixer=list(mixers)))
    return Evidence.all(*(Evidence.exact(int(mixer_excess.max()), "<=", 0, COUNTED) for mixer_excess in excess))


def masked_transform(length: int) -> int:
    """Multiply-adds of the masked transform of streams of 16, by the table below 256 tokens."""
    return cost(MaskedFourier(length), torch.empty(length, 0), {"stream": 16}).multiply_adds


@PROOFS.figure
def multiply_adds_by_length(results: Results) -> Sheet:
    """Multiply-adds of one head against the number of tokens, by the laws that the counter confirms (keys, values and streams of 16)."""
    sheet = Sheet(width=7.0, height=4.6)
    panel = sheet.panel("what structure saves", x="tokens", y="multiply-adds", scale=("log", "log"), legend="outside")
    lengths = [4**k for k in range(3, 9)]
    laws = {
        "causal attention, visible pairs": lambda n: 32 * costs.visible_pairs("causal", n, {}),
        "axial, a square": lambda n: n * 2 * int(n**0.5) * 32,
        "Combiner, segments of a root": lambda n: n * 32 * (1 + 2 * int(n**0.5)),
        "Monarch, order 2": lambda n: 2 * int(n**0.5) ** 3 * 16,
        "masked transform": masked_transform,
        "window of 64": lambda n: 32 * costs.visible_pairs("sliding_window", n, {"window": min(n, 64)}),
    }
    for name, law in laws.items():
        panel.line(lengths, [law(n) for n in lengths], name=name, marks=False, of="exact")
    return sheet


# %%
PROOFS.show(visible_pairs_are_what_is_computed)
PROOFS.show(visible_pairs_are_what_is_saved)
PROOFS.show(mixers_compute_what_the_laws_say)
PROOFS.show(mixers_save_what_the_laws_say)
PROOFS.show(multiply_adds_by_length)
PROOFS.show(states_hold_what_the_laws_say)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
