"""Accuracy without labels, from class logits."""
