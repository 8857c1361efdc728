"""Weight-space operations without training: interpolation, soups, low rank."""
