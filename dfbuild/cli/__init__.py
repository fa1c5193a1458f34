"""The command line: one module per command group parses, calls and presents; nothing else."""

from __future__ import annotations

import argparse
import errno
import io
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from dfbuild.cli.parser import build
from dfbuild.errors import BuildFailed, DfbuildError, InfraError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    import importlib

    words = list(sys.argv[1:] if argv is None else argv)
    arguments = build().parse_args(words)
    arguments.argv = words  # a run remembers how it was asked for
    os.umask(0o022)  # what is made is for others to read, whoever makes it: images have its permissions
    # As Ctrl-C does: what a command has begun, it ends.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every terminal has every character
    module, function = arguments.run.split(":")
    try:
        with _held(arguments):
            status: int = getattr(importlib.import_module(module), function)(arguments)
        sys.stdout.flush()
        return status
    except DfbuildError as error:
        from dfbuild.report.text import safe

        # What a compiler or a guest said is in there.
        if isinstance(error, BuildFailed) and error.tail:
            print(f"{safe(error.tail)}\n(the whole log: {error.log})", file=sys.stderr)
        print(f"dfbuild: {safe(str(error))}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader went away (`| head`): nothing more to say, and nothing to complain of at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - Python's own status for it is that of regressions
        told = _told(error, arguments) if isinstance(error, OSError) else None
        if told is None:
            traceback.print_exc()
            told = InfraError("a defect of dfbuild: see above")
        print(f"dfbuild: {told}", file=sys.stderr)
        return told.exit_status


def _end(number: int, _: object) -> None:
    for again in (signal.SIGTERM, signal.SIGHUP):  # A terminal that is closed says so twice.
        signal.signal(again, signal.SIG_IGN)
    sys.exit(128 + number)


def _told(error: OSError, arguments: argparse.Namespace) -> InfraError | None:
    """What the host refused, and of which file; None for what says too little to go without its traceback."""
    name = error.filename2 or error.filename
    named = isinstance(name, str | bytes)
    if error.errno is None or not (named or error.errno in _FULL):
        return None
    what = os.strerror(error.errno)
    told = f"{os.fsdecode(name)}: {what}" if named else what
    if error.errno not in _FULL or not hasattr(arguments, "work"):
        return InfraError(told)
    from dfbuild.workspace import Workspace

    where = "" if named else f"; the work directory is {Workspace.locate(arguments.work).root}"
    clean = f"dfbuild clean --work {shlex.quote(arguments.work)}" if arguments.work else "dfbuild clean"
    hint = f"`{clean}` removes what was not used for days, `{clean} --unused 0` all that builds left"
    return InfraError(f"{told}{where}", hint=hint)


def _held(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """For as long as a command makes artefacts, or uses them, nobody cleans them away."""
    if not arguments.builds:
        return nullcontext()
    from dfbuild.cli.progress import say
    from dfbuild.workspace import Workspace

    if getattr(arguments, "resume", None) is not None:
        return Workspace.existing(arguments.work).in_use(say)
    workspace = Workspace.locate(arguments.work)
    if hasattr(arguments, "src"):
        from dfbuild.cli import source

        source.require_work_apart(arguments, workspace)  # before there is anything in it
    return workspace.in_use(say)
