"""Staged training of the reduced model: gradient steps on the first matrix alone, then on the second alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import xarray as xr
from torch import Tensor

from lab.domains.chains.latent_graph_prompts import CausalSequences, causal_sequences
from lab.domains.chains.latent_graphs import row_of
from lab.models.disentangled import Reduced, reduced_law
from lab.streams import stream
from lab.study import Fitted, Metric, Networks, Study
from lab.training import Batch, Optimisation
from tasks.causal_structure._shared import (
    ARM_NAMES,
    BLOCK,
    Graphs,
    by_arm,
    first_layer,
    masks_of,
    on_parents,
    parents_of_tokens,
    reference_losses,
    tokens_and_target,
)


@dataclass(frozen=True)
class Staged:
    """Training the two matrices one after the other."""

    states: int = 3
    """symbols S"""
    concentration: float = 1.0
    """alpha of the prior"""
    batch: int = 512
    """fresh sequences a step"""
    first_steps: int = 120
    """steps on A_1"""
    second_steps: int = 150
    """steps on A_2"""
    first_learning_rate: float = 2.0
    """learning rate of A_1, times T (i + 1) / beta_0 in row i"""
    second_learning_rate: float = 10.0
    """learning rate of A_2 at 16 tokens; proportional to T"""
    start: float = 0.1
    """beta_0 of A_2 = beta_0 I"""
    floor: float = 1e-2
    """added to probabilities before the logarithm, because the output can be exactly 0"""
    test: int = 4_096
    """sequences a loss is measured on"""


SMOKE = Staged(batch=64, first_steps=8, second_steps=8, test=256)
PAPER_SIZES = Staged(batch=2_048, first_steps=400, second_steps=400)


def cross_entropy(law: Tensor, target: Tensor, floor: float) -> Tensor:
    """Mean loss of each model [E] from laws [E, batch, S]."""
    return -(target * (law + floor).log()).sum(-1).mean(1)


def stage_loss(stage: int, floor: float) -> Metric[Reduced]:
    """The loss of which only the first or the second matrix gets a gradient."""

    def loss(module: Reduced, batch: Batch, mask: Tensor) -> Tensor:
        attention = module.patterns(mask)[:, 0]
        frozen = (attention, module.score.detach()) if stage == 1 else (attention.detach(), module.score)
        return cross_entropy(reduced_law(batch["tokens"], *frozen), batch["target"], floor)

    return loss


def train_in_stages(
    sizes: Staged,
    seeds: Sequence[int],
    graphs: Graphs,
    arms: Sequence[str] = ARM_NAMES,
    *,
    kind: str = "",
    stickiness: float = 0.0,
    shuffled: bool = False,
    first_stage: bool = True,
) -> tuple[Networks[Reduced], Fitted[Reduced], dict[str, xr.DataArray]]:
    """Train A_1, then A_2, of the reduced model; all arms of a seed on the same sequences from the same start.

    Args:
        graphs: of one size.
        kind: of the graphs; different kinds draw different sequences, so that their trainings are independent.
        stickiness: of the prior.
        shuffled: the target is the row of a symbol independent of the test token.
        first_stage: False trains A_2 alone.

    Returns:
        The networks before training and after it, and what is measured of them.
    """
    length = 1 + len(graphs[seeds[0]])
    about = f"{length} tokens" + (f", {kind}" if kind else "")

    def sample(seed: int, name: str, number: int, prompts: int) -> CausalSequences:
        return causal_sequences(
            stream(seed, "sequences of stages", kind, name, number),
            prompts,
            sizes.states,
            graphs[seed],
            sizes.concentration,
            stickiness=stickiness,
        )

    def sample_for(name: str) -> Callable[[int, int, int], CausalSequences]:
        def prompts_of(seed: int, number: int, prompts: int) -> CausalSequences:
            data = sample(seed, name, number, prompts)
            if not shuffled:
                return data
            independent_symbols = (
                stream(seed, "independent symbol", name, number).rng().integers(0, sizes.states, prompts)
            )
            return replace(data, target=row_of(data.transition, torch.from_numpy(independent_symbols)))

        return prompts_of

    patterns = masks_of(arms, length)
    # The rate of row i is T (number of visible tokens) / beta_0, the inverse size of its gradient.
    scales = [(length * patterns[arm].sum(-1) / sizes.start).sqrt().double() for arm in arms]

    def untrained(all_seeds: Sequence[int]) -> Reduced:
        return Reduced.start(sizes.states, sizes.start, torch.stack(scales * (len(all_seeds) // len(arms))))

    tests = {seed: sample(seed, "test", 0, sizes.test) for seed in seeds}
    study = Study(untrained, patterns, tokens_and_target, stage_loss(1, sizes.floor))
    before = study.untrained(seeds)
    measured: dict[str, xr.DataArray] = {}
    numbers = sizes.batch * length * sizes.states
    build: Callable[[Sequence[int]], Reduced] = untrained
    if first_stage:
        first = study.fit(
            seeds,
            sample_for("first"),
            Optimisation(sizes.first_steps, sizes.first_learning_rate, optimiser="sgd"),
            blocks=(sizes.batch, BLOCK),
            measure=lambda networks: {"on_parent": on_parents(networks, graphs)},
            measure_every=max(sizes.first_steps // 6, 1),
            name=f"first stage, {about}",
            activation_size=numbers,
        )
        build, measured["on_parent"] = first.start(), first.history["on_parent"]
    after = replace(study, build=build, loss=stage_loss(2, sizes.floor)).fit(
        seeds,
        sample_for("second"),
        Optimisation(sizes.second_steps, sizes.second_learning_rate * length / 16, optimiser="sgd"),
        blocks=(sizes.batch, BLOCK),
        name=f"second stage, {about}",
        activation_size=numbers,
    )
    symbols = range(sizes.states)
    return (
        before,
        after,
        measured
        | {
            "parent": parents_of_tokens(graphs),
            "attention": by_arm(after, first_layer(after), token=range(length), attended=range(length)),
            "score": by_arm(after, after.module.score, asked=symbols, copied=symbols),
            "before": before.ask(tests, study.loss),
            "loss": after.ask(tests, study.loss),
            "references": reference_losses(tests, graphs, sizes.concentration, sizes.floor),
        },
    )
