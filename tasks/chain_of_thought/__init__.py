"""Networks that are trained to answer at once, or to write a derivation first."""

# In the order of the argument.
PARTS = ("words", "thinned")
