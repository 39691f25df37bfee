# Two commands set up everything: `make demo` and `make test`. `make` alone lists the others.

PYTHON ?= python3
# More than the cores of a small machine: half of the time, tests wait. Those of `make check` do not.
WORKERS ?= 4
QUICK_WORKERS ?= 3
# The oldest and the newest Python that flambe supports, and one between them.
PYTHONS ?= 3.10 3.12 3.13
# TORCH=no leaves out torch and the tests that need it: for some Pythons it comes with gigabytes of CUDA.
TORCH ?= yes
VENV := .venv
# A Python that is named has an environment of its own to be checked in: .venv stays as it is.
ifneq ($(filter check quick,$(MAKECMDGOALS)),)
ifneq ($(origin PYTHON),file)
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
endif
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip

# What is installed is noted in the environment itself, under a hash of what decides it: the second
# time nothing is done, and a changed file, another Python or a moved checkout install anew.
python := $(shell $(PYTHON) -c 'import sys; print(sys.version)' 2>/dev/null)
place := $(shell echo "$(python) $(CURDIR)" | sha256sum | cut -c1-12)
wanted := $(shell (cat pyproject.toml constraints.txt; printf %s "$(filter no,$(TORCH))") | sha256sum | cut -c1-12)
MADE := $(VENV)/.made-$(place)
WITH_LEARN := $(VENV)/.learn-$(place)-$(wanted)
WITH_DEV := $(VENV)/.dev-$(place)-$(wanted)
WITH_DOCS := $(VENV)/.docs-$(place)-$(wanted)

# -qq leaves errors. Compiling 160 packages at once takes longer than installing them; Python compiles
# what it imports, and must be let write it down: every worker of Ray would compile it anew.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(PIP) install -qq --no-compile
# $(call part,NAME) writes a part of constraints.txt to a file, and $(call pinned,NAME) installs it:
# wheels alone, whose hashes are compared; nothing else is looked for. torch is exempt: see there.
part = sed -n '/^\# == $(1):/,/^\# == /p' constraints.txt > $(VENV)/$(1).txt
pinned = $(call part,$(1)) && \
	$(INSTALL) --no-deps --only-binary :all: --require-hashes --requirement $(VENV)/$(1).txt
# flambe itself is built by what is installed: an isolated build would download its tools unseen.
# torch has no wheel for some Pythons: beside .venv, tests run without it, and it is said.
no_torch = echo "not run: the tests that need torch (not installed)"
torch = $(call part,torch) && \
	{ $(INSTALL) --requirement $(VENV)/torch.txt || { [ $(VENV) != .venv ] && $(no_torch); }; }
flambe = $(if $(filter no,$(TORCH)),$(no_torch),$(torch)) && \
	$(INSTALL) --no-deps --no-build-isolation --editable .

# The scripts of the Report Site's pages.
SCRIPTS := src/flambe/report/static/js

# Tests that need root are not run without it, and it is said.
ifneq ($(shell id -u),0)
NOT_ROOT := -m "not root"
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo check quick pythons test lint style format bench fuzz faults docs assets pins clean packages

help:  ## list these targets
	@grep -hE '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*##[ ]*(.*)/  make \1\t\2/' | expand -t 17

demo: $(WITH_LEARN)  ## run examples/digits.yaml to its end, and say where the results are
	@$(BIN)/flambe examples/digits.yaml --force
	@echo; echo "to see it in a browser:  $(BIN)/flambe site flambe-output/output__digits"

test: packages $(WITH_DEV) lint  ## run every check and every test
	@$(if $(NOT_ROOT),if grep -rqs "mark\.root" tests; then \
		echo "not run: the tests marked root (this user is not root)"; fi)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(NOT_ROOT) $(ARGS)

# Types are checked while the tests wait: without a cache it takes as long as a fifth of them.
check: style  ## run every check, and the tests that need neither Ray, hosts, browsers, networks nor processes of their own
	@$(BIN)/mypy --no-error-summary > $(VENV)/types.log 2>&1 & types=$$!; \
	trap "kill $$types 2> /dev/null; exit 130" INT TERM; \
	$(MAKE) --no-print-directory quick; tests=$$?; \
	wait $$types || { cat $(VENV)/types.log; exit 1; }; exit $$tests

quick: $(WITH_DEV)  ## the tests of make check alone
	@$(BIN)/python -m pytest -n $(QUICK_WORKERS) --dist worksteal --quick $(ARGS)

pythons:  ## make quick, under each other Python that flambe supports and that is installed
	@for version in $(PYTHONS); do \
		$(PYTHON) -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] == '$$version')" || continue; \
		: "a shim of pyenv exists for versions that it does not select"; \
		for python in python$$version $$HOME/.pyenv/versions/$$version.*/bin/python3 ""; do \
			$${python:-:} -c "" 2> /dev/null && break; \
		done; \
		[ -n "$$python" ] || { \
			echo "not run: make quick under Python $$version (not installed)"; continue; }; \
		echo "== Python $$version"; \
		$(MAKE) --no-print-directory quick PYTHON="$$python" || exit 1; \
	done

lint: style  ## check style, types and the direction of imports
	@$(BIN)/mypy --no-error-summary

style: $(WITH_DEV)
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet || { echo "not formatted; run: make format"; exit 1; }
	@$(BIN)/lint-imports --no-logo > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }
	@$(BIN)/oxlint --quiet $(SCRIPTS) > $(VENV)/scripts.log || { cat $(VENV)/scripts.log; exit 1; }
	@$(BIN)/oxfmt --check $(SCRIPTS) > $(VENV)/scripts.log || { \
		cat $(VENV)/scripts.log; echo "not formatted; run: make format"; exit 1; }

format: $(WITH_DEV)  ## write the code as the style checks want it
	@$(BIN)/ruff check --quiet --fix-only
	@$(BIN)/ruff format --quiet
	@$(BIN)/oxfmt $(SCRIPTS) > $(VENV)/scripts.log

bench: $(WITH_DEV)  ## run every benchmark, one after another
	@for file in benchmarks/[!_]*.py; do \
		echo "== $$file"; $(BIN)/python "$$file" || exit 1; \
	done

fuzz: $(WITH_DEV)  ## 100,000 broken configurations, 10,000 archives, 10,000 requests to the site
	@FLAMBE_FUZZ=100000 $(BIN)/python -m pytest tests/fuzz -n $(WORKERS) --timeout 0 $(ARGS)

faults: packages $(WITH_DEV)  ## run only the tests that kill, cut or starve something, and those that take long
	@FLAMBE_LONG=1 $(BIN)/python -m pytest -m "(faults or long)$(if $(NOT_ROOT), and not root)" $(ARGS) || \
		{ code=$$?; [ $$code -eq 5 ] && echo "there are no such tests yet" || exit $$code; }

docs: $(WITH_DOCS)  ## build the documentation to build/docs; a warning is an error
	@$(BIN)/python -m sphinx -q -W --keep-going -d build/doctrees docs build/docs
	@echo "open build/docs/index.html"

assets: $(WITH_DEV)  ## renew the libraries of the Report Site's pages, as vendor.json names them (needs npm)
	@$(BIN)/python tools/assets.py

pins: $(WITH_DEV)  ## find the pins of constraints.txt that are missing, and the hashes of all
	@$(BIN)/python tools/pins.py

clean:  ## remove the environment and all that was built; results stay
	@rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find src tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

# -- what the targets stand on --------------------------------------------------------------------

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "make needs Python 3.10 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		[ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && \
		echo "installing python3-venv (once)" && \
		apt-get update -qq && apt-get install -qq -y python3-venv > /dev/null; } || { \
		echo "Python's venv module is missing: install python3-venv"; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(call pinned,pip)
	@touch $@

$(WITH_LEARN): | $(MADE)
	@echo "installing flambe and what it needs into $(VENV) (once)"
	@$(call pinned,learn)
	@$(flambe)
	@touch $@

$(WITH_DEV): | $(MADE)
	@echo "installing flambe and what its tests need into $(VENV) (once)"
	@$(call pinned,learn)
	@$(call pinned,dev)
	@$(flambe)
	@touch $@ $(WITH_LEARN)

$(WITH_DOCS): | $(WITH_LEARN)
	@echo "installing what the documentation needs into $(VENV) (once)"
	@$(call pinned,docs)
	@touch $@

# Programs that tests use: "program=Debian package". Tests skip, and say so, what they cannot run.
PROGRAMS := git=git ssh=openssh-client rsync=rsync chromium=chromium
# The real hosts that tests make (tests/metal) need root, and these.
ifeq ($(shell id -u),0)
PROGRAMS += ip=iproute2 iptables=iptables nsenter=util-linux sshd=openssh-server sudo=sudo \
	useradd=passwd sshfs=sshfs openssl=openssl debootstrap=debootstrap \
	dockerd=docker.io busybox=busybox-static faketime=faketime
endif

packages:
	@missing=""; \
	for pair in $(PROGRAMS); do \
		command -v $${pair%%=*} > /dev/null || missing="$$missing $${pair#*=}"; \
	done; \
	[ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo "installing$$missing (once)"; \
		: "nothing that is installed for tests starts a service here"; \
		rule=/usr/sbin/policy-rc.d; [ -e $$rule ] && rule=; \
		[ -z "$$rule" ] || { printf '#!/bin/sh\nexit 101\n' > $$rule; chmod +x $$rule; }; \
		apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing > /dev/null; \
		code=$$?; [ -z "$$rule" ] || rm -f $$rule; exit $$code; \
	else \
		echo "not run: the tests that need$$missing (not installed, and installing needs root)"; \
	fi
