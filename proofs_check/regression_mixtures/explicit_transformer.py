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
# # A transformer that computes the posterior mean
#
# `lab/domains/regression/mixture_transformer.py` writes the weights down: copy $x_i$ to the row of $y_i$ and
# square m residuals, add them up with attention of weight 1, let a softmax over m memory rows average the
# components, multiply by the input. At the row of $x_{k+1}$ only the *set* of the pairs before it matters,
# not their order: so a **prefix mask** over those pairs, which lets them see one another, changes nothing
# there. Inside the prefix it does: those rows count the pairs to come, their own label among them.

# %%
from __future__ import annotations

from lab import Evidence, Task, control
from lab.domains.regression import mixtures as theory
from lab.domains.regression.mixture_prompts import component_set, regression_mixture
from lab.domains.regression.mixture_transformer import posterior_network, posterior_rounding
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.results import Results
from lab.streams import stream
from proofs_check.regression_mixtures._shared import BOTH_ROUND, PAPER, ROOT, SLUG, rising_prior

PROOFS = Task(SLUG, PAPER, root=ROOT)
CONSTRUCTIONS = ((3, 4, 6, 0.5), (8, 20, 40, 0.7), (2, 3, 12, 0.3))  # d, m, n, sigma
NETWORKS = ("as claimed", "averaging", "own input")


@PROOFS.measurement()
def construction(config: object, seed: int) -> LabelledArrays:
    """Largest error over its rounding bound, ``causal`` by network and ``prefix`` by place, for several numbers of components.

    Networks: the claimed one; one that averages where it should add; one with residuals on rows of inputs too. The prefix holds
    n / 2 pairs.
    """
    causal, prefix = [], []
    for dimension, count, length, noise in CONSTRUCTIONS:
        components = component_set(stream(seed, "construction", count, "set"), count, dimension, "unit")
        prior = rising_prior(count)
        prompts = regression_mixture(
            stream(seed, "construction", count), 100, components=components, length=length, noise=noise, prior=prior
        )
        exact = theory.running_posterior_mean(prompts.x, prompts.y, components, noise, prior)
        bound = posterior_rounding(prompts.x, prompts.y, components, noise, prior)
        network = posterior_network(components, length, noise, prior)
        variants = (
            network,
            posterior_network(components, length, noise, prior, average=True),
            posterior_network(components, length, noise, prior, own_input=True),
        )
        mask = masks.causal(2 * length - 1)
        causal.append(
            [float((variant(prompts.x, prompts.y, mask) - exact).abs().max()) / bound for variant in variants]
        )
        pairs = length // 2
        error = (network(prompts.x, prompts.y, masks.prefix_lm(2 * length - 1, 2 * pairs)) - exact).abs()
        prefix.append([float(error[:, pairs:].max()) / bound, float(error[:, :pairs].max()) / bound])
    counts = [count for _, count, _, _ in CONSTRUCTIONS]
    return {
        "causal": labelled(causal, components=counts, network=NETWORKS),
        "prefix": labelled(prefix, components=counts, place=("behind", "inside")),
    }


@PROOFS.claim(
    "regression-mixtures/C1",
    where="Theorem 1 (three layers here)",
    kind="construction",
    statement=r"The explicit transformer puts out the posterior mean at every input of a prompt, under a causal mask "
    r"(up to $m = 20$, $d = 8$, $n = 40$, a prior that is not uniform).",
    controls=[
        control("the second layer averages where it should add", network="averaging"),
        control("rows of inputs get residuals too", network="own input"),
    ],
)
def network_is_posterior_mean(results: Results, network: str = "as claimed") -> Evidence:
    ratio = results[construction]["causal"].sel(network=network)
    return Evidence.exact(float(ratio.max()), "<=", 1.0, BOTH_ROUND)


@PROOFS.claim(
    "regression-mixtures/C1.prefix",
    where="derived (the same network under a prefix mask)",
    kind="construction",
    statement=r"Under a prefix mask over the first $n/2$ pairs the same network puts out the posterior mean at every input behind "
    r"the prefix: the mask changes nothing there.",
    controls=[control("the inputs inside the prefix, which see their own labels", place="inside")],
)
def prefix_changes_nothing(results: Results, place: str = "behind") -> Evidence:
    ratio = results[construction]["prefix"].sel(place=place)
    return Evidence.exact(float(ratio.max()), "<=", 1.0, BOTH_ROUND)


# %%
PROOFS.show()
