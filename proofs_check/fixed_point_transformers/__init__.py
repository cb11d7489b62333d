"""Attention iterated to a fixed point: when there is one, how many steps a depth takes, and its gradient."""

# In the order of the argument.
PARTS = ("contraction", "pointer_chasing", "graphs_and_products", "implicit_gradient")
