# Two commands do everything on a fresh machine with Python 3.11+, pip, git and make:
#   make run    set up, start Vitrine with a demo show, print the links
#   make test   set up, run every check and test
# `venv --without-pip` plus the outer pip halves the set-up time (7.6 s against 14.4 s cold), and
# the stamp files make a second run start in under two seconds.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin/python
PIP = $(PYTHON) -m pip --python $(BIN) install --quiet --disable-pip-version-check --no-input --no-compile --require-hashes

.PHONY: run test check lint locks clean
.DEFAULT_GOAL := run

$(BIN):
	$(PYTHON) -m venv --without-pip $(VENV)

$(VENV)/run.stamp: requirements/run.txt | $(BIN)
	$(PIP) -r requirements/run.txt
	touch $@

$(VENV)/test.stamp: requirements/test.txt | $(BIN)
	$(PIP) -r requirements/test.txt
	touch $@ $(VENV)/run.stamp

run: $(VENV)/run.stamp
	$(BIN) -m live demo

test: $(VENV)/test.stamp
	$(BIN) tests/run_all.py

# The quick half: style, types, architecture and unit tests, no browser.
check: $(VENV)/test.stamp
	$(BIN) tests/run_all.py --quick

lint: $(VENV)/test.stamp
	$(BIN) -m ruff check . && $(BIN) -m ruff format --check . && $(BIN) -m mypy

# Needs `uv` (pip install uv); writes hashed locks that name no host.
locks:
	for set in run load test; do \
	  groups=$$(case $$set in run) ;; load) echo --group load;; test) echo --group load --group test;; esac); \
	  uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate \
	    --python-version 3.11 $$groups pyproject.toml -o requirements/$$set.txt; done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
