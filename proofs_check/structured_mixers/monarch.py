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
# # Monarch matrices: from the Fourier transform to causal polynomials
#
# Write $N = m^2$ tokens as an $m \times m$ table. An order-2 Monarch matrix mixes the columns, then the rows:
# $M = P L P R P$ with $P$ the transposition and $L$, $R$ block-diagonal, $m$ blocks of $m \times m$. With
# $j = j_1 + m j_0$ and $i = i_1 m + i_0$,
#
# $$M_{ij} = L_{i_0}[i_1, j_1]\; R_{j_1}[i_0, j_0].$$
#
# That is $2 N^{3/2}$ numbers. Cooley and Tukey's factorisation shows that the Fourier transform is one:
# $w_N^{ij} = w_N^{(i_1 m + i_0) j_1}\, w_m^{i_0 j_0}$, since the factor $w_N^{i_1 m \cdot m j_0}$ is 1.
#
# **Causality.** Read $M$ as evaluation: $(Mu)_i = \sum_j u_j\, q_j(w_N^i)$ with $q_{j_1 + m j_0}(Z) = l_{j_1}(Z)\,
# r_{j_1,j_0}(Z^m)$. Then $M^{-1}(Mk \cdot Mu)$ multiplies two combinations of the basis modulo $Z^N - 1$ and writes
# the product in the basis again. Let $l_{j_1}$ have powers $j_1 \dots m-1$ and $r_{j_1, j_0}$ powers from $j_0$ to
# $m/2 - 1$, with lowest coefficients that are not 0, and let $u$ and $k$ be 0 beyond $n = N/2$. For $i, j < n$ the
# product $q_i q_j$ is divisible by $Z^{i+j}$, has a degree below $N$ (each factor reaches $N/2 - 1$ at most), and so
# lies in the span of the $q_l$ with $l \ge i + j$: token $j$ reaches outputs $l \ge j$ only. (Order in $Z$: the lowest
# power of $q_l$ is $l$ itself, so these are a triangular basis.)


# %%
from __future__ import annotations

import math

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.figures import Sheet
from lab.labels import LabelledArrays, deviations, labelled
from lab.models.mixers.monarch import (
    Factors,
    causal_polynomials,
    dense,
    fourier_factors,
    inverse,
    mixed,
    monomials,
    multiply,
    parameter_count,
    polynomial_factors,
    random_factors,
)
from lab.results import Results
from lab.statistics import rounding_bound
from lab.streams import stream
from proofs_check.structured_mixers._shared import COUNTING, SLUG, dependencies, largest, normal

PROOFS = Task(SLUG, paper=SLUG, root=2032)
PAPER = "fu-2023-monarch-mixer"
LENGTHS = (9, 16, 64, 256)


@PROOFS.identity(
    "structured-mixers/m2.T1",
    where="Monarch matrices contain the Fourier transform",
    paper=PAPER,
    kind="construction",
    statement=r"The Fourier transform of $N = m^2$ places is the Monarch matrix with $R_{j_1}[i_0, j_0] = w_m^{i_0 j_0}$ for all "
    r"$j_1$ and $L_{i_0}[i_1, j_1] = w_N^{(i_1 m + i_0) j_1}$, as a product of blocks and as the dense $P L P R P$ (N = 9, 16, "
    "64, 256).",
    origin="rounding of two nested sums of m products of numbers of modulus 1, and of the reference's log N levels",
    controls=[
        control("twiddles left out of L", twiddles=False),
        control("blocks of L and R exchanged", exchanged=True),
    ],
)
def fourier_is_monarch(config: object, *, twiddles: bool = True, exchanged: bool = False) -> LabelledArrays:
    pairs = []
    for length in LENGTHS:
        factors = fourier_factors(length)
        if not twiddles:
            factors = Factors(factors.right, factors.right)
        if exchanged:
            factors = Factors(factors.right, factors.left)
        values = normal(f"fourier {length}", length, 3)
        table = torch.fft.fft(torch.eye(length, dtype=torch.complex128), dim=0)
        norm = float(values.norm(dim=0).max())
        size = math.sqrt(length) * norm
        bound = rounding_bound(4 * factors.side + 7 * math.log2(length) + 24, 2 * size)
        pairs.append((largest(multiply(factors, values) - torch.fft.fft(values, dim=0)), bound))
        pairs.append((largest(dense(factors) - table), rounding_bound(7 * math.log2(length) + 24, 2)))
    return deviations(pairs)


@PROOFS.identity(
    "structured-mixers/m2.T2",
    where="Monarch matrices as evaluations of polynomials",
    paper=PAPER,
    statement=r"With blocks that are values of polynomials, $R_{j_1}[i_0, j_0] = r_{j_1,j_0}(w_m^{i_0})$ and $L_{i_0}[i_1, j_1] = "
    r"l_{j_1}(w_N^{i_1 m + i_0})$, $(Mu)_i = \sum_j u_j q_j(w_N^i)$ where $q_{j_1 + m j_0}(Z) = l_{j_1}(Z)\, r_{j_1,j_0}(Z^m)$, "
    "coefficients multiplied out (N = 16, 64).",
    origin="rounding of sums of products of coefficients, in the 1-norm of the coefficients",
    controls=[control("r evaluated at Z instead of Z^m", stretch=False)],
)
def monarch_evaluates_polynomials(config: object, *, stretch: bool = True) -> LabelledArrays:
    pairs = []
    for length in (16, 64):
        basis = causal_polynomials(stream(0, "polynomials", length), length)
        side = basis.left.shape[0]
        power = torch.arange(side)
        coefficients = torch.zeros(length, 2 * length, dtype=torch.float64)
        for block in range(side):
            for column in range(side):
                for low in power.tolist():
                    places = low + (side * power if stretch else power)
                    coefficients[block + side * column, places] += basis.left[block, low] * basis.right[block, column]
        points = torch.exp(-2j * math.pi * torch.arange(length).double() / length)
        table = points.unsqueeze(1) ** torch.arange(2 * length)
        values = normal(f"polynomials {length}", length, 2)
        size = float((coefficients.abs().sum(1) @ values.abs()).max())
        # A power of a point is wrong by its exponent times a rounding of the point.
        bound = rounding_bound(2 * length * 4 + 4 * side + length, size)
        evaluated = table @ (coefficients.T @ values).to(table.dtype)
        pairs.append((largest(multiply(polynomial_factors(basis), values) - evaluated), bound))
    return deviations(pairs)


# %%
KINDS = ("causal", "any lowest power", "random blocks", "no padding")
SIZES = (16, 64, 144)
DRAWS = 3


def leak(kind: str, length: int, draw: int, of_kernel: bool = False) -> tuple[float, float]:
    """Largest dependency on a later token over the largest of all, and what rounding may make of it."""
    seed = stream(draw, "causal", length)
    if kind == "random blocks":
        real = random_factors(seed, length)
        factors = Factors(real.left.to(torch.complex128), real.right.to(torch.complex128))
    else:
        factors = polynomial_factors(causal_polynomials(seed, length, least=kind != "any lowest power"))
    padded = kind != "no padding"
    tokens = length // 2 if padded else length
    kernel, values = normal(f"kernel {length} {draw}", tokens, 1), normal(f"values {length} {draw}", tokens, 1)

    def outputs(x: Tensor) -> Tensor:
        return mixed(factors, x, values, padded) if of_kernel else mixed(factors, kernel, x, padded)

    dependency = dependencies(outputs, kernel if of_kernel else values)
    matrix, back = dense(factors), dense(inverse(factors))
    # An error of M^{-1} D M, D = diag(M k): three products of relative error c N u, each in the Frobenius norm.
    norms = float(torch.linalg.matrix_norm(back) * torch.linalg.matrix_norm(matrix))
    fixed = values if of_kernel else kernel
    gain = float((matrix[:, :tokens].abs() @ fixed.abs()).max())
    blocks = [float(torch.linalg.cond(block).max()) for block in factors]
    bound = rounding_bound(8 * factors.side * max(blocks) + 16, norms * gain)
    return float(dependency.triu(1).max() / dependency.max()), bound / float(dependency.max())


@PROOFS.cases(**{kind.replace(" ", "-"): {"kind": kind} for kind in KINDS})
def future_leaks(config: object, *, kind: str) -> LabelledArrays:
    """Dependency of outputs on later inputs, and on later places of the kernel, relative to the largest; rounding bounds."""
    leaks = [[[leak(kind, n, d, of_kernel) for d in range(DRAWS)] for n in SIZES] for of_kernel in (False, True)]
    axes = {"of": ("input", "kernel"), "length": SIZES, "draw": range(DRAWS)}
    return {
        "leak": labelled([[[pair[0] for pair in row] for row in part] for part in leaks], **axes),
        "bound": labelled([[[pair[1] for pair in row] for row in part] for part in leaks], **axes),
    }


@PROOFS.claim(
    "structured-mixers/m2.T3",
    where="derived; the paper's causal maps in spirit",
    paper=PAPER,
    kind="identity",
    statement=r"If $l_{j_1}$ has powers from $j_1$ to $m - 1$, $r_{j_1,j_0}$ powers from $j_0$, at most $m/2 - 1$ where $j_0 < m/2$, all "
    r"lowest coefficients are not 0, and $u$, $k$ are 0 beyond $N/2$, then the first $N/2$ outputs of $M^{-1}(Mk \cdot Mu)$ are "
    "causal in $u$ and in $k$ (N = 16, 64, 144, 3 random bases each).",
    controls=[
        control("polynomials that begin at power 0", case="any-lowest-power"),
        control("random blocks", case="random-blocks"),
        control("inputs that are not padded", case="no-padding"),
    ],
)
def least_powers_make_monarch_causal(results: Results, case: str = "causal") -> Evidence:
    # The bound of an ill-conditioned map says nothing; a control must leak visibly everywhere.
    bound = results[future_leaks].sel(case="causal")["bound"]
    origin = "rounding of the blocks' inverses and of three products, through the norms of both maps"
    return Evidence.within(results[future_leaks].sel(case=case)["leak"], bound, origin)


@PROOFS.identity(
    "structured-mixers/m2.T4",
    where="derived",
    paper=PAPER,
    statement=r"For the monomials $l_{j_1} = Z^{j_1}$, $r_{j_1,j_0} = Z^{j_0}$ the causal Monarch map is the convolution $y_t = "
    r"\sum_{s \le t} k_{t-s} u_s$ (8, 32 and 72 tokens).",
    origin="rounding of three transforms of N places by blocks",
    controls=[control("a circular convolution", circular=True)],
)
def monomials_convolve(config: object, *, circular: bool = False) -> LabelledArrays:
    pairs = []
    for length in SIZES:
        tokens = length // 2
        kernel, values = normal(f"k {length}", tokens, 1), normal(f"u {length}", tokens, 1)
        lag = torch.arange(tokens).unsqueeze(1) - torch.arange(tokens)
        toeplitz = kernel[lag % tokens, 0] * (1.0 if circular else (lag >= 0))
        norms = float(kernel.norm() * values.norm())
        bound = rounding_bound(3 * (4 * math.isqrt(length) + 12) + tokens, 3 * math.sqrt(length) * norms)
        factors = polynomial_factors(monomials(length))
        pairs.append((largest(mixed(factors, kernel, values) - toeplitz @ values), bound))
    return deviations(pairs)


# %%
@PROOFS.cases(claimed={}, order={"order": 3})
def parameters(config: object, *, order: int = 2) -> LabelledArrays:
    """Numbers in the blocks of random factors, and p N^{(p + 1) / p} with p = ``order``."""
    lengths = (64, 4096)
    counted = [sum(block.numel() for block in random_factors(stream(0, "count"), length)) for length in lengths]
    stated = [parameter_count(length) for length in (256, 1024, 4096)]
    power = [round(order * length ** ((order + 1) / order)) for length in lengths]
    return {
        "wrong": int(sum(abs(count - law) for count, law in zip(counted, power, strict=True))),
        "stated": int(
            sum(abs(count - published) for count, published in zip(stated, (8192, 65536, 524288), strict=True))
        ),
        "ratio": sum(abs(n**2 / parameter_count(n) - math.sqrt(n) / 2) for n in (256, 1024, 4096)),
    }


@PROOFS.claim(
    "structured-mixers/m2.R1",
    where="order p costs p N^{(p+1)/p}",
    paper=PAPER,
    kind="rate",
    statement=r"An order-2 Monarch matrix has $2 N^{3/2}$ numbers (8192, 65536, 524288 at $N = 256, 1024, 4096$): $\sqrt N / 2$ times "
    "fewer than a dense one.",
    controls=[control("the law of order 3", case="order")],
)
def monarch_costs_three_halves(results: Results, case: str = "claimed") -> Evidence:
    measured = results[parameters].sel(case=case)
    return Evidence.all(
        *(Evidence.exact(float(measured[name]), "<=", 0, COUNTING) for name in ("wrong", "stated", "ratio"))
    )


@PROOFS.figure
def future_dependencies(results: Results) -> Sheet:
    """Dependency of outputs (rows) on inputs (columns) of $M^{-1}(Mk \\cdot Mu)$, 32 tokens, log10 of the share of the largest."""
    sheet = Sheet(columns=3, width=3.4, height=3.2, title="lowest powers that grow make a Monarch map causal")
    for kind in KINDS[:3]:
        seed = stream(0, "causal", 64)
        if kind == "random blocks":
            real = random_factors(seed, 64)
            factors = Factors(real.left.to(torch.complex128), real.right.to(torch.complex128))
        else:
            factors = polynomial_factors(causal_polynomials(seed, 64, least=kind != "any lowest power"))
        kernel = normal("kernel 64 0", 32, 1)
        dependency = dependencies(lambda x, f=factors, k=kernel: mixed(f, k, x), normal("values 64 0", 32, 1))  # type: ignore[misc]
        panel = sheet.panel({"causal": "causal polynomials"}.get(kind, kind), x="input", y="output")
        panel.heat(
            (dependency / dependency.max()).clamp(min=1e-17).log10().numpy(),
            low=-17.0,
            high=0.0,
            bar=r"$\log_{10}$ of the share",
            of="one basis, shares below 1e-17 drawn there",
        )
    return sheet


# %%
PROOFS.show(fourier_is_monarch)
PROOFS.show(monarch_evaluates_polynomials)
PROOFS.show(future_dependencies)
PROOFS.show(least_powers_make_monarch_causal)
PROOFS.show(monomials_convolve)
PROOFS.show(monarch_costs_three_halves)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
