"""What a mask allows: flow, symmetry and the positions that nobody gave; the argument begins in ``flow.py``."""
