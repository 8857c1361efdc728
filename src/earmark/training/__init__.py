"""Training: a `Classifier` in, a trained `Classifier` out."""
