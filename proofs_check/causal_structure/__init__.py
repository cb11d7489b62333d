"""How attention finds a hidden causal graph, without training, in parts."""

# In the order of the argument.
PARTS = ("constructions", "references", "first_gradient", "exact_start")
