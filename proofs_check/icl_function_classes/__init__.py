"""Function classes in context, what can be computed without training."""

# In the order of the argument.
PARTS = ("linear_laws", "kernels", "sparse_functions", "hidden_equation")
