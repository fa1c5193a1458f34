"""A build can neither be pointed at the host's system nor reach anything but its own directory."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild import process
from dfbuild.deadline import Deadline
from dfbuild.errors import UsageError
from dfbuild.sandbox import Mount, Sandbox, require_destination

SYSTEM = ["/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sbin", "/sys", "/usr", "/var/lib"]
NAMES = st.lists(st.text("abcdefghij-_.", min_size=1, max_size=8).filter(lambda n: n.strip(".")), max_size=4)


@pytest.mark.parametrize("path", ["", ".", "relative", "a/b", "/", "//", "/.", "/tmp/..", "/var", *SYSTEM])
def test_refuses_empty_relative_root_and_system_destinations(path: str) -> None:
    with pytest.raises(UsageError):
        require_destination(Path(path))


@given(system=st.sampled_from(SYSTEM), names=NAMES)
def test_refuses_everything_below_a_system_directory(system: str, names: list[str]) -> None:
    with pytest.raises(UsageError):
        require_destination(Path(system, *names))


def test_refuses_a_link_that_leads_to_the_system(tmp_path: Path) -> None:
    link = tmp_path / "innocent"
    link.symlink_to("/etc")
    for path in (link, link / "below", link / ".." / "usr"):
        with pytest.raises(UsageError):
            require_destination(path)


def test_accepts_a_directory_of_ones_own(tmp_path: Path) -> None:
    assert require_destination(tmp_path) == tmp_path.resolve()


def test_refuses_to_run_without_a_destination_or_with_a_bad_one() -> None:
    for writable in ((), (Path(),), (Path("/"),), (Path("/etc"),)):
        with pytest.raises(UsageError):
            Sandbox(writable=writable).argv(["true"])


def inside(sandbox: Sandbox, script: str) -> process.Completed:
    return process.run(sandbox.argv(["/bin/sh", "-c", script]), Deadline.after(30, what="the sandbox"))


def test_only_its_own_directory_can_be_written(tmp_path: Path) -> None:
    own, outside = tmp_path / "own", tmp_path / "outside"
    own.mkdir()
    outside.mkdir()
    (outside / "input").write_text("as it was")
    sandbox = Sandbox(writable=(own,), readable=(outside,))
    done = inside(sandbox, f"cat {outside}/input > {own}/copy")
    assert done.status == 0, done.output
    assert (own / "copy").read_text() == "as it was"
    for victim in (outside / "new", outside / "input", Path("/usr/new"), Path("/etc/hostname"), Path("/root/new")):
        assert inside(sandbox, f"echo x > {victim}").status != 0, victim
    assert (outside / "input").read_text() == "as it was"
    assert not (outside / "new").exists()


def test_host_tmp_is_hidden_unless_named(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("x")
    if not tmp_path.is_relative_to("/tmp"):
        pytest.skip("pytest's directory is not in /tmp")
    assert inside(Sandbox(writable=(own,)), f"test -e {secret}").status != 0
    assert inside(Sandbox(writable=(own,), readable=(secret,)), f"test -e {secret}").status == 0


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("mounted", [False, True])
def test_the_hosts_daemons_cannot_be_asked_for_anything(tmp_path: Path, network: bool, mounted: bool) -> None:
    """Their sockets are in /run; who may only read can connect all the same."""
    with socket.socket(socket.AF_UNIX) as daemon:
        place = Path("/run") / f"dfbuild-test-{tmp_path.name}"
        try:
            daemon.bind(str(place))
        except PermissionError:
            pytest.skip("only root makes sockets in /run")
        try:
            mounts = (Mount(Path("/kit"), tmp_path),) if mounted else ()
            sandbox = Sandbox(writable=(tmp_path,), mounts=mounts, network=network)
            said = process.run(sandbox.argv(["ls", "-A", "/run"]), Deadline.after(20))
        finally:
            place.unlink()
    assert said.status == 0 and place.name not in said.output


def test_network_is_out_of_reach_unless_asked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        for network in (False, True):
            argv = Sandbox(writable=(tmp_path,), network=network).argv(["python3", "-c", script])
            assert (process.run(argv, Deadline.after(30)).status == 0) is network


def test_environment_and_capabilities_stay_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESTDIR", "/")
    sandbox = Sandbox(writable=(tmp_path,), environment={"SOURCE_DATE_EPOCH": "7"})
    done = inside(sandbox, "echo ${DESTDIR-none} $SOURCE_DATE_EPOCH $PWD; grep CapEff /proc/self/status")
    assert done.output.splitlines()[0] == f"none 7 {tmp_path}"
    assert int(done.output.split()[-1], 16) == 0


def test_mounts_lie_where_the_host_has_nothing(tmp_path: Path) -> None:
    source, build = tmp_path / "source", tmp_path / "build"
    (source / "part").mkdir(parents=True)
    (source / "part" / "file").write_text("from outside")
    (source / "edited").write_text("another")
    build.mkdir()
    here, there = Path("/usr/none-such/source"), Path("/none-such/build")
    sandbox = Sandbox(
        mounts=(
            Mount(here),
            Mount(here / "part", source / "part"),
            Mount(here / "part" / "file", source / "edited"),
            Mount(there, build, writable=True),
            Mount(there / "deep" / "inside", source / "part"),
        )
    )
    done = inside(
        sandbox, f"pwd; cat {here}/part/file {there}/deep/inside/file; ls {here}; echo made > {there}/new"
    )
    assert done.status == 0, done.output
    assert done.output.splitlines() == [str(there), "anotherfrom outsidepart"]
    assert (build / "new").read_text() == "made\n"
    victims = [Path("/new"), here / "new", here / "part" / "new", Path("/usr/new"), there / "deep/inside/new"]
    for victim in victims:
        assert inside(sandbox, f"echo x > {victim}").status != 0, victim


def test_a_mount_hides_what_the_host_has_there(tmp_path: Path) -> None:
    sandbox = Sandbox(writable=(tmp_path,), mounts=(Mount(Path("/usr/share")),))
    assert inside(sandbox, "ls /usr/share").output == ""
    assert inside(sandbox, "test -x /usr/bin/env").status == 0


@pytest.mark.parametrize("place", ["", "relative", "/", "/usr/../etc"])
def test_refuses_mounts_at_no_place(tmp_path: Path, place: str) -> None:
    with pytest.raises(UsageError):
        Sandbox(mounts=(Mount(Path(place), tmp_path, writable=True),)).argv(["true"])


@pytest.mark.parametrize("system", SYSTEM)
def test_refuses_writable_mounts_of_the_system(system: str) -> None:
    with pytest.raises(UsageError):
        Sandbox(mounts=(Mount(Path("/work"), Path(system), writable=True),)).argv(["true"])
