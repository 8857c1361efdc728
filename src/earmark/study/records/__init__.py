"""Record makers, one file for each signature."""
