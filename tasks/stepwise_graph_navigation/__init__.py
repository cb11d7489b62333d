"""Thinking step by step as finding a way through a graph; the argument begins in ``stepwise_gap.py``."""
