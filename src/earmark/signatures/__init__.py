"""Robustness signatures: functions of arrays that return frozen results."""
