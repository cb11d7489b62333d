"""In-context regression: linear, mixtures of tasks, function classes; least squares, gradient descent, Kaczmarz, Bayes."""
