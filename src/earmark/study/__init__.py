"""Studies: from a configuration to records."""
