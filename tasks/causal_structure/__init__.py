"""How gradient descent finds a hidden causal graph, in parts."""

# In the order of the argument.
PARTS = (
    "gradient_at_start",
    "staged_training",
    "growing_length",
    "joint_training",
    "adam_on_forests",
    "prefix_loses_time",
    "two_parents",
    "ordinary_transformer",
)
