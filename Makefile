# roamlab. `make demo` and `make test` do all the set-up they need.
SHELL := /bin/bash
ROAMLAB := .venv/bin/roamlab
PYTEST := .venv/bin/python -m pytest
JOBS ?=
RUN_OPTIONS := $(if $(JOBS),--jobs $(JOBS))

.DEFAULT_GOAL := help
.PHONY: help setup setup-test demo mip-mptcp test lint unit smoke guest-test proxy-test soak calibrate calibrate-guest repeatability bench-analysis bench-proxy bench-ha figures experiments vagrant-box vagrant-results vagrant-test lock clean

help: ## this list
	@awk -F':.*## ' '/^[a-z%-]+:.*## /{printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo; echo "  Experiments (make experiment-NAME): $$($(ROAMLAB) list experiments --json 2>/dev/null | \
	  python3 -c 'import json,sys; print(*json.load(sys.stdin)["experiments"])' 2>/dev/null || echo 'after make setup')"

setup: ## install what running needs: system packages by name, .venv from the lock file
	@tools/setup.sh run

setup-test:
	@tools/setup.sh test

demo: setup ## TCP beside MPTCP when the WLAN is lost: two minutes, ends with a report
	@$(ROAMLAB) run demo $(RUN_OPTIONS)

experiment-%: setup ## run one experiment, for example make experiment-outage
	@$(ROAMLAB) run $* $(RUN_OPTIONS)

mip-mptcp: setup ## every claim about Mobile IP with MPTCP, then the page docs/results/mip-mptcp-claims.md (2 hours)
	@set -e; names="$$($(ROAMLAB) list experiments --json | .venv/bin/python -c \
	  'import json,sys; print(*(n for n in json.load(sys.stdin)["experiments"] if n.startswith("mip-mptcp-")))')"; \
	  for name in $$names; do $(ROAMLAB) run $$name $(RUN_OPTIONS) || [ $$? -eq 1 ]; done; \
	  $(ROAMLAB) claims $$names --output docs/results/mip-mptcp-claims.md --title "Mobile IP with MPTCP, claim by claim"

fig%: setup ## a figure of the proxy's paper as an experiment: make fig5 fig8 fig9 fig10
	@$(ROAMLAB) run $@ $(RUN_OPTIONS)

experiments: setup ## run every experiment
	@set -e; for name in $$($(ROAMLAB) list experiments --json | .venv/bin/python -c \
	  'import json,sys; print(*json.load(sys.stdin)["experiments"])'); do $(ROAMLAB) run $$name $(RUN_OPTIONS); done

calibrate: setup ## measure this machine's link emulation, write docs/results/calibration.md (15 minutes)
	@$(ROAMLAB) calibrate --all --markdown docs/results/calibration.md

calibrate-guest: setup-test ## both link backends side by side in the guest, write docs/results/calibration-guest.md (20 minutes)
	@$(ROAMLAB) calibrate --guest --all --markdown docs/results/calibration-guest.md

repeatability: setup-test ## spread of repeated runs, natively and in the guest, on a busy machine (1.5 hours)
	@$(ROAMLAB) repeatability $(or $(EXPERIMENT),outage) --load --markdown docs/results/repeatability.md

bench-analysis: setup-test ## the capture reader beside tshark, dpkt and scapy (20 minutes); MARKDOWN=FILE writes a page
	@.venv/bin/python -m tests.bench.analysis $(if $(MARKDOWN),--markdown $(MARKDOWN))

bench-proxy: setup-test ## what the lightweight proxy costs, beside the queue alone and a relay (10 minutes); MARKDOWN=FILE
	@.venv/bin/python -m tests.bench.proxy $(if $(MARKDOWN),--markdown $(MARKDOWN))

bench-ha: setup-test ## what the home agent and its tunnels can do, 10,000 bindings, forged requests (5 minutes); MARKDOWN=FILE
	@.venv/bin/python -m tests.bench.ha $(if $(MARKDOWN),--markdown $(MARKDOWN)) $(if $(JSON),--json)

figures: setup ## draw the figures of docs/proxy.md again, from the proxy's own tables
	@.venv/bin/python -m tools.figures.proxy_states && .venv/bin/python -m tools.figures.proxy_projection

test: lint unit smoke ## everything that CI runs

lint: setup-test ## ruff (rules between the packages included) and mypy
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

unit: setup-test ## unit tests: no privileges, no network
	@$(if $(shell command -v chromium chromium-browser google-chrome),,ROAMLAB_WITHOUT_BROWSER=1) $(PYTEST) tests/unit -q -n 2

smoke: setup-test ## emulation tests: real namespaces, captures, kernels
	@$(PYTEST) tests/emulation -q -n 2 -m "not alone and not long"
	@$(PYTEST) tests/emulation -q -m "alone and not long"

proxy-test: setup-test ## the proxy against the kernel's MPTCP, its subflows judged by tshark, a short soak (2 minutes)
	@$(PYTEST) tests/emulation/test_proxy_interop.py tests/emulation/test_proxy_clean.py tests/emulation/test_proxy_soak.py -q -n 2

guest-test: setup-test ## every test of the guest: all workloads, repetitions on a busy machine (15 minutes)
	@$(PYTEST) tests/emulation/test_guest.py -q

soak: setup-test ## gigabytes through the lightweight proxy in rough networks (GB=20), every byte checked; exit code 1 when one is wrong
	@.venv/bin/python -m tests.soak.proxy --gb $(or $(GB),20) $(if $(JSON),--json)

vagrant-box: ## build a Vagrant box with everything set up, for `vagrant up` without a network (root; 5 minutes)
	@tools/vagrant/box.sh

vagrant-results: ## copy the results of the Vagrant machine to results/vagrant
	@tools/vagrant/results.sh

vagrant-test: ## build a box, `vagrant up` under software emulation, tests in it, destroy (root; half an hour); MARKDOWN=FILE writes a page
	@PYTHONDONTWRITEBYTECODE=1 python3 -m tools.vagrant.test $(if $(BOX),--box $(BOX)) $(if $(MARKDOWN),--markdown $(MARKDOWN))

lock: setup-test ## renew requirements.lock from pyproject.toml
	@.venv/bin/python -m pip install --disable-pip-version-check -q uv
	@.venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --extra dev --custom-compile-command "make lock" -q -o requirements.lock pyproject.toml

clean: ## remove unfinished runs and caches; results stay
	@[ ! -x $(ROAMLAB) ] || $(ROAMLAB) clean
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis build
