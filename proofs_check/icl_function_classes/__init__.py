"""Function classes in context, what can be computed without training; the argument begins in ``linear_laws.py``."""
