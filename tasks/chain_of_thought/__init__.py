"""Derivations learnt: small networks that write the steps of a problem, and the same networks without them."""

# In the order of the argument.
PARTS = ("words", "arithmetic", "across_problems")
