"""Linear attention as a recurrence, as an optimiser and as a memory of bounded size."""

# In the order of the argument.
PARTS = (
    "one_function_three_forms",
    "both_directions",
    "gradients_and_costs",
    "rungs_of_optimisers",
    "what_a_memory_holds",
)
