"""In-context Markov chains: what is exact."""

# In the order of the argument.
PARTS = ("counting", "wirings", "trap")
