"""Are closed forms told apart? A table of the true algorithm against the one named, and the time of a diagnosis."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table
from torch import Tensor

from lab.closed_form.gradient_descent import gradient_descent
from lab.closed_form.kaczmarz import kaczmarz
from lab.closed_form.least_squares import least_squares, ridge
from lab.closed_form.optimal_steps import gd_plus_plus
from lab.diagnosis.comparison import diagnose, identify
from lab.diagnosis.settings import Regression
from lab.models.checkpoint import StoredModel
from lab.models.transformer import Architecture, Transformer

SETTING = Regression()
# Steps inside the stable region of most prompts of the setting, far enough from it for descent to be unfinished.
TRUTHS: Mapping[str, Callable[..., Tensor]] = {
    "least squares": least_squares(),
    "ridge": ridge(1.0),
    "gradient descent": gradient_descent(step=0.04, steps=3),
    "GD++": gd_plus_plus(steps=[0.06] * 3, curvatures=[0.01] * 3),
    "one-pass Kaczmarz": kaczmarz(),
}
REQUIRED_SECONDS = 30


def confusion(prompts: int = 512, draws: int = 1) -> dict[str, dict[str, int]]:
    """How often each algorithm (rows) is named as each (columns), over independent draws of the prompts."""
    table = {truth: dict.fromkeys(TRUTHS, 0) for truth in TRUTHS}
    for truth, predictor in TRUTHS.items():
        for seed in range(draws):
            match, _ = identify(predictor, SETTING, prompts, seed)
            named = match.name.split(",")[0]
            table[truth][named] = table[truth].get(named, 0) + 1
    return table


def main() -> None:
    """Print the table and the seconds of one diagnosis of a model of 4 layers and width 64."""
    table = Table(title="true algorithm (rows) and algorithm named (columns), of 5 draws")
    table.add_column("")
    for name in TRUTHS:
        table.add_column(name, justify="right")
    for truth, row in confusion(draws=5).items():
        table.add_row(truth, *(str(row[name]) for name in TRUTHS))
    Console().print(table)
    architecture = Architecture(width=64, layers=4, heads=4, input_size=SETTING.dimension + 1, output_size=1)
    begun = time.process_time()
    diagnose(StoredModel(Transformer(architecture, [0]), "prefix"), SETTING)
    seconds = time.process_time() - begun
    verdict = "" if seconds < REQUIRED_SECONDS else "  ABOVE WHAT IS REQUIRED"
    print(f"4 layers, width 64: {seconds:.1f} CPU seconds (required < {REQUIRED_SECONDS}){verdict}")


if __name__ == "__main__":
    main()
