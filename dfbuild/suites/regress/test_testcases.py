"""Each of the tree's own test cases, compiled in the guest and run there by dfregress(8)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dfbuild.deadline import Deadline
from dfbuild.errors import DfbuildError
from dfbuild.releases import Release
from dfbuild.session.protocol import Session
from dfbuild.shell.protocol import Shell
from dfbuild.suites.probe import succeeded
from dfbuild.suites.regress import runlist

_TAIL = 1000


def test_testcase(
    testcase: runlist.Entry | DfbuildError,
    shell: Shell,
    release: Release,
    guest: Session,
    deadline: Deadline,
    tmp_path: Path,
    fact: Callable[[str, object], None],
) -> None:
    """It ends as RESULT_PASS, within the time that its line gives it on a machine that is as fast as it thinks."""
    if isinstance(testcase, DfbuildError):
        raise testcase
    line = testcase.line(release.console.slower(guest.manifest.accel) * guest.manifest.patience)
    (tmp_path / "runlist").write_text(f"{line}\n")
    place = release.shell.serial.directory
    files = {name: f"{place}/dfbuild.{name}" for name in ("runlist", "results")}
    shell.put(tmp_path / "runlist", files["runlist"], deadline)
    # It takes a file for its results only if that is there.
    succeeded(shell.run(f": >{files['results']}; {release.commands['testcase'].format(**files)}", deadline))
    shell.get(files["results"], tmp_path / "results", deadline)
    how = runlist.result((tmp_path / "results").read_bytes())
    fact("result", f"RESULT_{how.code.name}")
    assert how.code is runlist.Code.PASS, (
        f"RESULT_{how.code.name}, status {how.status}, signal {how.signal}: {how.said[-_TAIL:]}"
    )
