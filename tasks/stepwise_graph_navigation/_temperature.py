"""What temperature makes of networks that write paths: right and different paths, and missteps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lab.decoding import decode
from lab.domains.graphs import navigation as exact
from lab.domains.graphs.navigation_prompts import path_outcome, sample_walks
from lab.labels import LabelledArrays, labelled
from lab.models.transformer import Transformer
from lab.streams import stream
from tasks.stepwise_graph_navigation._paths import uniform_paths
from tasks.stepwise_graph_navigation._shared import CAUSAL, World, logits_of, mask_of, padded

FEW = 4  # samples, where they are few


def sample_at_temperatures(
    module: Transformer, worlds: Mapping[int, World], temperatures: Sequence[float], samples: int, steps: int
) -> LabelledArrays:
    """Paths sampled for one training pair a seed, the one with most paths up to 60, by networks and by the exact law.

    Every seed has its own random numbers. ``accuracy``: share of right paths; ``distinct``: different ones, of the right
    ones, of all that end, and of the right ones among the first few; ``paths``: all right ones there are.
    """
    words, counted = next(iter(worlds.values())).words, ("right", "right or wrong", f"right of {FEW}")
    paths = torch.zeros(len(worlds))
    accuracy = np.zeros((len(worlds), 2, len(temperatures)))
    distinct = np.zeros((*accuracy.shape, len(counted)))
    for place, (seed, world) in enumerate(worlds.items()):
        counts = exact.path_counts(world.adjacency) * world.pairs.training_positive
        counts = torch.where(counts <= 60, counts, 0.0)
        start, goal = divmod(int(counts.argmax()), len(counts))
        prompts = torch.tensor([goal, start]).expand(samples, 2)
        goals, starts = prompts.unbind(1)
        paths[place] = counts.max()
        for column, temperature in enumerate(temperatures):
            source = stream(seed, "wanderer", "samples", str(temperature))
            written = decode(
                module.select([place]),
                prompts,
                mask_of(CAUSAL, 2),
                steps,
                stop_token=words.end,
                temperature=temperature,
                stream=source,
            ).tokens[0]
            law = exact.temper(world.uniform, temperature)
            walks = sample_walks(stream(seed, "wanderer", "exact", str(temperature)), law, starts, goals, steps)
            walks = torch.where(walks < 0, words.end, walks)[:, 1:]
            for row, tokens in enumerate((written, walks)):
                edges, arrived = path_outcome(world.adjacency, starts, goals, tokens, words.end)
                right = edges & arrived
                accuracy[place, row, column] = right.double().mean()
                sets = (tokens[right], tokens, tokens[:FEW][right[:FEW]])
                distinct[place, row, column] = [len(sample.unique(dim=0)) for sample in sets]
    axes = {"seed": list(worlds), "source": ("network", "exact law"), "temperature": temperatures}
    return {
        "accuracy": labelled(accuracy, **axes),
        "distinct": labelled(distinct, **axes, counted=counted),
        "paths": labelled(paths, seed=list(worlds)),
    }


def missteps(
    module: Transformer, worlds: Mapping[int, World], temperatures: Sequence[float], tests: int
) -> LabelledArrays:
    """``misstep``: probability of a step along no edge, mean over true paths of training pairs, at temperatures from 1 upwards.

    Measured, and predicted from the one at temperature 1. Wrong tokens are all nodes that are no neighbours, and END: the
    other signs never follow a node in training.
    """
    hot = [temperature for temperature in temperatures if temperature >= 1]
    rows = []
    for place, (seed, world) in enumerate(worlds.items()):
        sequences = uniform_paths(world, seed, "mass", tests, world.pairs.training_positive)
        with torch.no_grad():
            logits = logits_of(module.select([place]), {"tokens": sequences.tokens.unsqueeze(0)}, mask_of(CAUSAL, 2))[0]
        moving = sequences.loss_mask & (sequences.targets != world.words.end)
        moving_logits = logits[moving].double()
        right = padded(world.adjacency[sequences.tokens[moving]], world.words.size, False)
        measured = torch.stack([(torch.softmax(moving_logits / t, -1) * ~right).sum(-1).mean() for t in hot])
        neighbours = right.sum(1).double()
        wrong = world.words.nodes + 1 - neighbours
        gap = exact.misstep_gap(neighbours, wrong, float(measured[hot.index(1.0)]))
        predicted = torch.stack([exact.misstep_probability(neighbours, wrong, gap, t).mean() for t in hot])
        rows.append(torch.stack([measured, predicted]))
    return {"misstep": labelled(torch.stack(rows), seed=list(worlds), by=("network", "one gap"), hot=hot)}
