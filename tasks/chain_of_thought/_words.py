"""Networks that are trained on words over a group, and what they make of new words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab.decoding import decode
from lab.domains.derivations import automata
from lab.domains.derivations.sequences import Derivations
from lab.models.transformer import Transformer
from lab.streams import RandomStream, stream
from lab.study import Fitted, Metric
from lab.training import Batch
from tasks.chain_of_thought._shared import CAUSAL, Network, study_of


@dataclass(frozen=True)
class Words:
    """A problem: words over the permutations of some things."""

    things: int = 5
    """what is permuted: five things make S5"""
    length: int = 12
    """letters n of a word"""
    held_out: int = 128
    """of the 2^n words, how many a network is never trained on"""
    every: int = 1
    """k: the states after k, 2 k, .. letters are written, and the last; n is the answer alone"""
    misleading: bool = False
    """random states in the place of all but the last"""

    @property
    def table(self) -> automata.Table:
        return automata.group_table(self.things)

    @property
    def steps(self) -> int:
        """States that are written."""
        return len(automata.written_states(self.length, self.every))

    @property
    def sizes(self) -> tuple[int, int]:
        """Tokens that are read, and those of the problem."""
        return automata.row_length(self.length, self.every) - 1, self.length + 1

    def split(self, seed: int) -> tuple[Tensor, Tensor]:
        """All words of the length in an order of the seed's: those it is trained on, and the ``held_out`` others."""
        letters = self.table.shape[1]
        order = torch.from_numpy(stream(seed, "chain of thought", "split").rng().permutation(letters**self.length))
        words = order[:, None] // letters ** torch.arange(self.length) % letters
        return words[self.held_out :], words[: self.held_out]

    def rows(self, drawn: Tensor, source: RandomStream) -> Derivations:
        """Words with what is written behind them; random states come from ``source``."""
        if self.misleading:
            return automata.write_states(self.table, drawn, automata.misleading_states(source, self.table, drawn))
        return automata.write_words(self.table, drawn, self.every)


def train(
    words: Words, network: Network, layers: int, seeds: Sequence[int], name: str, arms: Sequence[str] = (CAUSAL,)
) -> Fitted[Transformer]:
    """One network for every seed and arm."""
    study = study_of(network, layers, automata.vocabulary_size(words.table), words.sizes, arms)
    shown = {seed: words.split(seed)[0] for seed in seeds}

    def draw(seed: int, step: int) -> Derivations:
        source = stream(seed, "chain of thought", "train", step)
        chosen = source.child("which").rng().integers(0, len(shown[seed]), network.batch)
        return words.rows(shown[seed][torch.from_numpy(chosen)], source)

    return study.fit(seeds, draw, network.optimisation, name=name)


def questions(words: Words, seeds: Sequence[int], *, known: bool = False) -> dict[int, Derivations]:
    """For every seed the words that were held out; or as many of the ``known`` ones."""
    return {
        seed: words.rows(
            words.split(seed)[0 if known else 1][: words.held_out], stream(seed, "chain of thought", "test")
        )
        for seed in seeds
    }


def answers(words: Words, step: int = -1) -> Metric[Transformer]:
    """Share of problems after which the ``step``-th state that is written greedily is the right *last* one [model]."""

    def metric(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
        problem = words.sizes[1]
        written = decode(module, batch["tokens"][..., :problem], mask[0], words.steps).tokens
        # The last scored position but one, which asks for the stop token, asks for the last state.
        return (written[..., step] == batch["targets"][..., -2]).double().mean(1)

    return metric


def after_a_wrong_step(words: Words, place: int) -> Metric[Transformer]:
    """The right states up to ``place``, there that of another word; what comes last, compared with two answers [model, answer].

    Answer 0 is that of who goes on from the wrong state as written ("follows"), answer 1 the true one ("repairs").
    """

    def metric(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
        table, length = words.table, words.length
        letters = batch["tokens"][..., :length] - automata.LETTERS
        models, number = letters.shape[:2]
        true = automata.run(table, letters.flatten(0, 1))
        # The state of another word at that place: a state that the network has met there.
        wrong = true[:, place].roll(1)
        rest = letters.flatten(0, 1)[:, place + 1 :]
        follows = wrong
        for letter in rest.unbind(1):
            follows = table[follows, letter]
        shown = torch.cat([true[:, :place], wrong[:, None]], 1) + automata.LETTERS + table.shape[1]
        prompts = torch.cat([batch["tokens"][..., : length + 1], shown.unflatten(0, (models, number))], -1)
        last = decode(module, prompts, mask[0], length - place - 1).tokens[..., -1]
        state = (last - automata.LETTERS - table.shape[1]).flatten()
        found = torch.stack([state == follows, state == true[:, -1]], -1).double()
        counted = (wrong != true[:, place]).double()[:, None]
        shares = (found * counted).unflatten(0, (models, number)).sum(1)
        return shares / counted.unflatten(0, (models, number)).sum(1)

    return metric


def guessing(words: Words) -> float:
    """The largest probability of a final state: what who does not read the word cannot pass."""
    return float(automata.walk_law(words.table, words.length)[-1].max())


def asked(
    fitted: Fitted[Transformer],
    arm: str,
    prompts: dict[int, Derivations],
    metric: Metric[Transformer],
    read: str | Tensor,
) -> np.ndarray:
    """What ``metric`` gives for every seed of an arm, read under a mask [seed, ...]."""
    return fitted.of(arms=[arm]).numbers(prompts, metric, read=read).numpy()
