"""Paths in graphs: stepwise navigation and the path-star puzzle."""
