"""Runs to test with: a store is filled the way the runner fills it."""

from __future__ import annotations

import random
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dfbuild.model import (
    Better,
    Cell,
    CheckResult,
    CrashReport,
    Expectation,
    Outcome,
    Refusal,
    Sample,
    Shape,
    StageReached,
    StepKind,
    Variant,
    Verdict,
)
from dfbuild.results.directory import cell_directory
from dfbuild.results.records import RunInfo, RunStatus, StepRecord
from dfbuild.results.store import Store
from dfbuild.workspace import Workspace

START = datetime(2026, 11, 24, 3, 15, tzinfo=UTC)
SHAPES = (
    Shape("up"),
    Shape("smp2", sockets=2),
    Shape("ht2", threads=2),
    Shape("nx-off", nx=False),
)
BOOT = b"Linux version 6.1.0\r\nsmp: Bringing up secondary CPUs ...\r\nvirtio_blk virtio1: [vda]\r\n"


def cells(toolchains: tuple[str, ...] = ("gcc-12", "clang-14")) -> tuple[Cell, ...]:
    return tuple(
        Cell(Variant("reference", toolchain, protector, "smp"), shape, ("scheduler", "network", "security"))
        for toolchain in toolchains
        for protector in ("on", "off")
        for shape in SHAPES
    )


def info(some: tuple[Cell, ...] | None = None, *, name: str = "reference", day: int = 0) -> RunInfo:
    every = cells() if some is None else some
    return RunInfo(
        name=name,
        config_file="configs/reference.toml",
        config_text='name = "reference"\n',
        command=("dfbuild", "matrix", "configs/reference.toml", "--via", "serial"),
        options=("--via", "serial"),
        cells=every,
        refusals=(
            Refusal(
                Cell(Variant("reference", "gcc-12", "on", "smp"), Shape("xen-pv")),
                "the release has no Xen PV kernel <evidence: sys/platform>",
            ),
        ),
        versions={"dfbuild": "0.1.0", "qemu": "7.2.22", "host": "Linux 6.1 x86_64"},
        started=START + timedelta(days=day),
    )


def steps_of(cell: Cell) -> tuple[StepRecord, ...]:
    variant = cell.variant
    name = f"{variant.toolchain}{'+ssp' if variant.stack_protector == 'on' else ''}"
    return (
        StepRecord(f"kernel:smp:{'a' * 20}", StepKind.KERNEL, "smp", "a" * 20, Verdict.PASS, cached=True),
        StepRecord(
            f"world:{name}:{'b' * 20}",
            StepKind.WORLD,
            name,
            "b" * 20,
            Verdict.PASS,
            seconds=7.3,
            facts={"elf": {"machine": "EM_X86_64", "compilers": ["GCC: (Debian 12.2.0-14) 12.2.0"], "guards": 31}},
        ),
        StepRecord(
            f"image:{name}:{'c' * 20}",
            StepKind.IMAGE,
            name,
            "c" * 20,
            Verdict.PASS,
            seconds=1.1,
            log="logs/image.log",
        ),
    )


def fill(workspace: Workspace, *, day: int = 0, worse: bool = False, seed: int = 1) -> str:
    """A night's run with some of everything; with `worse` there is a panic, a hang and slower pipes. Its id."""
    chance = random.Random(f"{seed}-{day}")
    with Store.open(workspace.database) as store:
        run = store.begin(info(day=day))
        for number, cell in enumerate(cells()):
            steps = steps_of(cell)
            broken = worse and cell.variant.toolchain == "clang-14" and cell.variant.stack_protector == "off"
            if broken:
                failed = StepRecord(
                    "world:clang-14:" + "d" * 20,
                    StepKind.WORLD,
                    "clang-14",
                    "d" * 20,
                    Verdict.BUILD_FAIL,
                    seconds=3.2,
                    title="probes/stack.c does not compile",
                    tail="stack.c:14:9: error: use of undeclared identifier 'uint'\n1 error generated.",
                    log=str(workspace.root / "artefacts" / "world.log"),
                )
                steps = (steps[0], failed)
            for step in steps:
                store.record_step(run, step)
            attempt = store.begin_cell(run, cell.id, tuple(step.id for step in steps))
            if broken:
                store.end_cell(attempt, Verdict.BUILD_FAIL, title=f"world clang-14: {failed.title}")
                continue
            directory = cell_directory(workspace, run, cell.id, attempt.number)
            directory.mkdir(parents=True, exist_ok=True)
            log = bytearray(BOOT * 3 + b"login: \x1b[1mroot\x1b[0m\r\n")
            store.record_stage(attempt, StageReached("kernel", 0.4 + 0.2 * chance.random(), 0))
            if worse and number == 1:
                log += b"Freeing initrd memory: 4096K\r\n"
                _transcript(directory, log)
                store.end_cell(
                    attempt, Verdict.HANG, title="silent for 60 s in stage root", seconds=75.0, accel="tcg"
                )
                continue
            store.record_stage(attempt, StageReached("root", 1.9 + 0.5 * chance.random(), 90))
            store.record_stage(attempt, StageReached("login", 4.2 + chance.random(), 250))
            slow = 1.3 if worse and cell.shape.name == "smp2" else 1.0
            for result in checks_of(cell, chance, slow, worse):
                begin = len(log)
                log += f"# {result.check}\r\n".encode() + b"kernel: noise <b>\r\n" * 3
                if result.outcome is Outcome.FAIL:
                    log += b"stack-smash: the guard was not checked\r\n"
                result = CheckResult(
                    **{name: getattr(result, name) for name in result.__slots__ if name != "console"},
                    console=(begin, len(log)),
                )
                store.record_check(attempt, result)
            crash = None
            if worse and number == 2:
                offset = len(log)
                log += b"Kernel panic - not syncing: stack-protector: Kernel stack is corrupted in: do_fork\r\n"
                log += (
                    b"CPU: 1 PID: 77 Comm: hog Not tainted\r\nCall Trace:\r\n dump_stack+0x44\r\n panic+0x100\r\n"
                )
                title = "panic: stack-protector: Kernel stack is corrupted in: do_fork"
                crash = CrashReport(title, "panic", Verdict.PANIC, offset, bytes(log[offset:]).decode())
            _transcript(directory, log)
            failing = worse and number == 0
            verdict = Verdict.PANIC if crash else Verdict.TEST_FAIL if failing else Verdict.PASS
            store.end_cell(
                attempt,
                verdict,
                title="security/stack-smash" if failing else "",
                seconds=21.5,
                accel="tcg",
                command=("qemu-system-x86_64", "-machine", "q35", "-append", "console=ttyS0 quiet"),
                crash=crash,
            )
        store.finish(run, RunStatus.FINISHED, finished=START + timedelta(days=day, minutes=3, seconds=41))
    return run


def _transcript(directory: Path, log: bytes) -> None:
    """`console.log` with an index that says that a byte came every 2 ms."""
    (directory / "console.log").write_bytes(log)
    wall = int(START.timestamp() * 1e9)
    records = (struct.pack("<Qqq", at, at * 2_000_000, wall + at * 2_000_000) for at in range(0, len(log), 16))
    (directory / "console.times").write_bytes(b"".join(records))


def checks_of(cell: Cell, chance: random.Random, slow: float, worse: bool) -> list[CheckResult]:
    first = cell.id == cells()[0].id

    def latency(metric: str, unit: str, middle: float, better: Better = Better.LOWER) -> Sample:
        return Sample(metric, unit, tuple(chance.gauss(middle, middle / 30) for _ in range(30)), better)

    off = not cell.shape.nx
    smashed = Outcome.FAIL if worse and first else Outcome.PASS
    return [
        CheckResult("scheduler/cpus-seen", Outcome.PASS, duration=0.31, facts={"cpus": str(cell.shape.cpus)}),
        CheckResult(
            "scheduler/latency",
            Outcome.PASS,
            duration=2.4,
            samples=(
                latency("scheduler/pipe", "µs", 41.0 * slow),
                latency("scheduler/fork", "µs", 410.0),
                Sample("scheduler/boot", "s", (4.2, 4.3)),
            ),
        ),
        CheckResult(
            "network/throughput",
            Outcome.PASS,
            duration=3.1,
            samples=(latency("network/throughput", "Mbit/s", 330.0, Better.HIGHER),),
        ),
        CheckResult(
            "network/rst-in-window", Outcome.KNOWN, Expectation.KNOWN, "no challenge ACK before 4.2", "", 0.8
        ),
        CheckResult(
            "security/nx-stack",
            Outcome.KNOWN if off else Outcome.PASS,
            Expectation.KNOWN if off else Expectation.PASS,
            "the CPU has no NX" if off else "",
            "code on the stack ran" if off else "",
            0.2,
        ),
        CheckResult(
            "security/stack-smash",
            smashed,
            detail="assert status == 134 (SIGABRT)\n  where status = 0\n  output: 'returned <script>'"
            if worse and first
            else "",
            duration=0.2,
        ),
        CheckResult(
            "security/pid-randomness",
            Outcome.FIXED if first else Outcome.KNOWN,
            Expectation.KNOWN,
            "PIDs are sequential on this release",
            duration=1.2,
        ),
        CheckResult("security/propolice-default", Outcome.SKIP, Expectation.NA, "not a DragonFly compiler"),
    ]
