"""What was found, in ten sentences for the front page; every number in them is read from the stored verdicts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One finding.

    Args:
        claim: the id of the claim that carries it.
        picture: name of the picture of the claim's sheet that shows it.
        sentence: Markdown with ``{measured}``, ``{bound}``, ``{low}`` and ``{high}`` where numbers of the claim's record
            belong.
    """

    claim: str
    picture: str
    sentence: str


FINDINGS = (
    Finding(
        "causallm-icl/O1",
        "convergence_by_layer",
        "**Depth is gradient descent only if examples see each other.** Without label noise, stacked linear attention under a prefix "
        "mask goes on to least squares; under a causal mask its error settles at that of one pass of Kaczmarz, $v\\,d\\,(1-1/d)^n$.",
    ),
    Finding(
        "causallm-icl/O4",
        "where_causal_wins",
        "**Refuted: the prefix limit is never worse.** Near $n = d$ with noisy labels least squares explodes and one causal pass "
        "does not.",
    ),
    Finding(
        "causallm-icl/S1",
        "trained_errors",
        "**Trained softmax transformers are ahead under the prefix mask too**: after 500 updates the log ratio of the causal to the "
        "prefix error is {measured} [{low}, {high}]; but a trained causal network is nearer to least squares than to that one pass.",
    ),
    Finding(
        "icl-gradient-descent/T3",
        "trained_matrices",
        "**One trained layer of linear attention is one gradient step**: its loss exceeds that of the best step by {measured} of "
        "it, at most {bound} allowed.",
    ),
    Finding(
        "mesa-optimization/T1",
        "product_curves",
        "**Next-state prediction trains one step**: descent on the exact population loss ends at $c^* = k_1/(k_2 + k_3 h)$ from "
        "the start the theorem names.",
    ),
    Finding(
        "regression-mixtures/T1",
        "distance_by_pairs",
        "**A transformer trained on a finite set of regressions comes near the posterior mean**, nearer than to the likeliest "
        "component.",
    ),
    Finding(
        "attention-masks/mas.pointers.ceiling",
        "pointer_accuracy",
        "**What a causal mask cannot follow**: on pointers two hops away a trained causal network is right at {measured} of all "
        "places, the median of its trainings, and no causal network of that depth can be right at more than 0.672; the prefix network is "
        "right at nearly all.",
    ),
    Finding(
        "causal-structure/T1",
        "staged_attention",
        "**Gradient descent finds a hidden causal graph**: staged training puts nearly all first-layer attention on the parents.",
    ),
    Finding(
        "causal-structure/M1.head",
        "two_heads",
        "**Refuted: one head can only count with one of two parents.** Its loss, less that of counting with the best single parent, is "
        "{measured} nats.",
    ),
    Finding(
        "stepwise-graph-navigation/P5",
        "path_lengths",
        "**Refuted: networks find shorter paths than they were shown.** Greedy paths are longer by {measured} edges for uniform "
        "training paths; the law of the training paths decides.",
    ),
)
