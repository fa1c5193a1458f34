"""The command line: one module per command group parses, calls and presents; nothing else."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from dfbuild.cli.parser import build
from dfbuild.errors import BuildFailed, DfbuildError, InfraError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    import importlib

    words = list(sys.argv[1:] if argv is None else argv)
    arguments = build().parse_args(words)
    arguments.argv = words  # a run remembers how it was asked for
    module, function = arguments.run.split(":")
    try:
        status: int = getattr(importlib.import_module(module), function)(arguments)
        sys.stdout.flush()
        return status
    except DfbuildError as error:
        if isinstance(error, BuildFailed) and error.tail:
            print(f"{error.tail}\n(the whole log: {error.log})", file=sys.stderr)
        print(f"dfbuild: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader went away (`| head`): nothing more to say, and nothing to complain of at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _FULL:
            raise
        hint = "`sources`, `objects` and `artefacts` in the work directory can go: what is needed is made again"
        print(f"dfbuild: {InfraError(os.strerror(error.errno), hint=hint)}", file=sys.stderr)
        return InfraError.exit_status
