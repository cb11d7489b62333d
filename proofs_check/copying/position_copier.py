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
# # Copying by places, and a copier that cheats
#
# One attention layer that knows places copies every string of n letters: it looks n places back. There are $D^n$
# strings and one set
# of weights; the string stays in the prompt (or in the cache of keys and values), and nothing has to be squeezed into a state.
#
# *Given letters or own letters.* In training the right letters are given at every place. A head that looks one place
# *ahead* is then right
# on every string, if the mask lets it: the answer is among its inputs. When it reads its own letters there is
# nothing ahead. So copies are
# scored twice, once with the right letters given and once running freely, and a difference between the two gives a
# leak away. A causal
# mask cannot leak; a prefix mask does not as long as the prefix ends with the separator.


# %%
from __future__ import annotations

import torch
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.copying.copy_prompts import all_strings, copied_whole, free_running, written
from lab.domains.copying.position_copier import position_copier
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.results import Results

PROOFS = Task("copying", paper="jelassi-2024-copying")
SIZES = ((2, 6), (4, 4))  # letters, length


def pattern(kind: str, tokens: int, length: int) -> Tensor:
    """The mask over so many tokens of a prompt; a prefix ends with the separator."""
    if kind == "prefix":
        return masks.prefix_lm(tokens, min(tokens, length + 2))
    if kind == "longer prefix":
        return masks.prefix_lm(tokens, tokens)
    return masks.causal(tokens) if kind == "causal" else masks.sliding_window(tokens, length)


@PROOFS.cases(
    causal={},
    prefix={"kind": "prefix"},
    window={"kind": "window"},
    lost={"positions": False},
    leak={"kind": "longer prefix", "cheating": True},
    caught={"cheating": True},
)
def copies(config: object, *, kind: str = "causal", positions: bool = True, cheating: bool = False) -> LabelledArrays:
    """Share of all strings that are copied whole, with the right letters given and running freely."""
    shares = []
    for letters, length in SIZES:
        copier = position_copier(letters, length, positions=positions, cheating=cheating)
        prompts = written(all_strings(letters, length))

        def answer(tokens: Tensor, copier: torch.nn.Module = copier, length: int = length) -> Tensor:
            with torch.no_grad():
                law: Tensor = copier(tokens, pattern(kind, tokens.shape[-1], length))
            return law

        teacher_forced = copied_whole(answer(prompts.tokens.unsqueeze(0)), prompts.targets)
        free = free_running(answer, prompts, 1)
        shares.append([float(copied.double().mean()) for copied in (teacher_forced, free)])
    return {"share": labelled(shares, size=[f"{d}^{n}" for d, n in SIZES], letters=("given", "own"))}


@PROOFS.claim(
    "copying/C2.places",
    where="derived",
    kind="construction",
    statement="One layer of attention with explicit weights copies every string, the right letters given and "
    "running freely, under a causal mask and "
    "under a prefix mask up to the separator (all strings of six letters out of 2 and of four out of 4).",
    controls=[
        control("a window of n tokens, one too short", cases=("window",)),
        control("without positions", cases=("lost",)),
        control("a head that looks ahead, under a causal mask", cases=("caught",)),
    ],
)
def attention_copies_by_places(results: Results, cases: tuple[str, ...] = ("causal", "prefix")) -> Evidence:
    share = results[copies]["share"].sel(case=list(cases))
    return Evidence.exact(share.min().item(), ">=", 1, "smallest share of strings copied whole; counted")


@PROOFS.claim(
    "copying/C2.leak",
    where="derived",
    kind="identity",
    statement="Under a prefix mask that covers the answer a head that looks one token ahead is right on all "
    "strings while the right letters are given, and "
    "copies at most one string in $D^{n - 1}$ when it reads its own.",
    controls=[
        control("a head that looks back", case="prefix"),
        control("a causal mask, under which nothing lies ahead", case="caught"),
    ],
)
def running_freely_gives_a_leak_away(results: Results, case: str = "leak") -> Evidence:
    share = results[copies]["share"].sel(case=case)
    return Evidence.all(
        Evidence.exact(share.sel(letters="given").min().item(), ">=", 1, "share copied whole, right letters given"),
        *(
            Evidence.exact(
                share.sel(size=f"{letters}^{length}", letters="own").item(),
                "<=",
                letters ** (1 - length),
                "strings of one letter repeated, which the mean of what is seen gets right",
            )
            for letters, length in SIZES
        ),
    )


# %%
PROOFS.show(attention_copies_by_places)
PROOFS.show(running_freely_gives_a_leak_away)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
