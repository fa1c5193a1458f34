"""What a check can ask for. Registered only where a guest is attached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import pytest

from dfbuild.console.protocol import Console
from dfbuild.deadline import Deadline, Within
from dfbuild.errors import InfraError
from dfbuild.model import Better, Cell, Sample
from dfbuild.releases import Release
from dfbuild.session.protocol import Session
from dfbuild.shell.protocol import Shell
from dfbuild.suites.attached import RECORD, Attached
from dfbuild.suites.probe import ProbeError, Probes, succeeded

if TYPE_CHECKING:
    from dfbuild.wire import Link

_ASK = 20.0


@pytest.fixture(scope="session")
def attached(pytestconfig: pytest.Config) -> Attached:
    return cast(Attached, pytestconfig.pluginmanager.get_plugin("dfbuild-attached"))


@pytest.fixture(scope="session")
def guest(attached: Attached) -> Session:
    """The guest: its manifest, and pause, reset and the like."""
    return attached.session


@pytest.fixture(scope="session")
def cell(guest: Session) -> Cell:
    """What was built, and the virtual hardware it runs on."""
    return guest.manifest.cell


@pytest.fixture(scope="session")
def release(attached: Attached) -> Release:
    """What dfbuild knows about the release that runs in the guest."""
    return attached.release


@pytest.fixture(scope="session")
def console(guest: Session) -> Console:
    """Everything the guest printed, by offset."""
    return guest.console


@pytest.fixture(scope="session")
def shell(attached: Attached) -> Shell:
    """A shell in the guest, over what `--dfbuild-via` says."""
    return attached.shells[attached.via]


@pytest.fixture(scope="session")
def serial(attached: Attached) -> Shell:
    """A shell on the guest's console."""
    return attached.shells["serial"]


@pytest.fixture(scope="session")
def ssh(attached: Attached) -> Shell:
    """A shell over SSH."""
    return attached.shells["ssh"]


@pytest.fixture(scope="session")
def within(attached: Attached) -> Within:
    """`within(20, what="the interface")`: a deadline for fixtures of a wider scope than a check."""
    return attached.within


@pytest.fixture
def deadline(request: pytest.FixtureRequest, attached: Attached) -> Deadline:
    """When this check has to be done."""
    marker = request.node.get_closest_marker("check")
    seconds = marker.kwargs.get("seconds", 60.0) if marker else 60.0
    return attached.within(seconds, what=request.node.stash[RECORD].check)


@pytest.fixture(scope="session")
def wire(guest: Session) -> Iterator[Link]:
    """Ethernet frames to and from the guest's second network card; all of them are in `wire.pcap`."""
    from dfbuild.wire import open_wire

    ends = guest.manifest.wire
    if ends is None:
        raise InfraError("this guest has no wire", hint="start it with its second network card")
    with open_wire(ends, guest.manifest.transcript.with_name("wire.pcap")) as opened:
        yield opened


@pytest.fixture(scope="session")
def probe(attached: Attached, shell: Shell) -> Probes:
    """Runs a program of the suites in the guest: `probe("hogs", 2, 500, "free")` gives its `Report`."""
    return Probes(shell, attached.release.probes, attached.within)


@pytest.fixture(scope="session")
def ask(attached: Attached, shell: Shell, cell: Cell) -> Callable[[str], str]:
    """Runs one of the release's commands by its name and gives what it prints. Anything but success is an error.

    The command knows the wire's interface as `$wire`.
    """
    wire = attached.release.wire
    prefix = f"wire={wire.interface.get(cell.shape.nic, '')}; " if wire else ""

    def run(name: str) -> str:
        command = attached.release.commands.get(name)
        if command is None:
            raise ProbeError(f"release {attached.release.name} does not say how to ask for {name!r}")
        return succeeded(shell.run(prefix + command, attached.within(_ASK, what=f"{name} in the guest")))

    return run


@pytest.fixture
def samples(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Records measurements: `samples("fork", values, unit="us", better=Better.LOWER)`."""
    record = request.node.stash[RECORD]

    def add(metric: str, values: Sequence[float], *, unit: str, better: Better = Better.LOWER) -> None:
        record.samples.append(Sample(metric, unit, tuple(values), better))

    return add


@pytest.fixture
def fact(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Records what was seen: `fact("siblings", 2)`."""
    record = request.node.stash[RECORD]

    def add(name: str, value: object) -> None:
        record.facts[name] = str(value)

    return add
