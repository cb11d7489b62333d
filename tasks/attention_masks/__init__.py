"""What training makes of a mask: positions, pointers and a change of sight."""

# In the order of the argument.
PARTS = ("random_networks", "first_symbol", "pointers", "switched_masks")
