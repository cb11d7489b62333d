"""Structured mixers: which are attention, which are convolutions, and which of them read the future."""

# In the order of the argument.
PARTS = ("regions", "regions_on_a_grid", "monarch", "transforms", "two_axes", "time_series", "costs")
