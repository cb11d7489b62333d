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
# # One layer is enough
#
# As in `law_of_paths` the prompt is $g\,s$, all pairs are connected, and the network continues with the path and END. Here
# it is a single attention layer with one head and no MLP. Two laws of training paths are used: *uniform*, every path
# $s \to g$ equally likely, and the *conditioned walk*, the random walk to uniform out-neighbours given that it comes by
# $g$. A third network is trained on uniform paths whose goal tokens are shuffled over the training sequences.

# %%
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from lab import Evidence, Task, control
from lab.decoding import decode
from lab.domains.graphs import navigation as exact
from lab.domains.graphs.navigation_prompts import Sequences, draw_pairs, path_outcome
from lab.figures import Drawing, label, panels
from lab.models import masks
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from lab.training import Member, train
from tasks.stepwise_graph_navigation._paths import (
    PAPER_GRAPH,
    PathGraph,
    distance_to_law,
    distant_pairs,
    draw_paths,
    error_shares,
)
from tasks.stepwise_graph_navigation._shared import (
    PAPER,
    PAPER_NETWORK,
    POSITIONS,
    SLUG,
    SMOKE_NETWORK,
    Network,
    World,
    batches_of,
    cross_entropy,
)


@dataclass(frozen=True)
class Config:
    """Sizes of the graph, the networks and the tests."""

    graph: PathGraph = PathGraph()
    """the graph"""
    network: Network = Network(heads=1, mlp_ratio=0.0, initial_scale=0.05, steps=600)
    """the networks"""
    tests: int = 120
    """paths a network is asked for"""
    trainings: int = 12
    """independent graphs and trainings"""


TASK = Task(
    SLUG,
    PAPER,
    presets={
        "smoke": Config(network=replace(SMOKE_NETWORK, heads=1, mlp_ratio=0.0), tests=12, trainings=2),
        "ci": Config(),
        "paper": Config(
            graph=PAPER_GRAPH, network=replace(PAPER_NETWORK, layers=1, heads=1, mlp_ratio=0.0), tests=1000
        ),
    },
)
LAWS = ("uniform", "shuffled", "walk")
LONGEST_DRAWN = 15  # steps of the length histograms and positions of the attention map
CONTRASTS = 300  # sibling contrasts kept for drawing


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=12)
def one_layer_paths(config: Config, seeds: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Attention-only networks of one layer: uniform paths, the same with goals shuffled, conditioned walks."""
    network = config.network
    worlds = {seed: config.graph.world(seed) for seed in seeds}
    words = worlds[seeds[0]].words
    uniform = {seed: exact.uniform_path_policy(world.adjacency) for seed, world in worlds.items()}
    walk = {seed: exact.conditioned_walk_policy(world.adjacency) for seed, world in worlds.items()}
    laws = {"uniform": uniform, "shuffled": uniform, "walk": walk}
    number = network.steps * network.batch
    data = {
        name: {
            seed: draw_paths(world, seed, "training", number, world.pairs.training_positive, law[seed])
            for seed, world in worlds.items()
        }
        for name, law in laws.items()
    }
    for seed, one in data["shuffled"].items():
        order = torch.from_numpy(stream(seed, "wanderer", "shuffled goals").rng().permutation(number))
        one.tokens[:, 0] = one.tokens[order, 0]
    batches = {name: batches_of(sequences, network.batch, words.pad) for name, sequences in data.items()}

    def batch(seed: int, step: int) -> dict[str, Tensor]:
        return {f"{name} {key}": value for name, own in batches.items() for key, value in own(seed, step).items()}

    def loss(module: Transformer, batch: dict[str, Tensor], arms: tuple[str, ...]) -> Tensor:
        width = max(batch[f"{law} tokens"].shape[2] for law in LAWS)
        tokens, targets = (
            torch.stack(
                [
                    F.pad(one, (0, width - one.shape[1]), value=filling)
                    for one in (batch[f"{arm} {key}"][place] for place, arm in enumerate(arms))
                ]
            )
            for key, filling in (("tokens", words.pad), ("targets", -1))
        )
        return cross_entropy(module(tokens, masks.causal(width)), targets)

    trained = train(
        lambda chosen: Transformer(network.architecture(words.size), chosen),
        [Member(seed, law) for seed in seeds for law in LAWS],
        batch,
        loss,
        network.optimisation,
        evaluate_every=network.steps,
        name="one-layer",
    )
    found: dict[str, np.ndarray] = {}
    for name in LAWS:
        parts = [
            examine(config, trained.module.select([trained.index(seed, name)]), world, seed, laws[name][seed])
            for seed, world in worlds.items()
        ]
        found |= {f"{name}_{key}": np.stack([part[key] for part in parts]) for key in parts[0]}
    return found


def examine(
    config: Config, module: Transformer, world: World, seed: int, law: exact.Policy
) -> dict[str, float | np.ndarray]:
    """Everything that is asked of one trained one-layer network."""
    words, pairs, tests = world.words, world.pairs, config.tests
    mask = masks.causal(POSITIONS)
    written = exact.longest_path(world.adjacency) + 2
    fresh = draw_paths(world, seed, "fresh training", tests, pairs.training_positive, law)
    found: dict[str, float | np.ndarray] = {}

    prompts = torch.stack([fresh.goal, fresh.start], 1)
    shares = error_shares(module, mask, [world], prompts.unsqueeze(0), written)
    found["training_edges"], found["training_plan"] = (float(share[0]) for share in shares)
    start, goal, _ = draw_pairs(stream(seed, "wanderer", "path questions"), tests, distant_pairs(world))
    shares = error_shares(module, mask, [world], torch.stack([goal, start], 1).unsqueeze(0), written)
    found["edges"], found["plan"] = (float(share[0]) for share in shares)
    found["distance"] = distance_to_law(module, mask, fresh, law, world)

    # lengths of the right paths it writes for training pairs, against the exact means of the same pairs
    means = {name: exact.policy_lengths(exact.temper(law, tau)) for name, tau in (("data", 1.0), ("mode", 0.0))}
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        asked = prompts.repeat(8, 1) if temperature else prompts
        source = stream(seed, "wanderer", "lengths") if temperature else None
        tokens = decode(
            module, asked, mask, written, stop_token=words.end, temperature=temperature, stream=source
        ).tokens[0]
        goals, starts = asked.unbind(1)
        edges, arrived = path_outcome(world.adjacency, starts, goals, tokens, words.end)
        steps = (tokens != words.end).sum(-1)[edges & arrived]
        expected = means["data"][starts, goals][edges & arrived]
        # -1, as of paths without length, where no path is right
        found[f"{name}_change"] = (steps.sum() / expected.sum().clamp(min=1.0) - 1).numpy()
        found[f"{name}_histogram"] = length_histogram(steps)
    found["data_histogram"] = length_histogram((fresh.targets >= 0).sum(1) - 1)
    for name, lengths in means.items():
        found[f"{name}_length"] = lengths[fresh.start, fresh.goal].mean().numpy()
    return found | mechanism(module, world, fresh)


def length_histogram(steps: Tensor) -> np.ndarray:
    """How many paths have 0, 1, ..., `LONGEST_DRAWN` steps."""
    return torch.bincount(steps, minlength=LONGEST_DRAWN + 1)[: LONGEST_DRAWN + 1].numpy()


def mechanism(module: Transformer, world: World, fresh: Sequences) -> dict[str, np.ndarray]:
    """What the single head does: where it looks, what its two main terms decide, what its goal table holds."""
    nodes, tokens = world.words.nodes, fresh.tokens
    length = tokens.shape[1]
    record: dict[str, Tensor] = {}
    weight = {name: parameter[0].detach() for name, parameter in module.named_parameters()}
    with torch.no_grad():
        logits = module(tokens.unsqueeze(0), masks.causal(length), record=record)[0]
        weights = record["layers.0.attention.weights"][0, :, 0]
        values = record["layers.0.attention.value"][0, :, 0]
        to_goal, to_self = weights[:, :, :1], weights.diagonal(dim1=1, dim2=2).unsqueeze(-1)

        def read(update: Tensor) -> Tensor:
            added = update @ weight["layers.0.attention.output.weight"] + weight["layers.0.attention.output.bias"]
            return module.read((record["embedding"][0] + added).unsqueeze(0))[0]

        own = to_self * values
        two_terms, no_goal = read(to_goal * values[:, :1] + own).argmax(-1), read(own).argmax(-1)
    # The table: what the goal token's value adds to the logits, up to the scale of the final norm.
    start = weight["embedding"][:nodes] + weight["positions"][0]
    gain, shift = (weight[f"layers.0.attention_norm.{name}"] for name in ("weight", "bias"))
    value = F.layer_norm(start, start.shape[-1:], gain, shift) @ weight["layers.0.attention.value.weight"]
    value = (value + weight["layers.0.attention.value.bias"]) @ weight["layers.0.attention.output.weight"]
    centred = (value - value.mean(-1, keepdim=True)) * weight["final_norm.weight"]
    table = (centred @ weight["read_out.weight"])[:, :nodes].double()
    place = torch.arange(length)
    later = fresh.loss_mask & (place >= 2)
    said = logits.argmax(-1)
    adjacency = world.adjacency
    counts = exact.path_counts(adjacency)
    hits = exact.hitting_probabilities(adjacency)
    log_counts, log_hits = (torch.where(t > 0, t.clamp(min=1e-300).log(), 0.0).T for t in (counts, hits))
    nearness = -torch.where(counts > 0, exact.shortest_paths(adjacency), 0.0).T
    taught = exact.suffix_coverage(adjacency, world.pairs.training_positive)[0]
    contrasts = exact.sibling_contrasts(adjacency, taught)
    own_contrasts, *others = (
        exact.centred_contrasts(one, contrasts) for one in (table, log_counts, nearness, log_hits)
    )
    connected = (counts > 0).T & ~torch.eye(nodes, dtype=torch.bool)
    drawn = torch.full((3, CONTRASTS), torch.nan, dtype=torch.float64)
    kept = torch.stack([own_contrasts, *others[:2]])[:, :CONTRASTS]
    drawn[:, : kept.shape[1]] = kept
    size = min(length, LONGEST_DRAWN)
    attention = np.zeros((LONGEST_DRAWN, LONGEST_DRAWN))
    seen = (fresh.loss_mask | (place < 2)).double()[:, :size].unsqueeze(-1)
    attention[:size, :size] = ((weights[:, :size, :size].double() * seen).sum(0) / seen.sum(0).clamp(min=1)).numpy()
    return {
        "attention_two": (to_goal + to_self).squeeze(-1)[later].mean().numpy(),
        "attention_goal": to_goal.squeeze(-1)[later].mean().numpy(),
        "two_terms_agree": (two_terms == said)[later].double().mean().numpy(),
        "no_goal_agree": (no_goal == said)[later].double().mean().numpy(),
        "contrast_correlations": np.array([correlation(own_contrasts, one) for one in others]),
        "raw_correlations": np.array([correlation(table[connected], one[connected]) for one in (log_counts, nearness)]),
        "contrasts": drawn.numpy(),
        "attention": attention,
    }


def correlation(first: Tensor, second: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first, second]))[0, 1])


# %% [markdown]
# ## What is learnt without goals, and with them


# %%
@TASK.claim(
    "stepwise-graph-navigation/P3.goal",
    where="derived, on section 4.4",
    kind="training",
    statement="Valid edges need no goal and plans do: with goal tokens shuffled over the training sequences, more than $0.9$ "
    "of the paths have valid edges and less than $0.1$ of those reach the goal.",
    controls=[control("goals not shuffled", law="uniform")],
)
def plans_need_goals(results: Results, law: str = "shuffled") -> Evidence:
    found = results[one_layer_paths]
    return Evidence.weakest(
        Evidence.over_seeds(found[f"{law}_edges"], ">=", 0.9, "fixed beforehand", parts=2),
        Evidence.over_seeds(found[f"{law}_plan"], "<=", 0.1, "fixed beforehand", parts=2),
    )


@TASK.claim(
    "stepwise-graph-navigation/P7",
    where="section 5, the simplified algorithm",
    kind="training",
    statement="One attention layer with one head and no MLP suffices: more than $0.9$ of its greedy paths between training "
    "pairs are valid and reach the goal.",
    controls=[control("goals shuffled in training", law="shuffled")],
)
def one_layer_suffices(results: Results, law: str = "uniform") -> Evidence:
    found = results[one_layer_paths]
    return Evidence.over_seeds(
        found[f"{law}_training_edges"] * found[f"{law}_training_plan"], ">=", 0.9, "fixed beforehand"
    )


# %%
TASK.show(plans_need_goals)
TASK.show(one_layer_suffices)

# %% [markdown]
# ## Are generated paths too short?
#
# The paper reports that models write paths shorter than the true ones, a bias to simplicity. Whether that is so can be
# computed without a network. Under the uniform law on paths the *likeliest* next node is the one with most paths to the
# goal, and those are the long ways: greedy decoding lengthens. Under the conditioned walk every branching on the way costs
# probability: the likeliest path is short, and greedy decoding shortens. Low temperature shortens paths here under the law
# of training paths that makes long ones less likely, and lengthens them under the other.


# %%
@TASK.figure
def path_lengths(results: Results) -> Drawing:
    """Lengths of training paths and of written ones, for two laws of paths; vertical lines are exact means."""
    figure, axes = panels(1, 2)
    found = results[one_layer_paths]
    rows = []
    x = np.arange(LONGEST_DRAWN + 1)
    for place, law in enumerate(("uniform", "walk")):
        panel = axes[0, place]
        for key, style in (("data", "-"), ("sampled", "--"), ("greedy", ":")):
            histogram = found[f"{law}_{key}_histogram"].astype(float)
            share = (histogram / np.maximum(histogram.sum(1, keepdims=True), 1)).mean(0)
            name = {"data": "training law", "sampled": "network, temperature 1", "greedy": "network, greedy"}[key]
            panel.step(x, share, where="mid", linestyle=style, label=name)
            rows.append(pd.DataFrame({"law": law, "curve": key, "x": x, "mean": share}))
        for key, style in (("data", "-"), ("mode", ":")):
            panel.axvline(found[f"{law}_{key}_length"].mean(), color="black", linestyle=style, linewidth=1)
        panel.set_xlim(0.5, 10.5)
        title = ("Uniform law: greedy paths are longer", "Walk law: greedy paths are shorter")[place]
        label(panel, title, "steps (vertical: exact means, dotted greedy)", "share of paths")
    axes[0, 0].legend()
    return Drawing(figure, pd.concat(rows, ignore_index=True))


@TASK.claim(
    "stepwise-graph-navigation/P5",
    where="section 4.5, figure 6",
    kind="phenomenon",
    statement="Right paths that a network writes greedily are shorter on average than those it was trained on.",
    expected="refuted",
    condition="when long paths are less likely than short ones in training, as under the conditioned random walk; for "
    "uniformly drawn paths greedy ones are longer",
    controls=[control("trained on conditioned walks", law="walk")],
)
def greedy_shortens(results: Results, law: str = "uniform") -> Evidence:
    change = results[one_layer_paths][f"{law}_greedy_change"]
    return Evidence.over_seeds(change, "<", 0.0, "the exact mean length of the training law")


@TASK.claim(
    "stepwise-graph-navigation/P5.law",
    where="derived, on section 4.5",
    kind="phenomenon",
    statement="The law of the training paths decides: greedy paths are longer than the training law's mean for uniform "
    "paths, and shorter for conditioned walks.",
    controls=[control("the two laws exchanged", longer="walk", shorter="uniform")],
)
def law_decides_length(results: Results, longer: str = "uniform", shorter: str = "walk") -> Evidence:
    found, origin = results[one_layer_paths], "the exact mean length of the same pairs"
    return Evidence.weakest(
        Evidence.over_seeds(found[f"{longer}_greedy_change"], ">", 0.0, origin, parts=2),
        Evidence.over_seeds(found[f"{shorter}_greedy_change"], "<", 0.0, origin, parts=2),
    )


# %%
TASK.show(path_lengths)
TASK.show(greedy_shortens)
TASK.show(law_decides_length)

# %% [markdown]
# ## Two terms, and what the goal's table holds


# %%
@TASK.claim(
    "stepwise-graph-navigation/P7.attention",
    where="section 5",
    kind="training",
    statement="In prefixes of three or more tokens the last token's head gives more than a third of its attention to the "
    "goal token alone.",
    controls=[control("goals shuffled in training", law="shuffled")],
)
def attends_to_goal(results: Results, law: str = "uniform") -> Evidence:
    return Evidence.over_seeds(
        results[one_layer_paths][f"{law}_attention_goal"], ">=", 1 / 3, "uniform attention to three tokens"
    )


@TASK.claim(
    "stepwise-graph-navigation/P7.terms",
    where="section 5",
    kind="training",
    statement="Two terms decide: with all attention but that to the goal and to the current node dropped, the likeliest next "
    "token stays the same in more than $0.85$ of the steps.",
    controls=[control("the goal's term dropped too", key="no_goal_agree")],
)
def two_terms_decide(results: Results, key: str = "two_terms_agree") -> Evidence:
    return Evidence.over_seeds(results[one_layer_paths][f"uniform_{key}"], ">=", 0.85, "fixed beforehand")


@TASK.claim(
    "stepwise-graph-navigation/P7.table",
    where="section 5, 'distance to the goal'",
    kind="training",
    statement="Under uniform paths the goal's table tracks the log number of paths: where two continuations $v, w$ compete, "
    r"its contrast over goals correlates more with that of $\log C_{vg}$ than with that of minus the distance, and more than "
    "with that of the log hitting probability of a random walk.",
    controls=[control("trained on conditioned walks, whose law holds hitting probabilities", law="walk")],
)
def table_counts_paths(results: Results, law: str = "uniform") -> Evidence:
    counts, nearness, hits = results[one_layer_paths][f"{law}_contrast_correlations"].T
    return Evidence.weakest(
        Evidence.over_seeds(counts - nearness, ">", 0.0, "equal correlations", parts=2),
        Evidence.over_seeds(counts - hits, ">", 0.0, "equal correlations", parts=2),
    )


@TASK.figure
def goal_table(results: Results) -> Drawing:
    """What the goal's value vector adds to the logits, against two readings; where the head looks."""
    figure, axes = panels(1, 3)
    found = results[one_layer_paths]
    table, counts, nearness = found["uniform_contrasts"][0]
    correlations = found["uniform_contrast_correlations"].mean(0)
    raw = found["uniform_raw_correlations"].mean(0)
    readings = (
        (counts, "log number of paths", correlations[0], raw[0]),
        (nearness, "minus distance", correlations[1], raw[1]),
    )
    for place, (reading, name, correlation, plain) in enumerate(readings):
        panel = axes[0, place]
        panel.plot(reading, table, ".", color="#1f4e9e", alpha=0.5, markersize=3)
        title = f"{name}: correlation {correlation:.2f}"
        label(panel, title, f"contrast of {name} (one seed)", "contrast of the goal table (logits)")
        panel.text(
            0.03,
            0.95,
            f"mean of {len(found['uniform_contrast_correlations'])} seeds\nraw entries: {plain:.2f}",
            transform=panel.transAxes,
            va="top",
            fontsize=8,
        )
    attention = found["uniform_attention"].mean(0)[:7, :7]
    image = axes[0, 2].imshow(attention, cmap="Greys", vmin=0, vmax=1)
    axes[0, 2].grid(False)
    figure.colorbar(image, ax=axes[0, 2], label="attention")
    label(axes[0, 2], "The head looks at the goal", "token seen (0 goal, 1 start)", "current token")
    rows = pd.DataFrame({"table": table, "log_count": counts, "nearness": nearness}).dropna()
    return Drawing(figure, rows)


# %%
TASK.show(goal_table)

# %% [markdown]
# **Which quantity does the goal table hold?** A function of $v$ alone can move from the goal's table to the current
# node's, and a constant of each goal cancels in the softmax, so raw entries say nothing (with the log number of paths
# their correlation even has the other sign). What can be identified is how the *contrast* between two continuations $v,
# w$ of one node changes with the goal; the figure compares that with the same contrast of two candidate quantities.

# %%
TASK.show(attends_to_goal)
TASK.show(two_terms_decide)
TASK.show(table_counts_paths)

# %%
TASK.show()
