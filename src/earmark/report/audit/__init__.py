"""The audit: signatures against effective robustness over models."""
