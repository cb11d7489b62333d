"""Masks and caches: what may be reused under which mask, how masks agree, and what they cost."""

# In the order of the argument.
PARTS = ("reuse", "windows", "sharing", "costs")
