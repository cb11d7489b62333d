"""What next-token prediction learns of a graph that has to be planned."""

# In the order of the argument.
PARTS = ("objectives", "other_sizes", "conditions", "partial_credit")
