"""Copying and recall, exactly: the relation network's three forms, memories of bounded size, grams, and associative recall."""

# In the order of the argument.
PARTS = ("relation_network", "bounded_memory", "position_copier", "gram_copying", "recall_circuit", "memory_laws")
