"""What training makes of a layer that is iterated: as many steps as a task is deep."""

PARTS = ("trained_depth",)
