"""What the parts share: names, and the error of a rule."""

from __future__ import annotations

from torch import Tensor

from lab.domains.regression.function_class_prompts import FunctionPrompts
from lab.predictors import RegressionPredictor

SLUG = "icl-function-classes"
PAPER = "garg-2022-function-classes"


def squared_error(predictor: RegressionPredictor, prompts: FunctionPrompts) -> Tensor:
    """Mean over the queries of each prompt, [batch]."""
    answers = predictor(prompts.x_context, prompts.y_context, prompts.x_query)
    return (answers - prompts.y_query).square().mean(-1)
