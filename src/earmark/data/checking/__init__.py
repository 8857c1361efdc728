"""Whether a dataset on disk is what it should be, before a model is measured on it."""

from .finding import check
from .reports import Fault, Fix, Report, write_fix_list

__all__ = ["Fault", "Fix", "Report", "check", "write_fix_list"]
