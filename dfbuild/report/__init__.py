"""Reports of a stored run: terminal, JUnit XML, JSON and one self-contained HTML page.

In comes a `RunRecord` (and a `Comparison`), out goes text. What a guest printed is escaped by whoever shows it.
"""

from __future__ import annotations

from dfbuild.report.write import ReportPaths, write_all

__all__ = ["ReportPaths", "write_all"]
