"""Transformers learn in-context by gradient descent: constructions and exact laws, a part an idea."""
