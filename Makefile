# Two commands for a newcomer: `make demo` and `make test`. Both set up .venv first.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready-$(notdir $(PYTHON))
# jemalloc, where it can be loaded: XLA compiles in four fifths of the time with it. Left
# alone it gives large arrays back at once, and their pages come anew at every step.
JEMALLOC := $(if $(shell LD_PRELOAD=libjemalloc.so.2 env 2>&1 > /dev/null),,\
	LD_PRELOAD="$$LD_PRELOAD libjemalloc.so.2" MALLOC_CONF=oversize_threshold:0)
# The published weights, if they are somewhere on this machine.
export LKDN_REFERENCE ?= ../shared/reference

.PHONY: demo test lint clean

demo: $(READY)
	$(JEMALLOC) $(VENV)/bin/python -m lkdn_jax.demo $(if $(WEIGHTS),--weights '$(WEIGHTS)')

test: $(READY)
	$(JEMALLOC) $(VENV)/bin/python -m pytest -n 2 --dist worksteal

lint: $(READY)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/pyright

$(READY): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or later is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet -r requirements-dev.txt
	@touch $@

clean:
	rm -rf $(VENV) demo
