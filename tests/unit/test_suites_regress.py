"""What dfregress(8) is told and what it says, without a guest."""

from __future__ import annotations

import plistlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfbuild.suites.probe import ProbeError
from dfbuild.suites.regress.runlist import Code, Entry, names, parse, result
from dfbuild.suites.sysperf.timing import timings

RUNLIST = """\
# Testcase		type		Options		Command line arguments
io/poll_1/poll_1	userland	defaults
io/sendfd_1/sendfd_1	userland	timeout=20

priv/setreuid/setreuid	userland	runas=nobody,timeout=7  # by another user
crypto/aes/aestest	userland	defaults	ecbnk44.txt
crypto/aes/aestest	userland	defaults	ecbnk48.txt
crypto/aes/aestest	userland	timeout=600	ecbnk48.txt
compiler/div128/div128	buildonly	defaults
"""
WORDS = st.text("abc_1/", min_size=1, max_size=6)
ENTRIES = st.builds(
    Entry,
    WORDS,
    st.sampled_from(["userland", "kernel", "buildonly"]),
    st.lists(st.sampled_from(["defaults", "nobuild", "runas=nobody", "timeout=9"]), min_size=1, max_size=3).map(
        tuple
    ),
    st.lists(WORDS, max_size=2).map(tuple),
)


def test_a_runlist() -> None:
    entries = parse(RUNLIST)
    assert len(entries) == 7
    assert entries[2] == Entry("priv/setreuid/setreuid", "userland", ("runas=nobody", "timeout=7"), ())
    assert [entry.timeout for entry in entries] == [300, 20, 7, 300, 300, 600, 300]
    assert list(names(entries)) == [
        *("io-poll-1", "io-sendfd-1", "priv-setreuid"),
        *("crypto-aes-ecbnk44", "crypto-aes-ecbnk48", "crypto-aes-ecbnk48-again", "compiler-div128"),
    ]


@pytest.mark.parametrize("line", ["io/poll_1/poll_1", "io/poll_1/poll_1 userland"])
def test_a_line_that_is_none(line: str) -> None:
    with pytest.raises(ProbeError, match="a line that is none"):
        parse(line)


@given(entry=ENTRIES, slower=st.floats(0.5, 50))
def test_a_line_is_read_as_it_was_written_but_for_its_time(entry: Entry, slower: float) -> None:
    (again,) = parse(entry.line(slower))
    assert (again.program, again.type, again.arguments) == (entry.program, entry.type, entry.arguments)
    assert again.timeout == round(entry.timeout * slower)
    assert {*again.options, "defaults", "timeout=9"} >= {*entry.options}


@given(entries=st.lists(ENTRIES, max_size=6))
def test_every_entry_has_a_name_of_its_own(entries: list[Entry]) -> None:
    found = names(entries)
    assert list(found.values()) == entries
    assert len({name.replace("_", "-") for name in found}) == len(entries), "as checks are called"


def wrote(**how: Any) -> bytes:
    return plistlib.dumps([{"name": "io/a/a", "type": "userland", "result": how}])


def test_results() -> None:
    assert result(wrote(result=5, build_buf="cc a.c\n", stdout_buf="fine\n")).code is Code.PASS
    assert result(wrote(result=5, exit_value=0)).signal == 0, "one that is only built has none"
    told = result(wrote(result=2, exit_value=0, signal=11, build_buf="cc a.c\n", stderr_buf="oops\n"))
    assert (told.code, told.signal, told.said) == (Code.SIGNALLED, 11, "cc a.c\noops\n")


@pytest.mark.parametrize(
    "plist",
    [b"", b"not XML", wrote(), wrote(result=77), plistlib.dumps([]), plistlib.dumps([{"name": "a"}]), b"<plist>"],
)
def test_what_is_no_result(plist: bytes) -> None:
    with pytest.raises(ProbeError, match="wrote no result"):
        result(plist)


def test_timings() -> None:
    """Lines as seen on master of 2020."""
    said = """timing standard stat() syscall
stat()  0.952s 10900 loops,    11449 loops/sec, 87.343uS/loop
full duplex pipe / 1char:  1.430s 1024 loops,      716 loops/sec, 1396.865uS/loop\r
execl static program:  0.028s 0 loops,        0 loops/sec,    infuS/loop
datarate: blkSize 65536 10.34 MBytes/sec
"""
    assert timings(said) == {"stat()": 87.343, "full duplex pipe / 1char:": 1396.865}
    assert timings("") == {}
