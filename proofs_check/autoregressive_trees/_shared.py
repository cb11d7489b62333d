"""What the parts share."""

SLUG = "autoregressive-trees"
PAPER = "gan-2024-trees"
COUNTS = "counts of whole numbers"
