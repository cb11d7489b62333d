"""Markov chains and sequences with a latent graph: counts, posteriors, induction heads."""
