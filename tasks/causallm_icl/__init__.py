"""CausalLM is not optimal for in-context learning: measurements and trainings, a part an idea."""
