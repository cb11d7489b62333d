"""What the parts of this sheet share: its names, the paper's optimisation, and what chance makes of a test."""

from __future__ import annotations

import numpy as np

from lab.training import Optimisation

SLUG = "attention-masks"
ARMS = ("prefix", "causal")
# GPT-2-small-like depth and width for the symbols, the sizes of the in-context regression papers for the rest.
LARGE = Optimisation(steps=20_000, learning_rate=5e-4, warmup=0.05, schedule="cosine", clip_norm=1.0)


def three_errors(probability: float, prompts: int) -> float:
    """Three standard errors of the share of right answers among independent prompts."""
    return 3 * float(np.sqrt(probability * (1 - probability) / prompts))
