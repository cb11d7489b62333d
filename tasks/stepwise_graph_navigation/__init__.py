"""Thinking step by step as finding a way through a graph."""

# In the order of the argument.
PARTS = ("stepwise_gap", "short_training_paths", "law_of_paths", "one_layer", "connections_in_context")
