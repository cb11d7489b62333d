"""How attention finds a hidden causal graph, without training, in parts."""
