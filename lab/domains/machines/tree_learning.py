r"""Trees grown from windows: greedy CART, and the same with one step of look-ahead.

Rows are windows of W tokens with the token that followed; questions are "the token at offset o is a". The impurity of rows
with class counts $c$ is $n - \sum c^2 / n$ (n times Gini's). Greedy growth takes the question with the least impurity of the two
parts; with look-ahead it takes the one with the least impurity after the best second question in each part, and among equals the one
with the least impurity at once. What is still equal is drawn. Growth ends where all rows agree, or no question parts them.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from lab.domains.machines.trees import Leaf, Node, Tree
from lab.errors import LabError
from lab.streams import RandomStream

CLOSE = 1e-9  # impurities nearer than this are equal, relative to the number of rows


def windows(
    strings: Int[np.ndarray, "string place"], width: int, predicted: Int[np.ndarray, " target"]
) -> tuple[Int[np.ndarray, "row offset"], Int[np.ndarray, " row"]]:
    """The ``width`` tokens before each predicted place, last first (column o - 1 is offset o; -1 before the string), and what
    stands there.

    Raises:
        LabError: a width below 1.
    """
    if width < 1:
        raise LabError(f"A window of {width} tokens shows nothing; use at least 1.")
    padded = np.concatenate((np.full((len(strings), width), -1), strings), axis=1)
    places = predicted + width
    rows = np.stack([padded[:, places - offset] for offset in range(1, width + 1)], axis=-1)
    return rows.reshape(-1, width), strings[:, predicted].reshape(-1)


def grow(
    rows: Int[np.ndarray, "row offset"],
    targets: Int[np.ndarray, " row"],
    stream: RandomStream,
    look_ahead: bool = False,
    break_ties: bool = True,
) -> Tree:
    """The tree of these rows.

    Args:
        rows, targets: as `windows` gives them.
        stream: draws among equal questions.
        look_ahead: choose by the impurity after a second question.
        break_ties: with look-ahead, prefer among equals the question that is best at once.

    Raises:
        LabError: no rows.
    """
    if not len(rows):
        raise LabError("A tree needs at least 1 row to grow from but got 0; give more strings.")
    rng = stream.rng()
    questions = [(offset + 1, int(token)) for offset in range(rows.shape[1]) for token in np.unique(rows[:, offset])]
    answers = np.stack([rows[:, offset - 1] == token for offset, token in questions], axis=1)
    names, classes = np.unique(targets, return_inverse=True)
    labels = np.eye(len(names))[classes]

    def below(kept: Bool[np.ndarray, " row"]) -> Tree:
        counts = labels[kept].sum(0)
        majority = Leaf(int(names[rng.choice(np.flatnonzero(counts == counts.max()))]))
        if np.count_nonzero(counts) == 1:
            return majority
        kept_answers, kept_labels = answers[kept], labels[kept]
        scores = split_impurities(kept_answers, kept_labels)
        parting = np.isfinite(scores)
        if not parting.any():
            return majority
        tolerance = CLOSE * len(kept_answers)
        best = scores
        if look_ahead:
            best = np.array(
                [
                    _after_second(kept_answers, kept_labels, question) if parting[question] else np.inf
                    for question in range(len(scores))
                ]
            )
        equal = best <= best.min() + tolerance
        if look_ahead and break_ties:
            equal &= scores <= scores[equal].min() + tolerance
        chosen = int(rng.choice(np.flatnonzero(equal)))
        offset, token = questions[chosen]
        return Node(offset, token, below(kept & answers[:, chosen]), below(kept & ~answers[:, chosen]))

    return below(np.ones(len(rows), dtype=bool))


def split_impurities(
    answers: Bool[np.ndarray, "row question"], labels: Float[np.ndarray, "row class"]
) -> Float[np.ndarray, " question"]:
    """Impurity of the two parts that each question makes; infinite where it makes one."""
    yes = answers.T.astype(float) @ labels
    no = labels.sum(0) - yes
    sizes = yes.sum(1), no.sum(1)
    parts = [
        size - np.divide((counts**2).sum(1), size, out=np.zeros_like(size), where=size > 0)
        for counts, size in zip((yes, no), sizes, strict=True)
    ]
    impurities: np.ndarray = np.where((sizes[0] > 0) & (sizes[1] > 0), parts[0] + parts[1], np.inf)
    return impurities


def _after_second(answers: np.ndarray, labels: np.ndarray, question: int) -> float:
    """Impurity after this question and the best second one in each of its parts."""
    total = 0.0
    for side in (answers[:, question], ~answers[:, question]):
        counts = labels[side].sum(0)
        unsplit = counts.sum() - (counts**2).sum() / counts.sum()
        total += min(unsplit, float(split_impurities(answers[side], labels[side]).min()))
    return total
