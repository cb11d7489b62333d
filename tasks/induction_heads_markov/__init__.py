"""How transformers come to read Markov chains, in context and in the weights; the argument begins in ``counting_in_context.py``."""
