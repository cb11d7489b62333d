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

LAWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "more examples at a fixed causal depth: Laguerre polynomials",
        ("causallm-icl/L5", "causallm-icl/L5.depth", "causallm-icl/L5.limit"),
    ),
    (
        "the network that divides by the visible length, and where it wins",
        ("causallm-icl/L6", "causallm-icl/L6.crossing"),
    ),
    ("a noise-free context that one pass never learns", ("causallm-icl/L2",)),
    ("the noise from which one pass beats least squares", ("causallm-icl/L8", "causallm-icl/L8.window")),
    ("the typical against the mean error of one pass", ("causallm-icl/L9", "causallm-icl/L9.prompts")),
    ("blocks between causal and full", ("causallm-icl/O6", "causallm-icl/O6.limit")),
    ("depth as early stopping under label noise", ("causallm-icl/L10", "causallm-icl/L10.size")),
    ("the best two causal gradient steps", ("icl-gradient-descent/T6.steps", "icl-gradient-descent/T6.causal")),
    (
        "the excess error of any layer of linear attention",
        ("icl-gradient-descent/T2.isotropic", "icl-gradient-descent/T3b"),
    ),
    ("hops of pointers by causal depth", ("attention-masks/mas.hops", "attention-masks/mas.pointers.hard")),
    ("stacked running means", ("attention-masks/near.L3.rate",)),
    (
        "two regressions: how often the likelier one is wrong",
        ("regression-mixtures/S1", "regression-mixtures/S2", "regression-mixtures/S3"),
    ),
    ("the worth of a stationary start", ("induction-heads-markov/B1-start-limit", "causal-structure/B5")),
    ("relatives at even distances are invisible", ("causal-structure/G2.binary", "causal-structure/G2.even")),
    ("the lead of the parent over the child is irreversibility", ("causal-structure/P1.schur",)),
    ("a start of opposite sign is a mirror image", ("causal-structure/G4",)),
    (
        "the basin of the trap above one, and no other critical points",
        ("induction-heads-markov/L4-basin-above", "induction-heads-markov/L1-critical"),
    ),
    ("lengths of paths under temperature", ("stepwise-graph-navigation/I9", "stepwise-graph-navigation/I9.steps")),
    ("coverage by suffixes is hypergeometric", ("stepwise-graph-navigation/I10",)),
    ("no partial credit for the first step, for any number of arms", ("next-token-pitfalls/T5.parity",)),
    (
        "how fast an imperfect table loses accuracy, and the law of the longest carry chain",
        ("addition-length-generalization/I2-rate", "addition-length-generalization/R2-law"),
    ),
)
"""Laws derived in the lab, in a few words, with the claims that check them."""
