"""The line that says what is wrong, of every compiler's and tool's way to say it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.build.complaint import complaint, shown


@pytest.mark.parametrize(
    "line",
    [
        "/usr/src/sys/kern/kern_nrandom.c:660:27: error: 'undeclared_thing' undeclared here (not in a function)",
        "../../kern/kern_shutdown.c:907: error: `undeclared_thing' undeclared (first use in this function)",
        "../../kern/kern_shutdown.c:907: `undeclared_thing' undeclared (first use in this function)",
        "/usr/src/sys/kern/x.c:1:10: fatal error: sys/gone.h: No such file or directory",
        "{standard input}:11: Error: unknown .loc sub-directive `view'",
        "kern_exec.o:(.text+0x12): undefined reference to `gone'",
        "b.o: in function `twice': multiple definition of `twice'",
        "make: don't know how to make gone.c. Stop",
        "make[2]: *** No rule to make target 'gone.c', needed by 'all'.  Stop.",
    ],
)
def test_the_error_is_found_among_the_rest(line: str) -> None:
    text = (
        "cc -c -O -Werror -o x.o /usr/src/sys/kern/x.c\n"
        "../../kern/x.c: In function `planted':\n"
        "../../kern/x.c:12: warning: unused variable `error'\n"
        "/usr/src/sys/kern/x.c:3:1: note: declared here\n"
        f"{line}\n"
        "../../kern/y.c:1: error: one that follows from it\n"
        "*** Error code 1\n\nStop.\nbmake: stopped in /usr/obj/usr/src/sys/UP\n"
    )
    assert complaint(text) == line


def test_what_is_no_error_is_none() -> None:
    assert complaint("cc -Werror -c x.c\nx.c:1: warning: error: odd\n*** Error code 1\n12:00:01 done\n") == ""


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("/usr/src/sys/netinet/in_pcb.c:770: error: odd", "sys/netinet/in_pcb.c:770: error: odd"),
        ("In file included from /usr/src/sys/a.c:1,", "In file included from sys/a.c:1,"),
        ("`/usr/src/a' and (/usr/src/b)", "`a' and (b)"),
        ("bmake: stopped in /usr/obj/usr/src/sys/UP", "bmake: stopped in /usr/obj/usr/src/sys/UP"),
        ("cc -I/usr/src/sys -I. ../../x.c", "cc -I/usr/src/sys -I. ../../x.c"),
        ("cd /usr/src/ && make", "cd /usr/src/ && make"),
    ],
)
def test_files_are_shown_by_their_names_in_the_tree(line: str, seen: str) -> None:
    assert shown(f"{line}\n{line}") == f"{seen}\n{seen}"


def test_of_a_long_line_its_ends_are_shown() -> None:
    command = f"cc -c {'-Wwarn ' * 300}x.c"
    first, second, third = shown(f"x\n{command}\nx.c:1: error: odd").split("\n")
    assert (first, third) == ("x", "x.c:1: error: odd")
    assert len(second) <= 200 and second.startswith("cc -c -W") and " … " in second and second.endswith(" x.c")


@given(st.text())
def test_any_text_is_one_short_line_or_none(text: str) -> None:
    assert len(complaint(text).splitlines()) <= 1 and len(complaint(text)) <= 200
    assert shown(text).count("\n") == text.count("\n")
    assert all(len(line) <= 200 for line in shown(text).split("\n"))
