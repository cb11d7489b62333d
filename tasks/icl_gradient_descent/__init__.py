"""Transformers learn in-context by gradient descent: the trainings, a part an idea."""

# In the order of the argument.
PARTS = (
    "one_layer",
    "two_layers",
    "repeated_layer",
    "softmax_heads",
    "sine_curves",
    "separate_tokens",
    "limits_of_one_layer",
)
