"""What transformers can learn in context: the trainings, a part an idea; the argument begins in ``linear_functions.py``."""
