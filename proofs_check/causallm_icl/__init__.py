"""CausalLM is not optimal for in-context learning: what follows without training, a part an idea."""

# In the order of the argument.
PARTS = (
    "depth_is_descent",
    "masks_and_their_limits",
    "fixed_point_is_one_pass",
    "layers_that_divide",
    "rate_of_one_pass",
    "what_more_examples_bring",
)
