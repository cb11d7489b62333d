"""What next-token prediction learns of a graph that has to be planned; the argument begins in ``objectives.py``."""
