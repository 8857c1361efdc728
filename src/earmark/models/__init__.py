"""Models: every id or module becomes one frozen `Classifier`."""
