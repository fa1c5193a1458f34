"""What a release's TOML may say. Every field is documented where it stands; unknown keys are errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from dfbuild.model import Expectation, Shape, Verdict

Model = TypeVar("Model", bound=BaseModel)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Of what stands in the ids of cells, and so in file names and filter expressions."""
Text = Annotated[str, Field(min_length=1)]
Device = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A name on the hypervisor's command line: nothing in it may begin another option."""
CpuModel = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(,[+-][a-z0-9][a-z0-9_.-]*)*$")]
"""A CPU model, with features that it gets or loses: `qemu64,+topoext`."""
Tunable = Annotated[str, Field(pattern=r"^[a-z][A-Za-z0-9._-]*$")]
TunableValue = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]*$")]
Count = Annotated[int, Field(ge=1, le=64)]


class Strict(BaseModel):
    """Frozen, and no key that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Toolchain(Strict):
    """A compiler under the name that the release's makefiles or the distribution give it."""

    cc: str
    """The command, or for a toolchain that dfbuild bootstraps the name inside its prefix."""
    comment: str
    """Regular expression that the `.comment` section of everything it compiled must match."""
    flags: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    """Host packages that bring it."""
    unknown: tuple[str, ...] = ()
    """Flags that it takes for errors: left out of what a stack protector's setting asks for."""

    def known(self, flags: Sequence[str]) -> tuple[str, ...]:
        """`flags` without those."""
        return tuple(flag for flag in flags if flag not in self.unknown)


class Protection(Strict):
    """How a part of a system is compiled, and what that shows in."""

    flags: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    """Symbols of which at least one must be referenced by what was built."""
    absent: tuple[str, ...] = ()
    """Symbols that nothing built may reference."""
    everywhere: bool = False
    """Every object with code must reference one of `present` (`-fstack-protector-all`), not one of them all."""


class StackProtector(Protection):
    """One value of the stack protector axis: of the world, and of the kernel too if that has no part of its own."""

    kernel: Protection | None = None

    @property
    def of_kernel(self) -> Protection:
        return self.kernel or self.of_world

    @property
    def of_world(self) -> Protection:
        return Protection.model_validate(self.model_dump(exclude={"kernel"}))


class Kernel(Strict):
    """One value of the kernel axis."""

    append: str = ""
    """Kernel command line words, where the kernel takes one."""
    config: str = ""
    """What it is derived from: a configuration in the source tree, or an absolute path. Else the release's own."""
    options: dict[str, str] = Field(default_factory=dict)
    """Options of the kernel configuration, with their values; empty for those that have none."""
    without: tuple[str, ...] = ()
    """Lines of the release's own configuration that are left out, by their first words: `cpu I386_CPU`."""
    like: str = ""
    """The value that it is built as, where it is only started in another way."""
    tunables: dict[Tunable, TunableValue] = Field(default_factory=dict)
    """What its loader tells it: `machdep.pmap_nx_enable`."""


class Refuse(Strict):
    """A combination that cannot be built or would not be what it says."""

    when: Text
    """Filter expression on the cell's attributes."""
    reason: Text
    evidence: str = ""
    """Where that stands, or was seen."""

    @property
    def told(self) -> str:
        """The reason with its evidence."""
        return f"{self.reason} ({self.evidence})" if self.evidence else self.reason


class Stage(Strict):
    """A boot stage: reached when `pattern` is seen, and lost when `deadline` passes first."""

    name: str
    pattern: str
    """Regular expression over console bytes (one line or a prompt)."""
    deadline: Annotated[float, Field(gt=0)]
    """Seconds since the stage before, on an accelerated guest; scaled for emulation."""
    type: str = ""
    """What is typed when it is reached; `\\r` is Return."""


class Crash(Strict):
    """A crash signature. `literal` must occur in the line for `pattern` to be tried: it keeps watching fast."""

    name: str
    literal: str
    pattern: str
    title: str = "{0}"
    """Format string over the pattern's groups; {0} is the whole match."""
    where: str = ""
    """A regular expression over the lines from the crash on, with what their addresses stand for: its groups say
    where it happened."""
    verdict: Verdict = Verdict.PANIC


class Debugger(Strict):
    """The kernel's debugger, which a crash may end in."""

    prompt: Text
    """The last that it prints before it is told something."""
    trace: Text
    """What is typed to see who called whom."""


class Console(Strict):
    stages: tuple[Stage, ...]
    crashes: tuple[Crash, ...]
    debugger: Debugger | None = None
    silence: Annotated[float, Field(gt=0)] = 60.0
    """Seconds without a byte while booting after which the guest counts as hung; scaled like deadlines."""
    emulation_factor: Annotated[float, Field(gt=0)] = 4.0
    """What deadlines are multiplied by where the CPU is emulated (TCG)."""
    xen_factor: Annotated[float, Field(ge=1)] = 3.0
    """And by how much again for a guest of Xen, whose hypervisor is emulated with it."""

    def slower(self, accel: str) -> float:
        """How many times slower a guest with the accelerator `accel` is than what times are written for."""
        return self.emulation_factor if accel == "tcg" else 1.0


class SerialShell(Strict):
    """How to get a shell on the console. Patterns are regular expressions over bytes."""

    login: str = "(?<!Last )login: "
    password: str = "[Pp]assword:"
    prompt: str = "[#$%>] "
    encode: str = "base64"
    """Filter that makes text lines of any bytes, on standard input."""
    decode: str = "base64 -d"
    coding: Literal["base64", "uuencode"] = "base64"
    """What those two speak; `uuencode -m` is base64."""
    line: Annotated[int, Field(ge=250)] = 900
    """The longest line that the guest's terminal takes, in bytes."""
    directory: str = "/tmp"
    """Where the shell keeps a command's input and output while it runs."""


class SshShell(Strict):
    """How SSH is spoken. Empty algorithm lists mean the library's own choice."""

    port: Annotated[int, Field(ge=1, le=65535)] = 22
    key_algorithms: tuple[str, ...] = ()
    kex_algorithms: tuple[str, ...] = ()
    ciphers: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    processes: str = "ps -A -o pid= -o ppid="
    """Prints every process and its parent, to find what a command that must end has started."""


class Shell(Strict):
    path: str = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
    """Where commands are looked for, whichever way they come."""
    checksum: Literal["cksum", "crc32", "md5", "sha256"] = "cksum"
    """What `checksum_command` computes over its standard input and prints as its first word."""
    checksum_command: str = "cksum"
    serial: SerialShell = SerialShell()
    ssh: SshShell | None = None


class Wire(Strict):
    """The test network, apart from management."""

    interface: dict[Device, Text]
    """NIC model of a shape ▸ the wire NIC's name in the guest."""
    configure: str
    """Shell command that gives `{interface}` the address `{address}`/`{prefix}` and brings it up."""
    guest_address: str = "10.9.0.1"
    peer_address: str = "10.9.0.2"
    prefix: Annotated[int, Field(ge=1, le=30)] = 24
    partition: Literal["low-bytes", "toeplitz"] | None = None
    """How connections are dealt out to CPUs, see `suites.network.partition`."""


class Expect(Strict):
    """What a check shows on this release. Later entries win over earlier ones."""

    check: Text
    """Glob over `suite/name`."""
    outcome: Expectation
    when: str = ""
    """Filter expression on the cell's attributes; empty means always."""
    reason: str = ""


class ShapeFields(Strict):
    """Virtual hardware, or a part of it: what is left out comes from the layer below. See `model.Shape`."""

    sockets: Count | None = None
    """CPU packages."""
    cores: Count | None = None
    """CPU cores in every socket."""
    threads: Count | None = None
    """Hardware threads in every core; more than one is hyperthreading."""
    memory: Annotated[int, Field(ge=16, le=1 << 20)] | None = None
    """MiB."""
    nx: bool | None = None
    """Whether the CPU has the no-execute bit."""
    cpu: CpuModel | None = None
    """CPU model under the hypervisor's name."""
    machine: Device | None = None
    """Machine type under the hypervisor's name."""
    disk: Device | None = None
    """Disk model: virtio-blk, ahci, ide, mptsas1068 …; docs/matrix.md has all of them."""
    nic: Device | None = None
    """Network card model: virtio-net, e1000, vmxnet3 …; docs/matrix.md has all of them."""
    console: Literal["serial", "virtio", "xen"] | None = None
    """`serial` (16550 UART), `virtio` (for guests that print a great deal) or `xen` (Xen's own)."""
    spare_serials: Annotated[int, Field(ge=0, le=3)] | None = None
    """Serial ports beside the console, with nobody at their other ends."""
    video: Device | None = None
    """Graphics card, which nobody sees the picture of: none, std, cirrus, vmware."""
    product: Annotated[str, Field(pattern=r"^[\x20-\x7e]{0,64}$")] | None = None
    """What the firmware calls the machine: SMBIOS, system product name."""
    firmware: Literal["bios", "uefi"] | None = None
    """What starts first: `bios` or `uefi`. Disks are made for one of them."""
    root: Device | None = None
    """The root's file system: `ufs`, `hammer2`; the reference guest's is `ext4`."""
    hypervisor: Device | None = None
    """What runs the guest: qemu, xen-pv, xen-pvh or xen-hvm."""
    accel: Literal["auto", "kvm", "tcg"] | None = None
    """`auto` is probed."""

    def given(self) -> dict[str, Any]:
        """The fields that say something."""
        return self.model_dump(exclude_none=True)


class Source(Strict):
    """How a source tree says that it is of this release."""

    file: Text
    """A file of the tree."""
    pattern: Text
    """Regular expression that is found in it; ^ and $ match at lines."""


class Like(Strict):
    """Another release, which this one is like but for what its own file says. See `toml.inherit`."""

    release: Text
    """Its name, or the path of its file."""
    without: tuple[Text, ...] = ()
    """What it says that is not so here: dotted keys. An entry in a list is named by its first value, or itself."""


class Release(Strict):
    """Everything that dfbuild knows about one release line."""

    like: Like | None = None
    """The release that it is like, but for what follows."""

    name: Name
    title: str
    target: Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]
    """Import path of the package that builds it, below `dfbuild.build`."""
    elf_machine: str
    toolchains: dict[Name, Toolchain]
    stack_protectors: dict[Name, StackProtector]
    kernels: dict[Name, Kernel]
    suites: tuple[str, ...] = ("scheduler", "network", "security")
    """The suites that can run on it."""
    refuse: tuple[Refuse, ...] = ()
    source: Source | None = None
    """Only where it is built from a source tree."""
    build: dict[str, Any] = Field(default_factory=dict)
    """Data that only the target's own package reads, and validates."""
    shape: ShapeFields = ShapeFields()
    """What this release's guests get where a shape says nothing."""
    console: Console
    shell: Shell = Shell()
    wire: Wire | None = None
    probes: str
    """Directory in the guest that holds the suites' compiled C programs."""
    commands: dict[str, str] = Field(default_factory=dict)
    """Shell commands by what they answer (`cpu-count`, `pid-sequence` …), for suites."""
    expect: tuple[Expect, ...] = ()

    @property
    def own_shape(self) -> Shape:
        """The shape of which nothing is said."""
        return Shape("own", **self.shape.given())
