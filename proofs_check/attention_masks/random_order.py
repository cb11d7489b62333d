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
# # Random order in two streams
#
# The last of the masks of particular papers, and the one with two places where training and decoding part.
# To generate an image's tokens in any order $o$, one stream holds content (a class token, then $x_{o_1},
# x_{o_2}, \dots$, causal, each with the rotary code of its true place) and another holds questions: copies
# of one vector, each with the rotary code of the place it asks for. Question $t$ reads the content up to
# $o_{t-1}$ and nothing else, so all questions can be put at once.
#
# "Random order" is not "any order". The answer to a question depends on the *order* in which the same set
# of places was filled, as soon as the content stream has a self-attention layer: content tokens have read
# those before them. Only with no content layer is the answer a function of the set. And if several tokens
# are generated in one step and then see each other, the content stream is not the one that was trained.

# %%
from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lab import Evidence, Task, control
from lab.domains.attention.mask_reachability import discrepancy, reachability
from lab.domains.attention.network_rounding import network_rounding_bound
from lab.figures import Sheet
from lab.labels import LabelledArrays, labelled
from lab.models import masks
from lab.models.mask_patterns import chunked_two_stream
from lab.models.masks import flow
from lab.models.transformer import Architecture, Transformer
from lab.results import Results
from proofs_check.attention_masks._shared import (
    BOOLEANS,
    DEPTHS,
    HEADS,
    ROUNDING,
    SLUG,
    WIDTH,
    largest,
    network,
    outputs,
    prompt,
    within_rounding,
)

PROOFS = Task(SLUG, paper=SLUG)
PLACES = 7
ORDER = torch.tensor([4, 1, 6, 0, 3, 5, 2])
# Self-attention layers of the content stream: 0 is the limit in which sets are all that counts, 4 is for the picture.
CONTENT_LAYERS = (0, *DEPTHS, 4)
CLAIMED_LAYERS = (0, *DEPTHS)


def two_streams(content_layers: int) -> tuple[Transformer, Transformer]:
    """The content network, and the one layer in which questions read its last states; rotary positions."""
    return network(content_layers, positions="rotary"), Transformer(
        Architecture(width=WIDTH, layers=1, heads=HEADS, positions="rotary"), [6], torch.float64
    )


def answer(
    models: tuple[Transformer, Transformer], tokens: Tensor, allowed: Tensor, content_places: Tensor, targets: Tensor
) -> Tensor:
    """Outputs of content and questions, [1, batch, token, width], for content and questions in one tensor."""
    count = len(content_places)
    content = models[0](tokens[:, :, :count], allowed[:count, :count], content_places)
    reading = torch.cat((torch.zeros(count, allowed.shape[1], dtype=torch.bool), allowed[count:]))
    joint = torch.cat((content, tokens[:, :, count:]), dim=2)
    read = models[1](joint, reading, torch.cat((content_places, targets)))
    return torch.cat((content, read[:, :, count:]), dim=2)


def streams_prompt(order: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, content places and targets: class (place 0), contents in ``order`` but the last, questions for ``order``."""
    values = prompt(PLACES + 1)
    content = torch.cat((values[:1], values[1 + order[:-1]]))
    questions = prompt(1, "question").expand(len(order), WIDTH)
    places = torch.cat((torch.zeros(1, dtype=torch.int64), 1 + order[:-1]))
    return torch.cat((content, questions)), places, 1 + order


def streams_bound(models: tuple[Transformer, Transformer], order: Tensor) -> float:
    """Rounding bound of an answer: that of the content, carried through the reading layer, and that layer's own."""
    tokens, places, targets = streams_prompt(order)
    allowed, count, joint_places = masks.two_stream(len(order)), len(order), torch.cat((places, targets))
    content_bound = network_rounding_bound(models[0], tokens[:count], allowed[:count, :count], places)
    content = outputs(models[0], tokens[:count], allowed[:count, :count], positions=places)
    states = torch.cat((content, tokens[count:]))
    reading = torch.cat((torch.zeros_like(allowed[:count]), allowed[count:]))
    carried = flow(lambda inputs, mask: models[1](inputs, mask, joint_places), states, reading)
    reader = network_rounding_bound(models[1], states, reading, joint_places)
    return content_bound * WIDTH * float(torch.linalg.matrix_norm(carried)) + reader


@PROOFS.cases(claimed={}, own_target={"shift": 1})
def flow_to_questions(config: object, *, shift: int = 0) -> LabelledArrays:
    """Entries in which the flow of the two streams is not the predicted one; a ``shift`` of 1 shows questions their target."""
    intended = masks.two_stream(PLACES)
    used = intended.clone()
    if shift:
        used[PLACES:, :PLACES] = masks.full(PLACES).tril(shift)
    tokens, places, targets = streams_prompt(ORDER)
    content = torch.arange(2 * PLACES).unsqueeze(1) < PLACES
    differing = []
    for layers in CLAIMED_LAYERS:
        models = two_streams(layers)
        moved = flow(lambda inputs, mask, models=models: answer(models, inputs, mask, places, targets), tokens, used)  # type: ignore[misc]
        # A question's row reaches itself: its own vector is what it starts from.
        predicted = reachability([*[intended & content] * layers, intended & ~content])
        differing.append(discrepancy(moved, predicted).count)
    return {"count": labelled(differing, layers=CLAIMED_LAYERS)}


@PROOFS.claim(
    "attention-masks/arpg.flow",
    where="ARPG 2025, the model of the released code",
    paper="li-2025-randomized-parallel",
    kind="identity",
    statement=r"Question $t$ depends on the class and on the contents of $o_1, \dots, o_{t-1}$ and on nothing "
    r"later: the Jacobian is exactly $0$ for content index $j \ge t$ (class at 0, first question $t = 1$) "
    "and not $0$ below, for 0 to 3 content layers.",
    controls=[control("questions that see their own target", case="own_target")],
)
def questions_see_only_what_came_before(results: Results, case: str = "claimed") -> Evidence:
    return Evidence.exact(int(results[flow_to_questions]["count"].sel(case=case).sum()), "<=", 0, BOOLEANS)


COMPANIES = ([0], [6], [1, 3, 5], [2, 6])


@PROOFS.cases(claimed={}, open_questions={"open_questions": True})
def questions_alone(config: object, *, open_questions: bool = False) -> LabelledArrays:
    """Change of answers when only some questions are put."""
    allowed = masks.two_stream(PLACES)
    if open_questions:
        allowed[PLACES:, PLACES:] = masks.causal(PLACES)
    tokens, places, targets = streams_prompt(ORDER)
    differences, bounds = [], []
    for layers in CLAIMED_LAYERS:
        models = two_streams(layers)
        bounds.append(streams_bound(models, ORDER))
        with torch.no_grad():
            together = answer(models, tokens[None, None], allowed, places, targets)[0, 0, PLACES:]
            for kept in COMPANIES:
                rows = torch.cat((torch.arange(PLACES), PLACES + torch.tensor(kept)))
                alone = answer(models, tokens[None, None, rows], allowed[rows][:, rows], places, targets[kept])
                differences.append(largest(alone[0, 0, PLACES:] - together[kept]))
    names = tuple(", ".join(map(str, kept)) for kept in COMPANIES)
    return {
        "difference": labelled(np.reshape(differences, (-1, len(COMPANIES))), layers=CLAIMED_LAYERS, questions=names),
        "rounding": labelled(bounds, layers=CLAIMED_LAYERS),
    }


@PROOFS.claim(
    "attention-masks/arpg.parallel",
    where="ARPG 2025",
    paper="li-2025-randomized-parallel",
    kind="identity",
    statement="Questions never see each other: leaving any of them out changes no answer to the others.",
    controls=[control("questions that see earlier questions", case="open_questions")],
)
def questions_can_be_put_in_any_company(results: Results, case: str = "claimed") -> Evidence:
    return within_rounding(results[questions_alone].sel(case=case))


@PROOFS.cases(claimed={})
def other_order(config: object) -> LabelledArrays:
    """Largest change of the answer after a set of three when it was filled in another order."""
    differences, bounds = [], []
    for layers in CONTENT_LAYERS:
        models = two_streams(layers)
        answers = []
        for start in ([4, 1, 6], [6, 4, 1]):
            tokens, places, targets = streams_prompt(torch.tensor([*start, 0, 3, 5, 2]))
            with torch.no_grad():
                joint = answer(models, tokens[None, None], masks.two_stream(PLACES), places, targets)
            answers.append(joint[0, 0, PLACES + 3])
        differences.append(largest(answers[0] - answers[1]))
        bounds.append(streams_bound(models, ORDER))
    return {
        "difference": labelled(differences, layers=CONTENT_LAYERS),
        "rounding": labelled(bounds, layers=CONTENT_LAYERS),
    }


def least_within_rounding(measured: xr.Dataset) -> Evidence:
    """Evidence of the number of layers that comes nearest to holding, which speaks for all of a refuted sentence."""
    least = measured.sel(layers=measured["difference"].idxmin("layers"))
    return Evidence.exact(float(least["difference"]), "<=", float(least["rounding"]), ROUNDING)


@PROOFS.claim(
    "attention-masks/arpg.order",
    where="our reading: what random order does not mean",
    paper="li-2025-randomized-parallel",
    kind="identity",
    statement="The answer to a question depends on the order in which a set of places was filled as soon as the content stream "
    "has a self-attention layer: another order of the same three moves it by more than $10^{-3}$ with 1 to 3 layers, and not at "
    "all with none.",
    controls=[
        control("a content layer where none may be", without=1),
        control("no content layer where one is needed", layers=(0,)),
    ],
)
def answers_depend_on_the_order(results: Results, layers: tuple[int, ...] = DEPTHS, without: int = 0) -> Evidence:
    measured = results[other_order].sel(case="claimed")
    flat = measured.sel(layers=without)
    return Evidence.all(
        Evidence.exact(float(flat["difference"]), "<=", float(flat["rounding"]), ROUNDING),
        Evidence.exact(
            float(measured["difference"].sel(layers=list(layers)).min()),
            ">",
            1e-3,
            "far above rounding, below any effect",
        ),
    )


@PROOFS.cases(claimed={}, singly={"chunks": (1,) * 7})
def chunked_decoding(config: object, *, chunks: tuple[int, ...] = (1, 2, 4)) -> LabelledArrays:
    """Largest difference of content states between training and decoding in chunks."""
    tokens, places, targets = streams_prompt(ORDER)
    content = 1 + sum(chunks[:-1])
    differences, bounds = [], []
    for layers in CONTENT_LAYERS:
        models = two_streams(layers)
        part = torch.cat((tokens[:content], tokens[PLACES:]))
        with torch.no_grad():
            trained = answer(models, tokens[None, None], masks.two_stream(PLACES), places, targets)
            decoded = answer(models, part[None, None], chunked_two_stream(chunks), places[:content], targets)
        differences.append(largest(trained[0, 0, :content] - decoded[0, 0, :content]))
        bounds.append(streams_bound(models, ORDER))
    return {
        "difference": labelled(differences, layers=CONTENT_LAYERS),
        "rounding": labelled(bounds, layers=CONTENT_LAYERS),
    }


@PROOFS.claim(
    "attention-masks/arpg.chunk",
    where="ARPG 2025, training and inference of the released code",
    paper="li-2025-randomized-parallel",
    kind="identity",
    statement="Decoding several tokens a step, with the tokens of a step seeing each other afterwards, gives the "
    "content states of training (chunks of 1, 2 and 4, 1 to 3 content layers).",
    expected="refuted",
    condition="when one token is decoded a step",
    controls=[control("one token a step", case="singly")],
)
def chunks_keep_the_trained_states(results: Results, case: str = "claimed") -> Evidence:
    return least_within_rounding(results[chunked_decoding].sel(case=case, layers=list(DEPTHS)))


@PROOFS.figure
def order_and_chunks(results: Results) -> Sheet:
    """What depends on the order of filling, and what chunks change, against the number of content layers."""
    chunked = results[chunked_decoding]
    sheet = Sheet(width=6.4, height=4.2, foot="differences below 1e-17 are drawn there")
    panel = sheet.panel(
        "random order is not any order once contents read each other",
        x="self-attention layers of the content stream",
        y="largest change of an output",
        scale=("linear", "log"),
        ylim=(1e-18, 1e3),
        xticks=CONTENT_LAYERS,
        legend="outside",
    )
    for name, measured in (
        ("another order of the same three tokens", results[other_order].sel(case="claimed")),
        ("chunks of 1, 2 and 4 tokens", chunked.sel(case="claimed")),
        ("one token a step", chunked.sel(case="singly")),
    ):
        difference = np.maximum(measured["difference"], 1e-17)
        panel.line(CONTENT_LAYERS, difference, name=name, of="one random network a point")
    panel.theory(CONTENT_LAYERS, chunked["rounding"].sel(case="singly"), name="rounding bound")
    return sheet


# %%
PROOFS.show(order_and_chunks)
PROOFS.show(questions_see_only_what_came_before)
PROOFS.show(questions_can_be_put_in_any_company)
PROOFS.show(answers_depend_on_the_order)
PROOFS.show(chunks_keep_the_trained_states)

# %% [markdown]
# ## All verdicts

# %%
PROOFS.show()
