"""A guest under QEMU: a bubblewrap sandbox, a console socket, QMP."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfbuild import process
from dfbuild.deadline import Deadline
from dfbuild.errors import Cancelled, DeadlineExceeded, HostFull, InfraError, MissingTool
from dfbuild.guest.accel import Accel, for_shape
from dfbuild.guest.argv import Paths, firmware, qemu_argv
from dfbuild.guest.backtrace import backtrace, cpus
from dfbuild.guest.directory import console_pair, listen, prepare_directory
from dfbuild.guest.monitor import ResetWatch, compact_registers, forwarded_port, shutdown_cause
from dfbuild.guest.process import HypervisorGone, HypervisorProcess
from dfbuild.guest.protocol import Exit, GuestSpec, State, WireEnds
from dfbuild.model import Disk, Media
from dfbuild.sandbox import Sandbox
from dfbuild.workspace import atomic_write

if TYPE_CHECKING:
    from dfbuild.guest.qmp import Qmp

_DRAIN_SECONDS = 2.0


def _resolved(media: Media) -> Media:
    """The same files by their real paths: in the sandbox a link may point to nowhere."""
    return replace(
        media,
        disks=tuple(replace(disk, path=disk.path.resolve()) for disk in media.disks),
        cdroms=tuple(path.resolve() for path in media.cdroms),
        kernel=media.kernel and media.kernel.resolve(),
        initrd=media.initrd and media.initrd.resolve(),
    )


def _snapshot(qmp: Qmp, command: str, deadline: Deadline, *, hint: str = "") -> None:
    """Run a command of the human monitor that says nothing when all is well. Raises `InfraError`."""
    said = qmp.human(command, deadline).strip()
    if said:
        raise InfraError(f"{command}: {said}", hint=hint)


class QemuGuest:
    """See `guest.protocol.Guest`. Any thread may call; `start` once."""

    def __init__(self, spec: GuestSpec, accel: Accel) -> None:
        self.spec = spec
        self._wanted = accel
        self._accel = for_shape(spec.shape, accel)
        self._paths = Paths(spec.directory, spec.kept)
        self._firmware = firmware(spec.shape)
        self._media = _resolved(spec.media)
        self._argv = self._compose()
        self._lock = threading.Lock()
        self._state = State.NEW
        self._process: HypervisorProcess | None = None
        self._qmp: Qmp | None = None
        self._exit: Exit | None = None
        self._rung = "guest"
        self._cause = ""
        self._resets = ResetWatch()
        self._running_accel = ""
        self._address: tuple[str, int] | None = None

    def _compose(self, console: int | None = None) -> list[str]:
        return qemu_argv(replace(self.spec, media=self._media), self._accel.name, console)

    @property
    def state(self) -> State:
        if self._state in (State.RUNNING, State.PAUSED) and self._process is not None and not self._process.alive:
            return State.ENDED
        return self._state

    @property
    def accel(self) -> str:
        if not self._running_accel:
            raise InfraError(f"guest {self.spec.name} was not started: its accelerator is not known yet")
        return self._running_accel

    @property
    def pid(self) -> int:
        if self._process is None:
            raise InfraError(f"guest {self.spec.name} was not started: it has no process")
        return self._process.pid

    def command(self) -> list[str]:
        return list(self._argv)

    def logs(self) -> tuple[Path, ...]:
        return (self._paths.log,)

    def wire_ends(self) -> WireEnds:
        if not self.spec.wire:
            raise InfraError(f"guest {self.spec.name} has no wire")
        return self._paths.wire

    # ── power on ────────────────────────────────────────────────────────────────────────────────────────────────
    def start(self, deadline: Deadline) -> socket.socket:
        with self._lock:
            if self._state is not State.NEW:
                raise InfraError(f"guest {self.spec.name} was started before: a guest starts once")
            self._state = State.ENDED  # until it runs
        if self._accel.name == "kvm" and self._wanted.name != "kvm":
            raise InfraError(
                f"shape {self.spec.shape.name} asks for KVM, which does not work here: {self._wanted.reason}",
                hint='set accel = "auto"',
            )
        prepare_directory(self.spec.directory)
        if not self.saved:
            self._make_overlays(deadline)
        with contextlib.ExitStack() as listeners, contextlib.ExitStack() as undo:
            console, inside = console_pair()
            undo.enter_context(console)
            listeners.enter_context(inside)
            qmp_listener = listeners.enter_context(listen(self._paths.qmp))
            others = self._open(undo, listeners)
            self._argv = self._compose(inside.fileno())
            sandboxed = self._sandbox().argv(self._argv)
            hypervisor = HypervisorProcess(sandboxed, self._paths.log, inherits=[inside.fileno(), *others])
            undo.callback(hypervisor.kill)
            # While QEMU starts: this import is slow.
            from dfbuild.guest.qmp import Qmp

            try:
                qmp = Qmp(hypervisor.accept(qmp_listener, deadline), deadline, self._event)
                self._running_accel = "kvm" if qmp.execute("query-kvm", deadline)["enabled"] else "tcg"
                self._power_on(qmp, deadline)
            except HypervisorGone as error:
                raise hypervisor.early_death(self._complaint()) from error
            self._process, self._qmp, self._state = hypervisor, qmp, State.RUNNING
            undo.pop_all()
        return console

    # ── what another machine than a plain one does in its own way ───────────────────────────────────────────────
    def _open(self, ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> Sequence[int]:
        """Make what else QEMU inherits, and return its descriptors.

        What goes into `ours` is closed if the guest does not start, and what goes into `theirs` once it has.
        """
        return ()

    def _power_on(self, qmp: Qmp, deadline: Deadline) -> None:
        """QEMU waits: let the guest run."""
        if self.saved:
            hint = f"remove {self.spec.kept}, and the next attempt begins anew"
            _snapshot(qmp, f"loadvm {self._snapshot}", deadline, hint=hint)
        qmp.execute("cont", deadline)

    def _complaint(self) -> str:
        """What there is to say of a hypervisor's end beside QEMU's own words."""
        return ""

    def _ended(self, how: Exit) -> Exit:
        """What an end that looks like `how` was."""
        return how

    def _inputs(self) -> Sequence[Path]:
        """All files that QEMU reads."""
        media = self._media
        chips = [self._firmware.code, self._firmware.variables] if self._firmware else []
        disks = (disk.path for disk in media.disks)
        return [path for path in (media.kernel, media.initrd, *disks, *media.cdroms, *chips) if path]

    def _make_overlays(self, deadline: Deadline) -> None:
        """A qcow2 overlay for every disk and the firmware's variables; what it lies over is only ever read."""
        over = {self._paths.overlay(number): disk for number, disk in enumerate(self._media.disks)}
        if self._firmware:
            over[self._paths.variables] = Disk(self._firmware.variables, "raw")
        for overlay, disk in over.items():
            base = ["-b", str(disk.path), "-F", disk.format]
            argv = ["qemu-img", "create", "-q", "-f", "qcow2", *base, str(overlay)]
            done = process.run(self._sandbox().argv(argv), deadline)
            if done.status != 0:
                raise InfraError(f"no overlay over {disk.path}: {done.output.strip()}")

    def _sandbox(self) -> Sandbox:
        inputs = self._inputs()
        if self._firmware and not self._firmware.code.is_file():
            raise MissingTool(
                f"{self._firmware.code} is not installed", hint="`dfbuild doctor` names the package that has it"
            )
        for path in inputs:
            if not path.is_file():
                raise InfraError(f"{path} is not there: guest {self.spec.name} has nothing to boot from")
        return Sandbox(
            writable=(self.spec.directory, *([self.spec.kept] if self.spec.kept else [])),
            readable=tuple(inputs),
            # Forwarded ports lie on the host's loopback. The wire needs no network: its sockets have paths.
            network=self.spec.ssh_port is not None,
            devices=(Path("/dev/kvm"),) if self._accel.name == "kvm" else (),
        )

    # ── while it runs ───────────────────────────────────────────────────────────────────────────────────────────
    def ssh_address(self, deadline: Deadline) -> tuple[str, int]:
        if self.spec.ssh_port is None:
            raise InfraError(f"guest {self.spec.name} has no management network")
        if self._address is None:
            self._address = ("127.0.0.1", forwarded_port(self._monitor().human("info usernet", deadline)))
        return self._address

    def pause(self, deadline: Deadline) -> None:
        self._monitor(State.RUNNING).execute("stop", deadline)
        self._state = State.PAUSED

    def resume(self, deadline: Deadline) -> None:
        self._monitor(State.PAUSED).execute("cont", deadline)
        self._state = State.RUNNING

    def reset(self, deadline: Deadline) -> None:
        qmp = self._monitor()
        # -no-reboot would make QEMU end. From now on `_event` tells this reset from one by the guest.
        qmp.execute("set-action", deadline, reboot="reset")
        qmp.execute("system_reset", deadline)

    def _event(self, qmp: Qmp, event: Mapping[str, Any]) -> None:
        """A guest that resets itself has ended, here as with -no-reboot."""
        if self._resets.feed(event):
            self._cause = "guest-reset"
            qmp.post("quit")

    @property
    def saved(self) -> bool:
        return self._paths.saved is not None and self._paths.saved.is_file()

    @property
    def _snapshot(self) -> str:
        assert self._paths.saved is not None
        return self._paths.saved.read_text().strip()

    def save(self, deadline: Deadline) -> None:
        qmp, mark = self._monitor(State.RUNNING), self._paths.saved
        if mark is None or not self._media.disks:
            raise InfraError(f"guest {self.spec.name} has nowhere to be saved")
        # The old one is good until there is another.
        old = self._snapshot if self.saved else ""
        new = "saved-2" if old == "saved-1" else "saved-1"
        _snapshot(qmp, f"savevm {new}", deadline)
        atomic_write(mark, new)
        if old:
            _snapshot(qmp, f"delvm {old}", deadline)

    def power_button(self, deadline: Deadline) -> None:
        self._monitor(State.RUNNING).execute("system_powerdown", deadline)

    def diagnose(self, deadline: Deadline) -> str:
        qmp = self._monitor()
        status = qmp.execute("query-status", deadline)
        if status["status"] == "io-error":
            where = self.spec.kept or self.spec.directory
            hint = f"what it writes goes to {where}: is there no room left?"
            raise HostFull(f"guest {self.spec.name} stands still: the host could not write for it", hint=hint)
        threads = {cpu["cpu-index"]: cpu["thread-id"] for cpu in qmp.execute("query-cpus-fast", deadline)}
        registers = qmp.human("info registers -a", deadline)

        def read(cpu: int, command: str) -> str:
            return qmp.human(command, deadline, cpu)

        lines = [f"status: {status['status']}"]
        for cpu in cpus(registers):
            lines.append(f"cpu {cpu.number} (host thread {threads.get(cpu.number, 'unknown')}):")
            lines += [f"  {line}" for line in backtrace(cpu, read)]
        lines += [
            *compact_registers(registers),
            *(f"event: {event['event']} {event.get('data', '')}".rstrip() for event in qmp.events[-8:]),
        ]
        return "\n".join(lines) + "\n"

    def _monitor(self, *states: State) -> Qmp:
        """The QMP connection, if the guest is in one of `states` (default: it is up)."""
        wanted = states or (State.RUNNING, State.PAUSED)
        state = self.state
        if state not in wanted or self._qmp is None:
            raise InfraError(f"guest {self.spec.name} is {state}, not {' or '.join(wanted)}")
        return self._qmp

    # ── the end ─────────────────────────────────────────────────────────────────────────────────────────────────
    def wait(self, deadline: Deadline) -> Exit:
        if self._process is None:
            raise InfraError(f"guest {self.spec.name} was not started: it cannot end")
        if self._exit is not None:
            return self._exit
        return self._conclude(self._process.wait(deadline))

    def stop(self, deadline: Deadline) -> Exit:
        hypervisor, qmp = self._process, self._qmp
        if self._exit is not None:
            return self._exit
        if hypervisor is None or qmp is None:
            self._state, self._exit = State.ENDED, Exit(0, "quit")
            return self._exit
        rungs: dict[str, Callable[[], object]] = {} if qmp.closed else {"quit": lambda: qmp.post("quit")}
        rungs["terminate"] = hypervisor.terminate
        for left, (rung, push) in zip(range(len(rungs), 0, -1), rungs.items(), strict=True):
            if not hypervisor.alive:
                break
            self._rung = rung
            push()
            # What is left of the time is for the rungs that are left, the last of them the kill.
            with contextlib.suppress(DeadlineExceeded, Cancelled):
                return self._conclude(hypervisor.wait(deadline.sooner(deadline.remaining() / (left + 1))))
        else:
            self._rung = "kill"
        return self._conclude(hypervisor.kill())

    def _conclude(self, status: int) -> Exit:
        """Record the end, once; the process is gone by now."""
        with self._lock:
            if self._exit is None:
                assert self._process is not None and self._qmp is not None
                # The peer is dead: its last words are in the socket's buffer already. They only tell the cause.
                with contextlib.suppress(DeadlineExceeded):
                    self._qmp.drain(Deadline.after(_DRAIN_SECONDS))
                cause = self._cause or shutdown_cause(self._qmp.events)
                self._exit = self._ended(Exit(status, self._rung, self._process.stderr(), cause))
                self._state = State.ENDED
            return self._exit
