from __future__ import annotations

import json

import numpy as np
import pytest

from lab import Evidence, LabError, control
from lab.claims import Claim, judge


def claim(check, **changes) -> Claim:
    fields = {
        "id": "paper/T1",
        "where": "Theorem 1",
        "kind": "identity",
        "statement": "Something that can be read alone.",
        "controls": (control("larger", value=5.0),),
    } | changes
    return Claim(check=check, **fields)


def below_one(results, value: float = 0.5) -> Evidence:
    return Evidence.exact(value, "<=", 1.0, "by definition")


@pytest.mark.parametrize(
    ("relation", "bound", "verdict"),
    [("<=", 1.0, "holds"), ("<", 1.0, "refuted"), (">=", 1.0, "holds"), (">", 1.0, "refuted"), ("<=", 0.5, "refuted")],
)
def test_exact_evidence(relation, bound: float, verdict: str) -> None:
    assert Evidence.exact(1.0, relation, bound, "").verdict == verdict


def test_sampled_evidence_can_be_inconclusive() -> None:
    samples = np.array([0.9, 1.0, 1.2])
    assert Evidence.over_seeds(samples, "<", 1.0, "").verdict == "inconclusive"
    assert Evidence.over_seeds(samples, "<", 100.0, "").verdict == "holds"
    assert Evidence.over_seeds(samples, ">", 100.0, "").verdict == "refuted"


def test_a_proportion_of_few_trials_proves_little() -> None:
    assert Evidence.proportion(5, 5, ">=", 0.95, "").verdict == "inconclusive"
    assert Evidence.proportion(5000, 5000, ">=", 0.95, "").verdict == "holds"


def test_the_weakest_part_stands_for_all() -> None:
    good, close, bad = (Evidence.exact(value, "<=", 1.0, "") for value in (0.1, 0.9, 2.0))
    assert Evidence.all(good, close).measured == 0.9
    assert Evidence.all(good, bad, close).measured == 2.0


def test_not_a_number_is_no_evidence() -> None:
    with pytest.raises(LabError, match="not a number"):
        Evidence.exact(float("nan"), "<=", 1.0, "")


def test_an_error_in_the_evidence_names_the_claim_and_the_control() -> None:
    broken = claim(below_one, controls=(control("broken", value=float("nan")),))
    with pytest.raises(LabError, match=r"^paper/T1 with value=nan: test_claims\.py, line \d+, the measured value"):
        judge(broken, None)


def test_what_could_not_be_tried_at_its_sizes_is_not_called_refuted() -> None:
    def above_one(results, value: float = 0.5) -> Evidence:
        return Evidence.exact(value, ">", 1.0, "")

    untried = judge(claim(above_one, expected="not reproduced", condition="at width 512"), None)
    assert untried.verdict == "not reproduced"
    assert untried.as_expected
    tried = claim(above_one, expected="not reproduced", condition="at width 512", controls=(control("c", value=0.1),))
    assert not judge(tried, None).as_expected


def test_judgement_needs_the_verdict_and_the_rejection() -> None:
    assert judge(claim(below_one), None).as_expected
    toothless = claim(below_one, controls=(control("smaller", value=0.1),))
    outcome = judge(toothless, None)
    assert outcome.verdict == "holds"
    assert not outcome.as_expected


def test_a_refuted_claim_is_as_expected_when_its_control_holds() -> None:
    def above_one(results, value: float = 0.5) -> Evidence:
        return Evidence.exact(value, ">", 1.0, "")

    assert judge(claim(above_one, expected="refuted", condition="for 5"), None).as_expected


def test_an_inconclusive_control_is_not_rejected() -> None:
    def check(results, shift: float = 0.0) -> Evidence:
        return Evidence.over_seeds(np.array([0.0, 0.1, 0.2]) + shift, "<", 10.0, "")

    assert not judge(claim(check, controls=(control("straddling", shift=9.9),)), None).as_expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controls": ()}, "no control"),
        ({"controls": (control("wrong", valeu=1.0),)}, "valeu"),
        ({"controls": (control("nothing"),)}, "nothing"),
        ({"id": "T1"}, "paper/slug"),
        ({"kind": "opinion"}, "opinion"),
        ({"expected": "refuted"}, "condition"),
        ({"expected": "refuted", "condition": "the noise is small"}, "begins with after, as"),
        ({"expected": "not reproduced"}, "condition"),
        ({"expected": "inconclusive"}, "expected verdict"),
    ],
)
def test_a_claim_that_could_not_fail_cannot_be_made(changes: dict, message: str) -> None:
    with pytest.raises(LabError, match=message):
        claim(below_one, **changes)


def test_record_is_json_even_with_an_infinite_control() -> None:
    def check(results, value: float = 0.5) -> Evidence:
        return Evidence.exact(value, "<=", 1.0, "")

    judgement = judge(claim(check, controls=(control("diverges", value=float("inf")),)), None)
    record = json.loads(json.dumps(judgement.record(), allow_nan=False))
    assert record["controls"] == [{"name": "diverges", "measured": "inf", "rejected": True}]


def test_record_counts_parts_and_says_what_would_decide() -> None:
    def check(results, shift: float = 0.0) -> Evidence:
        samples = np.array([0.0, 0.1, 0.4]) + shift
        return Evidence.all(
            Evidence.over_seeds(samples, "<", 0.5, "half"), Evidence.equals(samples, 0.0, 9, "law", True)
        )

    record = judge(claim(check, controls=(control("far", shift=99.0),)), None).record()
    assert (record["parts"], record["bound_origin"], record["kind"]) == (2, "half", "identity")
    assert record["verdict"] == "inconclusive"
    assert 10 < record["seeds_wanted"] < 50


def test_a_check_must_return_evidence() -> None:
    with pytest.raises(LabError, match="not Evidence"):
        judge(claim(lambda results, value=1.0: True), None)
