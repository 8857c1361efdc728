"""Layer-wise CKA of two models."""
