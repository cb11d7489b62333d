"""CausalLM is not optimal for in-context learning: measurements and trainings, a part an idea."""

# In the order of the argument.
PARTS = (
    "depth_is_iteration",
    "limit_is_one_pass",
    "more_examples_than_layers",
    "near_as_many_examples_as_dimensions",
    "repairs",
    "trained_linear_attention",
    "transformers_in_regression",
    "transformers_with_other_labels",
)
