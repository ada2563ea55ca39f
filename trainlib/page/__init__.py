"""The report of a run as a page: one HTML file, made of its record, report.json, and of nothing else.

`record` is what the record's keys mean and how one is read back, `sections` what is on the page, `charts` how numbers
become pictures, `compare` what two runs differ in, `markup` the one place where text becomes HTML.
"""

from __future__ import annotations

from trainlib.page.compare import compare
from trainlib.page.comparison import comparison_page
from trainlib.page.record import Record, read
from trainlib.page.sections import page

__all__ = ["Record", "compare", "comparison_page", "page", "read"]
