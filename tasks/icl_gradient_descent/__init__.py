"""Transformers learn in-context by gradient descent: the trainings, a part an idea."""
