"""Whether next-state prediction teaches a layer to learn; the argument begins in ``exact_descent.py``."""

PARTS = ("exact_descent", "beyond_symmetry", "trained_on_samples")
