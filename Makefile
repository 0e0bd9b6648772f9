# All targets use the virtual environment .venv of the checkout, which is created here and updated when a lock file
# changes. All paths are relative. PYTHON= names another interpreter to create it with.

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
RUN_STAMP := .venv/requirements.stamp
DEV_STAMP := .venv/requirements-dev.stamp

PIP_INSTALL := $(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes
COMPILE := $(VENV_PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header

# Production settings for the static checks, which do not connect to the database.
PRODUCTION = env DEBUG=false SECRET_KEY="$$($(VENV_PYTHON) -c 'import secrets; print(secrets.token_urlsafe(50))')" \
	ALLOWED_HOSTS=registry.example.test OIDC_ISSUER=https://issuer.example.test OIDC_AUDIENCE=service-registry \
	OIDC_RP_CLIENT_ID=registry-admin OIDC_RP_CLIENT_SECRET=unused \
	DATABASE_URL=postgresql://registry:unused@127.0.0.1:5432/registry

# The duration of each measurement of `make bench`, and WEB_THREADS.
SECONDS ?= 4
THREADS ?= 2

.DEFAULT_GOAL := help
.PHONY: help run demo test browser scale faults faults-short watch watch-short check bench profile simulate format lock

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

run: $(RUN_STAMP) ## Run the registry with its own PostgreSQL and OIDC issuer; Ctrl-C stops it
	@exec $(VENV_PYTHON) -m registry_project.devstack

demo: $(RUN_STAMP) ## Show example services that register, fail and expire, in 90 seconds
	@exec $(VENV_PYTHON) -m registry_project.devstack.demo

test: $(DEV_STAMP) ## Run the test suite, without the browser tests
	@echo "Running the tests with two workers for each core, in about five minutes. Each dot is a test."
	$(VENV_PYTHON) -m pytest -n auto --dist=loadfile --no-loadscope-reorder -m "not browser and not scale and not faults and not watch_consistency"

browser: $(DEV_STAMP) ## Run the browser tests in headless Chromium; as root, install it if missing
	@.ci/chromium
	$(VENV_PYTHON) -m pytest tests/browser

scale: $(DEV_STAMP) ## Test with 50,000 instances, in three minutes, and print the measurements
	$(VENV_PYTHON) -m pytest tests/scale -s

faults: $(DEV_STAMP) ## Inject faults into real processes (PART=1 to 12, 9 minutes each; DEFECT=name or all)
	@.ci/fault-tools
ifdef DEFECT
	$(VENV_PYTHON) -m tests.faults.defects $(filter-out all,$(DEFECT))
else
	$(VENV_PYTHON) -m pytest tests/faults/test_part$(if $(PART),$(PART)_)*.py -n 0 -s
endif

faults-short: $(DEV_STAMP) ## Inject some of the faults, in four minutes
	FAULTS_SHORT=1 $(VENV_PYTHON) -m pytest tests/faults -m short -n 0 -s

watch: $(DEV_STAMP) ## Check that watchers see each of 550,000 changes once, with kills (PART=1 to 6)
	WATCH_SHARE=1 $(VENV_PYTHON) -m pytest tests/watch_consistency/test_part$(if $(PART),$(PART)_)*.py -n 0 -s

watch-short: $(DEV_STAMP) ## Check a tenth of that, and find deliberate defects, in two minutes
	$(VENV_PYTHON) -m pytest tests/watch_consistency -n 0 -s

check: $(DEV_STAMP) ## Run all checks and tests, as the CI does
	$(VENV_PYTHON) -m ruff format --check
	$(VENV_PYTHON) -m ruff check
	$(PRODUCTION) $(VENV_PYTHON) -m mypy
	$(PRODUCTION) $(VENV_PYTHON) manage.py check --deploy --fail-level WARNING
	$(PRODUCTION) $(VENV_PYTHON) -W ignore::RuntimeWarning manage.py makemigrations --check --dry-run
	$(MAKE) test browser faults-short watch-short

bench: $(DEV_STAMP) ## Measure the throughput, in five minutes (BEFORE=checkout or PEERS=etcd compares)
	@exec $(VENV_PYTHON) -m benchmarks --seconds $(SECONDS) --threads $(THREADS) \
		$(if $(BEFORE),--before $(BEFORE)) $(if $(PEERS),--peers $(PEERS))

profile: $(DEV_STAMP) ## Profile the web process by line (CALL=discover, heartbeat, register, array, list)
	@exec $(VENV_PYTHON) -m benchmarks.profile $(CALL)

simulate: $(DEV_STAMP) ## Simulate the expiry rules on fleets in virtual time, in a few minutes
	@exec $(VENV_PYTHON) -m benchmarks.simulation

format: $(DEV_STAMP) ## Format the code and fix what ruff can fix
	$(VENV_PYTHON) -m ruff format
	$(VENV_PYTHON) -m ruff check --fix

lock: $(DEV_STAMP) ## Update the lock files from requirements.txt and requirements-dev.txt
	$(COMPILE) requirements.txt --output-file requirements.lock
	$(COMPILE) requirements-dev.txt --output-file requirements-dev.lock

$(VENV_PYTHON):
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or newer."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "The registry needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version): set PYTHON=."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2> /dev/null || \
		{ echo "$(PYTHON) cannot create virtual environments: install python3-venv (Debian, Ubuntu)."; exit 1; }
	$(PYTHON) -m venv --clear .venv || { rm -rf .venv; exit 1; }

$(RUN_STAMP): requirements.lock | $(VENV_PYTHON)
	$(PIP_INSTALL) -r requirements.lock
	@touch $@

# The development requirements include those of running.
$(DEV_STAMP): requirements-dev.lock requirements.lock | $(VENV_PYTHON)
	$(PIP_INSTALL) -r requirements-dev.lock
	@touch $(RUN_STAMP) $@
