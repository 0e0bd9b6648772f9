# Everything runs from the checkout's own virtual environment, which is made here and renewed when a lock file changes.
# All paths are relative, so that the checkout may lie anywhere. PYTHON= names another interpreter to make it with.

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
RUN_STAMP := .venv/requirements.stamp
DEV_STAMP := .venv/requirements-dev.stamp

PIP_INSTALL := $(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes
COMPILE := $(VENV_PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header

# What the checks read the settings with: as in production, with a database that nobody asks.
PRODUCTION = env DEBUG=false SECRET_KEY="$$($(VENV_PYTHON) -c 'import secrets; print(secrets.token_urlsafe(50))')" \
	ALLOWED_HOSTS=registry.example.test OIDC_ISSUER=https://issuer.example.test OIDC_AUDIENCE=service-registry \
	OIDC_RP_CLIENT_ID=registry-admin OIDC_RP_CLIENT_SECRET=unused \
	DATABASE_URL=postgresql://registry:unused@127.0.0.1:5432/registry

# How long `make bench` measures each kind of request, and with which values of WEB_THREADS.
SECONDS ?= 4
THREADS ?= 1 2 4

.DEFAULT_GOAL := help
.PHONY: help run demo test browser scale faults faults-short watch watch-short check bench simulate format lock

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: $(RUN_STAMP) ## Run the registry with its own PostgreSQL and issuer, until Ctrl-C
	@exec $(VENV_PYTHON) -m registry_project.devstack

demo: $(RUN_STAMP) ## Show services coming and going, in under 90 seconds
	@exec $(VENV_PYTHON) -m registry_project.devstack.demo

test: $(DEV_STAMP) ## Run the tests, but for those in a browser
	$(VENV_PYTHON) -m pytest -n auto -m "not browser and not scale and not faults and not watch_consistency"

browser: $(DEV_STAMP) ## Run the tests in headless Chromium; as root it is installed where it is missing
	@.ci/chromium
	$(VENV_PYTHON) -m pytest tests/browser

scale: $(DEV_STAMP) ## Walk and clean up a fleet of 50,000, in three minutes; prints what it measured
	$(VENV_PYTHON) -m pytest tests/scale -s

faults: $(DEV_STAMP) ## Try faults on real processes (PART=1 to 12, each under 9 minutes; DEFECT=name or all)
	@.ci/fault-tools
ifdef DEFECT
	$(VENV_PYTHON) -m tests.faults.defects $(filter-out all,$(DEFECT))
else
	$(VENV_PYTHON) -m pytest tests/faults/test_part$(if $(PART),$(PART)_)*.py -n 0 -s
endif

faults-short: $(DEV_STAMP) ## Try some of the faults, in four minutes
	FAULTS_SHORT=1 $(VENV_PYTHON) -m pytest tests/faults -m short -n 0 -s

watch: $(DEV_STAMP) ## Let sixteen watchers see 550,000 changes, also while processes are killed (PART=1 to 6)
	WATCH_SHARE=1 $(VENV_PYTHON) -m pytest tests/watch_consistency/test_part$(if $(PART),$(PART)_)*.py -n 0 -s

watch-short: $(DEV_STAMP) ## Let them see a tenth of that, and find the mistakes that are made on purpose, in two minutes
	$(VENV_PYTHON) -m pytest tests/watch_consistency -n 0 -s

check: $(DEV_STAMP) ## Check everything, as the CI does
	$(VENV_PYTHON) -m ruff format --check
	$(VENV_PYTHON) -m ruff check
	$(PRODUCTION) $(VENV_PYTHON) -m mypy
	$(PRODUCTION) $(VENV_PYTHON) manage.py check --deploy --fail-level WARNING
	$(PRODUCTION) $(VENV_PYTHON) -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run
	$(MAKE) test browser faults-short watch-short

bench: $(DEV_STAMP) ## Measure this machine, in four minutes (SECONDS=, THREADS=), or compare with BEFORE=checkout
	@exec $(VENV_PYTHON) -m benchmarks --seconds $(SECONDS) --threads $(THREADS) $(if $(BEFORE),--before $(BEFORE))

simulate: $(DEV_STAMP) ## Show what the rules of expiry do to fleets, in virtual time, in a few minutes
	@exec $(VENV_PYTHON) -m benchmarks.simulation

format: $(DEV_STAMP) ## Format the code and mend what can be mended
	$(VENV_PYTHON) -m ruff format
	$(VENV_PYTHON) -m ruff check --fix

lock: $(DEV_STAMP) ## Pin everything that requirements.txt and requirements-dev.txt need, with hashes
	$(COMPILE) requirements.txt --output-file requirements.lock
	$(COMPILE) requirements-dev.txt --output-file requirements-dev.lock

$(VENV_PYTHON):
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or newer."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "The registry needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version): set PYTHON=."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: install python3-venv (Debian, Ubuntu)."; exit 1; }
	$(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 1; }

$(RUN_STAMP): requirements.lock | $(VENV_PYTHON)
	$(PIP_INSTALL) -r requirements.lock
	@touch $@

# What the checks need holds all that running needs.
$(DEV_STAMP): requirements-dev.lock requirements.lock | $(VENV_PYTHON)
	$(PIP_INSTALL) -r requirements-dev.lock
	@touch $(RUN_STAMP) $@
