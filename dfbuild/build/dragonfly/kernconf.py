"""Kernel configurations: a release's own or a user's, with what a kernel of the matrix asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dfbuild.errors import UsageError
from dfbuild.image.templates import images, render
from dfbuild.releases.schema import Kernel
from dfbuild.workspace import expanded

_TEMPLATE = "kernconf.j2"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What config(8) takes for a value: one word, quotes that C sees have a backslash.
_VALUE = re.compile(r'[-+\w.,:/\\"]*')
_WORDS = re.compile(r"[-+\w.,:/ =]*")


def name(kernel: str, toolchain: str, *, protected: bool) -> str:
    """The name that a kernel goes by in its version and `kern.ident`: `SMP-GCC34-SSP`."""
    words = [kernel, toolchain, *(["ssp"] if protected else [])]
    plain = re.sub(r"[^A-Z0-9_-]", "_", "-".join(words).upper())
    return plain if plain[0].isalpha() else f"K{plain}"


def read(kernel: Kernel, tree: Path, default: str) -> str:
    """The text that `kernel` is derived from: its `config`, a file of the tree or of this host, or `default`."""
    chosen = expanded(kernel.config or default)
    path = chosen if chosen.is_absolute() else tree / chosen
    try:
        return path.read_text(encoding="latin-1")
    except OSError as error:
        raise UsageError(
            f"there is no kernel configuration {path}: {error.strerror}",
            hint="kernels.NAME.config is a path in the source tree, or an absolute one",
        ) from error


def derive(base: str, ident: str, kernel: Kernel, makeoptions: Mapping[str, str]) -> str:
    """`base` under the name `ident`, without what `kernel` leaves out, with its options and `makeoptions`.

    What is given replaces what `base` says of it. Raises `UsageError` for an option that is none, and for a line to
    leave out that is not there.
    """
    for option, value in kernel.options.items():
        _check("kernel option", option, value, _VALUE)
    for option, value in makeoptions.items():
        _check("make option", option, value, _WORDS)
    gone = [
        ("ident",),
        *(tuple(line.split()) for line in kernel.without),
        *(("options", option) for option in kernel.options),
        *(("makeoptions", option) for option in makeoptions),
    ]
    for line in kernel.without:
        if not any(_begins(found, [tuple(line.split())]) for found in base.splitlines()):
            raise UsageError(f"a kernel is to be without {line!r}, which its configuration does not have")
    template = (images("dragonfly") / _TEMPLATE).read_text(encoding="utf-8")
    kept = [line.rstrip() for line in base.splitlines() if not _begins(line, gone)]
    values = {"ident": ident, "base": kept, "options": kernel.options, "makeoptions": makeoptions}
    return render(template, values)


def _check(what: str, option: str, value: str, values: re.Pattern[str]) -> None:
    if not _NAME.fullmatch(option) or not values.fullmatch(value):
        raise UsageError(f"{option}={value} is no {what}", hint="a name, and a value of one word")


def _begins(line: str, beginnings: Sequence[tuple[str, ...]]) -> bool:
    """Whether a line of a configuration begins with the words of one of `beginnings`; a value does not count."""
    words = line.partition("#")[0].replace('"', " ").replace("=", " ").split()
    return any(tuple(words[: len(beginning)]) == beginning for beginning in beginnings)
