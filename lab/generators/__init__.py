"""Synthetic prompts, one module a domain; every field of a batch is drawn from its own named stream."""
