"""Results in; tables, figures and one page out."""

from .page.page import write_report

__all__ = ["write_report"]
