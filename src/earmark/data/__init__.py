"""On what models are measured: images with labels, images with concepts, public tables."""
