"""Validation of datasets on disk, before a model is measured on them."""

from .detect import check_datasets
from .report import Fix, Issue, Report, escape_controls, write_fix_list

__all__ = ["Fix", "Issue", "Report", "check_datasets", "escape_controls", "write_fix_list"]
