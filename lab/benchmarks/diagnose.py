"""Are closed forms told apart? A table of the true algorithm against the one named, and the time a diagnosis takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.table import Table
from torch import Tensor

from lab.diagnosis.comparison import diagnose, identify
from lab.diagnosis.setting import Setting
from lab.diagnosis.settings import SETTINGS, Regression, find_setting
from lab.domains.regression.gradient_descent import gradient_descent
from lab.domains.regression.kaczmarz import kaczmarz
from lab.domains.regression.least_squares import least_squares, ridge
from lab.domains.regression.optimal_steps import gd_plus_plus
from lab.models import masks
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
HEADLINE = "causallm-icl"
HEADLINE_SECONDS, REQUIRED_SECONDS = 30, 60  # of a CPU, for a model of 4 layers and width 64
DRAWS = 5


def confusion(prompts: int = 512, draws: int = 1) -> dict[str, dict[str, int]]:
    """How often each algorithm (rows) is named as each (columns), over independent draws of the prompts."""
    table = {truth: dict.fromkeys(TRUTHS, 0) for truth in TRUTHS}
    for truth, predictor in TRUTHS.items():
        for seed in range(draws):
            match, _ = identify(predictor, SETTING, prompts, seed)
            named = match.name.split(",")[0]
            table[truth][named] = table[truth].get(named, 0) + 1
    return table


def untrained(setting: Setting) -> StoredModel | Callable[[Tensor], Tensor]:
    """A model of 4 layers and width 64 that answers the prompts of a setting."""
    if setting.kind == "states":
        network = Transformer(_sizes(setting.dimension, setting.dimension), [0])  # type: ignore[attr-defined]
        return lambda states: network(states.float()[None], masks.causal(states.shape[1]))[0, :, -1]
    if setting.kind == "regression":
        return StoredModel(Transformer(_sizes(setting.dimension + 1, 1), [0]), "prefix")  # type: ignore[attr-defined]
    vocabulary: int = setting.vocabulary  # type: ignore[attr-defined]
    return StoredModel(Transformer(_sizes(None, vocabulary, vocabulary), [0]), "prefix")


def _sizes(inputs: int | None, outputs: int, vocabulary: int | None = None) -> Architecture:
    return Architecture(width=64, layers=4, heads=4, input_size=inputs, output_size=outputs, vocabulary=vocabulary)


def main() -> None:
    """Print the table, and the seconds that a model of 4 layers and width 64 takes on the headline task and on all prompts."""
    table = Table(title=f"true algorithm (rows) and algorithm named (columns), of {DRAWS} draws")
    counts = confusion(draws=DRAWS)
    columns = list(dict.fromkeys(name for row in counts.values() for name in row))
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for truth, row in counts.items():
        table.add_row(truth, *(str(row.get(name, 0)) for name in columns))
    Console().print(table)
    right = sum(row[truth] for truth, row in counts.items())
    print(
        f"named rightly: {right} of {DRAWS * len(TRUTHS)}{'' if right == DRAWS * len(TRUTHS) else '  BELOW WHAT IS REQUIRED'}"
    )

    for name in (HEADLINE, *SETTINGS):
        setting = find_setting(name)
        begun = time.process_time()
        diagnose(untrained(setting), setting)
        seconds, required = time.process_time() - begun, HEADLINE_SECONDS if name == HEADLINE else REQUIRED_SECONDS
        verdict = "" if seconds < required else "  ABOVE WHAT IS REQUIRED"
        print(f"4 layers, width 64, on {name}: {seconds:.1f} CPU seconds (required < {required}){verdict}")


if __name__ == "__main__":
    main()
