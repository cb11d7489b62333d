"""How the parts of this sheet draw kinds of answer, and differences of two masks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lab.figures import THEORY, label
from lab.statistics import mean_band

STYLES = {
    "stepwise": {"color": "#1f4e9e", "linestyle": "-", "marker": "o"},
    "direct": {"color": "#d1495b", "linestyle": "--", "marker": "s"},
    "suffix": {"color": "#2e8b57", "linestyle": ":", "marker": "D"},
}
NAMES = {"stepwise": "path, then answer", "direct": "answer at once", "suffix": "at once, suffix pairs"}


def differences_of_masks(axes: Axes, differences: Mapping[str, np.ndarray], title: str) -> pd.DataFrame:
    """Prefix minus causal with a 95 % interval over seeds, one row for each quantity."""
    y = np.arange(len(differences))[::-1]
    mean = np.array([samples.mean() for samples in differences.values()])
    low, high = np.array([mean_band(samples) for samples in differences.values()]).T
    axes.errorbar(mean, y, xerr=[mean - low, high - mean], fmt="ko", capsize=3)
    axes.axvline(0.0, **THEORY)  # type: ignore[arg-type]
    axes.set_yticks(y, list(differences))
    label(axes, title, "prefix minus causal (mean, 95 % interval)", "")
    return pd.DataFrame({"curve": list(differences), "mean": mean, "low": low, "high": high})
