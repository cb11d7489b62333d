"""What an attention pattern lets through, whatever the weights: reachability, averaging, symmetry, rounding."""
