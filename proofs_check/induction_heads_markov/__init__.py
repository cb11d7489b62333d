"""In-context Markov chains: what is exact; the argument begins in ``counting.py``."""
