"""The programs of the tree that end by themselves, in seconds even under emulation."""

from __future__ import annotations

PROGRAMS = {
    "sc1": "", "sc4": "", "sc5": "", "sc6": "", "sc7": "", "pipe1": "", "pipe2": "64k", "sp1": "64k",
    "lockmgr1": "", "lockmgr2": "", "lockmgr3": "",
}  # fmt: skip
"""Target of the makefile in `test/sysperf` ▸ its arguments. Others run for minutes, or start 900,000 processes."""
