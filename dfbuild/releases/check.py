"""What a release's data must hold beyond its structure: expressions and patterns that work, names that exist."""

from __future__ import annotations

import fnmatch
import re
import string
from collections.abc import Iterable, Iterator, Sequence

from dfbuild import filter
from dfbuild.errors import UsageError, nearest
from dfbuild.model import Verdict
from dfbuild.releases.schema import Crash, Release
from dfbuild.toml import Document, Place


def problems(release: Release, document: Document) -> list[UsageError]:
    """Everything that is wrong with `release`, which `document` holds; empty if it can be used."""
    found = [
        *_name(release, document),
        *_expressions(release, document),
        *_checks(release, document),
        *_patterns(release, document),
        *_kernels(release, document),
    ]
    for index, crash in enumerate(release.console.crashes):
        found += _crash(crash, document, ("console", "crashes", index))
    found += _unique(document, ("console", "stages"), [stage.name for stage in release.console.stages])
    found += _unique(document, ("console", "crashes"), [crash.name for crash in release.console.crashes])
    if release.wire is not None:
        found += _fields(
            document, ("wire", "configure"), release.wire.configure, ("interface", "address", "prefix")
        )
    return found


def _name(release: Release, document: Document) -> Iterator[UsageError]:
    expected = document.file.stem
    if release.name != expected:
        hint = f"name = {expected!r}, or call the file {release.name}.toml"
        yield document.problem(
            ("name",), f"expected the file's name, {expected!r}, found {release.name!r}", hint=hint
        )
    for key in ("toolchains", "stack_protectors", "kernels"):
        if not getattr(release, key):
            yield document.problem((key,), "expected at least one entry")
    if not release.console.stages:
        yield document.problem(("console", "stages"), "expected at least one stage: the boot's end is the last one")


def _kernels(release: Release, document: Document) -> Iterator[UsageError]:
    built = [name for name, kernel in release.kernels.items() if not kernel.like]
    for name, kernel in release.kernels.items():
        if kernel.like and kernel.like not in built:
            yield document.problem(
                ("kernels", name, "like"),
                f"{kernel.like!r} is no kernel that is built",
                hint=f"one of {', '.join(built)}",
            )


def _expressions(release: Release, document: Document) -> Iterator[UsageError]:
    known = {
        "toolchain": tuple(release.toolchains),
        "stack_protector": tuple(release.stack_protectors),
        "kernel": tuple(release.kernels),
    }
    # What is refused may be what the release does not have; what is expected of it may not.
    own = {**filter.CELL, **{name: filter.Attribute(values=values) for name, values in known.items()}}
    rules = [(("refuse", i, "when"), rule.when, filter.CELL) for i, rule in enumerate(release.refuse)]
    rules += [(("expect", i, "when"), rule.when, own) for i, rule in enumerate(release.expect)]
    for place, expression, names in rules:
        try:
            filter.compile(expression, names)
        except UsageError as error:
            yield document.problem(place, error.message, hint=error.hint)


def _checks(release: Release, document: Document) -> Iterator[UsageError]:
    for index, entry in enumerate(release.expect):
        suite, slash, check = entry.check.partition("/")
        place = ("expect", index, "check")
        if not (suite and slash and check):
            yield document.problem(
                place, f"expected a glob over suite/name, found {entry.check!r}", hint="security/nx-*"
            )
        elif not fnmatch.filter(release.suites, suite):
            yield document.problem(place, f"no suite is called {suite!r}", hint=nearest(suite, release.suites))


def _patterns(release: Release, document: Document) -> Iterator[UsageError]:
    """Regular expressions, all over bytes, that do not compile or match anything."""
    patterns: list[tuple[Place, str]] = [
        (("toolchains", name, "comment"), toolchain.comment) for name, toolchain in release.toolchains.items()
    ]
    for index, stage in enumerate(release.console.stages):
        patterns.append((("console", "stages", index, "pattern"), stage.pattern))
    for index, crash in enumerate(release.console.crashes):
        patterns.append((("console", "crashes", index, "pattern"), crash.pattern))
        if crash.where:
            patterns.append((("console", "crashes", index, "where"), crash.where))
    if release.source is not None:
        patterns.append((("source", "pattern"), release.source.pattern))
    for key in ("login", "password", "prompt"):
        patterns.append((("shell", "serial", key), getattr(release.shell.serial, key)))
    for place, pattern in patterns:
        try:
            compiled = re.compile(pattern.encode())
        except (re.error, OverflowError, RecursionError) as error:
            yield document.problem(
                place, f"not a regular expression: {error}", hint="[ ] ( ) { } . * + ? need a \\"
            )
            continue
        if compiled.search(b""):
            yield document.problem(place, "matches where there is nothing at all", hint="say what must be seen")


def _crash(crash: Crash, document: Document, place: Place) -> Iterator[UsageError]:
    """The literal is what the pattern itself asks for, and the title names groups that there are."""
    plain = re.sub(r"\\([^\w])", r"\1", crash.pattern)
    if not crash.literal:
        yield document.problem((*place, "literal"), "expected some text that every match contains")
    elif crash.literal not in plain:
        yield document.problem(
            (*place, "literal"),
            f"{crash.literal!r} does not occur in the pattern, so that lines which match may never be looked at",
            hint="take the longest plain text out of the pattern",
        )
    if crash.verdict in (Verdict.PASS, Verdict.SKIP):
        yield document.problem((*place, "verdict"), f"a crash is no {crash.verdict}", hint='verdict = "PANIC"')
    try:
        groups = re.compile(crash.pattern).groups
    except (re.error, OverflowError, RecursionError):
        return
    yield from _fields(document, (*place, "title"), crash.title, tuple(str(n) for n in range(groups + 1)))


def _fields(document: Document, place: Place, text: str, allowed: Sequence[str]) -> Iterator[UsageError]:
    """A format string that uses nothing but the fields `allowed`."""
    try:
        parsed = [part for part in string.Formatter().parse(text) if part[1] is not None]
    except ValueError as error:
        yield document.problem(place, f"not a format string: {error}", hint="a brace itself is written twice")
        return
    known = ", ".join(f"{{{name}}}" for name in allowed)
    for _, field, format, conversion in parsed:
        if field not in allowed:
            yield document.problem(place, f"{{{field}}} stands for nothing", hint=f"known: {known}")
        elif format or conversion:
            yield document.problem(place, f"{{{field}}} is put in as it is", hint=f"nothing else but {{{field}}}")


def _unique(document: Document, place: Place, names: Iterable[str]) -> Iterator[UsageError]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield document.problem(
                (*place, index, "name"), f"{name!r} is there already", hint="each has its own name"
            )
        seen.add(name)
