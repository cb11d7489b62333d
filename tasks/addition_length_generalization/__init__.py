"""Addition of any length by a network that knows one column; the argument begins in ``every_window.py``."""
