"""Where the notebooks find the checklist."""

from fer_utils.report.checklist import checklist

__all__ = ["checklist"]
