r"""What theory computes for in-context learning of function classes (classes: `lab.domains.regression.function_class_prompts`).

Inputs are standard normal, rows of X [n, d]; labels y [n] are exact unless a noise of standard deviation $\sigma$ is named.
Least squares and ridge live in `lab.domains.regression.least_squares`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from lab.contracts import regression_predictor
from lab.domains.regression.function_class_prompts import DEFAULT_SIZES, FunctionClass, Sizes
from lab.domains.regression.least_squares import predict
from lab.errors import LabError
from lab.predictors import RegressionPredictor

Kernel = Callable[[Tensor, Tensor], Tensor]
MOST_SUPPORTS = 20_000  # supports of an exact posterior; one holds a few small matrices a prompt
LASSO_GAP = 1e-10  # duality gap at which a Lasso problem is solved, relative to its objective at w = 0
LASSO_CHECK = 50  # iterations between two looks at the gap


def second_moment(function: FunctionClass, dimension: int, sizes: Sizes = DEFAULT_SIZES) -> float:
    r"""$E f(x)^2$: d for linear, quadratic and ReLU functions, the sparsity for sparse ones, 1 for trees and signs.

    Quadratic: $\tfrac13 \sum_j E w_j^2 E x_j^4 = d$. ReLU: $\tfrac2r \sum_j E a_j^2 \cdot \tfrac12 E (b_j \cdot x)^2 = d$.
    """
    return float({"sparse": sizes.sparsity, "tree": 1, "sign": 1}.get(function, dimension))


@regression_predictor()
def averaging() -> RegressionPredictor:
    r"""$\hat w = \frac1n \sum_i y_i x_i$: the first step of gradient descent; 0 without examples."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        total = (x_context.mT @ y_context[..., None])[..., 0]
        return predict(total / max(x_context.shape[1], 1), x_query)

    return predictor


def expected_averaging_error(context_length: int, dimension: int, noise: float = 0.0) -> float:
    r"""Query error of `averaging` for $w \sim N(0, I)$: $d (d + 1)/n + \sigma^2 d / n$; d without examples.

    $E |\tfrac1n \sum_i x_i x_i^\top w - w|^2 = \tfrac1n (E |x|^2 (x \cdot w)^2 - |w|^2) = \tfrac1n (d + 1) |w|^2$, because
    $E |x|^2 x x^\top = (d + 2) I$. Above d, the error of predicting 0, until n exceeds $d + 1$.
    """
    if context_length == 0:
        return float(dimension)
    return dimension * (dimension + 1 + noise**2) / context_length


def ridge_error(x: Float[Tensor, "batch context dimension"], penalty: float, noise: float) -> Float[Tensor, " batch"]:
    r"""Expected query error of ridge regression given the inputs, over $w \sim N(0, I)$, label noise and queries.

    $\sum_i (\lambda^2 + \sigma^2 s_i) / (s_i + \lambda)^2$ with the d eigenvalues s of $X^\top X$. At $\lambda = \sigma^2$,
    where ridge is the posterior mean, it is $\mathrm{tr}\, \sigma^2 (X^\top X + \sigma^2 I)^{-1}$, and no penalty does better.

    Raises:
        LabError: a penalty that is not above 0.
    """
    if not penalty > 0:
        raise LabError(f"The ridge penalty {penalty} must be above 0; use least squares for the limit of penalty 0.")
    eigenvalues = torch.linalg.eigvalsh(x.mT @ x).clamp(min=0)
    return ((penalty**2 + noise**2 * eigenvalues) / (eigenvalues + penalty).square()).sum(-1)


def arc_cosine_kernel(
    x: Float[Tensor, "batch first dimension"], z: Float[Tensor, "batch second dimension"]
) -> Float[Tensor, "batch first second"]:
    r"""Covariance of labels of the ReLU class at any width: $\frac{|x||z|}{\pi} (\sin\theta + (\pi - \theta) \cos\theta)$.

    $\theta$ is the angle between x and z; $K(x, x) = |x|^2$. From $E\,(b \cdot x)_+ (b \cdot z)_+$ for $b \sim N(0, I)$ (the
    arc-cosine kernel of degree 1 of Cho and Saul), times 2. The angle comes from the half-angle formula of Kahan, which
    is accurate for all angles; arccos is not, near 0.
    """
    lengths_x, lengths_z = x.norm(dim=-1)[..., :, None], z.norm(dim=-1)[..., None, :]
    unit_x = x / lengths_x.clamp(min=torch.finfo(x.dtype).tiny)
    unit_z = z / lengths_z.mT.clamp(min=torch.finfo(z.dtype).tiny)
    apart = (unit_x[..., :, None, :] - unit_z[..., None, :, :]).norm(dim=-1)
    together = (unit_x[..., :, None, :] + unit_z[..., None, :, :]).norm(dim=-1)
    angle = 2 * torch.atan2(apart, together)
    return lengths_x * lengths_z / math.pi * (angle.sin() + (math.pi - angle) * angle.cos())


def tree_kernel(depth: int) -> Kernel:
    r"""Covariance of labels of decision trees: $\rho^{\text{depth}}$, $\rho$ the share of coordinates with equal signs.

    Two inputs reach one leaf if and only if each of the ``depth`` random tests on the way answers alike for both.
    """

    def kernel(x: Tensor, z: Tensor) -> Tensor:
        signs_x, signs_z = (2.0 * (value > 0).to(x.dtype) - 1.0 for value in (x, z))
        return ((1 + signs_x @ signs_z.mT / x.shape[-1]) / 2) ** depth

    return kernel


def linear_kernel(
    x: Float[Tensor, "batch first dimension"], z: Float[Tensor, "batch second dimension"]
) -> Float[Tensor, "batch first second"]:
    r"""Covariance of labels of the linear class: $x \cdot z$. Its kernel predictor is least squares."""
    return x @ z.mT


def _kernel_weights(kernel: Kernel, x_context: Tensor, x_query: Tensor) -> Float[Tensor, "batch query context"]:
    r"""Rows $k_*^\top K^+$: how much each label counts for each query."""
    if x_context.shape[1] == 0:
        return x_context.new_zeros(len(x_context), x_query.shape[1], 0)
    gram = kernel(x_context, x_context)
    # Two inputs of equal signs make the kernel of trees singular, and their labels equal: the pseudo-inverse shares them.
    return kernel(x_query, x_context) @ torch.linalg.pinv(gram, hermitian=True)


def kernel_predictor(kernel: Kernel) -> RegressionPredictor:
    r"""$\hat y = k_*^\top K^+ y$: of all rules linear in y the one of least expected squared error.

    K is the covariance of the labels of the context and $k_*$ theirs with the query's. Where labels are jointly
    Gaussian (linear functions; ReLU networks of infinite width) it is the posterior mean, the best of all rules.
    """

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        return (_kernel_weights(kernel, x_context, x_query) @ y_context[..., None])[..., 0]

    return predictor


@regression_predictor()
def arc_cosine() -> RegressionPredictor:
    """The kernel predictor of the ReLU class."""
    return kernel_predictor(arc_cosine_kernel)


@regression_predictor(depth=2)
def tree_average(depth: int) -> RegressionPredictor:
    """The kernel predictor of the decision trees."""
    return kernel_predictor(tree_kernel(depth))


def expected_kernel_error(
    truth: Kernel,
    x_context: Float[Tensor, "batch context dimension"],
    x_query: Float[Tensor, "batch query dimension"],
    used: Kernel | None = None,
) -> Float[Tensor, "batch query"]:
    r"""Expected squared error of a kernel predictor given all inputs, over functions of covariance ``truth``.

    $K(x, x) - 2 a^\top k_* + a^\top K a$ with $a = K^+ k_*$ of the kernel ``used``; for the true kernel it is
    $K(x, x) - k_*^\top K^+ k_*$.
    """
    weights = _kernel_weights(truth if used is None else used, x_context, x_query)
    variance = truth(x_query.flatten(0, 1).unsqueeze(1), x_query.flatten(0, 1).unsqueeze(1)).view(x_query.shape[:2])
    if x_context.shape[1] == 0:
        return variance
    cross = (weights * truth(x_query, x_context)).sum(-1)
    return variance - 2 * cross + ((weights @ truth(x_context, x_context)) * weights).sum(-1)


@regression_predictor(sparsity=2, noise=0.5)
def sparse_bayes(sparsity: int, noise: float) -> RegressionPredictor:
    r"""Posterior mean of the sparse class: ridge on every support, weighted by the posterior of the support.

    For a support S of s coordinates, uniform among all $\binom ds$, labels are $N(0, X_S X_S^\top + \sigma^2 I)$; with
    $A = X_S^\top X_S + \sigma^2 I$ and $b = X_S^\top y$ the log-likelihood is, up to a constant,
    $-\tfrac12 (|y|^2 - b^\top A^{-1} b)/\sigma^2 - \tfrac12 \log \det (A/\sigma^2)$ and the ridge weights are $A^{-1} b$.

    Args:
        sparsity: s non-zero coordinates.
        noise: $\sigma > 0$; far below the labels it changes nothing but keeps the posterior finite.

    Raises:
        LabError: a sparsity below 1, a noise that is not above 0, or more supports than can be enumerated.
    """
    if sparsity < 1:
        raise LabError(f"The sparsity {sparsity} must be at least 1; with 0 all functions are 0.")
    if not noise > 0:
        raise LabError(f"The noise {noise} of a sparse posterior must be above 0; use a small one such as 0.01.")

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        dimension = x_query.shape[-1]
        count = math.comb(dimension, sparsity)
        if not 1 <= count <= MOST_SUPPORTS:
            raise LabError(
                f"There are {count} supports of {sparsity} coordinates among {dimension}; the exact posterior needs "
                f"between 1 and {MOST_SUPPORTS}, so change the dimension or the sparsity."
            )
        supports = torch.tensor(list(combinations(range(dimension), sparsity)), device=x_query.device)
        gram, moment = x_context.mT @ x_context, (x_context.mT @ y_context[..., None])[..., 0]
        identity = torch.eye(sparsity, dtype=x_query.dtype, device=x_query.device)
        precision = gram[:, supports[:, :, None], supports[:, None, :]] + noise**2 * identity
        weights = torch.linalg.solve(precision, moment[:, supports])
        fitted = (moment[:, supports] * weights).sum(-1)
        evidence = 0.5 * fitted / noise**2 - 0.5 * torch.linalg.slogdet(precision / noise**2).logabsdet
        posterior = torch.softmax(evidence, dim=-1)
        mean = torch.zeros_like(moment)
        mean.index_add_(1, supports.flatten(), (posterior[..., None] * weights).flatten(1))
        return predict(mean, x_query)

    return predictor


def lasso_weights(
    x: Float[Tensor, "batch context dimension"],
    y: Float[Tensor, "batch context"],
    penalty: float,
    most_iterations: int = 100_000,
) -> Float[Tensor, "batch dimension"]:
    r"""Minimiser of $\frac{1}{2n} |y - X w|^2 + \alpha |w|_1$, to a relative duality gap of `LASSO_GAP`.

    Accelerated proximal gradient steps (FISTA) of size $1/L$, L the largest eigenvalue of $X^\top X / n$; the momentum starts
    afresh wherever it points uphill (O'Donoghue and Candes), prompt by prompt. They find which weights are not 0, and
    their signs s; given those, the minimiser solves $X_S^\top X_S w_S / n = X_S^\top y / n - \alpha s$. Every `LASSO_CHECK`
    iterations both are tried, prompts whose gap (`lasso_gap`) is small enough are done, and the others go on. All in
    double precision.

    Args:
        penalty: $\alpha$ > 0; above $\max_j |x_j \cdot y|/n$ the minimiser is 0.
        most_iterations: when to give up.

    Raises:
        LabError: a penalty that is not above 0; prompts whose gap is still too large after ``most_iterations``.
    """
    if not penalty > 0:
        raise LabError(f"The Lasso penalty {penalty} must be above 0; use least squares for the limit of penalty 0.")
    minimiser = x.new_zeros(len(x), x.shape[-1])
    if x.shape[1] == 0:
        return minimiser
    inputs, labels, left = x.double(), y.double(), torch.arange(len(x), device=x.device)
    weights = x.new_zeros(minimiser.shape, dtype=torch.float64)
    ahead, momentum = weights, weights.new_ones(len(x), 1)
    for _ in range(0, most_iterations, LASSO_CHECK):
        gram = inputs.mT @ inputs / x.shape[1]
        moment = (inputs.mT @ labels[..., None])[..., 0] / x.shape[1]
        step = 1 / torch.linalg.matrix_norm(gram, 2).clamp(min=torch.finfo(torch.float64).tiny)[:, None]
        for _ in range(LASSO_CHECK):
            moved = ahead - step * ((gram @ ahead[..., None])[..., 0] - moment)
            new = moved.sign() * (moved.abs() - step * penalty).clamp(min=0)
            uphill = ((ahead - new) * (new - weights)).sum(-1, keepdim=True) > 0
            momentum = torch.where(uphill, 1.0, momentum)
            grown = (1 + (1 + 4 * momentum.square()).sqrt()) / 2
            ahead = new + (momentum - 1) / grown * (new - weights)
            weights, momentum = new, grown
        signs = weights.sign()
        support = signs.abs()
        # Weights outside the support get the equation w = 0.
        system = gram * support[:, :, None] * support[:, None, :] + torch.diag_embed(1 - support)
        right = (moment - penalty * signs) * support
        solved = (torch.linalg.pinv(system, hermitian=True) @ right[..., None])[..., 0]
        allowed = LASSO_GAP * labels.square().sum(-1) / (2 * x.shape[1])
        gaps = torch.stack([lasso_gap(inputs, labels, candidate, penalty) for candidate in (weights, solved)])
        better = torch.where((gaps[1] < gaps[0])[:, None], solved, weights)
        done = gaps.amin(0) <= allowed
        minimiser[left[done]] = better[done].to(minimiser.dtype)
        keep = ~done
        inputs, labels, left, weights = inputs[keep], labels[keep], left[keep], weights[keep]
        ahead, momentum = ahead[keep], momentum[keep]
        if not len(left):
            return minimiser
    raise LabError(
        f"{len(left)} of {len(x)} Lasso problems have a duality gap above {LASSO_GAP:g} of their objective at 0 after "
        f"{most_iterations} iterations; allow more, or raise the penalty {penalty}."
    )


def lasso_gap(
    x: Float[Tensor, "batch context dimension"],
    y: Float[Tensor, "batch context"],
    weights: Float[Tensor, "batch dimension"],
    penalty: float,
) -> Float[Tensor, " batch"]:
    r"""Duality gap of weights of the Lasso: by how much, at most, their objective exceeds the minimum.

    The dual point is the residual r, scaled until $|X^\top r|_\infty \le n \alpha$; the gap is 0 at the minimiser alone.
    """
    examples = x.shape[1]
    residual = y - (x @ weights[..., None])[..., 0]
    largest = (x.mT @ residual[..., None])[..., 0].abs().amax(-1) / (examples * penalty)
    dual = residual / largest.clamp(min=1)[:, None]
    primal_value = residual.square().sum(-1) / (2 * examples) + penalty * weights.abs().sum(-1)
    dual_value = (y.square().sum(-1) - (y - dual).square().sum(-1)) / (2 * examples)
    return primal_value - dual_value


@regression_predictor(penalty=0.1)
def lasso(penalty: float) -> RegressionPredictor:
    """Prediction by the weights of `lasso_weights`."""

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        return predict(lasso_weights(x_context, y_context, penalty), x_query)

    return predictor


@regression_predictor(neighbours=3)
def nearest_neighbours(neighbours: int) -> RegressionPredictor:
    """Mean label of the examples nearest to the query; of all where there are fewer, 0 where there are none.

    Raises:
        LabError: fewer than 1 neighbour.
    """
    if neighbours < 1:
        raise LabError(f"The number of neighbours {neighbours} must be at least 1; raise it.")

    def predictor(x_context: Tensor, y_context: Tensor, x_query: Tensor) -> Tensor:
        examples = x_context.shape[1]
        if examples == 0:
            return x_query.new_zeros(x_query.shape[:2])
        distances = (x_query[:, :, None, :] - x_context[:, None, :, :]).square().sum(-1)
        nearest = distances.topk(min(neighbours, examples), largest=False).indices
        return y_context[:, None, :].expand(distances.shape).gather(-1, nearest).mean(-1)

    return predictor
