"""What the parts share: names, and how a predictor is asked at one place."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from lab.domains.regression.mixture_prompts import MixturePrompts
from lab.predictors import RegressionPredictor

SLUG, PAPER = "regression-mixtures", "pathak-2024-mixtures"
ROOT = 2026  # of the seeds that the evidence is drawn from; sizes and bounds were chosen below others
BOTH_ROUND = "1: the first-order rounding error of both computations"


def rising_prior(components: int) -> tuple[float, ...]:
    """Probabilities proportional to 1, 2, .., m."""
    weights = np.arange(1, components + 1)
    return tuple((weights / weights.sum()).tolist())


def at_place(predictor: RegressionPredictor, prompts: MixturePrompts, pairs: int) -> Tensor:
    """The prediction of the label behind the first ``pairs`` pairs, [batch]."""
    return predictor(prompts.x[:, :pairs], prompts.y[:, :pairs], prompts.x[:, pairs : pairs + 1])[:, 0]
