"""Figures of the report: each one a Vega-Lite spec, for the page and for files."""
