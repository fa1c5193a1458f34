"""JUnit XML: a test suite for every cell, with its build steps, its guest and its checks as test cases.

`known` becomes *skipped* with its reason, since JUnit has no word for it; `fixed` passes and says so. A PANIC,
HANG or BOOT_FAIL is a failure of the case `guest`, INFRA an error of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dfbuild.model import CheckResult, Outcome, StepKind, Verdict
from dfbuild.report.excerpt import Excerpts
from dfbuild.report.failures import Failure, failures, plain
from dfbuild.report.text import safe, safe_line
from dfbuild.results.records import CellRecord, RunRecord, StepRecord
from dfbuild.workspace import Workspace

if TYPE_CHECKING:
    from junitparser import TestCase, TestSuite
    from junitparser.junitparser import FinalResult


def render(run: RunRecord, workspace: Workspace) -> str:
    """The run as JUnit XML. Valid XML 1.0 whatever the guests printed: `safe` leaves no illegal character."""
    from junitparser import JUnitXml

    wrong = {(failure.cell, failure.check): failure for failure in failures(run)}
    steps = {step.id: step for step in run.steps}
    excerpts = Excerpts(workspace, run)
    xml = JUnitXml(safe_line(run.name))
    for cell in run.cells:
        xml.add_testsuite(_suite(run, cell, steps, wrong, excerpts))
    if run.refusals:
        xml.add_testsuite(_refused(run))
    xml.update_statistics()  # type: ignore[no-untyped-call]
    text: bytes = xml.tostring()  # type: ignore[no-untyped-call]
    return text.decode()


def _suite(
    run: RunRecord,
    cell: CellRecord,
    steps: dict[str, StepRecord],
    wrong: dict[tuple[str, str], Failure],
    excerpts: Excerpts,
) -> TestSuite:
    from junitparser import TestSuite

    suite = TestSuite(safe_line(cell.id))
    suite.timestamp = run.started.isoformat(timespec="seconds")
    for name, value in _properties(cell, steps):
        suite.add_property(safe_line(name), safe_line(str(value)))
    for step_id in cell.steps:
        if step_id in steps:
            suite.add_testcase(_step(cell, steps[step_id]))
    failed_build = any(steps[s].verdict is not Verdict.PASS for s in cell.steps if s in steps)
    if not failed_build:
        suite.add_testcase(_guest(cell, wrong.get((cell.id, "")), excerpts))
    for check in cell.checks:
        suite.add_testcase(_check(cell, check, wrong.get((cell.id, check.check)), excerpts))
    return suite


def _properties(cell: CellRecord, steps: dict[str, StepRecord]) -> Iterator[tuple[str, object]]:
    yield "verdict", cell.verdict or "unfinished"
    if cell.title:
        yield "title", cell.title
    yield from cell.attributes.items()
    if cell.accel:
        yield "accel", cell.accel
    image = next((steps[s] for s in reversed(cell.steps) if s in steps and steps[s].kind is StepKind.IMAGE), None)
    if image is not None:
        yield "key", image.key


def _case(cell: CellRecord, group: str, name: str, seconds: float) -> TestCase:
    from junitparser import TestCase

    return TestCase(safe_line(name), classname=f"{safe_line(cell.id)}.{safe_line(group)}", time=round(seconds, 3))


def _step(cell: CellRecord, step: StepRecord) -> TestCase:
    import junitparser as j

    case = _case(cell, "build", f"{step.kind} {step.name}", step.seconds)
    message, text = safe_line(step.title), safe(step.tail)
    match step.verdict:
        case Verdict.PASS:
            case.system_out = f"key {safe_line(step.key)}{', cached' if step.cached else ''}"
        case Verdict.INFRA:
            case.result = [_filled(j.Error(message, str(step.verdict)), text)]
        case Verdict.SKIP:
            case.result = [j.Skipped(message)]
        case _:
            case.result = [_filled(j.Failure(message, str(step.verdict)), text)]
    return case


def _guest(cell: CellRecord, failure: Failure | None, excerpts: Excerpts) -> TestCase:
    """The guest's own life: it boots, reaches its stages and comes through the suites."""
    import junitparser as j

    case = _case(cell, "guest", "boot", cell.boot_seconds)
    stages = "\n".join(f"{stage.seconds:9.3f} s  {safe_line(stage.stage)}" for stage in cell.stages)
    if stages:
        case.system_out = stages
    if failure is not None:
        text = _story(cell, failure, excerpts)
        kind = j.Error if failure.what == Verdict.INFRA else j.Failure
        case.result = [_filled(kind(safe_line(cell.title), failure.what), text)]
    elif cell.verdict is None:
        case.result = [j.Error("not finished", "unfinished")]
    elif cell.verdict is Verdict.SKIP:
        case.result = [j.Skipped(safe_line(cell.title))]
    return case


def _check(cell: CellRecord, check: CheckResult, failure: Failure | None, excerpts: Excerpts) -> TestCase:
    import junitparser as j

    suite, _, name = check.check.partition("/")
    case = _case(cell, suite, name or suite, check.duration)
    match check.outcome:
        case Outcome.FAIL:
            text = _story(cell, failure, excerpts) if failure else safe(check.detail)
            case.result = [_filled(j.Failure(safe_line(plain(check.detail)), "fail"), text)]
        case Outcome.KNOWN | Outcome.SKIP:
            case.result = [_filled(j.Skipped(safe_line(f"{check.outcome}: {check.reason}")), safe(check.detail))]
        case Outcome.FIXED:
            case.system_out = f"FIXED: was expected to be broken. {safe(check.reason)}"
        case Outcome.PASS:
            pass
    return case


def _story(cell: CellRecord, failure: Failure, excerpts: Excerpts) -> str:
    console = "\n".join(str(line) for line in excerpts.of(cell, failure))
    parts = [safe(failure.detail), f"console:\n{console}" if console else "", f"repeat: {safe(failure.repeat)}"]
    return "\n\n".join(part for part in parts if part)


def _filled(result: FinalResult, text: str) -> FinalResult:
    result.text = text
    return result


def _refused(run: RunRecord) -> TestSuite:
    from junitparser import Skipped, TestCase, TestSuite

    suite = TestSuite("refused")
    for refusal in run.refusals:
        case = TestCase(safe_line(refusal.id), classname="refused", time=0.0)
        case.result = [Skipped(safe_line(f"refused: {refusal.reason}"))]
        suite.add_testcase(case)
    return suite
