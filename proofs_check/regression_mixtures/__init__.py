"""Mixtures of regressions in context: what can be computed; the argument begins in ``bayes_rule.py``."""
