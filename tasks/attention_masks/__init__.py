"""What training makes of a mask: positions, pointers and a change of sight; the argument begins in ``random_networks.py``."""
