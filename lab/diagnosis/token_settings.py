"""Settings of the token protocol: Markov chains, latent graphs, paths in a graph, path-stars, columns of additions."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lab.checks import Check, token_predictor_checks
from lab.diagnosis import mechanism
from lab.diagnosis.algorithms import Candidate, Fixed, Predictor, Searched
from lab.diagnosis.attention_maps import Maps
from lab.diagnosis.closed_forms import UserFile, count_candidates, token_forms
from lab.diagnosis.setting import Answer, Setting, another_order, user_candidates
from lab.domains.addition.column_addition import carryless_table, exact_table
from lab.domains.addition.prompts import (
    NO_TARGET,
    WINDOW_LENGTH,
    WINDOW_PROMPT,
    WINDOW_VOCABULARY,
    Additions,
    column_window,
    encode,
    window_sequences,
)
from lab.domains.chains.induction_head import HARD, causal_head, stream_of
from lab.domains.chains.latent_graph_prompts import (
    SeveralParentSequences,
    chain,
    halves_and_previous,
    random_forest,
    several_parent_sequences,
)
from lab.domains.chains.latent_graph_transformer import several_parents_transformer
from lab.domains.chains.latent_graphs import graph_posterior, keep_parents, with_test_token
from lab.domains.chains.markov import switching_posterior, true_law, uniform_guess
from lab.domains.chains.markov_prompts import (
    MarkovSequences,
    SwitchingSequences,
    dirichlet_chains,
    doubly_stochastic_chains,
    switching_chains,
    unigram_chains,
)
from lab.domains.graphs.navigation import (
    bayes_navigator,
    conditioned_walk_policy,
    longest_path,
    path_counts,
    shortest_paths,
    temper,
    uniform_path_policy,
    uniform_walk,
)
from lab.domains.graphs.navigation_prompts import Sequences as Paths
from lab.domains.graphs.navigation_prompts import Vocabulary, bernoulli_dag, navigation
from lab.domains.graphs.path_laws import reachability_policy
from lab.domains.graphs.path_star import cheat, planner
from lab.domains.graphs.path_star_prompts import Sequences as PathStars
from lab.domains.graphs.path_star_prompts import path_star, vocabulary_size, write
from lab.errors import LabError
from lab.evaluation import as_token_predictor, kullback_leibler
from lab.models import masks
from lab.models.checkpoint import StoredModel
from lab.streams import RandomStream, stream

MOVED_PROMPTS = 16  # prompts whose tokens are changed
ROUNDING = 1e-6  # of a probability in float32


class Tokens(Setting):
    """What all settings of the token protocol share."""

    prefix_length: int

    arguments = ("tokens", "prefix_length")
    kind = "tokens"
    log_answers = True
    linear = False

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Different tokens."""

    def inputs_of(self, prompts: Any) -> tuple[Tensor, Tensor]:
        """What a predictor is handed."""
        prefix = min(self.prefix_length, prompts.tokens.shape[1])
        return prompts.tokens, torch.full((len(prompts.tokens),), prefix)

    def shape(self, *inputs: Tensor) -> tuple[int, ...]:
        """Shape of an answer."""
        return (*inputs[0].shape, self.vocabulary)

    def answers(self, predictor: Predictor, prompts: Any) -> Answer:
        """The law of the token after the last, minus the uniform law; 0 where that is rounding."""
        deviation = predictor(*self.inputs_of(prompts))[:, -1].exp() - 1 / self.vocabulary
        return torch.where(deviation.abs() < ROUNDING, 0.0, deviation)

    def checks(self, predictor: Any) -> Iterator[Check]:
        """The contract of the protocol, at the sizes of this setting."""
        return token_predictor_checks(predictor, self.vocabulary, max(self.size, 4))

    def asking(self, prompts: Any) -> Bool[Tensor, "prompt token"]:
        """The tokens whose attention counts: all."""
        return torch.ones_like(prompts.tokens, dtype=torch.bool)

    def relations(self, prompts: Any, places: int) -> Mapping[str, mechanism.Targets]:
        """Between symbols."""
        if places != prompts.tokens.shape[1]:
            return {}
        return mechanism.between_tokens(prompts.tokens, self.asking(prompts))

    def remedy(self, vocabulary: int) -> str:
        """What to do about a checkpoint of another vocabulary."""
        return "choose sizes with as many"

    def divergence(self, answers: Answer, law: Float[Tensor, "prompt symbol"]) -> Float[Tensor, " prompt"]:
        """Kullback-Leibler divergence of a true law of the token after the last."""
        log_law = (answers + 1 / self.vocabulary).clamp_min(0).log()
        return kullback_leibler(law.log()[:, None], log_law[:, None])[:, 0].clamp_min(0)

    def stored(self, model: StoredModel) -> Predictor:
        """The predictor of a checkpoint.

        Raises:
            LabError: it reads tokens of another kind, or another vocabulary.
        """
        vocabulary = model.transformer.architecture.vocabulary
        if vocabulary is None:
            raise LabError(
                "the checkpoint reads continuous tokens but the prompts are symbols; choose a task of regression"
            )
        if vocabulary != self.vocabulary:
            raise LabError(
                f"the checkpoint has a vocabulary of {vocabulary} but the prompts here have {self.vocabulary} symbols; "
                f"{self.remedy(vocabulary)}"
            )

        def pattern(prefix_length: Tensor, length: int) -> Tensor:
            return masks.causal(length) if model.mask == "causal" else masks.prefix_masks(length, prefix_length)

        return as_token_predictor(model.transformer, pattern, member=0)


@dataclass(frozen=True)
class Chains(Tokens):
    """In-context Markov chains
    (`lab.domains.chains.markov_prompts.dirichlet_chains`); the answer is the law of the token after the last."""

    states: int = 3
    """symbols"""
    length: int = 48
    """tokens of a sequence"""
    order: int = 1
    """symbols that the law of the next one depends on"""
    concentration: float = 1.0
    """of the Dirichlet law of the rows"""
    prefix_length: int = 0
    """tokens at the start that see each other"""

    error_unit = "divergence from the true law (nats)"

    def sample(self, source: RandomStream, batch: int) -> MarkovSequences:
        """Fresh sequences."""
        return dirichlet_chains(
            source, batch, states=self.states, length=self.length, order=self.order, concentration=self.concentration
        )

    @property
    def vocabulary(self) -> int:
        """Different tokens."""
        return self.states

    def errors(self, answers: Answer, prompts: MarkovSequences) -> Float[Tensor, " prompt"]:
        """Kullback-Leibler divergence from the true law of the token after the last."""
        order = round(math.log(prompts.table.shape[1]) / math.log(self.states))
        return self.divergence(answers, true_law(prompts.table, prompts.tokens, order)[:, -1])

    def remedy(self, vocabulary: int) -> str:
        """What to do about a checkpoint of another vocabulary."""
        return f"add --states {vocabulary}"

    def candidates(self, prompts: MarkovSequences, user_file: UserFile | None = None) -> Iterator[Candidate]:
        """The closed forms, to be fitted on ``prompts``."""
        yield from count_candidates(states=self.states, concentration=self.concentration)
        yield from token_forms(self.states, user_candidates(user_file, "tokens", vocabulary=self.states))

    @property
    def size(self) -> int:
        """The context length."""
        return self.length

    def lengths(self) -> list[int]:
        """Numbers of tokens at which the predictor is compared, up to the setting's."""
        shares = (1 / 8, 1 / 4, 1 / 2, 1)
        return sorted({max(self.order + 1, round(share * self.length)) for share in shares})

    def at_length(self, length: int) -> Chains:
        """The same sequences with another number of tokens."""
        return dataclasses.replace(self, length=length)

    def shifts(self, source: RandomStream, batch: int) -> dict[str, MarkovSequences]:
        """Sequences of laws that differ from this one in one respect."""
        sizes: dict[str, Any] = {"states": self.states, "length": self.length}
        order = 2 if self.order == 1 else 1
        half = max(self.length // 2, self.order + 1)
        laws: dict[str, Callable[[], MarkovSequences]] = {
            "peaked rows": lambda: dataclasses.replace(self, concentration=self.concentration / 4).sample(
                source, batch
            ),
            "flat rows": lambda: dataclasses.replace(self, concentration=4 * self.concentration).sample(source, batch),
            f"chains of order {order}": lambda: dataclasses.replace(self, order=order).sample(source, batch),
            "useless symbol counts": lambda: doubly_stochastic_chains(source, batch, **sizes),
            "useless transitions": lambda: unigram_chains(source, batch, **sizes),
            f"{half} tokens": lambda: self.at_length(half).sample(source, batch),
        }
        shifts = {}
        for name, draw in laws.items():
            with contextlib.suppress(LabError):  # a law that cannot be drawn near this one is none to compare with
                shifts[name] = draw()
        return shifts

    def constructions(self, prompts: MarkovSequences, places: int) -> list[Maps]:
        """The induction head: layer 1 sees the token before, layer 2 what follows the same symbol."""
        head, stream = causal_head(self.states, places, HARD), stream_of(prompts.tokens, self.states)[0]
        return [mechanism.maps_of_construction(head, stream, masks.causal(places + 1), skip=1)]

    def reordered(self, prompts: MarkovSequences, source: RandomStream) -> MarkovSequences:
        """The tokens before the last in another order."""
        order = another_order(source, prompts.tokens.shape[1] - 1)
        tokens = torch.cat([prompts.tokens[:, :-1][:, order], prompts.tokens[:, -1:]], dim=1)
        return dataclasses.replace(prompts, tokens=tokens)

    def sensitivities(self, predictor: Predictor, prompts: MarkovSequences, source: RandomStream) -> dict[str, Answer]:
        """How the law of the next token changes if one token becomes the next symbol: the last one, and each before it."""
        tokens = prompts.tokens[:MOVED_PROMPTS]
        batch, length = tokens.shape
        changed = tokens[:, None] + torch.eye(length, dtype=torch.int64)
        many = (changed % self.states).flatten(0, 1)
        tables = prompts.table[:batch]
        moved = self.answers(predictor, MarkovSequences(many, tables.repeat_interleave(length, 0)))
        still = self.answers(predictor, MarkovSequences(tokens, tables))
        moved = moved.view(batch, length, -1)
        difference = moved - still[:, None]
        return {"query": difference[:, -1], "context": difference[:, :-1].flatten(1)}


@dataclass(frozen=True)
class SwitchingChains(Tokens):
    """Markov chains that start anew at a sign (`lab.domains.chains.markov_prompts.switching_chains`); the sign is the last token."""

    states: int = 3
    """symbols, beside the sign"""
    length: int = 48
    """tokens of a sequence"""
    switch_probability: float = 0.05
    """of the sign, before every token"""
    concentration: float = 1.0
    """of the Dirichlet law of the rows"""
    prefix_length: int = 0
    """tokens at the start that see each other"""

    error_unit = "divergence from the true law (nats)"

    @property
    def vocabulary(self) -> int:
        """Symbols and the sign."""
        return self.states + 1

    def sample(self, source: RandomStream, batch: int) -> SwitchingSequences:
        """Fresh sequences."""
        return switching_chains(
            source,
            batch,
            states=self.states,
            length=self.length,
            switch_probability=self.switch_probability,
            concentration=self.concentration,
        )

    def errors(self, answers: Answer, prompts: SwitchingSequences) -> Float[Tensor, " prompt"]:
        """Kullback-Leibler divergence from the true law of the token after the last."""
        return self.divergence(answers, prompts.next_law[:, -1])

    def candidates(self, prompts: SwitchingSequences, user_file: UserFile | None = None) -> Iterator[Candidate]:
        """Counts since the last sign, and counts that do not know of it."""
        bayes = switching_posterior(self.vocabulary, self.switch_probability, self.concentration)
        yield Fixed("counts since the last sign, Bayes", bayes)
        yield from count_candidates(states=self.vocabulary, concentration=self.concentration)
        yield from token_forms(self.vocabulary, user_candidates(user_file, "tokens", vocabulary=self.vocabulary))

    @property
    def size(self) -> int:
        """Tokens of a sequence."""
        return self.length

    def lengths(self) -> list[int]:
        """Numbers of tokens at which the predictor is compared."""
        return sorted({max(2, round(share * self.length)) for share in (1 / 4, 1 / 2, 1)})

    def at_length(self, length: int) -> SwitchingChains:
        """The same sequences with another number of tokens."""
        return dataclasses.replace(self, length=length)


@dataclass(frozen=True)
class LatentGraph(Tokens):
    """Sequences over a hidden graph (`lab.domains.chains.latent_graph_prompts.several_parent_sequences`): each token is drawn from a
    row of the sequence's own table, chosen by the tokens of its parents."""

    states: int = 3
    """symbols"""
    length: int = 32
    """tokens of a sequence"""
    graph: Literal["forest", "chain", "halves and previous"] = "forest"
    """parents: one earlier token at random, the token before, or two (the one halfway and the one before)"""
    concentration: float = 1.0
    """of the Dirichlet law of the rows"""
    graph_seed: int = 0
    """which forest"""
    prefix_length: int = 0
    """tokens at the start that see each other"""

    error_unit = "divergence from the true law (nats)"

    @property
    def vocabulary(self) -> int:
        """Symbols."""
        return self.states

    def parents(self) -> tuple[tuple[int, ...], ...]:
        """Parents of every token and, last, of the one to predict."""
        if self.length < 3:
            raise LabError(f"a latent graph of {self.length} tokens tells nothing; give --length at least 3")
        if self.graph == "halves and previous":
            return halves_and_previous(self.length)
        source = stream(self.graph_seed, "diagnosis", "forest")
        forest = chain(self.length - 1) if self.graph == "chain" else random_forest(source, self.length - 1)
        return with_test_token(forest)

    def sample(self, source: RandomStream, batch: int) -> SeveralParentSequences:
        """Fresh sequences."""
        return several_parent_sequences(
            source, batch, states=self.states, graph=self.parents(), concentration=self.concentration
        )

    def errors(self, answers: Answer, prompts: SeveralParentSequences) -> Float[Tensor, " prompt"]:
        """Kullback-Leibler divergence from the true law of the token after the last."""
        return self.divergence(answers, prompts.target)

    def candidates(self, prompts: SeveralParentSequences, user_file: UserFile | None = None) -> Iterator[Candidate]:
        """Counts over the true parents, over one of two, and over the tokens before."""
        graph = self.parents()
        yield Fixed("counts over the parents, Bayes", graph_posterior(self.states, graph, self.concentration))
        yield Searched(
            "counts over the parents, fitted smoothing",
            partial(graph_posterior, self.states, graph),
            real={"concentration": (0.01, 100.0)},
        )
        if self.graph == "halves and previous":
            for number, name in enumerate(("halfway", "before")):
                predictor = graph_posterior(self.states, keep_parents(graph, [number]), self.concentration)
                yield Fixed(f"counts over the parent {name} alone", predictor)
        yield from count_candidates(states=self.states, concentration=self.concentration)
        yield from token_forms(self.states, user_candidates(user_file, "tokens", vocabulary=self.states))

    def relations(self, prompts: SeveralParentSequences, places: int) -> Mapping[str, mechanism.Targets]:
        """Between symbols, and along the graph."""
        relations, graph = dict(super().relations(prompts, places)), self.parents()
        if not relations:
            return {}
        is_parent, following = torch.zeros(2, places, places, dtype=torch.bool)
        for token, parents in enumerate(graph):
            for parent in parents:
                if token < places:
                    is_parent[token, parent] = True
                if token > 0:
                    following[token - 1, parent] = True
        everyone = (len(prompts.tokens), places, places)
        return relations | {"parent": is_parent.expand(everyone), "parent of the next": following.expand(everyone)}

    def constructions(self, prompts: SeveralParentSequences, places: int) -> list[Maps]:
        """Copy the parents, then average what follows the same ones (`lab.domains.chains.latent_graph_transformer`)."""
        network = several_parents_transformer(self.parents(), self.states, HARD, HARD)
        return [mechanism.maps_of_construction(network, prompts.tokens, masks.causal(places))]

    @property
    def size(self) -> int:
        """Tokens of a sequence."""
        return self.length

    def remedy(self, vocabulary: int) -> str:
        """What to do about a checkpoint of another vocabulary."""
        return f"add --states {vocabulary}"


class Written(Tokens):
    """Prompts with an answer to be written: laws are compared at every scored position, errors are those of the written answer."""

    error_unit = "loss on the answer (nats a token)"

    def inputs_of(self, prompts: Any) -> tuple[Tensor, Tensor]:
        """What a predictor is handed."""
        return prompts.tokens, prompts.prefix_length

    def answers(self, predictor: Predictor, prompts: Any) -> Answer:
        """The laws at the scored positions minus the uniform law, 0 elsewhere, one after the other."""
        deviation = predictor(*self.inputs_of(prompts)).exp() - 1 / self.vocabulary
        scored = self.scored(prompts)[..., None]
        return torch.where(scored & (deviation.abs() >= ROUNDING), deviation, 0.0).flatten(1)

    def scored(self, prompts: Any) -> Bool[Tensor, "prompt time"]:
        """Positions that an answer is written from."""
        return prompts.loss_mask

    def asking(self, prompts: Any) -> Bool[Tensor, "prompt token"]:
        """The tokens whose attention counts: those that an answer is written from."""
        return self.scored(prompts)

    def errors(self, answers: Answer, prompts: Any) -> Float[Tensor, " prompt"]:
        """Mean of -log p over the tokens of the answer."""
        law = answers.unflatten(1, (-1, self.vocabulary)) + 1 / self.vocabulary
        right = law.gather(2, prompts.targets.clamp_min(0)[..., None])[..., 0].clamp(0, 1)
        scored = prompts.targets != NO_TARGET
        return torch.where(scored, -right.log(), 0.0).sum(1) / scored.sum(1)


@dataclass(frozen=True)
class Navigation(Written):
    """Paths in one random acyclic graph, written as goal, start, steps, end (`lab.domains.graphs.navigation_prompts.navigation`)."""

    nodes: int = 10
    """of the graph"""
    probability: float = 0.5
    """of an edge from a node to one that comes later"""
    graph_seed: int = 0
    """which graph"""

    @property
    def vocabulary(self) -> int:
        """Nodes and signs."""
        return Vocabulary(self.nodes).size

    def adjacency(self) -> Bool[Tensor, "node node"]:
        """The edges of the graph."""
        source = stream(self.graph_seed, "diagnosis", "graph")
        return bernoulli_dag(source, 1, nodes=self.nodes, probability=self.probability).adjacency[0]

    def sample(self, source: RandomStream, batch: int) -> Paths:
        """Fresh paths between pairs that are connected, each uniform among all paths."""
        adjacency = self.adjacency()
        connected = (path_counts(adjacency) > 0) & ~torch.eye(self.nodes, dtype=torch.bool)
        return navigation(source, batch, adjacency, connected, layout="path")

    def candidates(self, prompts: Paths, user_file: UserFile | None = None) -> Iterator[Candidate]:
        """The laws of a path that the theory names, from all that is known to nothing."""
        adjacency, size = self.adjacency(), self.vocabulary
        navigator = partial(bayes_navigator, size, adjacency)
        aimless = uniform_walk(adjacency).expand(self.nodes, -1, -1)
        yield Fixed("uniform among all paths (Bayes)", navigator())
        yield Fixed("walk that is to reach the goal", navigator(conditioned_walk_policy(adjacency)))
        yield Fixed("any step from which the goal can be reached", navigator(reachability_policy(adjacency)))
        yield Fixed("shortest paths", navigator(shortest_policy(adjacency)))
        yield Fixed("any neighbour, whatever the goal", navigator(aimless))
        yield Fixed("uniform", uniform_guess(size))
        yield Searched(
            "uniform among all paths, tempered",
            lambda temperature: navigator(temper(uniform_path_policy(adjacency), temperature)),
            real={"temperature": (0.05, 20.0)},
        )
        yield from token_forms(size, user_candidates(user_file, "tokens", vocabulary=size))

    def relations(self, prompts: Paths, places: int) -> Mapping[str, mechanism.Targets]:
        """Between symbols, and the goal, which stands first."""
        relations = dict(super().relations(prompts, places))
        return {"goal" if name == "first token" else name: targets for name, targets in relations.items()}

    @property
    def size(self) -> int:
        """Tokens of the longest path with its prompt."""
        return longest_path(self.adjacency()) + 3


def shortest_policy(adjacency: Bool[Tensor, "node node"]) -> Float[Tensor, "goal node node"]:
    """Uniform over the first steps of the shortest paths: edges u -> v with distance(v, goal) = distance(u, goal) - 1."""
    distance = shortest_paths(adjacency).T  # [goal, node]
    nearer = distance[:, None, :] == distance[:, :, None] - 1
    steps = (adjacency & nearer & distance.isfinite()[:, :, None]).double()
    return steps / steps.sum(-1, keepdim=True).clamp(min=1.0)


@dataclass(frozen=True)
class PathStar(Written):
    """Arms that leave one centre; the arm that ends in the goal is to be written (`lab.domains.graphs.path_star_prompts`)."""

    arms: int = 3
    """of a graph"""
    arm_length: int = 4
    """nodes of an arm, the centre included"""
    labels: int = 12
    """names that nodes may have"""

    @property
    def vocabulary(self) -> int:
        """Labels, a blank, and a token for every possible edge."""
        return vocabulary_size(self.labels, "compact")

    def sample(self, source: RandomStream, batch: int) -> PathStars:
        """Fresh graphs, written out with their answers."""
        graphs = path_star(source, batch, arms=self.arms, length=self.arm_length, labels=self.labels)
        return write(graphs, self.labels, format="compact")

    def candidates(self, prompts: PathStars, user_file: UserFile | None = None) -> Iterator[Candidate]:
        """Planning, the look-up of the next node that needs no plan, and nothing."""
        size = self.vocabulary
        yield Fixed("walk back from the goal, then look up", planner(vocabulary=size, path_nodes=self.arm_length))
        yield Fixed("look up the next node, any arm first", cheat(vocabulary=size))
        yield Fixed("look up the node before", cheat(vocabulary=size, order="reversed"))
        yield Fixed("uniform", uniform_guess(size))
        yield from token_forms(size, user_candidates(user_file, "tokens", vocabulary=size))

    @property
    def size(self) -> int:
        """Tokens of a sequence."""
        return (self.arms + 1) * (self.arm_length - 1) + 2

    def relations(self, prompts: PathStars, places: int) -> Mapping[str, mechanism.Targets]:
        """Between symbols, and the edges that leave or enter the node just written."""
        relations, edge = dict(super().relations(prompts, places)), prompts.tokens[:, None, :] - self.labels - 1
        if not relations:
            return {}
        node, rows = prompts.tokens[:, :, None], self.asking(prompts)[:, :, None] & (edge >= 0)
        leaving, entering = edge.div(self.labels, rounding_mode="floor") == node, edge % self.labels == node
        return relations | {"edge from the own node": leaving & rows, "edge to the own node": entering & rows}

    def reordered(self, prompts: PathStars, source: RandomStream) -> PathStars:
        """The same edges in another order."""
        edges = self.arms * (self.arm_length - 1)
        order = another_order(source, edges) if edges > 1 else torch.arange(edges)
        tokens = torch.cat([prompts.tokens[:, order], prompts.tokens[:, edges:]], dim=1)
        return dataclasses.replace(prompts, tokens=tokens)


@dataclass(frozen=True)
class ColumnAddition(Written):
    """Windows of a machine that adds column by column (`lab.domains.addition.prompts.column_window`): the sum of one is written."""

    sampling: Literal["all-sums", "sums-of-digits", "one-digit-sums"] = "all-sums"
    """law of the sum of the column before"""

    @property
    def vocabulary(self) -> int:
        """Signs of a window."""
        return WINDOW_VOCABULARY

    def sample(self, source: RandomStream, batch: int) -> Additions:
        """Fresh windows."""
        return column_window(source, batch, sampling=self.sampling)

    def candidates(self, prompts: Additions, user_file: UserFile | None = None) -> Iterator[Candidate]:
        """Tables of column sums: the right one, the one that forgets the carry, others that are wrong in one way."""
        exact = exact_table()
        for name, table in (
            ("exact column addition", exact),
            ("forgets the carry", carryless_table()),
            ("always carries", carryless_table() + 1),
            ("writes one digit only", exact % 10),
        ):
            yield Fixed(name, partial(table_predictor, table=table))
        yield Fixed("uniform", uniform_guess(WINDOW_VOCABULARY))
        yield from token_forms(WINDOW_VOCABULARY, user_candidates(user_file, "tokens", vocabulary=WINDOW_VOCABULARY))

    @property
    def size(self) -> int:
        """Tokens of a window with its answer."""
        return WINDOW_LENGTH


def table_predictor(
    tokens: Int[Tensor, "batch time"], prefix_length: Int[Tensor, " batch"], *, table: Int[Tensor, " window"]
) -> Float[Tensor, "batch time token"]:
    """What a table of sums writes after each window, with certainty; uniform elsewhere, and after what is no window."""
    law = torch.full((*tokens.shape, WINDOW_VOCABULARY), 1 / WINDOW_VOCABULARY, dtype=torch.float64)
    if tokens.shape[1] > WINDOW_PROMPT:
        places = WINDOW_VOCABULARY ** torch.arange(WINDOW_PROMPT + 1)
        codes, order = (window_sequences()[:, : WINDOW_PROMPT + 1] * places).sum(1).sort()
        window_codes = (tokens[:, : WINDOW_PROMPT + 1] * places).sum(1)
        at = torch.searchsorted(codes, window_codes).clamp_max(len(codes) - 1)
        known = codes[at] == window_codes
        written = _answers()[table[order[at]]]
        last = min(tokens.shape[1] - WINDOW_PROMPT, written.shape[1])
        certain = torch.nn.functional.one_hot(written[:, :last], WINDOW_VOCABULARY).double()
        determined = (known[:, None] & (written[:, :last] > 0))[..., None]
        part = law[:, WINDOW_PROMPT : WINDOW_PROMPT + last]
        law[:, WINDOW_PROMPT : WINDOW_PROMPT + last] = torch.where(determined, certain, part)
    return law.log()


@cache
def _answers() -> Int[Tensor, "sum 3"]:
    """The tokens that every sum 0 .. 20 is written as, padded with 0."""
    return encode("".join(f"{total}S".ljust(3, "P") for total in range(21))).reshape(21, 3)
