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
# # What a single layer learns
#
# As in `law_of_paths` the prompt is $g\,s$, all pairs are connected, and the network continues with the path and END. Here
# it is a single attention layer with one head and no MLP. Two laws of training paths are used: *uniform*, every path
# $s \to g$ equally likely, and the *conditioned walk*, the random walk to uniform out-neighbours given that it comes by
# $g$. A third network is trained on uniform paths whose goal tokens are shuffled over the training sequences.

# %%
from __future__ import annotations

from dataclasses import dataclass, replace
from operator import itemgetter

import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.decoding import decode
from lab.domains.graphs import navigation as exact
from lab.domains.graphs import path_laws
from lab.domains.graphs.navigation_prompts import Sequences, bernoulli_dag, path_outcome, sample_pairs
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.transformer import Transformer
from lab.results import Results
from lab.streams import stream
from lab.study import Arm, Study
from lab.training import Batch
from tasks.stepwise_graph_navigation._answers import Hierarchy
from tasks.stepwise_graph_navigation._paths import PAPER_GRAPH, PathGraph, distant_pairs, greedy_shares, sample_paths
from tasks.stepwise_graph_navigation._shared import (
    CAUSAL,
    PAPER_NETWORK,
    SMOKE_NETWORK,
    Network,
    World,
    batches_of,
    mask_of,
    next_token_loss,
    padded,
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
    trainings: int = 40  # 8 of them added later, since fresh seeds must give every verdict again
    """independent graphs and trainings"""
    graphs: int = 44  # 4 of them added later, since fresh seeds must give every verdict again
    """independent graphs whose lengths are computed without a network"""
    hierarchy: Hierarchy = Hierarchy()
    """graphs on which all paths between two nodes are equally long"""
    coolness: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
    """inverse temperatures of the exact lengths, 1 among them"""


TASK = Task(
    "stepwise-graph-navigation",
    "khona-2024-stepwise",
    presets={
        "smoke": Config(network=replace(SMOKE_NETWORK, heads=1, mlp_ratio=0.0), tests=12, trainings=2, graphs=2),
        "ci": Config(),
        "paper": Config(
            graph=PAPER_GRAPH, network=replace(PAPER_NETWORK, layers=1, heads=1, mlp_ratio=0.0), tests=1000
        ),
    },
    root=2026,
)
LAWS = ("uniform", "shuffled", "walk")
LONGEST_PLOTTED = 15  # steps of the length histograms and positions of the attention map
DECODING = ("temperature 1", "greedy")
PILOTS = "chosen on pilot seeds (root 0), judged on seeds not used before"
CONTRASTS = 300  # sibling contrasts kept for plotting
WRITTEN = ("training law", "temperature 1", "greedy")  # whose lengths are counted
READINGS = ("log number of paths", "minus distance", "log hitting probability")


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=16, root=2030)
def one_layer_paths(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Attention-only networks of one layer, by the law of their training paths: what `examine` finds.

    ``uniform`` paths, the same with goals ``shuffled`` over the sequences, and conditioned ``walk``s.
    """
    network = config.network
    worlds = {seed: config.graph.world(seed) for seed in seeds}
    words, number = worlds[seeds[0]].words, network.steps * network.batch
    uniform = {seed: world.uniform for seed, world in worlds.items()}
    walk = {seed: exact.conditioned_walk_policy(world.adjacency) for seed, world in worlds.items()}
    laws = {"uniform": uniform, "shuffled": uniform, "walk": walk}
    sequences = {
        law: {
            seed: sample_paths(world, seed, "training", number, world.pairs.training_positive, policies[seed])
            for seed, world in worlds.items()
        }
        for law, policies in laws.items()
    }
    for seed, sampled in sequences["shuffled"].items():
        order = torch.from_numpy(stream(seed, "wanderer", "shuffled goals").rng().permutation(number))
        sampled.tokens[:, 0] = sampled.tokens[order, 0]
    batches = {law: batches_of(sampled, network.batch, words.pad) for law, sampled in sequences.items()}

    def draw(seed: int, step: int) -> dict[str, Batch]:
        drawn = {law: batches[law](seed, step) for law in LAWS}
        width = max(batch["tokens"].shape[1] for batch in drawn.values())
        return {
            law: {"tokens": padded(batch["tokens"], width, words.pad), "targets": padded(batch["targets"], width, -1)}
            for law, batch in drawn.items()
        }

    arms = {law: Arm(mask_of(CAUSAL, 2), itemgetter(law)) for law in LAWS}
    study = Study(network.build(words), arms, encode=None, loss=next_token_loss)
    fitted = study.fit(seeds, draw, network.optimisation, measure_every=network.steps, name="one-layer")
    by_seed = []
    for seed, world in worlds.items():
        networks = {law: fitted.of(seeds=[seed], arms=[law]).module for law in LAWS}
        by_law = [examine(config, network, world, seed, laws[law][seed]) for law, network in networks.items()]
        by_seed.append(xr.concat(by_law, xr.Variable("law", list(LAWS))))
    measured = xr.concat(by_seed, xr.Variable("seed", list(seeds)))
    return {str(name): values for name, values in measured.items()}


@TASK.measurement(seeds=lambda config: config.graphs)
def exact_lengths(config: Config, seed: int) -> LabelledArrays:
    """Lengths of paths without a network, means over all connected pairs, by graph and law.

    ``length``: by inverse temperature; ``greedy``: of the likeliest steps; ``slope``: of the length in the inverse temperature,
    at 1.
    """
    source = stream(seed, "wanderer", "lengths of graphs")
    graphs = {
        "Bernoulli": bernoulli_dag(source, 1, config.graph.nodes, config.graph.probability),
        "hierarchical": config.hierarchy.graphs(source, 1),
    }
    policies = {"uniform": exact.uniform_path_policy, "walk": exact.conditioned_walk_policy}
    axes = {"graph": list(graphs), "law": list(policies)}
    length = torch.zeros(2, 2, len(config.coolness), dtype=torch.float64)
    greedy, slope = torch.zeros(2, 2, 2, dtype=torch.float64)
    for row, drawn in enumerate(graphs.values()):
        adjacency = drawn.adjacency[0]
        connected = exact.path_counts(adjacency).gt(0).fill_diagonal_(False)
        for column, policy in enumerate(policies.values()):
            law = policy(adjacency)
            cooled = [exact.policy_lengths(exact.temper(law, 1 / beta))[connected].mean() for beta in config.coolness]
            length[row, column] = torch.stack(cooled)
            greedy[row, column] = exact.policy_lengths(exact.temper(law, 0.0))[connected].mean()
            slope[row, column] = path_laws.length_slope(law)[connected].mean()
    return {
        "length": labelled(length, **axes, coolness=config.coolness),
        "greedy": labelled(greedy, **axes),
        "slope": labelled(slope, **axes),
    }


def examine(config: Config, module: Transformer, world: World, seed: int, law: exact.Policy) -> xr.Dataset:
    """Everything that is asked of one trained network.

    ``edges``: share of greedy paths whose edges all exist; ``plans``: of those, the share that ends at the goal.
    ``lengths``: how many paths have 0, 1, ... steps, those of training and right ones between the same pairs; ``mean_length``:
    exactly, of the training law and of its likeliest steps; ``change``: by which share right paths are longer than the
    training law's mean for the same pairs, by decoding. Then what `mechanism` finds.
    """
    words, pairs = world.words, world.pairs
    mask, longest = mask_of(CAUSAL, 2), world.longest_path + 2
    fresh = sample_paths(world, seed, "fresh training", config.tests, pairs.training_positive, law)
    start, goal, _ = sample_pairs(stream(seed, "wanderer", "path questions"), config.tests, distant_pairs(world))
    questions = {"training": torch.stack([fresh.goal, fresh.start], 1), "held out": torch.stack([goal, start], 1)}
    shares = [greedy_shares(module, mask, [world], prompts.unsqueeze(0), longest)[0] for prompts in questions.values()]
    edges, plans = torch.stack(shares, 1)

    means = [exact.policy_lengths(exact.temper(law, temperature)) for temperature in (1.0, 0.0)]
    lengths, change = [(fresh.targets >= 0).sum(1) - 1], []
    for temperature in (1.0, 0.0):
        prompts = questions["training"].repeat(8, 1) if temperature else questions["training"]
        source = stream(seed, "wanderer", "lengths") if temperature else None
        continuation = decode(
            module, prompts, mask, longest, stop_token=words.end, temperature=temperature, stream=source
        )
        written = continuation.tokens[0]
        goals, starts = prompts.unbind(1)
        valid, arrived = path_outcome(world.adjacency, starts, goals, written, words.end)
        lengths.append((written != words.end).sum(-1)[valid & arrived])
        # -1, as of paths without length, where no path is right
        change.append(lengths[-1].sum() / means[0][starts, goals][valid & arrived].sum().clamp(min=1.0) - 1)
    histograms = [torch.bincount(steps, minlength=LONGEST_PLOTTED + 1)[: LONGEST_PLOTTED + 1] for steps in lengths]
    return xr.Dataset(
        {
            "edges": labelled(edges, pairs=list(questions)),
            "plans": labelled(plans, pairs=list(questions)),
            "lengths": labelled(torch.stack(histograms), of=WRITTEN, steps=range(LONGEST_PLOTTED + 1)),
            "mean_length": labelled(
                [table[fresh.start, fresh.goal].mean() for table in means], mean=("training law", "greedy")
            ),
            "change": labelled(torch.stack(change), decoding=DECODING),
            **mechanism(module, world, fresh),
        }
    )


def mechanism(module: Transformer, world: World, fresh: Sequences) -> LabelledArrays:
    """What the single head does.

    ``to_goal``: attention to the goal in prefixes of three or more tokens; ``attention``: mean by token, up to
    ``LONGEST_PLOTTED`` tokens. ``same``: share of steps whose likeliest token stays when only some terms are left.
    ``table``, ``contrast``: correlation of the goal's table, and of its contrasts between two continuations, with three
    readings; ``contrasts``: some of the latter, for plotting.
    """
    nodes, tokens, length = world.words.nodes, fresh.tokens, fresh.tokens.shape[1]
    intermediates: dict[str, Tensor] = {}
    weight = {name: parameter[0].detach() for name, parameter in module.named_parameters()}
    with torch.no_grad():
        logits = module(tokens.unsqueeze(0), masks.causal(length), intermediates=intermediates)[0]
        attention = intermediates["layers.0.attention.weights"][0, :, 0]
        values = intermediates["layers.0.attention.value"][0, :, 0]
        to_goal, to_self = attention[:, :, :1], attention.diagonal(dim1=1, dim2=2).unsqueeze(-1)

        def likeliest(update: Tensor) -> Tensor:
            added = update @ weight["layers.0.attention.output.weight"] + weight["layers.0.attention.output.bias"]
            return module.read((intermediates["embedding"][0] + added).unsqueeze(0))[0].argmax(-1)

        by_terms = [likeliest(to_goal * values[:, :1] + to_self * values), likeliest(to_self * values)]
    later = fresh.loss_mask & (torch.arange(length) >= 2)
    same = [(words == logits.argmax(-1))[later].double().mean() for words in by_terms]

    # The table: what the goal token's value adds to the logits, up to the scale of the final norm.
    start = weight["embedding"][:nodes] + weight["positions"][0]
    gain, shift = (weight[f"layers.0.attention_norm.{name}"] for name in ("weight", "bias"))
    value = F.layer_norm(start, start.shape[-1:], gain, shift) @ weight["layers.0.attention.value.weight"]
    value = (value + weight["layers.0.attention.value.bias"]) @ weight["layers.0.attention.output.weight"]
    centred = (value - value.mean(-1, keepdim=True)) * weight["final_norm.weight"]
    table = (centred @ weight["read_out.weight"])[:, :nodes].double()

    adjacency, counts = world.adjacency, exact.path_counts(world.adjacency)
    log_counts, log_hits = (
        torch.where(positive > 0, positive.clamp(min=1e-300).log(), 0.0).T
        for positive in (counts, exact.hitting_probabilities(adjacency))
    )
    nearness = -torch.where(counts > 0, exact.shortest_paths(adjacency), 0.0).T
    readings = (log_counts, nearness, log_hits)
    siblings = exact.sibling_contrasts(adjacency, exact.suffix_coverage(adjacency, world.pairs.training_positive)[0])
    contrasts = torch.stack([exact.centred_contrasts(values, siblings) for values in (table, *readings)])
    connected = (counts > 0).T & ~torch.eye(nodes, dtype=torch.bool)

    size = min(length, LONGEST_PLOTTED)
    unpadded = (fresh.loss_mask | (torch.arange(length) < 2)).double()[:, :size].unsqueeze(-1)
    means = (attention[:, :size, :size].double() * unpadded).sum(0) / unpadded.sum(0).clamp(min=1)
    unseen, missing = LONGEST_PLOTTED - size, CONTRASTS - min(CONTRASTS, contrasts.shape[1])
    return {
        "to_goal": labelled(to_goal.squeeze(-1)[later].mean()),
        "attention": labelled(F.pad(means, (0, unseen, 0, unseen)), token=None, seen=None),
        "same": labelled(same, terms=("goal and node", "node")),
        "table": labelled([correlation(table[connected], values[connected]) for values in readings], reading=READINGS),
        "contrast": labelled([correlation(contrasts[0], values) for values in contrasts[1:]], reading=READINGS),
        "contrasts": labelled(
            F.pad(contrasts[:, :CONTRASTS], (0, missing), value=torch.nan), quantity=("table", *READINGS), place=None
        ),
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
    statement="Valid edges need no goal and plans do: with goal tokens shuffled over the training sequences (600 updates, "
    "held-out pairs), in the median training more than $0.9$ of the greedy paths have valid edges and less than $0.1$ of those "
    "reach the goal.",
    controls=[control("goals not shuffled", law="uniform")],
)
def plans_need_goals(results: Results, law: str = "shuffled") -> Evidence:
    greedy = results[one_layer_paths].sel(law=law, pairs="held out")
    return Evidence.all(
        Evidence.median(greedy["edges"], ">=", 0.9, PILOTS), Evidence.median(greedy["plans"], "<=", 0.1, PILOTS)
    )


@TASK.claim(
    "stepwise-graph-navigation/P7",
    where="section 5, the simplified algorithm",
    kind="training",
    statement="One attention layer with one head and no MLP suffices for training pairs: after 600 updates more than $0.9$ of its greedy "
    "paths between them are valid and reach the goal, in the median training.",
    controls=[control("goals shuffled in training", law="shuffled")],
)
def one_layer_suffices(results: Results, law: str = "uniform") -> Evidence:
    greedy = results[one_layer_paths].sel(law=law, pairs="training")
    return Evidence.median(greedy["edges"] * greedy["plans"], ">=", 0.9, PILOTS)


# %%
TASK.show(plans_need_goals)
TASK.show(one_layer_suffices)

# %% [markdown]
# ## Are generated paths too short?
#
# The paper reports that models write paths shorter than the true ones, a bias to simplicity. Which law the true paths were
# drawn from, and how the model's were decoded, decides that, and can be computed without a network. Sample steps from
# $\pi^\beta / Z$. The derivative of the log-probability of a path at $\beta = 1$ is $\sum_t (\log \pi_t + H_t)$, where $H_t$ is the
# entropy of a step, so that (claims I9 and I9.steps of the proofs file)
#
# $$\frac{d}{d\beta} E[\ell] = \mathrm{Cov}\Bigl(\ell, \sum_t (\log \pi_t + H_t)\Bigr)
# = \sum_w \mathrm{Cov}_{v \sim \pi(\cdot \mid w, g)}\bigl(\log \pi(v \mid w, g), L_v\bigr),$$
#
# the last sum over the expected visits to the nodes $w$ on the way, $L_v$ the mean length from $v$. Cooling lengthens paths
# iff likelier steps have a longer way before them. Under the uniform law $\sum_t \log \pi_t$ is the same for all paths, and
# the likelier node is the one with more paths to the goal: those are the long ways, and greedy decoding lengthens. Under
# the conditioned walk every branching on the way costs probability: the likelier node has the shorter way, and greedy
# decoding shortens.


# %%
@TASK.figure
def path_lengths(results: Results) -> Sheet:
    """Lengths of training paths and of right ones that networks write, for two laws; exact means against coolness.

    Left and middle: exact means are vertical. Right: tangents have the slope of the closed form.
    """
    measured, lengths = results[one_layer_paths], results[exact_lengths].sel(graph="Bernoulli")
    shares = measured["lengths"] / measured["lengths"].sum("steps").clip(min=1)
    sheet = Sheet(columns=3)
    for law, title in (
        ("uniform", "Uniform law: greedy paths are longer"),
        ("walk", "Walk law: greedy paths are shorter"),
    ):
        panel = sheet.panel(title, x="steps", y="share of paths", xlim=(0.5, 10.5))
        for of in WRITTEN:
            name = of if of == "training law" else f"network, {of}"
            panel.curve(shares.sel(law=law, of=of), over="steps", name=name, steps=True)
        for mean in measured["mean"].values:
            panel.level(measured["mean_length"].sel(law=law, mean=mean).mean(), f"exact mean, {mean}", vertical=True)
    panel = sheet.panel("Without a network: the law decides", x="inverse temperature of the steps", y="mean length")
    for law in lengths["law"].values:
        panel.curve(lengths["length"].sel(law=law), over="coolness", name=f"{law} law")
    for law in lengths["law"].values:
        middle, slope = (
            float(lengths[quantity].sel(law=law).mean("seed").sel(at, drop=True))
            for quantity, at in (("length", {"coolness": 1.0}), ("slope", {}))
        )
        ends = [middle - 0.4 * slope, middle + 0.4 * slope]
        panel.line(
            [0.6, 1.4], ends, name="closed form at 1", look=7, marks=False, of="closed form, mean over the graphs"
        )
    return sheet


@TASK.claim(
    "stepwise-graph-navigation/P5",
    where="our reading of section 4.5, figure 6 (law of paths and decoding are not stated in what we know of it)",
    kind="phenomenon",
    statement="Between training pairs, the right paths that a network of one layer decodes greedily after 600 updates are shorter on "
    "average than the uniformly drawn paths it was trained on.",
    expected="refuted",
    condition="when long paths are less likely than short ones in training, as under the conditioned random walk, and "
    "decoding is greedy; which law and which decoding decide is P5.law",
    controls=[control("trained on conditioned walks", law="walk")],
)
def greedy_shortens(results: Results, law: str = "uniform") -> Evidence:
    change = results[one_layer_paths]["change"].sel(law=law, decoding="greedy")
    return Evidence.over_seeds(change, "<", 0.0, "the exact mean length of the training law, for the same pairs")


@TASK.claim(
    "stepwise-graph-navigation/P5.law",
    where="derived, on section 4.5",
    kind="phenomenon",
    statement="Without any network the law of the paths decides: on random Bernoulli graphs, when steps are cooled, the mean "
    r"length of paths grows under the uniform law, at temperature $1$ at a relative rate $d \log E[\ell] / d\beta$ above $0.05$, and "
    "greedy steps make it more than $0.05$ larger than the law's; under conditioned walks both have the other sign.",
    controls=[control("hierarchical graphs, whose paths between two nodes are equally long", graph="hierarchical")],
)
def law_decides_length(results: Results, graph: str = "Bernoulli") -> Evidence:
    lengths = results[exact_lengths].sel(graph=graph)
    law = lengths["length"].sel(coolness=1.0)
    rate, change = lengths["slope"] / law, lengths["greedy"] / law - 1
    return Evidence.all(
        *(
            part
            for name, effect in (("rate", rate), ("greedy change", change))
            for part in (
                Evidence.over_seeds(effect.sel(law="uniform"), ">", 0.05, f"{name}, uniform law; {PILOTS}"),
                Evidence.over_seeds(effect.sel(law="walk"), "<", -0.05, f"{name}, walk law; {PILOTS}"),
            )
        )
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
    statement="After 600 updates, in prefixes of three or more tokens the last token's head gives more than a third of its "
    "attention to the goal token alone.",
    controls=[control("goals shuffled in training", law="shuffled")],
)
def attends_to_goal(results: Results, law: str = "uniform") -> Evidence:
    to_goal = results[one_layer_paths]["to_goal"].sel(law=law)
    return Evidence.over_seeds(to_goal, ">=", 1 / 3, "uniform attention to three tokens")


@TASK.claim(
    "stepwise-graph-navigation/P7.terms",
    where="section 5",
    kind="training",
    statement="Two terms decide: with all attention but that to the goal and to the current node dropped, the likeliest next "
    "token of a trained network (600 updates) stays the same in more than $0.85$ of the steps on average.",
    controls=[control("the goal's term dropped too", terms="node")],
)
def two_terms_decide(results: Results, terms: str = "goal and node") -> Evidence:
    same = results[one_layer_paths]["same"].sel(law="uniform", terms=terms)
    return Evidence.over_seeds(same, ">=", 0.85, PILOTS)


@TASK.claim(
    "stepwise-graph-navigation/P7.table",
    where="section 5, 'distance to the goal'",
    kind="training",
    statement="Under uniform paths the goal's table (600 updates) tracks the log number of paths: where two continuations $v, w$ compete, "
    r"its contrast over goals correlates more with that of $\log C_{vg}$ than with that of minus the distance, and more than "
    "with that of the log hitting probability of a random walk.",
    controls=[control("trained on conditioned walks, whose law holds hitting probabilities", law="walk")],
)
def table_counts_paths(results: Results, law: str = "uniform") -> Evidence:
    contrast = results[one_layer_paths]["contrast"].sel(law=law)
    counts, *alternatives = (contrast.sel(reading=reading) for reading in READINGS)
    return Evidence.all(
        *(Evidence.over_seeds(counts - alternative, ">", 0.0, "equal correlations") for alternative in alternatives)
    )


@TASK.figure
def goal_table(results: Results) -> Sheet:
    """What the goal's value vector adds to the logits, against two readings (one seed); where the head looks."""
    measured = results[one_layer_paths].sel(law="uniform")
    contrasts = measured["contrasts"].sel(seed=results.seeds(one_layer_paths)[0])
    sheet = Sheet(columns=3)
    for reading in READINGS[:2]:
        contrast, raw = (float(measured[name].sel(reading=reading).mean()) for name in ("contrast", "table"))
        panel = sheet.panel(
            f"{reading}: correlation {contrast:.2f}",
            x=f"contrast of {reading} (one seed)",
            y="contrast of the goal table (logits)",
        )
        panel.scatter(
            contrasts.sel(quantity=reading), contrasts.sel(quantity="table"), name="two continuations and a goal"
        )
        panel.text(f"mean of {measured.sizes['seed']} seeds\nraw entries: {raw:.2f}", corner="upper left")
    panel = sheet.panel("The head looks at the goal", x="token seen (0 goal, 1 start)", y="current token")
    attention = measured["attention"].assign_coords({axis: range(measured.sizes[axis]) for axis in ("token", "seen")})
    panel.heat(attention.sel(token=slice(0, 6), seen=slice(0, 6)), bar="attention", low=0.0, high=1.0)
    return sheet


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
