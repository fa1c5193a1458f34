"""JSON, JUnit XML, terminal and page: complete, valid, and unmoved by what a guest prints."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ElementTree
import xml.sax
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import junitparser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from results_samples import START, cells, fill

from dfbuild import report
from dfbuild.console.text import printable
from dfbuild.model import CheckResult, Expectation, Outcome, Sample, StageReached, StepKind, Verdict
from dfbuild.report import html, junit, terminal
from dfbuild.report import json as report_json
from dfbuild.report.failures import failures, told
from dfbuild.results.compare import Comparison, compare
from dfbuild.results.directory import cell_directory
from dfbuild.results.records import (
    CellRecord,
    CrashRecord,
    RefusalRecord,
    RunRecord,
    RunStatus,
    StepRecord,
)
from dfbuild.results.store import Store
from dfbuild.results.verdict import hang_title
from dfbuild.workspace import Workspace

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "]]></failure><testsuite/><!--",
    "\x1b]0;title\x07\x1b[31;1mred\x1b[0m\x1b[2J",
    "nul\0bell\x07back\x08\x9b31m",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "[bold red]markup[/] :boom: {{ 7 * 7 }} {% raw %}",
    "\udc80\ud800 lone, \ufffe\uffff none",
    "two\r\nlines\u2028three",
)
ANY = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=()), max_size=60))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def nights(workspace: Workspace) -> tuple[RunRecord, Comparison]:
    """A bad night, and what changed since the good one before."""
    good, bad = fill(workspace), fill(workspace, day=1, worse=True)
    with Store.open(workspace.database) as store:
        return store.run(bad), compare(store.snapshot(bad), store.snapshot(good))


def hostile_run(text: str) -> RunRecord:
    """A run in which everything that could say `text` says it."""
    check = CheckResult(
        f"security/{text}",
        Outcome.FAIL,
        Expectation.PASS,
        text,
        text,
        0.1,
        (Sample(text, text, (1.0, 2.0)),),
        (0, 9999),
        {text: text},
    )
    every = tuple(replace(check, check=f"{outcome}/{text}", outcome=outcome) for outcome in Outcome)
    cell = CellRecord(
        id=f"{text} @ {text}",
        attributes={**cells()[0].attributes(), "toolchain": text, "shape": text},
        suites=(text,),
        verdict=Verdict.PANIC,
        title=text,
        attempt=1,
        accel=text,
        command=(text,),
        steps=(text,),
        stages=(StageReached(text, 1.0, 0),),
        checks=every,
        crash=CrashRecord(text, text, 3, text),
    )
    built = StepRecord(text, StepKind.WORLD, text, text, Verdict.PASS, facts={text: {text: [text]}})
    broken = StepRecord(f"{text}2", StepKind.WORLD, text, text, Verdict.BUILD_FAIL, title=text, tail=text, log=text)
    return RunRecord(
        id="20261124-031500-hostile",
        name=text,
        status=RunStatus.FINISHED,
        started=START,
        finished=START,
        config_file=text or "x",
        config_text=text,
        command=(text,),
        options=(text,),
        versions={text: text},
        steps=(built, broken),
        cells=(cell, replace(cell, id=f"{text} 2", steps=(broken.id,), verdict=Verdict.BUILD_FAIL)),
        refusals=(RefusalRecord(f"{text} 3", cell.attributes, text),),
    )


def against_nothing(run: RunRecord) -> Comparison:
    empty = replace(run, id="20261123-031500-hostile", cells=run.cells[:1])
    return compare(run.snapshot, empty.snapshot)


@pytest.fixture(scope="module")
def hostile_console(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("hostile"))


def with_console(workspace: Workspace, run: RunRecord, data: bytes) -> None:
    for cell in run.cells:
        directory = cell_directory(workspace, run.id, cell.id, cell.attempt)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "console.log").write_bytes(data)


hostile = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# ── JSON ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_json_keeps_to_its_schema_and_has_everything(nights: tuple[RunRecord, Comparison]) -> None:
    run, comparison = nights
    document = json.loads(report_json.render(run, comparison))
    jsonschema.Draft202012Validator(report_json.schema()).validate(document)
    assert document["exit_status"] == 1 and document["run"]["id"] == run.id
    assert len(document["run"]["cells"]) == 16
    assert {change["kind"] for change in document["comparison"]["checks"]} == {"new failure", "known"}
    assert all(failure["repeat"].startswith("dfbuild matrix ") for failure in document["failures"])
    first = document["run"]["cells"][0]["checks"][1]["samples"][0]
    assert first["metric"] == "scheduler/pipe" and len(first["values"]) == 30


def test_the_published_schema_is_current() -> None:
    published = Path(report.__file__).parents[2] / "docs" / "report-schema.json"
    assert json.loads(published.read_text()) == report_json.schema(), (
        "write it anew: dfbuild schema report > docs/report-schema.json"
    )


def test_the_schema_refuses_what_is_not_a_report(nights: tuple[RunRecord, Comparison]) -> None:
    document = json.loads(report_json.render(*nights))
    document["run"]["cells"][0]["verdict"] = "FINE"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(report_json.schema()).validate(document)


# ── JUnit ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_junit_has_a_suite_for_every_cell(nights: tuple[RunRecord, Comparison], workspace: Workspace) -> None:
    run, _ = nights
    read = junitparser.JUnitXml.fromstring(junit.render(run, workspace).encode())
    suites = {suite.name: suite for suite in read}
    assert [*suites] == [*(cell.id for cell in run.cells), "refused"]
    by_cell = {
        cell.id: {(case.classname.rpartition(".")[2], case.name): case for case in suites[cell.id]}
        for cell in run.cells
    }
    failing, hung, crashed = (by_cell[cell.id] for cell in run.cells[:3])
    (failure,) = failing["security", "stack-smash"].result
    assert isinstance(failure, junitparser.Failure) and failure.type == "fail"
    assert "repeat: dfbuild matrix" in failure.text and "the guard was not checked" in failure.text
    assert isinstance(failing["network", "rst-in-window"].result[0], junitparser.Skipped)
    assert "FIXED" in failing["security", "pid-randomness"].system_out
    assert hung["guest", "boot"].result[0].type == "HANG"
    assert "Kernel panic" in crashed["guest", "boot"].result[0].text
    broken = by_cell[run.cells[-1].id]
    assert broken["build", "world clang-14"].result[0].type == "BUILD_FAIL"
    assert ("guest", "boot") not in broken
    properties = {one.name: one.value for one in suites[run.cells[0].id].properties()}
    assert properties["verdict"] == "TEST_FAIL" and properties["accel"] == "tcg"
    assert properties["toolchain"] == "gcc-12" and properties["key"] == "c" * 20
    assert read.failures == 1 + 1 + 1 + 4 and read.errors == 0


@given(text=ANY)
@hostile
def test_junit_is_valid_whatever_a_guest_prints(hostile_console: Workspace, text: str) -> None:
    run = hostile_run(text)
    with_console(hostile_console, run, text.encode("utf-8", "surrogatepass"))
    xml_text = junit.render(run, hostile_console)
    xml.sax.parseString(xml_text.encode(), xml.sax.ContentHandler())
    root = ElementTree.fromstring(xml_text)
    assert {element.tag for element in root.iter()} <= {
        "testsuites",
        "testsuite",
        "properties",
        "property",
        "testcase",
        "failure",
        "error",
        "skipped",
        "system-out",
    }
    read = junitparser.JUnitXml.fromstring(xml_text.encode())
    assert len(list(read)) == 3


@given(data=st.binary(max_size=300))
@hostile
def test_junit_takes_any_console_bytes(hostile_console: Workspace, data: bytes) -> None:
    run = hostile_run("plain")
    with_console(hostile_console, run, data)
    ElementTree.fromstring(junit.render(run, hostile_console))


# ── the page ───────────────────────────────────────────────────────────────────────────────────────────────────


class Elements(HTMLParser):
    """All elements with their attributes, and the text outside of style and script."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self._quiet = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self._quiet = tag in ("style", "script")
        for name, value in attrs:
            if name in ("href", "src", "action", "style"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._quiet = False

    def handle_data(self, data: str) -> None:
        if not self._quiet:
            self.text += data


@given(text=ANY)
@hostile
def test_no_element_of_the_page_comes_from_a_guest(hostile_console: Workspace, text: str) -> None:
    harmless, run = hostile_run("x" * len(text) or ""), hostile_run(text)
    with_console(hostile_console, run, text.encode("utf-8", "surrogatepass"))
    page = html.render(run, against_nothing(run), hostile_console)
    found = Elements(page)
    allowed = {element for element, _ in Elements(html.render(harmless, None, hostile_console)).elements}
    allowed |= {"svg", "line", "ellipse", "details", "summary", "pre", "span", "i", "table", "tr", "td", "article"}
    assert {element for element, _ in found.elements} <= allowed | {"tbody", "thead", "th", "br", "dl", "dt", "dd"}
    assert not any(name.startswith("on") for _, names in found.elements for name in names)
    assert [tag for tag, _ in found.elements].count("script") == 1
    # Whatever stands there is printable: no escape, no NUL, no mark that reorders a line.
    assert all(character.isprintable() or character in "\n\t" for character in page)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_not_swallowed(hostile_console: Workspace, text: str) -> None:
    run = hostile_run(text)
    with_console(hostile_console, run, b"")
    spelt = printable(text.encode("utf-8", "backslashreplace"))
    shown = Elements(html.render(run, None, hostile_console)).text
    assert shown.count(spelt) >= 5


def test_the_page_needs_nothing_else(nights: tuple[RunRecord, Comparison], workspace: Workspace) -> None:
    page = html.render(*nights, workspace)
    found = Elements(page)
    assert found.links and all(link.startswith("#") for link in found.links)
    assert {link[1:] for link in found.links} <= set(found.ids) and len(set(found.ids)) == len(found.ids)
    assert not {tag for tag, _ in found.elements} & {"link", "img", "iframe", "object", "base", "form"}
    assert "url(" not in page and "@import" not in page
    assert "default-src &#39;none&#39;" in page
    assert len(page) < 400_000


def test_the_policy_allows_our_own_style_and_script_and_no_other(
    nights: tuple[RunRecord, Comparison], workspace: Workspace
) -> None:
    import base64
    import hashlib
    import re

    page = html.render(*nights, workspace)
    for tag in ("style", "script"):
        (body,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in page.replace("&#43;", "+")


def test_the_page_tells_the_night(nights: tuple[RunRecord, Comparison], workspace: Workspace) -> None:
    run, comparison = nights
    shown = " ".join(Elements(html.render(run, comparison, workspace)).text.split())
    for words in (
        "Regressions",
        "took 3 min 41 s",
        "panic: stack-protector: Kernel stack is corrupted in: do_fork",
        "CPU: 1 PID: 77 Comm: hog Not tainted",
        "use of undeclared identifier 'uint'",
        "no challenge ACK before 4.2",
        "the release has no Xen PV kernel <evidence: sys/platform>",
        "8 checks not reached",
        "×1.29",
        "11 of them with too few samples",
        "GCC: (Debian 12.2.0-14) 12.2.0",
        f"matrix configs/reference.toml --cell '{run.cells[0].id}' --check security/stack-smash --via serial",
    ):
        assert words in shown
    # One build step broke four cells: one failure, four links.
    assert shown.count("use of undeclared identifier") == 1


def test_a_disaster_still_gives_a_page_that_opens(hostile_console: Workspace) -> None:
    run = hostile_run("plain")
    failed = tuple(
        CheckResult(f"a/{number}", Outcome.FAIL, detail=f"{number} {'<detail> ' * 20_000}", console=(0, 50))
        for number in range(2000)
    )
    run = replace(run, cells=(replace(run.cells[0], checks=failed, verdict=Verdict.TEST_FAIL, crash=None),))
    with_console(hostile_console, run, b"flood\n" * 10_000)
    page = html.render(run, None, hostile_console)
    assert len(page) < 8_000_000 and "and 1700 failures more" in page
    text = terminal.render(run, None, hostile_console)
    assert len(text) < 300_000 and "and 1800 failures more" in text


def test_a_line_that_repeats_a_cell_runs_the_checks_that_the_run_did(
    nights: tuple[RunRecord, Comparison], hostile_console: Workspace
) -> None:
    run = replace(nights[0], command=("dfbuild", "matrix", "x.toml", "--check=security/*", "--via", "serial"))
    lines = {failure.what: failure.repeat for failure in failures(run)}
    for what in ("PANIC", "HANG", "BUILD_FAIL"):
        assert lines[what].endswith(" --check 'security/*' --via serial")
    assert lines["fail"].endswith(" --check security/stack-smash --via serial")
    assert html.render(run, None, hostile_console).count("--check &#39;security/*&#39;") == 3 + len(run.cells)


def test_a_check_that_knows_no_place_shows_no_console(hostile_console: Workspace) -> None:
    run = hostile_run("plain")
    failed = (CheckResult("a/b", Outcome.FAIL, detail="seen"),)
    run = replace(run, cells=(replace(run.cells[0], checks=failed, verdict=Verdict.TEST_FAIL, crash=None),))
    with_console(hostile_console, run, b"unrelated\n")
    assert "unrelated" not in terminal.render(run, None, hostile_console)


CRASHED = "panic: of page fault"
CRASH = CrashRecord(f"{CRASHED} at trap (trap.c:12)", "panic", 6, "panic: of page fault\ntrace")
NOTICED = "dfbuild.errors.GuestCrashed: panic: of page fault\n  at ssh.py:12\npanic: of page fault"
LOST = "dfbuild.shell.errors.ShellLost: the connection ended\n  at ssh.py:90\npanic: of page fault"
FOUND = "AssertionError: 3 of 4 came\n  at test_a.py:7\npanic: of page fault"


@pytest.mark.parametrize(("detail", "folded"), [(NOTICED, True), (LOST, True), (CRASHED, True), (FOUND, False)])
def test_a_crash_is_told_once_with_the_check_that_it_ended(
    hostile_console: Workspace, detail: str, folded: bool
) -> None:
    run = hostile_run("plain")
    checks = (
        CheckResult("a/earlier", Outcome.FAIL, detail="AssertionError: by itself", console=(0, 3)),
        CheckResult("a/last", Outcome.FAIL, detail=detail, console=(6, 30)),
        CheckResult("a/later", Outcome.SKIP, reason=f"the guest is gone: {CRASHED}"),
    )
    run = replace(run, cells=(replace(run.cells[0], checks=checks, title=CRASH.title, crash=CRASH),))
    with_console(hostile_console, run, b"boot\r\npanic: of page fault\r\n")
    assert [failure.check for failure in told(run)] == ["", "a/earlier", *([] if folded else ["a/last"])]
    assert [failure.check for failure in failures(run)] == ["", "a/earlier", "a/last"]
    text = terminal.render(run, None, hostile_console)
    page = Elements(html.render(run, None, hostile_console)).text
    assert ("  while a/last ran\n" in text) is ("while a/last ran" in page) is folded
    assert ("FAIL  a/last" in text) is not folded
    junit_text, json_failures = junit.render(run, hostile_console), json.loads(report_json.render(run))["failures"]
    assert junitparser.JUnitXml.fromstring(junit_text.encode()).failures == 3
    assert not [word for word in (text, page, junit_text, str(json_failures)) if "dfbuild." in word]


def test_checks_of_a_cell_that_failed_in_the_same_words_are_told_once(hostile_console: Workspace) -> None:
    run = hostile_run("plain")
    words = {"a/one": "timed out", "a/two": "timed out", "a/three": "3 of 4 came", "a/four": "", "a/five": ""}
    checks = tuple(CheckResult(name, Outcome.FAIL, detail=detail) for name, detail in words.items())
    run = replace(run, cells=(replace(run.cells[0], verdict=Verdict.TEST_FAIL, checks=checks, crash=None),))
    found = [(one.check, one.also) for one in told(run)]
    assert found == [("a/one", ("a/two",)), ("a/three", ()), ("a/four", ()), ("a/five", ())]
    assert len(failures(run)) == 5
    assert "  also a/two\n" in terminal.render(run, None, hostile_console)
    assert ", also a/two" in Elements(html.render(run, None, hostile_console)).text


def test_a_hang_is_told_once_with_the_check_in_which_it_came(hostile_console: Workspace) -> None:
    run = hostile_run("plain")
    checks = tuple(CheckResult(name, Outcome.FAIL, detail="no answer") for name in ("a/earlier", "a/last"))
    title = hang_title("a/last", "it no longer answers; cpu 0 at spin+0x0")
    run = replace(run, cells=(replace(run.cells[0], verdict=Verdict.HANG, checks=checks, title=title, crash=None),))
    with_console(hostile_console, run, b"boot\r\n")
    assert [(one.check, one.during) for one in told(run)] == [("", "a/last"), ("a/earlier", "")]


@pytest.mark.parametrize("place", [6, 24], ids=["more came later", "nothing came later"])
def test_of_a_check_during_which_the_console_was_silent_no_lines_are_shown(
    hostile_console: Workspace, place: int
) -> None:
    run = hostile_run("plain")
    failed = (CheckResult("a/b", Outcome.FAIL, detail="seen", console=(place, place)),)
    run = replace(run, cells=(replace(run.cells[0], checks=failed, verdict=Verdict.TEST_FAIL, crash=None),))
    with_console(hostile_console, run, b"boot\r\nof another check\r\n")
    for shown in (
        terminal.render(run, None, hostile_console),
        Elements(html.render(run, None, hostile_console)).text,
        junit.render(run, hostile_console),
    ):
        assert "another check" not in shown
    assert "  the console was silent\n" in terminal.render(run, None, hostile_console)
    assert "the console was silent" in html.render(run, None, hostile_console)


def test_the_template_never_trusts_text() -> None:
    folder = Path(report.__file__).parent / "templates"
    template = (folder / "report.html.j2").read_text()
    assert "|safe" not in template.replace(" ", "") and "autoescape" not in template


# ── terminal ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_plain_text_tells_the_night(
    nights: tuple[RunRecord, Comparison], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    run, comparison = nights
    text = terminal.render(run, comparison, workspace)
    assert "\x1b" not in text
    for line in (
        f"  repeat: dfbuild matrix configs/reference.toml --cell '{run.cells[0].id}'"
        " --check security/stack-smash --via serial",
        f"PANIC  {run.cells[2].id}",
        f"HANG  {run.cells[1].id}",
        f"FIXED  security/pid-randomness  in {run.cells[0].id}",
        f"  also in {run.cells[-1].id}",
        "  new failure (8):",
        "  known, unchanged: 24 checks",
        f"since {comparison.against}:",
    ):
        assert line in text.splitlines()
    assert "│ Kernel panic - not syncing" in text and "refused (1):" in text
    assert text.rstrip().endswith("in 3 min 41 s: regressions")


def test_nothing_is_said_of_changes_when_there_are_none(workspace: Workspace) -> None:
    run = fill(workspace, day=2)
    with Store.open(workspace.database) as store:
        record = store.run(run)
    text = terminal.render(record, compare(record.snapshot, record.snapshot), workspace)
    assert "no change" in text and "new failure" not in text and text.rstrip().endswith("all as expected")


@given(text=ANY)
@hostile
def test_no_guest_controls_the_terminal(hostile_console: Workspace, text: str) -> None:
    run = hostile_run(text)
    with_console(hostile_console, run, text.encode("utf-8", "surrogatepass"))

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    terminal.show(run, against_nothing(run), hostile_console, stream)
    plain = terminal.render(run, against_nothing(run), hostile_console)
    assert all(character.isprintable() or character == "\n" for character in plain.expandtabs())
    # In colour the only escapes are those that rich makes: colours and styles.
    bare = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert all(character.isprintable() or character in "\n\t" for character in bare)


@pytest.mark.parametrize("columns", [60, 80, 100, 120, 200])
def test_no_terminal_is_too_narrow_for_cells_verdicts_and_counts(
    nights: tuple[RunRecord, Comparison], workspace: Workspace, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = nights
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = io.StringIO()
    terminal.show(run, None, workspace, stream)
    assert not re.search(r" $", stream.getvalue(), re.MULTILINE)
    _, table, *_ = ("".join(part.split()) for part in stream.getvalue().split("\n\n"))
    for cell in run.cells:
        if columns >= 80:  # where it is not folded
            assert "".join(cell.id.split()) in table
        for outcome in {check.outcome for check in cell.checks}:
            shown = "FAIL" if outcome is Outcome.FAIL else outcome
            assert f"{cell.count(outcome)}{shown}" in table


# ── all together ───────────────────────────────────────────────────────────────────────────────────────────────


def test_write_all_writes_all_and_leaves_nothing_else(
    nights: tuple[RunRecord, Comparison], workspace: Workspace, tmp_path: Path
) -> None:
    run, comparison = nights
    paths = report.write_all(run, comparison, workspace, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "junit.xml",
        "report.html",
        "report.json",
        "report.txt",
    ]
    assert paths.html.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert json.loads(paths.json.read_text())["run"]["id"] == run.id
    assert report.write_all(run, None, workspace).text == workspace.run(run.id) / "report.txt"


def test_a_run_that_never_got_anywhere_can_be_reported(workspace: Workspace, tmp_path: Path) -> None:
    with Store.open(workspace.database) as store:
        from results_samples import info

        run = store.run(store.begin(info(day=5)))
    report.write_all(run, compare(run.snapshot, run.snapshot), workspace, tmp_path)
    assert "16 unfinished" in (tmp_path / "report.txt").read_text()
    junitparser.JUnitXml.fromfile(str(tmp_path / "junit.xml"))
