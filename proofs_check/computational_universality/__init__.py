"""Machines that run on next-token prediction: two compilers, a transformer in explicit weights, and what memory allows."""

# In the order of the argument.
PARTS = ("rings", "network", "memory")
