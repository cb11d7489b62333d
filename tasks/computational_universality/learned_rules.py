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
# # A network that has learnt to be a universal machine
#
# The paper has a large language model obey 2,027 rules that stand in its prompt, and checks them one by one. Here a small transformer
# of one layer is *trained* on the 587 rules of window 2 (`proofs_check/computational_universality`), each a string: two
# symbols, the one or two that follow, *end*. If no rule is wrong, the table is enumerated and the network **is** the
# lag system: greedy decoding through a window of two tokens, appended to the string until *end*, runs the universal
# machine for as long as one likes. So two things are asked of each training: how many of the 587 rules are wrong, and whether
# the machine that it drives agrees with the true one, symbol by symbol.
#
# Is a table of rules arbitrary, so that each must be seen? Not this one: what a first pass writes, for instance, is the second symbol
# with a mark, whatever the symbol. Networks that never saw one rule in five get most of those right all the same. But a machine
# wants all of them, and a single wrong rule, once it is used, leads the run astray.

# %%
from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab import Evidence, Task, control
from lab.decoding import decode
from lab.domains.machines.lag import LagSystem, Table, compile_table, run_many
from lab.domains.machines.lag_compilers import compiled, encode
from lab.domains.machines.rule_strings import RuleStrings, rule_strings, table_of
from lab.domains.machines.turing import UNIVERSAL, configurations, random_tapes
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from lab.streams import stream
from lab.study import Networks, Study
from lab.training import Batch, History, Optimisation

SLUG = "computational-universality"
EVERY = 20  # updates from one count of wrong rules to the next
WINDOW, PLACES = 2, 4  # symbols read; tokens of a string without its last


@dataclass(frozen=True)
class Config:
    """A transformer trained on all rules at once."""

    architecture: Architecture = Architecture(width=32, layers=1, heads=2, positions="learned", maximum_length=PLACES)
    """vocabulary and read-out are those of the rules"""
    optimisation: Optimisation = Optimisation(steps=500, learning_rate=1e-2, warmup=0.03)
    left_out: float = 0.2
    """share of the rules that the second arm never sees"""
    tapes: int = 16
    """tapes on which the learnt table is run"""
    cells: int = 8
    """cells of each at the start"""
    rules: int = 10_000
    """rules applied on each tape"""
    decoded: int = 100
    """rules applied on each tape by decoding the network itself"""
    trainings: int = 24
    """independent trainings an arm"""


TASK = Task(
    SLUG,
    paper="schuurmans-2024-universal",
    presets={
        "smoke": Config(
            optimisation=Optimisation(steps=3, learning_rate=1e-2), tapes=2, rules=50, decoded=2, trainings=2
        ),
        "ci": Config(),
        "paper": Config(
            architecture=Architecture(width=64, layers=1, heads=2, positions="learned", maximum_length=PLACES),
            optimisation=Optimisation(steps=400, learning_rate=3e-3, schedule="cosine", optimiser="adamw"),
            tapes=64,
            rules=100_000,
            decoded=2000,
            trainings=36,
        ),
    },
    root=2032,
)
ARMS = ("all rules", "one in five left out")
PILOTS = "trainings; bound chosen on pilot seeds (root 0), judged on fresh ones"


@cache
def table() -> Table:
    """The rules of the universal machine, window 2."""
    return compile_table(compiled(UNIVERSAL, WINDOW))


def kept(config: Config, seed: int, strings: RuleStrings) -> Tensor:
    """[rule] True for the rules that the second arm sees."""
    count = len(strings.tokens)
    shown = torch.ones(count, dtype=torch.bool)
    shown[stream(seed, "left out").rng().choice(count, size=round(config.left_out * count), replace=False)] = False
    return shown


def rule_loss(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """Cross-entropy of what is appended and of *end*, over the rules that are shown."""
    logits = module(batch["tokens"], mask)[:, :, WINDOW - 1 :]
    targets, weights = batch["targets"][:, :, WINDOW - 1 :], batch["scored"][:, :, WINDOW - 1 :].to(logits.dtype)
    losses = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none").view(targets.shape)
    return (losses * weights).sum((1, 2)) / weights.sum((1, 2))


def wrong_rules(module: Transformer, batch: Batch, mask: Tensor) -> Tensor:
    """[model, rule] whether greedy decoding of the window would differ from the rule somewhere."""
    chosen = module(batch["tokens"], mask).argmax(-1)
    wrong: Tensor = ((chosen != batch["targets"]) & batch["scored"]).any(-1)
    return wrong


def wrong_of(module: Transformer, batch: Batch, arms: tuple[str, ...]) -> Tensor:
    """[model, rule] whether a rule is wrong, shown to the arm or not."""
    return wrong_rules(module, batch, masks.causal(PLACES))


def counted(batch: Batch, arms: tuple[str, ...]) -> Tensor:
    """[model, rule] whether a rule is shown to the arm of each model."""
    return batch["kept"] | torch.tensor([arm == ARMS[0] for arm in arms])[:, None]


def wrong_shown(module: Transformer, batch: Batch, arms: tuple[str, ...]) -> Tensor:
    """[model] how many of the rules that an arm is shown are wrong."""
    return (wrong_rules(module, batch, masks.causal(PLACES)) & counted(batch, arms)).sum(-1)


def all_right(history: History) -> bool:
    """Training ends when no rule that is shown is wrong."""
    return bool(history["wrong"][-1] == 0)


def rule_study(config: Config) -> Study[Transformer]:
    """Both arms see the same strings; those left out count for nothing in the second arm's loss."""
    vocabulary = len(table().system.alphabet) + 1
    architecture = replace(config.architecture, vocabulary=vocabulary, output_size=vocabulary)

    def loss(module: Transformer, batch: Batch, mask: tuple[str, ...]) -> Tensor:
        scored = batch["scored"] & counted(batch, mask).unsqueeze(-1)
        return rule_loss(module, {**batch, "scored": scored}, masks.causal(PLACES))

    return Study(
        build=lambda chosen: Transformer(architecture, tuple(chosen)),
        arms={arm: arm for arm in ARMS},
        encode=None,
        loss=loss,
    )


def learned_table(answers: np.ndarray) -> Table:
    """The table of one network from what it appends to the window of each rule, in their order."""
    system: LagSystem = table().system
    return table_of(system, list(system.rules), answers)


def start_queues(config: Config, seed: int) -> np.ndarray:
    """Queues of random tapes [tape, symbol]."""
    tapes = random_tapes(stream(seed, "tapes"), UNIVERSAL, config.tapes, config.cells)
    return np.stack([table().codes(encode(UNIVERSAL, one, WINDOW)) for one in configurations(UNIVERSAL, tapes)])


def decoded_queues(config: Config, module: Transformer, queues: np.ndarray) -> list[list[list[int]]]:
    """[model][tape] the strings that the networks write, a window of two moving on after every *end*, greedily."""
    end = len(table().system.alphabet)
    strings = [[list(map(int, queue)) for queue in queues] for _ in range(module.models)]
    mask = masks.causal(PLACES)
    for front in range(config.decoded):
        windows = torch.tensor([[one[front : front + WINDOW] for one in own] for own in strings])
        written = decode(module, windows, mask, 3, stop_token=end).tokens
        for own, answers in zip(strings, written.tolist(), strict=True):
            for string, answer in zip(own, answers, strict=True):
                string += [token for token in answer if token != end] or [0]
    return strings


@TASK.measurement(seeds=lambda config: config.trainings, ensemble=True, seeds_per_job=2)
def trained(config: Config, seeds: tuple[int, ...]) -> LabelledArrays:
    """Of each arm: wrong rules among those shown to it, by update; at the end all wrong rules, the share wrong of those left out (and
    "before" training), and the share of tapes on which its table runs as the true one does; of the arm with all rules the tapes
    that go wrong when the network itself is decoded."""
    strings = rule_strings(table().system)
    study = rule_study(config)
    prompts = {
        seed: {
            "tokens": strings.tokens,
            "targets": strings.targets,
            "scored": strings.scored,
            "kept": kept(config, seed, strings),
        }
        for seed in seeds
    }

    def under_way(networks: Networks[Transformer]) -> dict[str, Tensor]:
        return {"wrong": networks.numbers(prompts, wrong_shown)}

    fitted = study.fit(
        seeds,
        lambda seed, step: prompts[seed],
        config.optimisation,
        measure=under_way,
        measure_every=EVERY,
        stop=all_right,
        name="rules",
    )
    wrong = fitted.ask(prompts, wrong_of, rule=None).astype(bool)
    before = study.untrained(seeds).ask(prompts, wrong_of, arms=[ARMS[1]], rule=None)
    windows, end = strings.tokens[:, :WINDOW], len(table().system.alphabet)
    runs, differs, left, start = [], [], [], []
    for seed in seeds:
        queues = start_queues(config, seed)
        true = run_many(table(), queues, config.rules)
        unseen = ~prompts[seed]["kept"].numpy()
        row = []
        for arm in ARMS:
            network = fitted.of(seeds=[seed], arms=[arm]).module
            answers = decode(network, windows, masks.causal(PLACES), 3, stop_token=end).tokens[0].numpy()
            own = run_many(learned_table(answers), queues, config.rules)
            pairs = zip(own.queues, true.queues, strict=True)
            row.append(np.mean([np.array_equal(one, other) for one, other in pairs]))
        runs.append(row)
        own_wrong = wrong.sel(seed=seed).values
        left.append(own_wrong[:, unseen].mean(-1))
        start.append(before.sel(seed=seed).values[0, unseen].mean())
        network = fitted.of(seeds=[seed], arms=[ARMS[0]]).module
        (found,) = decoded_queues(config, network, queues)
        expected = run_many(table(), queues, config.decoded)
        strings_there = zip(found, expected.queues, expected.rules.tolist(), strict=True)
        differs.append(sum(one[at : at + len(queue)] != queue.tolist() for one, queue, at in strings_there))
    updates = sorted({*range(EVERY, config.optimisation.steps + 1, EVERY), config.optimisation.steps})
    return {
        # Where a training has ended no rule is wrong.
        "progress": fitted.history["wrong"].reindex(update=updates).fillna(0.0),
        "wrong": labelled(wrong.sum("rule").values, seed=seeds, arm=ARMS),
        "share left out": labelled(np.array(left), seed=seeds, arm=ARMS),
        "share before": labelled(start, seed=seeds),
        "runs": labelled(np.array(runs), seed=seeds, arm=ARMS),
        "decoded wrong": labelled(differs, seed=seeds),
    }


@TASK.claim(
    "computational-universality/T1",
    where="derived; the paper's model is prompted with the rules instead",
    kind="training",
    statement="Trained on the 587 rules (one layer of width 32, at most 500 updates on all rules at once), a transformer has "
    "no wrong rule, and then runs the universal "
    "machine: its table does for 10,000 rules on each of 16 tapes what the true one does, and so does the network "
    "itself, decoded greedily "
    "through a window of two tokens, for 100 rules on each; all that in more than half of all trainings.",
    controls=[control("trained without one rule in five", arm=ARMS[1])],
)
def trained_networks_run_the_machine(results: Results, arm: str = ARMS[0]) -> Evidence:
    found = results[trained]
    ready = (found["wrong"].sel(arm=arm) == 0) & (found["runs"].sel(arm=arm) == 1)
    if arm == ARMS[0]:
        ready &= found["decoded wrong"] == 0
    return Evidence.proportion(int(ready.sum()), ready.size, ">", 0.5, f"{PILOTS}; most")


@TASK.claim(
    "computational-universality/T1.left-out",
    where="derived",
    kind="training",
    statement="The table has structure that is learnt: of one rule in five that a network never saw it has fewer than half wrong, on "
    "average over trainings; but in fewer than half of all trainings has it none of the 587 wrong.",
    controls=[
        control("networks before training", network="before"),
        control("networks that saw all rules", arm=ARMS[0]),
    ],
)
def most_unseen_rules_are_right(results: Results, network: str = "trained", arm: str = ARMS[1]) -> Evidence:
    found = results[trained]
    share = found["share left out"].sel(arm=arm) if network == "trained" else found["share before"]
    whole = found["wrong"].sel(arm=arm) == 0
    return Evidence.all(
        Evidence.over_seeds(share, "<", 0.5, f"share of the rules left out that are wrong; {PILOTS}"),
        Evidence.proportion(int(whole.sum()), whole.size, "<", 0.5, f"{PILOTS}; most"),
    )


@TASK.figure
def learning_the_rules(results: Results) -> Sheet:
    """Wrong rules among the 587 in training: of networks that see all of them, and of networks that never see one in five."""
    found = results[trained]
    sheet = Sheet(columns=2, width=5.0, height=3.8)
    panel = sheet.panel("no rule is wrong in the end", x="updates", y="wrong rules of 587", legend="upper right")
    for arm in ARMS:
        panel.curve(found["progress"].sel(arm=arm), over="update", name=arm, within=(0, 587))
    panel = sheet.panel(
        "most rules are not enough", x="trained on", y="share of tapes that run right", ylim=(-0.05, 1.1)
    )
    panel.bars(
        {arm.replace(" left", "\nleft"): found["runs"].sel(arm=arm).values for arm in ARMS}, name="networks", dots=True
    )
    return sheet


# %%
TASK.show(learning_the_rules)
TASK.show(trained_networks_run_the_machine)
TASK.show(most_unseen_rules_are_right)

# %% [markdown]
# ## All verdicts

# %%
TASK.show()
