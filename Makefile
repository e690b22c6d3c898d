# Each target is a line or two that a person could type; `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run test test-fast soak drill fuzz bench lint up down deploy image environment

PYTHON := .venv/bin/python
# Written last: an environment whose installation was cut off has none. A .venv that is a link is replaced by a folder,
# and what it points to is left as it is.
STAMP := .venv/complete

QUICK := $(addprefix tests/,test_dag.py test_runbook.py benchmarks/test_results.py $(addprefix tasks/,data params evaluation \
  sources $(addprefix registry/,test_gate.py test_rules.py test_paired_tests.py test_history_rules.py test_tables.py)))

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

run: environment ## data → trained, evaluated, published model; SET="train.recipe=seed train.seed=1" sets parameters
	@set -f; $(PYTHON) -m flows.run --set $${SET:-}

test: lint ## linter, formatter, types, then the tests; LONG=1 the long ones too
	@$(PYTHON) -m pytest -n 2 --dist loadfile $(if $(LONG),-m "long or not long")

test-fast: lint ## what needs no server and no training, in under two minutes
	@$(PYTHON) -m pytest -n 2 --dist loadfile $(QUICK)

soak: environment ## storms over the release protocol: faults, kills, races; SEED=1 SECONDS=600
	@$(PYTHON) -m tests.soak --seed $(or $(SEED),0) --seconds $(or $(SECONDS),600)

drill: environment ## kill, freeze, fill and cut off on real servers; ONLY=power_cut one; SOAK_MINUTES=60 a kill a minute
	@$(PYTHON) -m $(if $(SOAK_MINUTES),tests.drill.soak --minutes $(SOAK_MINUTES) --log benchmarks/soak.log,tests.drill $(if $(ONLY),--only $(ONLY)))

lint: environment ## linter, formatter and type checker
	@.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy

bench: environment ## measure it side by side; PART="training_speed input_path" measures these alone
	@$(PYTHON) -m benchmarks $(PART)

fuzz: environment ## feed parsers until one breaks; FUZZ_SECONDS=300 each, FUZZ_PYTHON=… has atheris
	@$(or $(FUZZ_PYTHON),$(PYTHON)) -m tests.fuzz all --seconds $(or $(FUZZ_SECONDS),300)

up: environment ## start S3, Prefect with its UI, and a worker on this machine
	@$(PYTHON) -m infra.local up

down: environment ## stop them; their data stays under .local/
	@$(PYTHON) -m infra.local down

deploy: environment ## register prefect.yaml's deployment with the Prefect server of `make up`
	@variables=$$($(PYTHON) -m infra.local env) && eval "$$variables" && .venv/bin/prefect --no-prompt deploy --all && \
	  $(PYTHON) -m infra.automations

image: environment ## build the worker's image with buildah, without a daemon; LOCK=requirements-gpu.lock brings CUDA
	@$(PYTHON) -m infra.docker.build_image --lock $(or $(LOCK),requirements.lock)

environment: .venv/activated

# A line that Python runs when it starts: DVC starts a stage as `python -m …`, and so each program of .venv/bin finds the
# others there in a shell that was not activated.
.venv/activated: export ACTIVATION := import os, sys; \
  found = os.environ.get("PATH", os.defpath).split(os.pathsep); \
  os.environ["PATH"] = os.pathsep.join(dict.fromkeys([os.path.join(sys.prefix, "bin"), *found]))
.venv/activated: $(STAMP)
	@$(PYTHON) -c 'import os, sysconfig; \
	  print(os.environ["ACTIVATION"], file=open(sysconfig.get_path("purelib") + "/activation.pth", "w"))'; touch $@

# The lock is all that is installed: without --no-deps pip would look at newer releases for extras, and refuse them.
# A person's pip may be set to install elsewhere, or only to try: not this environment.
INSTALL_HERE := PIP_USER=0 PIP_DRY_RUN=0 $(PYTHON) -m pip --python= install --target= --root=/ "--prefix=$(CURDIR)/.venv"

$(STAMP): requirements.lock
	@for name in python3.13 python3.12 python3.11 python3 python; do \
	  if $$name -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; \
	  then python=$$name; break; fi; \
	done; \
	[ "$${python:-}" ] || { echo "make: no Python 3.11, 3.12 or 3.13 with venv on PATH; install one" >&2; exit 2; }; \
	echo "making .venv with $$($$python --version), from requirements.lock: a few minutes, once"; \
	if [ -L .venv ]; then rm .venv; hash -r; else rm -f $@; fi; \
	$$python -m venv --clear .venv; \
	$(INSTALL_HERE) --disable-pip-version-check --no-deps --require-hashes -r requirements.lock | \
	  awk '/Downloading .* MB/ { print; fflush() } /^Installing/ { print "Installing"; fflush() }'; \
	touch $@
