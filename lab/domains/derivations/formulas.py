r"""Boolean formulas: as trees, as arithmetic over a field, and as programs of permutations.

A formula of depth D is a full binary tree. Node 0 is the root, the children of node i are 2 i + 1 and 2 i + 2; the first
$2^D - 1$ nodes are gates (AND or OR), the last $2^D$ leaves hold variables; any node may be negated. Evaluating formulas is
complete for the class NC1, and two translations carry that over:

* **arithmetic** (`field_values`): $x \mapsto x$, $\lnot f \mapsto 1 - f$, $f \land g \mapsto f g$, $f \lor g \mapsto 1 - (1-f)(1-g)$ in
  any field; who evaluates expressions evaluates formulas;
* **Barrington's programs** (`program`): $4^D$ instructions, each "multiply by g if the variable is 0, by h if it is 1", whose product is
  a fixed 5-cycle if the formula is true and the identity if it is false. A conjunction is a commutator
  $\alpha \beta \alpha^{-1} \beta^{-1}$ of two 5-cycles that is again a 5-cycle; a negation costs nothing.

Words are read from left to right: the product g h is g followed by h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lab import contracts
from lab.domains.derivations.automata import elements, inverse, products
from lab.domains.derivations.prime_field import check_prime
from lab.domains.derivations.sequences import Derivations, check_format, check_sizes, full_rows, sign, write
from lab.errors import LabError
from lab.streams import RandomStream

END, FALSE, TRUE, AND, OR, NAND, NOR = range(2, 9)
VOCABULARY = 9


@dataclass(frozen=True)
class Formulas:
    """A batch of formulas of one depth.

    Attributes:
        conjunction: True for AND, False for OR.
        negated: whether the value of a node is turned around.
        variable: which variable a leaf holds.
    """

    conjunction: Bool[Tensor, "batch gate"]
    negated: Bool[Tensor, "batch node"]
    variable: Int[Tensor, "batch leaf"]

    @property
    def depth(self) -> int:
        """Gates between the root and a leaf."""
        return self.variable.shape[1].bit_length() - 1


def random_formulas(stream: RandomStream, batch: int, depth: int, variables: int) -> Formulas:
    """Gates, negations and variables, all uniform and independent.

    Args:
        stream: randomness; fields "gates", "negations" and "variables".
        batch: number of formulas.
        depth: D, at least 1.
        variables: how many there are.
    """
    check_sizes(depth=depth, variables=variables)
    leaves = 2**depth
    gates, negations = (
        torch.from_numpy(stream.child(name).rng().random((batch, size)) < 0.5)
        for name, size in (("gates", leaves - 1), ("negations", 2 * leaves - 1))
    )
    held = torch.from_numpy(stream.child("variables").rng().integers(0, variables, (batch, leaves)))
    return Formulas(gates, negations, held)


def all_inputs(variables: int) -> Bool[Tensor, "input variable"]:
    """All 2^v truth assignments."""
    check_sizes(variables=variables)
    return (torch.arange(2**variables)[:, None] >> torch.arange(variables)) % 2 == 1


def node_values(formulas: Formulas, inputs: Bool[Tensor, "input variable"]) -> Bool[Tensor, "batch input node"]:
    """The value of every node for every input, level by level from the leaves."""
    leaves = inputs[:, formulas.variable].transpose(0, 1)
    level = leaves ^ formulas.negated[:, None, -leaves.shape[2] :]
    levels = [level]
    while level.shape[2] > 1:
        first = level.shape[2] // 2 - 1
        gates = formulas.conjunction[:, None, first : 2 * first + 1]
        left, right = level[:, :, 0::2], level[:, :, 1::2]
        level = torch.where(gates, left & right, left | right) ^ formulas.negated[:, None, first : 2 * first + 1]
        levels.insert(0, level)
    return torch.cat(levels, 2)


def truth(formula: Formulas, row: int, values: Sequence[bool], node: int = 0) -> bool:
    """The value of one formula by recursion over its tree, in plain Python: independent of `node_values`."""
    gates = formula.conjunction.shape[1]
    turned = bool(formula.negated[row, node])
    if node >= gates:
        return bool(values[int(formula.variable[row, node - gates])]) != turned
    left, right = (truth(formula, row, values, child) for child in (2 * node + 1, 2 * node + 2))
    return ((left and right) if bool(formula.conjunction[row, node]) else (left or right)) != turned


def field_values(
    formulas: Formulas, inputs: Bool[Tensor, "input variable"], modulus: int, or_is_sum: bool = False
) -> Int[Tensor, "batch input"]:
    """The value modulo p of the arithmetic expressions that the formulas become.

    Args:
        formulas, inputs: as in `node_values`.
        modulus: p.
        or_is_sum: translate OR as f + g instead, which is wrong where both are true.

    Raises:
        LabError: a modulus that is not prime.
    """
    check_prime(modulus)

    def turned(value: Tensor, negated: Tensor) -> Tensor:
        return torch.where(negated[:, None], 1 - value, value) % modulus

    size = formulas.variable.shape[1]
    level = turned(inputs[:, formulas.variable].transpose(0, 1).long(), formulas.negated[:, -size:])
    while level.shape[2] > 1:
        first = level.shape[2] // 2 - 1
        left, right = level[:, :, 0::2], level[:, :, 1::2]
        either = left + right if or_is_sum else 1 - (1 - left) * (1 - right)
        level = torch.where(formulas.conjunction[:, None, first : 2 * first + 1], left * right, either)
        level = turned(level, formulas.negated[:, first : 2 * first + 1])
    return level[:, :, 0]


class Program(NamedTuple):
    """Instructions of a batch of programs over S5; which leaf an instruction reads is the same for all.

    Args:
        leaf: the leaf whose variable is read.
        if_false, if_true: the number of the permutation that is multiplied.
    """

    leaf: Int[Tensor, " instruction"]
    if_false: Int[Tensor, "batch instruction"]
    if_true: Int[Tensor, "batch instruction"]


@lru_cache
def five_cycles() -> Int[Tensor, " cycle"]:
    """The numbers of the 24 elements of S5 that turn all five things in one cycle."""
    rows = elements()
    image, moved = rows[:, 0], torch.ones(len(rows), dtype=torch.bool)
    for _ in range(4):
        moved &= image != 0
        image = rows.gather(1, image[:, None]).squeeze(1)
    return moved.nonzero().squeeze(1)


@lru_cache
def commutators() -> Int[Tensor, "element 2"]:
    r"""For every 5-cycle two 5-cycles with $\alpha \beta \alpha^{-1} \beta^{-1}$ equal to it (rows of other elements are 0)."""
    cycles, product, back = five_cycles(), products(), inverse()
    first, second = torch.cartesian_prod(cycles, cycles).unbind(1)
    commutator = product[product[first, second], product[back[first], back[second]]]
    pairs = torch.zeros(len(product), 2, dtype=torch.int64)
    for cycle in cycles.tolist():
        place = int((commutator == cycle).int().argmax())
        pairs[cycle] = torch.stack([first[place], second[place]])
    return pairs


def program(formulas: Formulas, target: int | None = None, abelian: bool = False) -> Program:
    r"""Barrington's program: its product is ``target`` where the formula is true and the identity where it is false.

    Args:
        formulas: of depth D; the program has $4^D$ instructions.
        target: the number of a 5-cycle; None takes the first.
        abelian: take powers of the target for $\alpha$ and $\beta$ instead, which commute, so that every
            conjunction becomes the identity.

    Raises:
        LabError: a target that is no 5-cycle.
    """
    cycles = five_cycles()
    chosen = int(cycles[0]) if target is None else target
    if chosen not in cycles.tolist():
        raise LabError(f"The element {chosen} of S5 is no 5-cycle; choose one of {cycles.tolist()}.")
    pairs = commutators()
    if abelian:
        pairs = torch.stack([torch.arange(len(pairs))] * 2, 1)
    goal = torch.full((len(formulas.variable),), chosen)
    return _program(formulas, 0, goal, pairs)


def _program(formulas: Formulas, node: int, goal: Int[Tensor, " batch"], pairs: Int[Tensor, "element 2"]) -> Program:
    back, gates = inverse(), formulas.conjunction.shape[1]
    if node >= gates:
        turned = formulas.negated[:, node]
        nothing = torch.zeros_like(goal)
        if_false, if_true = torch.where(turned, goal, nothing), torch.where(turned, nothing, goal)
        return Program(torch.tensor([node - gates]), if_false[:, None], if_true[:, None])
    # A conjunction as it stands; a disjunction is a negated conjunction of negated parts; NOT f with goal s is f with
    # goal s^-1, followed by s.
    either = ~formulas.conjunction[:, node]
    flipped = formulas.negated[:, node] ^ either
    inner = torch.where(flipped, back[goal], goal)
    alpha, beta = pairs[inner].unbind(1)
    parts = []
    for child, piece in ((1, alpha), (2, beta), (1, back[alpha]), (2, back[beta])):
        program = _program(formulas, 2 * node + child, torch.where(either, back[piece], piece), pairs)
        parts.append(_followed_by(program, torch.where(either, piece, 0)))
    joined = Program(
        torch.cat([part.leaf for part in parts]),
        torch.cat([part.if_false for part in parts], 1),
        torch.cat([part.if_true for part in parts], 1),
    )
    return _followed_by(joined, torch.where(flipped, goal, 0))


def _followed_by(program: Program, last: Int[Tensor, " batch"]) -> Program:
    """The program with its last instruction multiplied by an element."""
    product = products()
    if_false, if_true = program.if_false.clone(), program.if_true.clone()
    if_false[:, -1], if_true[:, -1] = product[if_false[:, -1], last], product[if_true[:, -1], last]
    return Program(program.leaf, if_false, if_true)


def run_program(
    instructions: Program, formulas: Formulas, inputs: Bool[Tensor, "input variable"]
) -> Int[Tensor, "batch input"]:
    """The product of the instructions that each input selects."""
    product, state = products(), torch.zeros(len(formulas.variable), len(inputs), dtype=torch.int64)
    for number, leaf in enumerate(instructions.leaf.tolist()):
        read = inputs[:, formulas.variable[:, leaf]].T
        chosen = torch.where(read, instructions.if_true[:, number, None], instructions.if_false[:, number, None])
        state = product[state, chosen]
    return state


def row_length(depth: int, format: str) -> int:
    """Tokens of a row, the stop token included.

    >>> [row_length(depth, "derivation") for depth in (1, 2, 3)]
    [6, 14, 30]
    """
    check_format(format)
    leaves = 2**depth
    return 2 * leaves + 2 if format == "direct" else 4 * leaves - 2


@contracts.generator(depth=2)
def formulas(stream: RandomStream, batch: int, *, depth: int, format: str = "derivation") -> Derivations:
    """Formulas of constants, level by level: gates from the root down, then leaves, then the values from the leaves up.

        gates of level 0, 1, .., D - 1, leaves | values of level D - 1 , .. level 0 S

    A gate that is negated is NAND or NOR, a leaf its negated constant. Positions of a level are those of the tree, so the
    formula is given though no bracket is written.

    Args:
        stream: randomness; fields of `random_formulas`.
        batch: number of formulas.
        depth: D.
        format: "direct" (the value of the root alone) or "derivation".

    Raises:
        LabError: a depth below 1, or an unknown format.
    """
    check_format(format)
    drawn = random_formulas(stream, batch, depth, 2)  # variable 0 is false, variable 1 true
    values = node_values(drawn, torch.tensor([[False, True]]))[:, 0]
    gates = drawn.conjunction.shape[1]
    turned = drawn.negated[:, :gates]
    named = torch.where(drawn.conjunction, torch.where(turned, NAND, AND), torch.where(turned, NOR, OR))
    parts = [full_rows(torch.cat([named, FALSE + values[:, gates:].long()], 1)), sign(END, batch)]
    levels = range(depth - 1, -1, -1) if format == "derivation" else [0]
    parts += [full_rows(FALSE + values[:, 2**level - 1 : 2 ** (level + 1) - 1].long()) for level in levels]
    return write(parts, 2, row_length(depth, format))


def first_wrong_step(tokens: Sequence[int], depth: int) -> int | None:
    """The first gate (from the leaves up, left to right) whose written value does not follow from its parts; None if all do."""
    row = [int(token) for token in tokens]
    gates = 2**depth - 1
    written = row[2 * gates + 2 : 3 * gates + 2]
    value = {gates + place: token == TRUE for place, token in enumerate(row[gates : 2 * gates + 1])}
    order = [node for level in range(depth - 1, -1, -1) for node in range(2**level - 1, 2 ** (level + 1) - 1)]
    rule = {
        AND: lambda a, b: a and b,
        OR: lambda a, b: a or b,
        NAND: lambda a, b: not (a and b),
        NOR: lambda a, b: not (a or b),
    }
    for number, (node, token) in enumerate(zip(order, written, strict=True)):
        value[node] = token == TRUE
        if rule[row[node]](value[2 * node + 1], value[2 * node + 2]) != value[node]:
            return number
    return None
