"""What transformers can learn in context: the trainings, a part an idea."""

# In the order of the argument.
PARTS = ("linear_functions", "other_classes", "interleaved_tokens", "an_equation")
