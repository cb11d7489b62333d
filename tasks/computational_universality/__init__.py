"""A universal machine that was learnt: a small network trained on its rules, then run."""

# In the order of the argument.
PARTS = ("learned_rules",)
