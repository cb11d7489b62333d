"""Mixtures of regressions in context: what can be computed."""

# In the order of the argument.
PARTS = ("bayes_rule", "two_components", "explicit_transformer", "without_the_set")
