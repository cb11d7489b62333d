"""Saying again what was said: copying strings, recalling values by keys, and what a memory of bounded size can hold."""
