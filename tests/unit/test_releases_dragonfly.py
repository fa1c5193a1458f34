"""What is known about DragonFly's releases, held against recorded consoles and against the suites' own checks."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from dfbuild import filter, releases
from dfbuild.config.shapes import hardware
from dfbuild.console.monitor import Monitor
from dfbuild.console.stages import BootTracker
from dfbuild.model import Cell, CrashReport, Expectation, Shape, Variant, Verdict
from dfbuild.releases import Release
from dfbuild.session.diagnosis import located
from dfbuild.suites.expect import expectation
from dfbuild.suites.names import names

RECORDED = Path(__file__).parents[1] / "recorded" / "dragonfly"

LOADED = [releases.load(name) for name in releases.available()]
DRAGONFLY = [one.name for one in LOADED if one.target == "dragonfly" and one.elf_machine == "EM_386"]

# What the crash signatures make of recorded consoles.
LOGS = {
    "1.2-i386-disk-login.log": None,
    "1.0-i386-up.log": None,
    "1.2-i386-native-buildworld-unfinished.log": None,
    "1.2-i386-own-loader.log": None,
    "1.2-i386-smp-disk-read-timeouts.log": None,
    "1.2-i386-smp2-single-user-commands.log": None,
    "1.2-i386-smp4-disk-login.log": None,
    "1.2-i386-up-mountroot-prompt.log": "no root file system",
}


def cell(
    release: Release, *, toolchain: str = "gcc34", protector: str = "on", kernel: str = "smp", **shape: int
) -> Cell:
    return Cell(Variant(release.name, toolchain, protector, kernel), machine(release, **shape))


def machine(release: Release, **fields: int | str | bool) -> Shape:
    return Shape("x", **(release.shape.given() | fields))


@pytest.fixture(params=DRAGONFLY)
def release(request: pytest.FixtureRequest) -> Release:
    return releases.load(request.param)


@pytest.mark.parametrize("log", LOGS)
def test_recorded_consoles(release: Release, log: str) -> None:
    data = (RECORDED / log).read_bytes()
    monitor = Monitor(release.console.crashes)
    crash = monitor.feed(data, 0) or monitor.settle()
    assert (crash and crash.title) == LOGS[log]


def test_a_timer_that_the_host_was_too_busy_for_is_not_the_kernels_fault(release: Release) -> None:
    console = (
        b"APIC_IO: Testing 8254 interrupt delivery\r\n"
        b"APIC_IO: Broken MP table detected: 8254 is not connected to IOAPIC #0 intpin 2\r\n"
        b"APIC_IO: routing 8254 via 8259 and IOAPIC #0 intpin 0\r\n"
    )
    monitor = Monitor(release.console.crashes)
    crash = monitor.feed(console, 0) or monitor.settle()
    assert crash and crash.verdict is Verdict.INFRA and "too busy" in crash.title


@pytest.mark.parametrize("log", ["1.2-i386-disk-login.log", "1.2-i386-smp4-disk-login.log"])
def test_a_boot_from_disk_is_followed(release: Release, log: str) -> None:
    data = (RECORDED / log).read_bytes()
    boot = BootTracker(release.console.stages, silence=60.0, power_on=0.0)
    for offset in range(0, len(data), 7):
        boot.feed(data[offset : offset + 7], offset, 1.0)
    assert [stage.stage for stage in boot.reached] == ["boot2", "loader", "kernel", "root", "login"]


CRASHED = {
    b"panic: vm_fault: fault on nofault entry\r\nmp_lock = 00000001; cpuid = 1; lapic.id = 01000000": (
        "panic: vm_fault: fault on nofault entry"
    ),
    b"\r\n\r\nFatal trap 12: page fault while in kernel mode\r\nmp_lock = 00000000; cpuid = 0": (
        "fatal trap 12: page fault"
    ),
    b"|\x08/\x08-\x08\\\x08|\x08panic: before the console has a line of its own\r\n": (
        "panic: before the console has a line of its own"
    ),
    b"FreeBSD/DragonFly (dfly) (ttyd0)\r\n\r\nlogin: panic: behind the prompt\r\n": "panic: behind the prompt",
    b"dfly# panic: in a shell\r\n": "panic: in a shell",
    b"\xe4\xe2\x8apanic: behind an answer's words\r\n": "panic: behind an answer's words",
    b"savecore: reboot after panic: an older one\r\n": None,
    b"Fatal double fault:\r\neip = 0xc0312345": "double fault",
    b"Stopped at      Debugger+0x44:  movb    $0": "stopped at Debugger+0x44:  movb    $0",
    b"kernel type\r\ndb> ": "in the kernel debugger",
    b"can't load 'kernel'\r\n": "the loader can't load kernel",
    b"Enter full pathname of shell or RETURN for /bin/sh: ": "the system comes up in single-user mode only",
    b"pid 77 (smash), uid 0: exited on signal 6\r\n": None,
    b"Nov 24 01:00:00 dfly smash: stack overflow in function buffer16\r\n": None,
    b"ad0: READ command timeout tag=0 serv=0 - resetting\r\n": None,
    b"# echo panic: not really\r\n": None,
}


@pytest.mark.parametrize("text", CRASHED, ids=lambda text: text[:20].decode(errors="replace").strip())
def test_crashes(release: Release, text: bytes) -> None:
    monitor = Monitor(release.console.crashes)
    crash = monitor.feed(text, 0) or monitor.settle()
    assert (crash and crash.title) == CRASHED[text]


TRAP = """\
Fatal trap 12: page fault while in kernel mode
fault virtual address\t= 0x10
instruction pointer\t= 0x8:0xc01b5a30 {}
stack pointer\t        = 0x10:0xd34a8c38
"""
PANIC = """\
panic: planted
cpuid = 0
Trace beginning at frame 0xfffff80075dd6878
panic() at panic+0x1df 0xffffffff8062c32f (sys/kern/kern_shutdown.c:832)
panic() at panic+0x1df 0xffffffff8062c32f (sys/kern/kern_shutdown.c:832)
sys_getppid() at sys_getppid+0x3a 0xffffffff8062039a {}
syscall2() at syscall2+0x1ca 0xffffffff80b6545a (sys/platform/pc64/x86_64/trap.c:1319)
"""
SMASHED = """\
panic: stack smashed in the function around 0xffffffff806642f5
cpuid = 0
Trace beginning at frame 0xffffffff8179efa0
__stack_chk_fail() at __stack_chk_fail+0x16 0xffffffff809d1e36
planted() at planted+0x65 0xffffffff806642f5
"""


@pytest.mark.parametrize(
    ("name", "signature", "excerpt", "where"),
    [
        ("1.2", "fatal-trap", TRAP.format("getpid+0x10 (kern/a.c:83)"), " at getpid+0x10 (kern/a.c:83)"),
        ("master", "fatal-trap", TRAP.format("getpid+0x10"), " at getpid+0x10"),
        ("master", "fatal-trap", TRAP.format(""), ""),
        ("master", "panic", PANIC.format("(kern/a.c:120) "), " at sys_getppid+0x3a (kern/a.c:120)"),
        ("master", "panic", PANIC.format(""), " at sys_getppid+0x3a"),
        ("master", "panic", SMASHED, " at planted+0x65"),
        ("master", "panic", "panic: without a trace\n", ""),
        ("1.2", "panic", PANIC, ""),
    ],
)  # fmt: skip
def test_where_a_kernel_crashed(name: str, signature: str, excerpt: str, where: str) -> None:
    crash = CrashReport("it crashed", signature, Verdict.PANIC, 0, excerpt)
    assert located(crash, releases.load(name)).title == f"it crashed{where}"


def test_every_expectation_is_of_a_check_that_there_is(release: Release) -> None:
    for entry in release.expect:
        assert [check for check in names() if fnmatchcase(check, entry.check)], entry.check


def test_every_question_of_the_suites_has_a_command(release: Release) -> None:
    assert {"cpu-count", "cpu-threads", "port-range", "mark"} <= release.commands.keys()
    asked = expectation(release, "security/random-off-stack", cell(release))[0]
    assert asked is Expectation.NA or {"aslr-on", "aslr-off"} <= release.commands.keys()


@pytest.mark.parametrize(
    ("check", "protector", "expected"),
    [
        ("security/smash-16", "on", Expectation.PASS),
        ("security/smash-16", "world", Expectation.PASS),
        ("security/smash-8", "off", Expectation.KNOWN),
        ("security/smash-8", "kernel", Expectation.KNOWN),
        ("security/nx-stack", "on", Expectation.NA),
        ("security/exec-rwx", "on", Expectation.PASS),
        ("security/pid-random", "on", Expectation.KNOWN),
        ("network/rst-in-window-last", "on", Expectation.KNOWN),
        ("network/rst-exact", "on", Expectation.PASS),
        ("network/rst-outside-far", "on", Expectation.PASS),
    ],
)
def test_what_is_expected(release: Release, check: str, protector: str, expected: Expectation) -> None:
    assert expectation(release, check, cell(release, protector=protector))[0] is expected


def test_what_differs_between_releases() -> None:
    """The facts that changed from one release to the next."""
    seen = {
        name: {
            check: expectation(releases.load(name), check, cell(releases.load(name)))[0].value
            for check in (
                "network/source-ports-random",
                "network/rst-outside-edge",
                "network/rst-zero-window",
                "network/stamp-forged",
                "security/random-stack",
            )
        }
        for name in DRAGONFLY
    }
    everything = {
        "1.0": ("pass", "pass", "known", "known", "known"),
        "1.2": ("known", "known", "pass", "pass", "known"),
        "1.4": ("known", "known", "pass", "pass", "pass"),
    }
    assert {name: tuple(outcomes.values()) for name, outcomes in seen.items()} == {
        name: everything[name] for name in DRAGONFLY
    }


def test_a_kernel_for_one_cpu(release: Release) -> None:
    """It sees one of two, and is not asked where it puts processes."""
    two = cell(release, kernel="up", sockets=2)
    assert expectation(release, "scheduler/cpu-count", two)[0] is Expectation.KNOWN
    assert expectation(release, "scheduler/placement", two)[0] is Expectation.NA
    assert expectation(release, "scheduler/cpu-count", cell(release, kernel="up"))[0] is Expectation.PASS
    assert expectation(release, "scheduler/placement", cell(release, sockets=2))[0] is Expectation.PASS


def test_protectors_and_kernels(release: Release) -> None:
    """Both halves of a build say for themselves what they are; SMP kernels leave the 386 out."""
    shown = {
        name: (value.flags, value.of_kernel.flags, bool(value.present), bool(value.of_kernel.present))
        for name, value in release.stack_protectors.items()
    }
    no, yes = ("-fno-stack-protector",), ("-fstack-protector",)
    assert shown == {
        "off": (no, no, False, False),
        "on": (yes, yes, True, True),
        "kernel": (no, yes, False, True),
        "world": (yes, no, True, False),
    }
    assert "SMP" in release.kernels["smp"].options and "SMP" not in release.kernels["up"].options


def refusal(release: Release, attributes: Cell) -> str | None:
    for rule in release.refuse:
        if filter.compile(rule.when)(attributes.attributes()):
            assert rule.evidence, "a refusal has its evidence"
            return rule.reason
    return None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"sockets": 2, "threads": 2}, None),
        ({"cpu": "Haswell-noTSX"}, None),
        ({"nx": True}, "no-execute"),
        ({"sockets": 17}, "16 CPUs"),
        ({"machine": "q35", "disk": "ahci"}, "AHCI"),
        ({"disk": "virtio-blk"}, "da0"),
        ({"console": "virtio"}, "console"),
        ({"hypervisor": "xen-pv"}, "port to Xen"),
        ({"hypervisor": "xen-hvm"}, None),
    ],
)
def test_machines(release: Release, fields: dict[str, int | str | bool], reason: str | None) -> None:
    variant = Variant(release.name, "gcc34", "on", "smp")
    found = refusal(release, Cell(variant, machine(release, **fields)))
    assert (reason is None) == (found is None)
    assert reason is None or reason in (found or "")


def test_what_a_release_wants_is_possible(release: Release) -> None:
    """Its own machine is one that QEMU knows."""
    own = machine(release)
    for kind, globs in hardware().models.items():
        assert any(fnmatchcase(str(getattr(own, kind)), name) for name in globs)


@pytest.mark.parametrize("name", ["gcc3", "gcc47", "gcc-12"])
def test_other_compilers(release: Release, name: str) -> None:
    assert refusal(release, Cell(Variant(release.name, name, "on", "up"), machine(release)))
