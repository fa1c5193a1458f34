"""The frozen words that every part of dfbuild speaks. Standard library only, no behaviour beyond derivation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Verdict(StrEnum):
    """How a step or a cell ended. Only INFRA is retried."""

    PASS = "PASS"
    BUILD_FAIL = "BUILD_FAIL"
    BOOT_FAIL = "BOOT_FAIL"
    PANIC = "PANIC"
    HANG = "HANG"
    TEST_FAIL = "TEST_FAIL"
    INFRA = "INFRA"
    SKIP = "SKIP"


class Outcome(StrEnum):
    """How one check ended, measured against what the release's data expects of it."""

    PASS = "pass"
    FAIL = "fail"
    KNOWN = "known"
    """Vulnerable or broken, as expected for this release and shape."""
    FIXED = "fixed"
    """Expected to be broken, and passes now."""
    SKIP = "skip"


class Expectation(StrEnum):
    """What the release's data expects of a check."""

    PASS = "pass"
    KNOWN = "known"
    NA = "n/a"


class StepKind(StrEnum):
    FETCH = "fetch"
    TOOLS = "tools"
    TOOLCHAIN = "toolchain"
    KERNEL = "kernel"
    WORLD = "world"
    IMAGE = "image"
    GUEST = "guest"


class Better(StrEnum):
    """Which direction of a performance metric is an improvement."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, slots=True)
class Shape:
    """Virtual hardware. `memory` is in MiB. An empty `cpu` means the guest package's default model."""

    name: str
    sockets: int = 1
    cores: int = 1
    threads: int = 1
    memory: int = 256
    nx: bool = True
    cpu: str = ""
    machine: str = "q35"
    disk: str = "virtio-blk"
    nic: str = "virtio-net"
    console: str = "serial"
    """`serial` (16550 UART), `virtio` (virtio-console, for guests that print a great deal) or `xen` (Xen's own)."""
    spare_serials: int = 0
    """16550 UARTs beside the console, with nobody at their other ends."""
    video: str = "none"
    product: str = ""
    """What the firmware calls the machine (SMBIOS, system product name); empty for QEMU's own name."""
    firmware: str = "bios"
    """What starts first: `bios`, or `uefi`."""
    root: str = "ufs"
    """The root's file system."""
    hypervisor: str = "qemu"
    """`qemu`, or the kind of a Xen guest: `xen-pv`, `xen-pvh`, `xen-hvm`."""
    accel: str = "auto"
    """`auto` (probed), `kvm` or `tcg`."""

    @property
    def cpus(self) -> int:
        return self.sockets * self.cores * self.threads

    @property
    def on_xen(self) -> bool:
        return self.hypervisor.startswith("xen-")


@dataclass(frozen=True, slots=True)
class Variant:
    """What is built: a release's tree with a toolchain, a stack protector setting and a kernel configuration."""

    release: str
    toolchain: str
    stack_protector: str
    kernel: str

    @property
    def id(self) -> str:
        """Readable and stable: `reference/gcc-12+ssp/smp`. `ssp` alone stands for `on`, nothing for `off`."""
        return f"{self.release}/{self.label}"

    @property
    def label(self) -> str:
        """The same without the release."""
        return f"{self.compiled}/{self.kernel}"

    @property
    def compiled(self) -> str:
        """How it is compiled: `gcc-12+ssp`."""
        protector = {"off": "", "on": "+ssp"}.get(self.stack_protector, f"+ssp-{self.stack_protector}")
        return f"{self.toolchain}{protector}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a matrix: variant x shape x suites."""

    variant: Variant
    shape: Shape
    suites: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.variant.id} @ {self.shape.name}"

    def attributes(self) -> dict[str, str | int]:
        """What filter expressions and expectations can name. Booleans are `on` and `off`."""
        variant, shape = self.variant, self.shape
        return {
            "id": self.id,
            "release": variant.release,
            "toolchain": variant.toolchain,
            "stack_protector": variant.stack_protector,
            "kernel": variant.kernel,
            "shape": shape.name,
            "sockets": shape.sockets,
            "cores": shape.cores,
            "threads": shape.threads,
            "cpus": shape.cpus,
            "memory": shape.memory,
            "nx": "on" if shape.nx else "off",
            "ht": "on" if shape.threads > 1 else "off",
            "cpu": shape.cpu,
            "machine": shape.machine,
            "disk": shape.disk,
            "nic": shape.nic,
            "console": shape.console,
            "spare_serials": shape.spare_serials,
            "video": shape.video,
            "product": shape.product,
            "firmware": shape.firmware,
            "root": shape.root,
            "hypervisor": shape.hypervisor,
            "accel": shape.accel,
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """A cell that cannot be or would not be true, with the reason and its evidence."""

    cell: Cell
    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Measurements of one metric in one cell. `values` keep the order in which they were taken."""

    metric: str
    unit: str
    values: tuple[float, ...]
    better: Better = Better.LOWER


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check in one cell. `check` is `suite/name`; `console` the transcript's byte span while it ran."""

    check: str
    outcome: Outcome
    expected: Expectation = Expectation.PASS
    reason: str = ""
    """Why it is known or skipped: from the expectation."""
    detail: str = ""
    """What was seen: the failed assertion, hostile text included."""
    duration: float = 0.0
    samples: tuple[Sample, ...] = ()
    console: tuple[int, int] = (0, 0)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CrashReport:
    """A crash seen on the console. `offset` is the transcript's byte at which its first line begins."""

    title: str
    signature: str
    verdict: Verdict
    offset: int
    excerpt: str = ""
    """The lines from the crash on, as text; filled once the guest has gone quiet."""


@dataclass(frozen=True, slots=True)
class StageReached:
    """A boot stage seen on the console, `seconds` after power-on."""

    stage: str
    seconds: float
    offset: int


@dataclass(frozen=True, slots=True)
class Login:
    """How to get into a guest. `host_key` is the public key line that SSH must see."""

    user: str = "root"
    password: str | None = None
    key: Path | None = None
    host_key: str = ""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk image that is never written to: guests get an overlay over it."""

    path: Path
    format: str = "qcow2"


@dataclass(frozen=True, slots=True)
class XenHost:
    """A Xen host for QEMU to boot: Xen, dom0's kernel and its initramfs. `memory` is in MiB, for all of it.

    `state` is a migration stream of the host once its dom0 is up, and `log` what Xen printed until then.
    """

    xen: Path
    kernel: Path
    initrd: Path
    memory: int
    state: Path | None = None
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class GivenXenHost:
    """A Xen host that is there already: `local`, or `ssh://[user@]host[:port]`.

    `tap` is a program to join its bridges with networks here, once there is one.
    """

    where: str
    tap: Path | None = None


@dataclass(frozen=True, slots=True)
class Symbols:
    """An ELF file with the symbols of a kernel, and the directory that its sources lay in when it was compiled."""

    file: Path
    source: str


@dataclass(frozen=True, slots=True)
class Media:
    """What a guest boots from: a kernel that the hypervisor loads, or disks or CDs with their own boot programs.

    A guest of Xen runs on the host `xen`.
    """

    disks: tuple[Disk, ...] = ()
    cdroms: tuple[Path, ...] = ()
    """ISO images, in the order of their drives. The first is tried before any disk."""
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    login: Login = Login()
    xen: XenHost | GivenXenHost | None = None
    symbols: Symbols | None = None
    """Of the kernel that it boots, where they are known."""
