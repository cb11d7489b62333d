"""Mixtures of regressions: what trained networks learn."""

# In the order of the argument.
PARTS = ("trained_networks", "training_prompts", "paper_sizes")
