"""`dfbuild matrix` as its users run it: real builds, real boots, real suites, and what goes wrong with them."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dfbuild.report.json import schema
from dfbuild.workspace import Workspace

pytestmark = pytest.mark.boot

CONFIG = Path(__file__).parents[2] / "configs" / "reference.toml"
RELEASE = Path(__file__).parents[2] / "dfbuild" / "releases" / "reference.toml"
TWO = "toolchain=gcc-12 and stack_protector=on and shape=up,nx-off"
CTRL_C_SECONDS = 3.0


def command(workspace: Workspace, *words: str) -> list[str]:
    return [sys.executable, "-m", "dfbuild", *words, "--work", str(workspace.root)]


def dfbuild(workspace: Workspace, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(workspace, *words), capture_output=True, text=True, check=False)


def matrix_json(workspace: Workspace, *words: str, status: int = 0) -> dict[str, Any]:
    done = dfbuild(workspace, "matrix", *words, "--json")
    assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout)
    jsonschema.validate(report, schema())
    return report["run"]  # type: ignore[no-any-return]


def hypervisors(workspace: Workspace) -> list[str]:
    """Command lines of QEMU processes that use `workspace`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_text(errors="replace").replace("\0", " ")
        except (OSError, ValueError):
            continue
        if "qemu-system" in line and str(workspace.root) in line:
            found.append(line)
    return found


def wait_until_gone(workspace: Workspace, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := hypervisors(workspace)) and time.monotonic() < end:
        time.sleep(0.05)  # the end of what is nobody's child here is no event
    assert not left


def lines_until(process: subprocess.Popen[str], wanted: str) -> Iterator[str]:
    """Progress lines up to the first that begins (after its time) with `wanted`."""
    assert process.stderr is not None
    for line in process.stderr:
        yield line
        if line.split(maxsplit=1)[1].startswith(wanted):
            return
    pytest.fail(f"no line {wanted!r}")


def altered(tmp_path: Path, old: str, new: str, *, shapes: str = '["up"]') -> Path:
    """A matrix of one build on a copy of the release whose text `old` reads `new`."""
    text = RELEASE.read_text(encoding="utf-8")
    assert text.count(old) == 1
    release = tmp_path / "reference.toml"
    release.write_text(text.replace(old, new), encoding="utf-8")
    config = tmp_path / "matrix.toml"
    config.write_text(
        f"""
        release = "./reference.toml"
        [axes]
        toolchain = ["gcc-12"]
        stack_protector = ["off"]
        kernel = ["smp"]
        shape = {shapes}
        suites = ["security"]
        """,
        encoding="utf-8",
    )
    return config


def test_cells_pass_are_reported_and_come_from_the_cache_the_next_time(workspace: Workspace) -> None:
    run = matrix_json(workspace, str(CONFIG), "--filter", TWO)
    assert {cell["verdict"] for cell in run["cells"]} == {"PASS"}
    outcomes = {
        (cell["attributes"]["shape"], check["check"]): check["outcome"]
        for cell in run["cells"]
        for check in cell["checks"]
    }
    assert outcomes["up", "security/nx-stack"] == "pass"
    assert outcomes["nx-off", "security/nx-stack"] == "known"
    directory = workspace.run(run["id"])
    for report in ("report.html", "report.json", "junit.xml", "report.txt"):
        assert (directory / report).stat().st_size > 500

    again = dfbuild(workspace, "matrix", str(CONFIG), "--filter", TWO, "--against", "last", "--check", "*/nx-*")
    assert again.returncode == 0, again.stdout + again.stderr
    steps = [line for line in again.stderr.splitlines() if "(cached)" in line]
    assert len(steps) == len(run["steps"])
    assert "2 PASS" in again.stdout


def test_kill_9_loses_nothing_and_resume_runs_what_is_missing(workspace: Workspace) -> None:
    words = ["matrix", str(CONFIG), "--filter", "toolchain=gcc-12 and stack_protector=on", "--guests", "1"]
    process = subprocess.Popen(
        command(workspace, *words, "--check", "security/*"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    seen = [
        *lines_until(process, "run"),
        *lines_until(process, "PASS       reference/"),
        *lines_until(process, "stage"),
    ]
    process.kill()
    process.wait()
    wait_until_gone(workspace, CTRL_C_SECONDS)
    run_id = seen[0].split()[2].rstrip(":")
    listed = json.loads(dfbuild(workspace, "runs", "--json").stdout)
    assert next(run for run in listed if run["id"] == run_id)["unfinished"] == 3

    done = dfbuild(workspace, "matrix", "--resume", run_id, "--json")
    assert done.returncode == 0, done.stderr
    cells = json.loads(done.stdout)["run"]["cells"]
    assert [cell["verdict"] for cell in cells] == ["PASS"] * 4
    finished = [cell["id"] for cell in cells if any(f"PASS       {cell['id']}" in line for line in seen)]
    assert len(finished) == 1
    assert finished[0] not in done.stderr, "what was finished is not run again"
    assert all(cell["checks"] for cell in cells)


def test_ctrl_c_ends_everything_within_three_seconds(workspace: Workspace) -> None:
    process = subprocess.Popen(
        command(workspace, "matrix", str(CONFIG), "--filter", TWO), stderr=subprocess.PIPE, text=True
    )
    list(lines_until(process, "stage"))
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert time.monotonic() - start < CTRL_C_SECONDS
    assert process.returncode == 130
    assert "--resume" in rest
    assert not hypervisors(workspace)


def test_a_regression_is_told_with_the_line_that_repeats_it(workspace: Workspace, tmp_path: Path) -> None:
    """A release that promises NX everywhere: on a machine without, the checks fail instead of being known."""
    config = altered(tmp_path, 'check = "security/nx-*"', 'check = "security/nothing-*"', shapes='["nx-off"]')
    done = dfbuild(workspace, "matrix", str(config), "--check", "security/nx-*")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "TEST_FAIL" in done.stdout
    line = next(line for line in done.stdout.splitlines() if "repeat: " in line and "security/nx-stack" in line)
    words = shlex.split(line.split("repeat: ")[1])
    assert words[0] == "dfbuild"
    repeated = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    assert repeated.returncode == 1
    assert "security/nx-stack" in repeated.stdout


def test_a_compiler_error_fails_the_build_and_names_it(workspace: Workspace, tmp_path: Path) -> None:
    config = altered(tmp_path, 'flags = ["-fno-stack-protector"]', 'flags = ["-fno-such-protector"]')
    run = matrix_json(workspace, str(config), status=1)
    assert run["cells"][0]["verdict"] == "BUILD_FAIL"
    failed = next(step for step in run["steps"] if step["verdict"] == "BUILD_FAIL")
    assert failed["kind"] == "world"
    assert "-fno-such-protector" in failed["tail"]
    assert Path(failed["log"]).read_text()


def test_a_toggle_that_did_not_take_fails_the_build(workspace: Workspace, tmp_path: Path) -> None:
    config = altered(tmp_path, 'flags = ["-fno-stack-protector"]', 'flags = ["-fstack-protector-all"]')
    run = matrix_json(workspace, str(config), status=1)
    assert run["cells"][0]["verdict"] == "BUILD_FAIL"
    assert "__stack_chk" in run["cells"][0]["title"]


@pytest.mark.parametrize(("fault", "verdict"), [("panic", "PANIC"), ("init-exit", "PANIC"), ("wedge", "HANG")])
def test_a_kernel_that_goes_wrong_gets_its_verdict(
    workspace: Workspace, tmp_path: Path, fault: str, verdict: str
) -> None:
    config = altered(tmp_path, "[kernels.smp]", f'[kernels.smp]\nappend = "dfbuild.fault={fault}"\n[kernels.other]')
    run = matrix_json(workspace, str(config), status=1)
    cell = run["cells"][0]
    assert cell["verdict"] == verdict
    assert cell["attempt"] == 1, "what the guest did is never tried again"
    if verdict == "PANIC":
        assert "panic" in cell["crash"]["excerpt"]
    else:
        outcomes = [check["outcome"] for check in cell["checks"]]
        assert outcomes.count("fail") == 1, "one check finds out, and no other one has to"
        assert set(outcomes) == {"fail", "skip"}
