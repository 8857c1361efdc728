"""How a model changes: a `Classifier` in, a `Classifier` out."""
