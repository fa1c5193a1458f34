"""All the reports of a run into its directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dfbuild.results.compare import Comparison
from dfbuild.results.records import RunRecord
from dfbuild.workspace import Workspace, atomic_write


@dataclass(frozen=True, slots=True)
class ReportPaths:
    html: Path
    json: Path
    junit: Path
    text: Path


def write_all(
    run: RunRecord, comparison: Comparison | None, workspace: Workspace, directory: Path | None = None
) -> ReportPaths:
    """Write report.html, report.json, junit.xml and report.txt, each atomically; `directory` is the run's own."""
    from dfbuild.report import html, json, junit, terminal

    where = directory or workspace.run(run.id)
    paths = ReportPaths(
        html=where / "report.html",
        json=where / "report.json",
        junit=where / "junit.xml",
        text=where / "report.txt",
    )
    atomic_write(paths.html, html.render(run, comparison, workspace))
    atomic_write(paths.json, json.render(run, comparison))
    atomic_write(paths.junit, junit.render(run, workspace))
    atomic_write(paths.text, terminal.render(run, comparison, workspace))
    return paths
