"""One claim as a script of its own: the source it depends on, gathered name by name, and what runs it without the lab."""
