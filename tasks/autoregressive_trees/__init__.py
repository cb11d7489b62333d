"""Trees grown from words: what greed finds, what it misses, and what it takes to see a parity."""

# In the order of the argument.
PARTS = ("grown_trees",)
