"""The argument parser. Imports nothing but argparse, so that `--help` answers at once.

Each command names the function that runs it as `module:function`; it is imported when it is called.
"""

from __future__ import annotations

import argparse
import os

from dfbuild import __version__

_EXIT = """exit status:
  0    everything as expected        1    regressions
  2    usage                         3    infrastructure
  130  interrupted
"""


class _Parser(argparse.ArgumentParser):
    """Says of a word that none can stand for which one may be meant."""

    def _check_value(self, action: argparse.Action, value: object) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            from dfbuild.errors import nearest

            if hint := nearest(str(value), map(str, action.choices or ()), otherwise=""):
                error.message += f"\n  hint: {hint}"
            raise


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: str, help: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=help, description=help, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def _workspace(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", metavar="DIR", help="work directory (default: $DFBUILD_WORK, or the user's data)")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _selection(parser: argparse.ArgumentParser) -> None:
    # What `choice.choose` reads, where there is no such option.
    parser.set_defaults(build="cross", base="", xen_host="", check="", memory=None)
    parser.add_argument(
        "--filter", metavar="EXPR", default="", help="cells to take: 'toolchain=gcc* and shape!=up'"
    )
    parser.add_argument("--cell", metavar="ID", action="append", default=[], help="one cell by its id; repeatable")


def _base(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--base", metavar="NAME", default="", help="boot this base image instead of what the tree makes"
    )


def _xen_host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--xen-host",
        metavar="HOST",
        default="",
        help="where guests of Xen run: nested (a host made for each), local (this one's xl), "
        "ssh://[user@]host[:port] (default: $DFBUILD_XEN_HOST, or nested)",
    )


def _file(action: argparse.Action) -> None:
    action.complete = {"bash": "_shtab_compgen_files", "zsh": "_files"}  # type: ignore[attr-defined]


def build() -> argparse.ArgumentParser:
    """The whole command line."""
    parser: argparse.ArgumentParser = _Parser(
        prog="dfbuild",
        description="Build DragonFly BSD with chosen compilers, boot it on chosen hardware, test it, compare.",
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dfbuild {__version__}")
    parser.set_defaults(builds=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _matrix(commands)
    _report(commands)
    _guest(commands)
    _image(commands)
    _others(commands)
    return parser


def _matrix(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    matrix = _command(commands, "matrix", "dfbuild.cli.matrix:run", "build, boot and test a matrix file's cells")
    _file(matrix.add_argument("config", nargs="?", metavar="FILE", help="matrix file (TOML)"))
    _selection(matrix)
    matrix.add_argument("--check", metavar="GLOB", default="", help="checks to run: 'security/*'")
    matrix.add_argument("--via", choices=["serial", "ssh"], help="how suites reach the guest (default: the file's)")
    matrix.add_argument(
        "--build",
        choices=["cross", "native", "native-world"],
        default="cross",
        help="where kernels are built, and worlds: here, or by the tree's own make in a guest (native: kernels, an "
        "hour or more under emulation; native-world: worlds too, many hours)",
    )
    _base(matrix)
    matrix.add_argument(
        "--dry-run", action="store_true", help="list cells, steps and command lines; build and boot nothing"
    )
    matrix.add_argument(
        "--resume", nargs="?", const="", metavar="RUN", help="go on with a run that was interrupted (the last one)"
    )
    matrix.add_argument("--against", metavar="RUN", help="compare with another run ('last': the last finished one)")
    matrix.add_argument("--guests", type=_positive, metavar="N", help="guests at a time")
    matrix.add_argument("--boots", type=_positive, metavar="N", help="guests booting at a time")
    matrix.add_argument("--memory", type=_positive, metavar="MIB", help="memory for all guests together")
    _trees(matrix)
    _xen_host(matrix)
    _workspace(matrix)
    _json(matrix)


def _report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    report = _command(commands, "report", "dfbuild.cli.report:run", "show a run, and what changed since another")
    report.add_argument("run_id", nargs="?", metavar="RUN", help="run (default: the last one)")
    report.add_argument("--against", metavar="RUN", help="compare with this run; the stored report stays as it is")
    _file(report.add_argument("--junit", metavar="FILE", help="write JUnit XML (-: to standard output)"))
    _file(report.add_argument("--html", metavar="FILE", help="write the page"))
    _workspace(report)
    _json(report)
    runs = _command(commands, "runs", "dfbuild.cli.report:runs", "list the runs")
    _workspace(runs)
    _json(runs)


def _guest(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    guest = commands.add_parser(
        "guest", help="boot a guest and keep it up", description="Boot a guest of a matrix and keep it up."
    )
    actions = guest.add_subparsers(dest="action", metavar="ACTION", required=True)
    up = _command(actions, "up", "dfbuild.cli.guest:up", "build what a cell needs, boot it, keep it")
    _file(up.add_argument("config", metavar="FILE", help="matrix file (TOML)"))
    _selection(up)
    _trees(up)
    _xen_host(up)
    up.add_argument("--name", help="name to call it by (default: the cell's shape)")
    instead = up.add_mutually_exclusive_group()
    _base(instead)
    instead.add_argument("--live", action="store_true", help="boot a CD with the cell's live system instead")
    listing = _command(actions, "list", "dfbuild.cli.guest:listing", "list the guests that are up")
    down = _command(actions, "down", "dfbuild.cli.guest:down", "end a guest")
    execute = _command(actions, "exec", "dfbuild.cli.guest:execute", "run a shell command in a guest")
    console = _command(actions, "console", "dfbuild.cli.guest:console", "show a guest's console")
    for named in (down, execute, console):
        named.add_argument("name", metavar="NAME")
    execute.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="COMMAND",
        help="all that follows NAME, options too, joined by spaces for the guest's shell as ssh does; exits as it "
        "does, and gets no input",
    )
    execute.add_argument("--via", choices=["serial", "ssh"], default="ssh")
    console.add_argument("--follow", action="store_true", help="go on until the guest ends")
    for every in (up, listing, down, execute, console):
        _workspace(every)
    for some in (up, listing, execute):
        _json(some)


def _image(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    image = commands.add_parser(
        "image", help="make and take in images", description="Make media to install from, take in what others made."
    )
    actions = image.add_subparsers(dest="action", metavar="ACTION", required=True)
    iso = _command(actions, "iso", "dfbuild.cli.image:iso", "make a bootable CD with a cell's live system")
    _file(iso.add_argument("config", metavar="FILE", help="matrix file (TOML)"))
    _selection(iso)
    _trees(iso)
    _file(iso.add_argument("-o", "--output", metavar="FILE", help="where it goes (default: its place is printed)"))
    take = _command(actions, "import", "dfbuild.cli.image:take", "make a base image of a CD or a raw disk")
    _file(take.add_argument("medium", metavar="FILE", help=".iso, installed unattended; .img, a disk as it is"))
    take.add_argument("--sha256", metavar="SUM", required=True, help="what the file's SHA-256 must be")
    take.add_argument("--name", default="", help="name to call it by (default: the file's)")
    take.add_argument("--release", metavar="NAME", default="", help="release it is of (default: what the CD says)")
    listing = _command(actions, "list", "dfbuild.cli.image:listing", "list the base images")
    remove = _command(actions, "remove", "dfbuild.cli.image:remove", "forget a base image")
    remove.description = "Forget a base image. Its disk goes with what `dfbuild clean` removes."
    remove.add_argument("name", metavar="NAME", help="what `dfbuild image list` calls it")
    take.set_defaults(builds=True)
    _workspace(remove)
    for every in (iso, take, listing):
        _workspace(every)
        _json(every)


def _source(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(builds=True)
    parser.add_argument("--src", metavar="DIR", help="source tree or repository (default: $DFBUILD_SRC)")
    parser.add_argument("--rev", metavar="REV", default="", help="revision in the repository")
    parser.add_argument("--release", metavar="NAME", default="", help="release it is of (default: what it says)")
    _file(
        parser.add_argument(
            "--patch",
            metavar="FILE",
            action="append",
            default=[],
            type=os.path.abspath,
            help="patch to apply to a copy of it; repeatable",
        )
    )


def _trees(parser: argparse.ArgumentParser) -> None:
    _source(parser)
    parser.add_argument(
        "--keep-world",
        action="store_true",
        help="take the userland of the tree without its patches: quick for those that change a kernel header",
    )


def _others(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    toolchain = _command(
        commands, "toolchain", "dfbuild.cli.toolchain:run", "bootstrap a tree's compiler, print its prefix"
    )
    toolchain.add_argument("name", metavar="NAME", help="compiler by the tree's name for it: gcc2, gcc34 …")
    _source(toolchain)
    _workspace(toolchain)
    _json(toolchain)
    clean = _command(commands, "clean", "dfbuild.cli.clean:run", "make room in the work directory")
    clean.description = (
        "Remove what builds left and nothing used lately: artefacts, object trees, copies of source trees, logs. "
        "It is made again when it is needed. Runs and their results, keys and base images stay."
    )
    clean.add_argument("--unused", type=float, metavar="DAYS", help="what was not used for so long (default: 14)")
    clean.add_argument(
        "--below", type=float, metavar="GIB", help="the least recently used, until no more than this is left"
    )
    clean.add_argument("--dry-run", action="store_true", help="list what would go; remove nothing")
    _workspace(clean)
    _json(clean)
    doctor = _command(commands, "doctor", "dfbuild.cli.doctor:run", "say what is missing for which feature")
    _workspace(doctor)
    _json(doctor)
    schema = _command(commands, "schema", "dfbuild.cli.schema:run", "print a JSON Schema")
    schema.add_argument("what", nargs="?", choices=["matrix", "release", "report"], default="matrix")
    completions = _command(commands, "completions", "dfbuild.cli.completions:run", "print a shell's completions")
    completions.add_argument("shell", choices=["bash", "zsh", "tcsh"])
