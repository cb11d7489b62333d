"""Addition of any length by a network that knows one column."""

# In the order of the argument.
PARTS = ("every_window", "carry_chains", "unseen_sums", "whole_sums")
