"""What a mask allows: flow, symmetry and the positions that nobody gave."""

# In the order of the argument.
PARTS = ("flow", "symmetry", "running_means", "segments_and_blocks", "scales_and_labels", "random_order", "last_token")
