"""How transformers come to read Markov chains, in context and in the weights."""

# In the order of the argument.
PARTS = ("counting_in_context", "causal_and_prefix", "minimal_model", "trapped_unigram")
