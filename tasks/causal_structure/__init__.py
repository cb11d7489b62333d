"""How gradient descent finds a hidden causal graph, in parts."""
