"""One wing for each theory: its prompts, what can be computed exactly about them, and weights that compute it.

A wing imports ``lab.models`` and the core, never another wing.
"""
