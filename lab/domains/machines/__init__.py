"""Machines driven by next-token prediction: Turing machines, lag systems, automata, circuits and trees."""
