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
# # Formulas are in everything
#
# Why should arithmetic be hard at once? The paper answers by reduction: whoever evaluates expressions over a field
# evaluates Boolean formulas, and evaluating formulas is complete for the class NC1. A transformer of constant depth
# with logarithmic precision computes only what threshold circuits of constant depth can (TC0). So unless TC0 = NC1 no
# such network of polynomial size answers at once at every length. That conclusion is a conjecture of complexity and
# *cannot be measured*; what can be checked are the reductions, which are identities.
#
# 1. $x \mapsto x$, $\lnot f \mapsto 1 - f$, $f \land g \mapsto f g$, $f \lor g \mapsto 1 - (1 - f)(1 - g)$ in any
#    field.
# 2. Barrington's theorem: a formula of depth $D$ is a product of $4^D$ permutations of five things, each chosen by one
#    variable. The product is a fixed 5-cycle if the formula is true and the identity if it is false. A conjunction is a
#    commutator: with programs for $f$ (to $\alpha$) and $g$ (to $\beta$), the word $\alpha^f \beta^g \alpha^{-f}
#    \beta^{-g}$ is the identity unless both are true, and then $\alpha\beta\alpha^{-1}\beta^{-1}$, which in $S_5$ can
#    again be a 5-cycle. Negation: aim at the inverse and multiply the last instruction. In an abelian group every
#    commutator is the identity, and the construction collapses.
#
# So the words of $S_5$ are as hard as formulas, and every step of their derivation is one look-up: the barest
# setting in which a derivation should help.

# %%
from __future__ import annotations

from lab import Task, control
from lab.domains.derivations import formulas
from lab.labels import LabelledArrays, deviations
from lab.streams import stream
from proofs_check.chain_of_thought._shared import COUNTS, PAPER, SLUG

PROOFS = Task(SLUG, paper=PAPER)
FORMULAS, VARIABLES, DEPTHS = 50, 4, (1, 2, 3)


@PROOFS.identity(
    "chain-of-thought/I2",
    where="proof of theorem 3.1 (reduction from Boolean formulas)",
    statement=r"Translated by $\lnot f \mapsto 1 - f$, $f \land g \mapsto f g$, $f \lor g \mapsto 1 - (1-f)(1-g)$, "
    r"a formula has its truth value "
    "as its value modulo 2, 3 and 11 (150 random formulas of depth 1 to 3, all 16 inputs; truth by recursion in "
    "plain Python).",
    origin=COUNTS,
    controls=[control("a disjunction translated as a sum", or_is_sum=True)],
)
def formulas_are_arithmetic(config: object, *, or_is_sum: bool = False) -> LabelledArrays:
    inputs, pairs = formulas.all_inputs(VARIABLES), []
    for depth in DEPTHS:
        drawn = formulas.random_formulas(stream(0, "formulas", depth), FORMULAS, depth, VARIABLES)
        truth = [[formulas.truth(drawn, row, values) for values in inputs.tolist()] for row in range(FORMULAS)]
        for modulus in (2, 3, 11):
            values = formulas.field_values(drawn, inputs, modulus, or_is_sum).tolist()
            wrong = sum(
                a != b
                for row, truth_row in zip(values, truth, strict=True)
                for a, b in zip(row, truth_row, strict=True)
            )
            pairs.append((float(wrong), 0.0))
    return deviations(pairs)


@PROOFS.identity(
    "chain-of-thought/I3",
    where="derived, on theorem 3.1; Barrington 1989",
    statement="A formula of AND and OR gates of depth $D$ becomes $4^D$ instructions over $S_5$ whose product is a "
    "fixed 5-cycle if it is "
    "true and the identity if it is false (150 random formulas of depth 1 to 3, all 16 inputs).",
    origin=COUNTS,
    controls=[control("two elements that commute for the commutator", abelian=True)],
)
def formulas_are_permutations(config: object, *, abelian: bool = False) -> LabelledArrays:
    inputs, pairs = formulas.all_inputs(VARIABLES), []
    for depth in DEPTHS:
        drawn = formulas.random_formulas(stream(0, "formulas", depth), FORMULAS, depth, VARIABLES)
        truth = formulas.node_values(drawn, inputs)[:, :, 0]
        program = formulas.program(drawn, abelian=abelian)
        product = formulas.run_program(program, drawn, inputs)
        wanted = truth.long() * int(formulas.five_cycles()[0])
        pairs += [(float((product != wanted).sum()), 0.0), (abs(len(program.leaf) - 4.0**depth), 0.0)]
    return deviations(pairs)


# %%
PROOFS.show(formulas_are_arithmetic)
PROOFS.show(formulas_are_permutations)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
