# Needs Python >= 3.11 and make; every target sets up what it uses, in .venv inside the checkout.
#
# .venv/.core, .venv/.dev and .venv/.site say that the environment holds the project, the developers' tools
# and what makes the site of docs/. They are written last, so an interrupted set-up is never taken for a finished one.

PYTHON ?= python3
ARGS ?=

venv := .venv
bin := $(venv)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Targets share one environment; two of them must not install into it at once (make -j train test).
.NOTPARALLEL:
.PHONY: help train test lint docs clean moved

help:
	@echo 'make train   time the autoencoder on the modelled cluster, and train it  (make train ARGS="--help")'
	@echo 'make test    run the tests on all processors                (make test ARGS="-k platform")'
	@echo 'make lint    check style and types'
	@echo 'make docs    make the site of docs/, in build/site'
	@echo 'make clean   remove the environment and all caches'
	@echo
	@echo 'The first run installs into $(venv). Another interpreter: make train PYTHON=python3.12'

# Set-up reports on stderr and commands are not echoed: `make train ARGS=--json > result.json` is JSON.
train: $(venv)/.core
	@$(bin)/trainlib train autoencoder --epochs 24 --schedule 0:0.03,16:0.01,21:0.003 $(ARGS)

test: $(venv)/.dev
	@$(bin)/python -m pytest -n auto $(ARGS)

lint: $(venv)/.dev
	@$(bin)/python -m ruff check
	@$(bin)/python -m mypy

# Every warning is an error: a broken link, a page in no table of contents.
docs: $(venv)/.site
	@$(bin)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs build/site $(ARGS)
	@echo 'build/site/index.html'

# An environment holds absolute paths: in a moved or copied checkout it would run the other copy's code.
stamps := $(wildcard $(venv)/.core $(venv)/.dev $(venv)/.site)
ifneq "$(stamps)" ""
ifneq "$(shell cat $(venv)/.place 2>/dev/null)" "$(CURDIR)"
$(stamps): moved
endif
endif

# $(call install,requirement): .unfinished survives an interrupted installation, which may have left
# half a package behind; the environment is then made anew.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is missing or older than 3.11; name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@if [ -e $(venv)/.unfinished ] || [ "`cat $(venv)/.place 2>/dev/null`" != "$(CURDIR)" ] || \
	    ! $(bin)/python -m pip --version >/dev/null 2>&1; then \
	  echo "Creating $(venv) ..." >&2; \
	  $(PYTHON) -m venv --clear $(venv) >&2 && printf '%s\n' "$(CURDIR)" > $(venv)/.place; \
	fi
	@touch $(venv)/.unfinished
	@echo "Installing $(1) into $(venv); the first time takes a minute or two ..." >&2
	@$(bin)/python -m pip install --disable-pip-version-check --progress-bar off -e '$(1)' >&2
	@rm $(venv)/.unfinished
endef

$(venv)/.core: pyproject.toml
	$(call install,.)
	@touch $@

$(venv)/.dev: pyproject.toml
	$(call install,.[dev])
	@touch $(venv)/.core $@

$(venv)/.site: pyproject.toml
	$(call install,.[site])
	@touch $(venv)/.core $@

clean:
	rm -rf $(venv) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
