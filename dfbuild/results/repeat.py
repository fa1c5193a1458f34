"""The one line that repeats a failure."""

from __future__ import annotations

import argparse
import glob
import shlex
from collections.abc import Sequence

from dfbuild.results.records import RunRecord


def repeat_words(config: str, cell: str, *, check: str = "", options: Sequence[str] = ()) -> tuple[str, ...]:
    """The command line, word by word. `check` is a check's name, not a pattern; `options` are added as they are."""
    return (
        "dfbuild",
        "matrix",
        # A name that begins with a dash would be read as an option.
        f"./{config}" if config.startswith("-") else config,
        *_option("--cell", cell),
        *(_option("--check", glob.escape(check)) if check else ()),
        *options,
    )


def repeat_line(config: str, cell: str, *, check: str = "", options: Sequence[str] = ()) -> str:
    """The same as a line for a POSIX shell.

    >>> repeat_line("configs/reference.toml", "reference/gcc-12+ssp/smp @ up", check="security/nx-stack")
    "dfbuild matrix configs/reference.toml --cell 'reference/gcc-12+ssp/smp @ up' --check security/nx-stack"
    """
    return shlex.join(repeat_words(config, cell, check=check, options=options))


def cell_line(run: RunRecord, cell: str) -> str:
    """The line that repeats all that `run` did with a cell."""
    check = asked(run.command, "--check")
    narrowed = _option("--check", check) if check else ()
    return repeat_line(run.config_file, cell, options=(*narrowed, *run.options))


def asked(command: Sequence[str], name: str) -> str:
    """What `command` says for the option `name`, or nothing; of its other options nothing needs to be known."""
    words = argparse.ArgumentParser(add_help=False)
    words.add_argument(name, default="", dest="value")
    value: str = words.parse_known_args([word for word in command if word != "--"])[0].value
    return value


def _option(name: str, value: str) -> tuple[str, ...]:
    return (f"{name}={value}",) if value.startswith("-") else (name, value)
