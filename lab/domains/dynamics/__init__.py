"""Sequences that follow a linear law: mesa-optimisation and a linear equation in context."""
