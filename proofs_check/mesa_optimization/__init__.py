"""What can be proved of next-state prediction by one gradient step; the argument begins in ``step_and_flow.py``."""

PARTS = ("step_and_flow", "recovery")
