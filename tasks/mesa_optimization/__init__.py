"""Whether next-state prediction teaches a layer to learn; the argument begins in ``exact_descent.py``."""
