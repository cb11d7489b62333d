"""Transformers learn in-context by gradient descent: constructions and exact laws, a part an idea."""

# In the order of the argument.
PARTS = ("one_step", "many_layers", "least_losses", "separate_tokens")
