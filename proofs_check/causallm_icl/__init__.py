"""CausalLM is not optimal for in-context learning: what follows without training, a part an idea."""
