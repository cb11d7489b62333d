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
# # What the recurrence costs, and what it keeps for its gradients
#
# Token $i$ of softmax attention meets $i$ keys and adds up $i$ values: $\frac12 N (N + 1)(D + M)$ multiply-adds in all. The recurrence
# writes each token into a state of $D (M + 1)$ numbers and reads it: $2 N D (M + 1)$. They meet at
# $N^* = 4 D (M + 1) / (D + M) - 1$, about twice the size of a head. These are counts and not times; torch's own counter finds them in the
# running modules.
#
# Training is another matter. Differentiated as it stands, the recurrence keeps all its $N$ states, $N D M$ numbers, and what was
# saved on the way forward is lost on the way back. But the gradient is made of two recurrences: with $G_i = \partial L / \partial y_i$
# and $R_i = \sum_{j \ge i} Q_j G_j^\top$,
#
# $$\frac{\partial L}{\partial Q_i} = S_i G_i, \qquad \frac{\partial L}{\partial K_i} = R_i v_i, \qquad \frac{\partial L}{\partial v_i} =
# R_i^\top K_i,$$
#
# one that runs forward and one that runs backward. States are made again, and $N (2D + M)$ numbers suffice: the inputs. The normalised
# layer needs no formulas of its own: it is the same sum over values beside a column of ones, and a quotient.


# %%
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.linear_attention_costs import (
    crossover,
    kept_by_recomputation,
    recurrent_multiply_adds,
    softmax_multiply_adds,
)
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.mixers.costs import multiply_adds, saved_numbers
from lab.models.mixers.features import FEATURE_MAPS
from lab.models.mixers.linear import LinearAttention, augmented, divided
from lab.models.mixers.linear_gradient import causal_sums
from lab.models.mixers.softmax import SoftmaxAttention
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.linear_attention._shared import PRESETS, SLUG, Config, largest, streams, within_rounding

PROOFS = Task(SLUG, paper=SLUG, presets=PRESETS, root=2032)
INPUTS = ("query", "key", "value")


def gradients(function: Callable[..., Tensor], inputs: list[Tensor], output: Tensor) -> list[Tensor]:
    """Gradients with respect to the inputs where that of the result is ``output``."""
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    return list(torch.autograd.grad(function(*inputs), inputs, output))


def masked_sums(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The causal sums as one masked product."""
    return (query @ key.transpose(-1, -2)).tril() @ value


def recurrences(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The causal sums whose gradients are two recurrences, in chunks of 5 tokens."""
    return causal_sums(query, key, value, chunk=5)


def normalised(sums: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Normalised attention by these sums."""
    return lambda query, key, value: divided(sums(query, key, augmented(value)))


def absolute_gradients(inputs: list[Tensor], output: Tensor) -> list[Tensor]:
    """The three gradients of the sums with every term replaced by its absolute value."""
    return gradients(masked_sums, [tensor.abs() for tensor in inputs], output.abs())


# %%
@PROOFS.cases(claimed={}, forward={"reversed_sums": False})
def gradients_of_sums(config: Config, *, reversed_sums: bool = True) -> LabelledArrays:
    """Largest difference between the gradients by two recurrences and those of the masked product, and the bound.

    Without ``reversed_sums`` the gradients of keys and values sum over earlier tokens, as the states do.
    """
    token_streams = streams(config, spread=2.0)
    inputs = [token_streams[name] for name in INPUTS]
    output = torch.from_numpy(stream(0, "output").rng().standard_normal(tuple(token_streams["value"].shape)))
    expected, recurrent_gradients = gradients(masked_sums, inputs, output), gradients(recurrences, inputs, output)
    if not reversed_sums:
        query, key, value = inputs
        recurrent_gradients[1:] = [recurrences(value, output, query), recurrences(key, query, output)]
    scale = absolute_gradients(inputs, output)
    operations = config.length + max(tensor.shape[-1] for tensor in inputs)
    return {
        "difference": labelled(
            [largest(a - b) for a, b in zip(expected, recurrent_gradients, strict=True)], input=INPUTS
        ),
        "rounding": labelled([2 * rounding_bound(operations, largest(gradient)) for gradient in scale], input=INPUTS),
    }


@PROOFS.claim(
    "linear-attention/la.T2",
    where="gradients of causal linear attention",
    paper="katharopoulos-2020-linear-attention",
    kind="identity",
    statement=r"The gradients of the unnormalised sums are $S_i G_i$, $R_i v_i$ and $R_i^\top K_i$ with $R_i = \sum_{j "
    r"\ge i} Q_j G_j^\top$: two "
    "recurrences, equal to those of the masked product to rounding.",
    controls=[control("sums over earlier tokens in the place of later ones", case="forward")],
)
def gradients_are_two_recurrences(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[gradients_of_sums].sel(case=case))


@PROOFS.cases(claimed={}, unnormalised={"with_normaliser": False})
def gradients_of_means(config: Config, *, with_normaliser: bool = True) -> LabelledArrays:
    """The same for the normalised layer; without the normaliser the gradient of the output goes into the sums as it is."""
    token_streams = streams(config)
    inputs = [FEATURE_MAPS["elu"].map(token_streams[name]) for name in INPUTS[:2]] + [token_streams["value"]]
    output = torch.from_numpy(stream(0, "output").rng().standard_normal(tuple(token_streams["value"].shape)))
    expected = gradients(normalised(masked_sums), inputs, output)
    recurrent_gradients = gradients(normalised(recurrences) if with_normaliser else recurrences, inputs, output)
    sums = masked_sums(inputs[0], inputs[1], augmented(inputs[2]))
    total = sums[..., -1:]
    # The gradient of the augmented sums, [G / total, -(G . sums) / total^2], in absolute values, each rounded by itself.
    passed = torch.cat((output / total, (output * sums[..., :-1]).abs().sum(-1, keepdim=True) / total.square()), dim=-1)
    scale = absolute_gradients([*inputs[:2], augmented(inputs[2])], passed)
    operations = 3 * (config.length + inputs[0].shape[-1]) + inputs[2].shape[-1] + 4
    return {
        "difference": labelled(
            [largest(a - b) for a, b in zip(expected, recurrent_gradients, strict=True)], input=INPUTS
        ),
        "rounding": labelled([2 * rounding_bound(operations, largest(gradient)) for gradient in scale], input=INPUTS),
    }


@PROOFS.claim(
    "linear-attention/la.T2.normalised",
    where="derived; the paper gives the gradient of the numerator",
    kind="identity",
    statement="The gradients of the normalised layer are those of the sums over values beside a column of ones, with "
    r"$[G / Z, -(G \cdot y) / Z]$ in the place of $G$, to rounding.",
    controls=[control("G itself put into the sums", case="unnormalised")],
)
def normaliser_is_one_more_column(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[gradients_of_means].sel(case=case))


def _counted(length: int, key: int, value: int, normalise: bool, token_by_token: bool) -> tuple[int, int]:
    """Multiply-adds of linear and of softmax attention at these sizes."""
    sizes = {"query": key, "key": key, "value": value}
    token_streams = {name: torch.ones(1, 1, 1, length, size, dtype=torch.float64) for name, size in sizes.items()}
    mask, linear, softmax = masks.causal(length), LinearAttention("elu", normalise), SoftmaxAttention()
    form = "recurrent" if token_by_token else "parallel"
    return (
        multiply_adds(lambda: linear.run("chunked", token_streams, mask, 1)),
        multiply_adds(lambda: softmax.run(form, token_streams, mask)),
    )


# Tokens, features and coordinates of values.
SHAPES = ((16, 8, 8), (33, 8, 4), (48, 4, 12))


@PROOFS.cases(claimed={}, plain={"normalise": False}, full={"see": "full"})
def counted_products(config: Config, *, normalise: bool = True, see: str = "causal") -> LabelledArrays:
    """Multiply-adds that torch counts in the running mixers, token by token, beside the laws.

    ``full`` runs the masked product of softmax attention, which computes what it then hides.
    """
    counts = [_counted(*shape, normalise, see == "causal") for shape in SHAPES]
    laws = [(recurrent_multiply_adds(*shape), softmax_multiply_adds(*shape)) for shape in SHAPES]
    names = [f"N = {length}, D = {key}, M = {value}" for length, key, value in SHAPES]
    axes = {"shape": names, "mixer": ("linear", "softmax")}
    return {"found": labelled(counts, **axes), "law": labelled(laws, **axes)}


@PROOFS.claim(
    "linear-attention/la.R1",
    where="section 3.3, orders of growth; the exact counts are derived",
    paper="katharopoulos-2020-linear-attention",
    kind="rate",
    statement=r"Token by token, causal softmax attention takes $\frac12 N (N + 1)(D + M)$ multiply-adds and normalised "
    "linear attention "
    r"$2 N D (M + 1)$, as counted in the running modules (three shapes): linear and quadratic in the length, equal at "
    r"$N^* = 4 D (M + 1) / (D + M) - 1$, 65 for $D = M = 32$.",
    controls=[
        control("a recurrence without the column of the normaliser", case="plain", mixers=("linear",)),
        control("softmax attention that computes what it hides", case="full", mixers=("softmax",)),
    ],
)
def counts_are_exact(
    results: Results, case: str = "claimed", mixers: tuple[str, ...] = ("linear", "softmax")
) -> Evidence:
    measured = results[counted_products].sel(case=case, mixer=list(mixers))
    off = abs(measured["found"] - measured["law"])
    equal = recurrent_multiply_adds(65, 32, 32) - softmax_multiply_adds(65, 32, 32)
    return Evidence.all(
        Evidence.exact(float(off.max()), "<=", 0.0, "equality of whole numbers"),
        Evidence.exact(abs(equal) + abs(crossover(32, 32) - 65), "<=", 0.0, "equality of whole numbers"),
    )


LENGTHS = (64, 128, 256, 512)
TRAINED = ("two recurrences", "chunked form, differentiated", "recurrence, differentiated", "masked product")


@PROOFS.cases(claimed={})
def kept_for_gradients(config: Config) -> LabelledArrays:
    """Numbers kept for the gradients of one head of D = M = 16, by form and length, as the hooks of torch find them."""
    size, saved = 16, []
    plain = LinearAttention("identity", normalised=False)
    for length in LENGTHS:
        shape = (1, 1, 1, length, size)
        token_streams = {name: torch.ones(shape, dtype=torch.float64, requires_grad=True) for name in INPUTS}
        mask = masks.causal(length)
        ways: tuple[Callable[[], Tensor], ...] = (
            lambda token_streams=token_streams: causal_sums(  # type: ignore[misc]
                token_streams["query"], token_streams["key"], token_streams["value"]
            ),
            lambda token_streams=token_streams, mask=mask: plain.chunked(token_streams, mask, 32),  # type: ignore[misc]
            lambda token_streams=token_streams, mask=mask: plain.recurrent(token_streams, mask),  # type: ignore[misc]
            lambda token_streams=token_streams, mask=mask: plain.parallel(token_streams, mask),  # type: ignore[misc]
        )
        saved.append([saved_numbers(way) for way in ways])
    laws = [kept_by_recomputation(length, size, size) for length in LENGTHS]
    return {"kept": labelled(saved, length=LENGTHS, form=TRAINED), "law": labelled(laws, length=LENGTHS)}


@PROOFS.claim(
    "linear-attention/la.R2",
    where="section 3.3.1, constant memory; the exact counts are derived",
    paper="katharopoulos-2020-linear-attention",
    kind="rate",
    statement="With states made again on the way back, the sums keep exactly $N (2D + M)$ numbers for their gradients: "
    "the inputs "
    "($D = M = 16$, $N$ from 64 to 512).",
    controls=[
        control("the recurrence, differentiated as it stands", form=TRAINED[2]),
        control("the masked product", form=TRAINED[3]),
    ],
)
def inputs_are_all_that_is_kept(results: Results, form: str = TRAINED[0]) -> Evidence:
    measured = results[kept_for_gradients].sel(case="claimed")
    off = abs(measured["kept"].sel(form=form) - measured["law"]).max()
    return Evidence.exact(float(off), "<=", 0.0, "equality of whole numbers")


@PROOFS.claim(
    "linear-attention/la.R2.linear",
    where="derived",
    kind="rate",
    statement="What chunked training (chunks of 32 tokens) keeps is linear in the length, even differentiated as it "
    "stands: twice as many "
    "tokens keep at most 2.1 times as many numbers, from 64 to 512.",
    controls=[control("the masked product", forms=(TRAINED[3],))],
)
def chunked_training_keeps_linearly(results: Results, forms: tuple[str, ...] = TRAINED[:2]) -> Evidence:
    kept = results[kept_for_gradients].sel(case="claimed", form=list(forms))["kept"]
    growth = (kept / kept.shift(length=1)).max()
    return Evidence.exact(float(growth), "<=", 2.1, "2, and 5 % for what does not grow with whole chunks")


@PROOFS.figure
def what_it_costs(results: Results) -> Sheet:
    """Multiply-adds of one head (D = M = 32) by length; numbers kept for gradients (D = M = 16) by form."""
    sheet = Sheet(columns=2, width=4.8, height=3.9)
    panel = sheet.panel(
        "multiply-adds: they meet at 65 tokens",
        x="tokens $N$",
        y="multiply-adds, $D = M = 32$",
        scale=("log", "log"),
        legend="lower right",
    )
    lengths = [2**power for power in range(4, 14)]
    panel.line(lengths, [softmax_multiply_adds(n, 32, 32) for n in lengths], name="softmax, causal", of="exact")
    panel.line(lengths, [recurrent_multiply_adds(n, 32, 32) for n in lengths], name="linear, recurrent", of="exact")
    panel.level(crossover(32, 32), "$N^* = 65$", vertical=True)
    panel = sheet.panel(
        "numbers kept for the gradients",
        x="tokens $N$",
        y="numbers kept, $D = M = 16$",
        scale=("log", "log"),
        legend="upper left",
    )
    kept = results[kept_for_gradients].sel(case="claimed")
    for form in TRAINED:
        panel.line(list(LENGTHS), kept["kept"].sel(form=form).values, name=form, of="exact")
    panel.theory(list(LENGTHS), kept["law"].values, name="$N (2D + M)$")
    return sheet


# %%
PROOFS.show(what_it_costs)
PROOFS.show(gradients_are_two_recurrences)
PROOFS.show(normaliser_is_one_more_column)
PROOFS.show(counts_are_exact)
PROOFS.show(inputs_are_all_that_is_kept)
PROOFS.show(chunked_training_keeps_linearly)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
