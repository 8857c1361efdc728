"""Where the rooms meet: what is measured, of whom, on what, becomes records."""
