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
# # The law of the training paths
#
# Here and in `one_layer` the answer token of `stepwise_gap` is dropped: the prompt is $g\,s$, all pairs are connected, and
# the network continues with the path and END. The graph is a Bernoulli graph, whose paths from $s$ to $g$ have different
# lengths. A path can go wrong in two ways: a *misstep*, a written edge that does not exist; or a *planning failure*, a
# valid path that ends elsewhere.
#
# The reference is the law of the training paths itself, under which every path $s \to g$ is equally likely:
# $\pi(v \mid u, g) = A_{uv} C_{vg} / C_{ug}$, where $C = (I - A)^{-1}$ counts paths. Networks of two layers are trained on
# such paths, with a causal and with a prefix mask. In which order do they learn the law, how near do they come to it, and
# what does temperature make of it?

# %%
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from lab import Evidence, LabError, Task, control
from lab.decoding import decode
from lab.domains.graphs import navigation as exact
from lab.domains.graphs.navigation_prompts import Sequences, path_outcome, sample_walks
from lab.figures import ARMS, THEORY, Drawing, label, mean_curve, panels
from lab.models import masks
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from lab.training import Member, train
from tasks.stepwise_graph_navigation._drawing import differences_of_masks
from tasks.stepwise_graph_navigation._paths import (
    PAPER_GRAPH,
    PathGraph,
    distance_to_law,
    distant_pairs,
    draw_paths,
    error_shares,
)
from tasks.stepwise_graph_navigation._shared import (
    CAUSAL,
    PAPER,
    PAPER_NETWORK,
    POSITIONS,
    PREFIX,
    SLUG,
    SMOKE_NETWORK,
    Network,
    World,
    batches_of,
    cross_entropy,
    mask_of,
)


@dataclass(frozen=True)
class Config:
    """Sizes of the graph, the networks and the tests."""

    graph: PathGraph = PathGraph()
    """the graph"""
    network: Network = Network(layers=2, mlp_ratio=2.0, initial_scale=0.03, steps=660)
    """the networks"""
    tests: int = 120
    """paths a network is asked for"""
    samples: int = 200
    """paths sampled at each temperature"""
    temperatures: tuple[float, ...] = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
    """sampling temperatures"""
    trainings: int = 10
    """independent graphs and trainings"""

    def __post_init__(self) -> None:
        if not {1.0, 1.5} <= set(self.temperatures):
            raise LabError(
                f"The temperatures {self.temperatures} leave out 1 or 1.5, at which claims are judged; add them."
            )


TASK = Task(
    SLUG,
    PAPER,
    presets={
        "smoke": Config(
            network=replace(SMOKE_NETWORK, layers=2, mlp_ratio=2.0, steps=40), tests=12, samples=12, trainings=2
        ),
        "ci": Config(),
        "paper": Config(graph=PAPER_GRAPH, network=PAPER_NETWORK, tests=1000, samples=3000),
    },
)
RECORDS = 12  # evaluations during a training
# What is evaluated there: greedy paths whose edges all exist, and of those, the ones that end at the goal; at the steps of
# true paths, probability of an edge, and of a node that leads to the goal, given that it is an edge.
ERRORS = PATH_EDGES, PATH_PLANS, STEP_EDGES, STEP_PLANS = range(4)


def step_probabilities(law: Tensor, sequences: Sequences, world: World) -> Tensor:
    """(P(a step is an edge), P(it leads to the goal, given that it is an edge)) over the steps of true paths [2].

    Args:
        law: next-token probabilities at every place of the sequences.
    """
    moving = sequences.loss_mask & (sequences.targets != world.words.end)
    current = sequences.tokens[moving]
    goal = sequences.goal.unsqueeze(1).expand_as(moving)[moving]
    edge = world.adjacency[current]
    leading = edge & (exact.path_counts(world.adjacency) > 0).T[goal]
    here = law[moving][:, : world.words.nodes].double()
    on_edges, towards = (here * edge).sum(), (here * leading).sum()
    return torch.stack([on_edges / len(here), towards / on_edges])


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=10)
def two_layer_paths(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Networks of two layers on uniform paths, both arms: errors during training, distance to the law, temperature."""
    network = config.network
    worlds = {seed: config.graph.world(seed) for seed in seeds}
    words = worlds[seeds[0]].words
    laws = {seed: exact.uniform_path_policy(world.adjacency) for seed, world in worlds.items()}
    data = {
        seed: draw_paths(
            worlds[seed],
            seed,
            "training",
            network.steps * network.batch,
            worlds[seed].pairs.training_positive,
            laws[seed],
        )
        for seed in seeds
    }
    batch = batches_of(data, network.batch, words.pad)
    longest = max(exact.longest_path(world.adjacency) for world in worlds.values())
    written = longest + 2
    asked = {
        seed: draw_paths(world, seed, "questions", config.tests // 2, distant_pairs(world), laws[seed])
        for seed, world in worlds.items()
    }
    width = max(one.tokens.shape[1] for one in asked.values())
    patterns = {arm: mask_of([arm], POSITIONS, 2) for arm in (CAUSAL, PREFIX)}

    def loss(module: Transformer, batch: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        tokens = batch["tokens"]
        return cross_entropy(module(tokens, mask_of(arms, tokens.shape[2], 2)), batch["targets"])

    def evaluate(module: Transformer, present: tuple[Member, ...]) -> dict[str, Tensor]:
        errors = torch.zeros(len(present), len(ERRORS), dtype=torch.float64)
        for arm in {member.arm for member in present}:
            places = [place for place, member in enumerate(present) if member.arm == arm]
            own = [present[place].seed for place in places]
            paths = error_shares(
                module.select(places),
                patterns[arm],
                [worlds[seed] for seed in own],
                torch.stack([asked[seed].tokens[:, :2] for seed in own]),
                written,
            )
            tokens = torch.stack([F.pad(asked[seed].tokens, (0, width), value=words.pad)[:, :width] for seed in own])
            laws = torch.softmax(module.select(places)(tokens, patterns[arm][:width, :width]).double(), -1)
            steps = [
                step_probabilities(law[:, : asked[seed].tokens.shape[1]], asked[seed], worlds[seed])
                for seed, law in zip(own, laws, strict=True)
            ]
            errors[places] = torch.cat([torch.stack(paths, 1), torch.stack(steps)], 1)
        return {"errors": errors}

    trained = train(
        lambda chosen: Transformer(network.architecture(words.size), chosen),
        [Member(seed, arm) for seed in seeds for arm in (CAUSAL, PREFIX)],
        batch,
        loss,
        network.optimisation,
        evaluate=evaluate,
        evaluate_every=-(-network.steps // RECORDS),
        name="two-layers",
    )
    found = {
        f"{arm}_errors": trained.history["errors"][:, trained.indices(arm)].swapaxes(0, 1) for arm in (CAUSAL, PREFIX)
    }
    found["ignorant_steps"] = np.stack(
        [
            step_probabilities(torch.full((*one.tokens.shape, words.size), 1 / words.size), one, worlds[seed])
            for seed, one in asked.items()
        ]
    )
    readings = {
        "causal_training": (CAUSAL, CAUSAL, "training_positive", False),
        "prefix_training": (PREFIX, PREFIX, "training_positive", False),
        "causal_held_out": (CAUSAL, CAUSAL, "held_out_positive", False),
        "prefix_held_out": (PREFIX, PREFIX, "held_out_positive", False),
        "crossed": (PREFIX, CAUSAL, "training_positive", False),
        "wrong_goals": (CAUSAL, CAUSAL, "training_positive", True),
    }
    for name, (arm, read_as, pairs, wrong) in readings.items():
        distances = []
        for seed, world in worlds.items():
            fresh = draw_paths(world, seed, f"fresh {pairs}", config.tests, getattr(world.pairs, pairs), laws[seed])
            module = trained.module.select([trained.index(seed, arm)])
            distances.append(distance_to_law(module, patterns[read_as], fresh, laws[seed], world, wrong))
        found[f"{name}_distance"] = np.array(distances)
    return found | sample_at_temperatures(config, trained.arm(CAUSAL), worlds, laws, written)


def sample_at_temperatures(
    config: Config, module: Transformer, worlds: Mapping[int, World], laws: Mapping[int, exact.Policy], written: int
) -> dict[str, np.ndarray]:
    """Paths sampled for one training pair a seed, the one with most paths up to 60, by networks and by the exact law."""
    words = next(iter(worlds.values())).words
    chosen, counts = [], []
    for world in worlds.values():
        count = exact.path_counts(world.adjacency) * world.pairs.training_positive
        best = torch.where(count <= 60, count, 0.0)
        start, goal = divmod(int(best.argmax()), len(best))
        chosen.append((goal, start))
        counts.append(float(best.max()))
    prompts = torch.tensor(chosen).unsqueeze(1).expand(-1, config.samples, -1)
    found: dict[str, list[list[float]]] = {
        key: [] for key in ("accuracy", "distinct", "exact_accuracy", "exact_distinct")
    }
    for temperature in config.temperatures:
        source = stream(next(iter(worlds)), "wanderer", "samples", str(temperature))
        tokens = decode(
            module,
            prompts,
            masks.causal(POSITIONS),
            written,
            stop_token=words.end,
            temperature=temperature,
            stream=source,
        ).tokens
        row: dict[str, list[float]] = {key: [] for key in found}
        for place, (seed, world) in enumerate(worlds.items()):
            goals, starts = prompts[place].unbind(1)
            law = exact.temper(laws[seed], temperature)
            walks = sample_walks(stream(seed, "wanderer", "exact", str(temperature)), law, starts, goals, written)
            walks = torch.where(walks < 0, words.end, walks)[:, 1:]
            for name, paths in (("", tokens[place]), ("exact_", walks)):
                edges, arrived = path_outcome(world.adjacency, starts, goals, paths, words.end)
                right = edges & arrived
                row[f"{name}accuracy"].append(float(right.double().mean()))
                row[f"{name}distinct"].append(len(paths[right].unique(dim=0)))
        for key, values in row.items():
            found[key].append(values)
    measured, predicted = mass_off_edges(config, module, worlds, laws)
    return {key: np.array(values).T for key, values in found.items()} | {
        "count": np.array(counts),
        "mass_off_edges": measured.numpy(),
        "predicted_mass": predicted.numpy(),
    }


def mass_off_edges(
    config: Config, module: Transformer, worlds: Mapping[int, World], laws: Mapping[int, exact.Policy]
) -> tuple[Tensor, Tensor]:
    """Probability of a step along no edge, mean over true paths of training pairs: measured, and predicted from T = 1.

    Both [seed, temperature], for the temperatures from 1 upwards. Wrong tokens are all nodes that are no neighbours, and
    END: the other signs never follow a node in training.
    """
    hot = [temperature for temperature in config.temperatures if temperature >= 1]
    measured, predicted = [], []
    for place, (seed, world) in enumerate(worlds.items()):
        one = draw_paths(world, seed, "mass", config.tests, world.pairs.training_positive, laws[seed])
        with torch.no_grad():
            logits = module.select([place])(one.tokens.unsqueeze(0), masks.causal(one.tokens.shape[1]))[0]
        moving = one.loss_mask & (one.targets != world.words.end)
        here = logits[moving].double()
        right = F.pad(world.adjacency[one.tokens[moving]], (0, world.words.size - world.words.nodes))
        mass = torch.stack([(torch.softmax(here / t, -1) * ~right).sum(-1).mean() for t in hot])
        neighbours = right.sum(1).double()
        others = world.words.nodes + 1 - neighbours
        gap = exact.misstep_gap(neighbours, others, float(mass[hot.index(1.0)]))
        measured.append(mass)
        predicted.append(torch.stack([exact.misstep_probability(neighbours, others, gap, t).mean() for t in hot]))
    return torch.stack(measured), torch.stack(predicted)


# %% [markdown]
# ## Two kinds of error
#
# *Paths*: of the greedy paths for held-out pairs, the share whose edges all exist, and of those, the share that ends at the
# goal. *Steps*: on the way along a true path, the probability that the next step is an edge, and of that, the share on nodes
# from which the goal can be reached; both from the whole next-token law. *Progress* is how far one of these numbers has come
# from a network that knows nothing (for paths 0, for steps the uniform law over tokens) to its own end. Its mean over the
# training says how early something is learnt.


# %%
@TASK.figure
def two_kinds_of_error(results: Results) -> Drawing:
    """Held-out pairs: are the edges right, and if so, is the goal reached; for greedy paths and for single steps."""
    figure, axes = panels(1, 2)
    found = results[two_layer_paths]
    rows = []
    records, total = found["causal_errors"].shape[1], results.config.network.steps
    steps = np.minimum(np.arange(1, records + 1) * -(-total // RECORDS), total)
    parts = (
        ("Greedy paths: edges come first", (PATH_EDGES, PATH_PLANS), "share of paths"),
        ("Single steps: both at one pace", (STEP_EDGES, STEP_PLANS), "probability at a step"),
    )
    for panel, (title, kinds, name) in zip(axes[0], parts, strict=True):
        for which, line, marker, key in zip(
            kinds, ("-", "--"), ("o", "s"), ("edges exist", "towards goal, if so"), strict=True
        ):
            for arm, filling in ((CAUSAL, "white"), (PREFIX, None)):
                style = {"color": ARMS[arm]["color"], "linestyle": line, "marker": marker}
                style |= {"markerfacecolor": filling} if filling else {}
                samples = found[f"{arm}_errors"][:, :, which]
                rows.append(mean_curve(panel, steps, samples, style, f"{key}, {arm}").assign(of=name))
        panel.set_ylim(0, 1.03)
        label(panel, title, "training step", name)
    for chance in found["ignorant_steps"].mean(0):
        axes[0, 1].axhline(chance, **THEORY)
    axes[0, 1].text(0.98, 0.12, "dotted: a uniform law", transform=axes[0, 1].transAxes, ha="right", fontsize=8)
    axes[0, 0].legend(loc="lower right")
    return Drawing(figure, pd.concat(rows, ignore_index=True))


def progress(results: Results, which: int) -> np.ndarray:
    """Mean over the training of the way gone from knowing nothing to its end, causal arm [seed]."""
    found = results[two_layer_paths]
    curve = found["causal_errors"][:, :, which]
    begin = found["ignorant_steps"][:, which - STEP_EDGES, None] if which >= STEP_EDGES else 0.0
    way = np.broadcast_to(curve[:, -1:] - begin, curve.shape)
    return np.divide(curve - begin, way, out=np.zeros_like(curve), where=way != 0).mean(1)


@TASK.claim(
    "stepwise-graph-navigation/P3",
    where="section 4.4, figure 5",
    kind="phenomenon",
    statement="Greedy paths have valid edges before they reach the goal: averaged over the training, the progress of valid "
    "edges is ahead of that of plans by more than half the time between two evaluations.",
    controls=[control("single steps in place of greedy paths", first=STEP_EDGES, later=STEP_PLANS)],
)
def edges_before_plans(results: Results, first: int = PATH_EDGES, later: int = PATH_PLANS) -> Evidence:
    lead = progress(results, first) - progress(results, later)
    return Evidence.over_seeds(lead, ">", 0.5 / RECORDS, "half the time between two of 12 evaluations")


@TASK.claim(
    "stepwise-graph-navigation/P3.steps",
    where="derived, on section 4.4",
    kind="phenomenon",
    statement="At single steps there is no such order: in the network's next-token law on the way along true paths, edges are "
    "ahead of plans by less than half the time between two evaluations.",
    controls=[control("greedy paths in place of steps", first=PATH_EDGES, later=PATH_PLANS)],
)
def steps_learn_both(results: Results, first: int = STEP_EDGES, later: int = STEP_PLANS) -> Evidence:
    lead = progress(results, first) - progress(results, later)
    return Evidence.over_seeds(lead, "<", 0.5 / RECORDS, "half the time between two of 12 evaluations")


# %%
TASK.show(two_kinds_of_error)
TASK.show(edges_before_plans)

# %% [markdown]
# The order belongs to whole paths: a path is valid if it only follows edges, wherever they lead, but it reaches the goal only
# if every step heads there and the last one stops there. Early networks write valid walks that miss the goal. At a single
# step, starting from a true path, edges and direction are learnt together.

# %%
TASK.show(steps_learn_both)

# %% [markdown]
# ## The law itself


# %%
@TASK.claim(
    "stepwise-graph-navigation/P6",
    where="derived, on section 5",
    kind="training",
    statement=r"A trained network writes the law of its training paths: on fresh paths between training pairs its next-token "
    r"law is within total variation $0.08$ of $A_{uv} C_{vg} / C_{ug}$ (two layers, both masks).",
    controls=[control("another sequence's goal in the prompt", readings=("wrong_goals",))],
)
def learns_the_law(results: Results, readings: tuple[str, ...] = ("causal_training", "prefix_training")) -> Evidence:
    found = results[two_layer_paths]
    return Evidence.weakest(
        *(
            Evidence.over_seeds(found[f"{name}_distance"], "<=", 0.08, "fixed beforehand", parts=len(readings))
            for name in readings
        )
    )


@TASK.claim(
    "stepwise-graph-navigation/P6.prefix",
    where="derived",
    kind="phenomenon",
    statement="The prefix mask over a prompt of two words changes nothing that can be seen: the distances of the two arms to "
    "the law of paths differ by less than $0.02$ on average.",
    controls=[control("another sequence's goal instead of another mask", other="wrong_goals")],
)
def prefix_is_null(results: Results, other: str = "prefix_training") -> Evidence:
    found = results[two_layer_paths]
    difference = found[f"{other}_distance"] - found["causal_training_distance"]
    origin = "a quarter of the distance allowed to the law itself"
    return Evidence.weakest(
        Evidence.over_seeds(difference, "<=", 0.02, origin, parts=2),
        Evidence.over_seeds(difference, ">=", -0.02, origin, parts=2),
    )


# %%
TASK.show(learns_the_law)

# %% [markdown]
# ## Accuracy against diversity
#
# For one pair with many paths, sample many continuations at temperature $\tau$. The *exact* law loses no accuracy: all it
# ever writes are valid paths. $\tau = 1$ spreads them evenly; beyond, where every step is flattened, paths become uneven
# again. A network is not exact: the logits of non-edges lie a finite gap $\Delta$ below those of edges, so $M$ wrong tokens
# get the probability $M e^{-\Delta/\tau} / (k + M e^{-\Delta/\tau})$ beside $k$ right ones. Fit $\Delta$ at $\tau = 1$,
# predict the rest. Between $\tau = 1$ and the highest temperature this over-estimates: the wrong tokens' logits are not all
# equal, a few high ones make up the mass at $\tau = 1$, and by the inequality of power means a sum of unequal terms grows
# less with $\tau$.


# %%
@TASK.figure
def temperature(results: Results) -> Drawing:
    """Paths sampled for one pair: share that is right, number of different right ones, probability of a misstep."""
    figure, axes = panels(1, 3)
    found, taus = results[two_layer_paths], np.array(results.config.temperatures)
    exactly = {"color": "black", "linestyle": ":", "marker": "^"}
    rows = [
        mean_curve(axes[0, 0], taus, found["accuracy"], ARMS[CAUSAL], "network"),
        mean_curve(axes[0, 0], taus, found["exact_accuracy"], exactly, "exact law"),
    ]
    axes[0, 0].legend(loc="center right")
    label(axes[0, 0], "Heat costs a network accuracy ...", "temperature", "share of right paths")
    share, sampled = (found[key] / found["count"][:, None] for key in ("distinct", "exact_distinct"))
    rows.append(mean_curve(axes[0, 1], taus, share, ARMS[CAUSAL], "network"))
    rows.append(mean_curve(axes[0, 1], taus, sampled, exactly, "exact law"))
    expected = np.mean([exact.expected_distinct(c, results.config.samples) / c for c in found["count"]])
    axes[0, 1].plot([1.0], [expected], "k*", markersize=10, label=r"$1 - (1 - 1/C)^S$")
    axes[0, 1].legend(loc="lower center")
    label(axes[0, 1], "... and diversity rises, then falls", "temperature", "different right paths / all paths")
    hot = taus[taus >= 1]
    rows.append(mean_curve(axes[0, 2], hot, found["mass_off_edges"], ARMS[CAUSAL], "network"))
    axes[0, 2].plot(hot, found["predicted_mass"].mean(0), label="one logit gap, fitted at 1", **THEORY)
    axes[0, 2].legend()
    label(axes[0, 2], "One logit gap makes the missteps", "temperature", "probability of a misstep")
    return Drawing(figure, pd.concat(rows, ignore_index=True))


@TASK.claim(
    "stepwise-graph-navigation/P4",
    where="section 4.3, figure 4",
    kind="phenomenon",
    statement="Temperature trades accuracy for diversity: from the lowest to the highest temperature the share of right "
    "paths falls by more than a half, while the number of different right paths is larger at temperature $1$ than at both "
    "ends by more than a quarter of all paths.",
    controls=[control("paths sampled from the exact law at the same temperatures", source="exact_")],
)
def accuracy_against_diversity(results: Results, source: str = "") -> Evidence:
    found, taus = results[two_layer_paths], list(results.config.temperatures)
    accuracy = found[f"{source}accuracy"]
    share = found[f"{source}distinct"] / found["count"][:, None]
    middle = share[:, taus.index(1.0)]
    return Evidence.weakest(
        Evidence.over_seeds(accuracy[:, 0] - accuracy[:, -1], ">=", 0.5, "half of all paths", parts=3),
        Evidence.over_seeds(middle - share[:, 0], ">=", 0.25, "a quarter of the paths", parts=3),
        Evidence.over_seeds(middle - share[:, -1], ">=", 0.25, "a quarter of the paths", parts=3),
    )


@TASK.claim(
    "stepwise-graph-navigation/P4.gap",
    where="derived, on section 4.3",
    kind="phenomenon",
    statement="A single logit gap between edges and non-edges, fitted at temperature $1$, predicts the probability of a "
    "misstep at temperature $3$ within $30\\,\\%$ (at the highest temperature alone: on the way there it predicts too much, "
    "at $1.5$ by more than a tenth).",
    controls=[control("the gap not divided by the temperature", divided=False)],
)
def one_gap_predicts(results: Results, divided: bool = True) -> Evidence:
    found, taus = results[two_layer_paths], np.array(results.config.temperatures)
    predicted = found["predicted_mass"] if divided else found["predicted_mass"][:, :1]
    logs = np.log(predicted / found["mass_off_edges"])
    warm = list(taus[taus >= 1]).index(1.5)
    return Evidence.weakest(
        Evidence.over_seeds(np.abs(logs[:, -1]), "<=", np.log(1.3), "a factor of 1.3, fixed beforehand", parts=2),
        Evidence.over_seeds(logs[:, warm], ">=", np.log(1.1), "a tenth too much at 1.5", parts=2),
    )


# %%
TASK.show(temperature)
TASK.show(accuracy_against_diversity)
TASK.show(one_gap_predicts)

# %% [markdown]
# ## What the prefix mask changes
#
# With one layer nothing, to the last digit (the proofs file). With two layers and a prompt of two words nothing that
# can be told from the spread over trainings.


# %%
@TASK.figure
def prefix_over_two_words(results: Results) -> Drawing:
    """Prefix minus causal, seed by seed: distances to the law of paths and the two kinds of error."""
    figure, axes = panels(1, 1, width=5.6)
    paths = results[two_layer_paths]
    differences = {
        "distance to the law": paths["prefix_training_distance"] - paths["causal_training_distance"],
        "... on held-out pairs": paths["prefix_held_out_distance"] - paths["causal_held_out_distance"],
        "... read under the causal mask": paths["crossed_distance"] - paths["causal_training_distance"],
        "all edges of a path exist": (paths["prefix_errors"] - paths["causal_errors"])[:, -1, PATH_EDGES],
        "... and it ends at the goal": (paths["prefix_errors"] - paths["causal_errors"])[:, -1, PATH_PLANS],
    }
    return Drawing(figure, differences_of_masks(axes[0, 0], differences, "Each under its own mask: no difference"))


# %%
TASK.show(prefix_over_two_words)
TASK.show(prefix_is_null)

# %%
TASK.show()
