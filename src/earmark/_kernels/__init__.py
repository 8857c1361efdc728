"""Compiled kernels that take and return arrays."""
