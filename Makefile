# `make demo` and `make test` set everything up by themselves on a bare Debian or Ubuntu machine.

PYTHON  ?= /usr/bin/python3
VENV    ?= .venv
DFBUILD := $(VENV)/bin/dfbuild

.PHONY: demo test check setup clean

demo: setup
	$(DFBUILD) matrix configs/reference.toml

test: setup
	$(VENV)/bin/python -m pytest

# The quick part of the tests: no virtual machines.
check: setup
	$(VENV)/bin/python -m pytest -m 'not boot and not dragonfly'

setup:
	@tools/setup "$(PYTHON)" "$(VENV)"

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
