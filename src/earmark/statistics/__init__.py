"""Intervals, null distributions and multiple testing."""
