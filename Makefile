# The README uses `make up` and `make test`. `make help` lists all targets.
# STACK=sandbox (the default) and the sandbox's test clusters run in the local cloud on this machine. Any other stack runs in
# your AWS account, with the pulumi on PATH.

STACK ?= sandbox
export PULUMI_STACK := $(STACK)
export SANDBOX_STATE SANDBOX_ADDRESS

ifneq ($(filter sandbox,$(STACK))$(wildcard $(or $(SANDBOX_STATE),/var/lib/ant-media-sandbox)/pulumi/Pulumi.$(STACK).yaml),)
ON_SANDBOX := yes
PULUMI := sandbox/bin/pulumi
RECOVER := sandbox/bin/recover
TEST_CLUSTERS := sandbox/bin/test-clusters
STATUS := sandbox/bin/status
REGISTRY = sandbox/bin/registry $(1) "$(abspath $(FILE))"
else
PULUMI := pulumi
RECOVER := .venv/bin/python -m operations.recovery $(STACK)
TEST_CLUSTERS := .venv/bin/python -m operations.test_clusters
STATUS := .venv/bin/python -m operations.status
REGISTRY = .venv/bin/python -m operations.registry $(1) "$(STACK)" "$(FILE)"
endif

# The rules for every environment (docs/policies.md).
POLICIES := --policy-pack policy $(if $(wildcard policy/$(STACK).json),--policy-pack-config policy/$(STACK).json)

# Without a usable policy/.venv Pulumi hangs, without a message.
CHECK_PACK := import importlib.util, sys; sys.exit(not importlib.util.find_spec("pulumi_policy"))
usable_policies = @policy/.venv/bin/python -c '$(CHECK_PACK)' 2>/dev/null || { echo 'policy/.venv is missing or unusable; run: $(if $(ON_SANDBOX),make setup,rm -rf policy/.venv && pulumi -C policy install)' >&2; exit 1; }

# The command provider fails on the socket of an SSH agent that has ended, although it has a key.
unexport SSH_AUTH_SOCK

# The engine that setup installed serves where no pulumi is on PATH.
export PATH := $(PATH):$(CURDIR)/.venv/engine

# With this variable set, every run of Pulumi compiles pulumi_aws again, which takes 4 s.
unexport PYTHONDONTWRITEBYTECODE

PYTHON_FILES := __main__.py cluster components operations policy sandbox templates tests bench
SHELL_FILES = $(shell grep -rlE '^\#!/usr/bin/env bash' --include='*' templates operations sandbox tests bench .ci | grep -v __pycache__)

# A preview that fails or violates a policy leaves no plan, so nobody can deploy it by mistake.
save_plan = $(if $(PLAN),--save-plan "$(PLAN)" || { status=$$?; rm -f "$(PLAN)"; exit $$status; })

in_sandbox = @[ "$(ON_SANDBOX)" ] || { echo "STACK=$(STACK) is not in the sandbox; make $@ works in the sandbox only." >&2; exit 1; }

known_format = @case "$(FORMAT)" in "" | markdown) ;; *) echo "FORMAT=$(FORMAT) is unknown; give FORMAT=markdown, or leave it out for plain text." >&2; exit 1 ;; esac

# Without this check, the name of a test cluster that no longer exists would reach your AWS account.
up down preview outputs drift status registry-backup registry-restore logs shell cluster: known-stack
known-stack:
	@[ "$(ON_SANDBOX)$(wildcard Pulumi.$(notdir $(STACK)).yaml)" ] || { echo "STACK is $(or $(STACK),empty): the sandbox has no such stack, and Pulumi.STACK.yaml does not exist here. Create a stack with make stack; remove a test cluster with make cluster-down NAME=pr-123 STACK=dev" >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: known-stack help setup up down preview outputs drift status registry-backup registry-restore logs shell stack cluster cluster-down clusters clusters-down-expired test test-unit test-integration bench bench-live bench-update check format

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 24

setup: ## Install what the sandbox and the tests need on this machine
	@sandbox/bin/setup

up: ## Create or update the cluster (AMS_ZIP=path: a real Ant Media Server in the sandbox; PLAN=file: only the reviewed changes)
ifneq ($(PLAN),)
	$(usable_policies)
	@$(RECOVER)
	@operations/bin/progress .venv/bin/python -m operations.plan apply "$(PLAN)" $(PULUMI) up $(POLICIES) </dev/null
	@operations/bin/read-outputs $(PULUMI)
	@$(STATUS) --problems
else ifeq ($(STACK),sandbox)
	@sandbox/bin/setup
	@AMS_ZIP="$(AMS_ZIP)" sandbox/bin/up $(POLICIES)
else
	$(usable_policies)
	@$(RECOVER)
	$(PULUMI) up $(POLICIES)
	@operations/bin/read-outputs $(PULUMI)
	@$(STATUS) --problems
endif

down: ## Destroy the cluster (STACK=sandbox: and the local cloud)
ifeq ($(STACK),sandbox)
	@sandbox/bin/down
else ifdef ON_SANDBOX
	@$(TEST_CLUSTERS) remove -- "$(STACK)"
else
	@$(RECOVER)
	$(PULUMI) destroy
endif

preview: ## Show what `make up` would change (FORMAT=markdown: as a pull-request comment; PLAN=file: save it for `make up`)
	$(known_format)
	$(usable_policies)
	@$(if $(PLAN),rm -f "$(PLAN)")
ifeq ($(FORMAT),markdown)
	@.venv/bin/python -m operations.preview $(STACK) $(PULUMI) preview --json --show-sames $(save_plan)
else
	@.venv/bin/python -m operations.preview.text $(PULUMI) preview $(POLICIES) $(save_plan)
endif

outputs: ## Print the stack's outputs as JSON
	@$(PULUMI) stack output --json

drift: ## Report manual changes in the cloud and on the machines (FORMAT=markdown: as an issue)
	$(known_format)
ifdef ON_SANDBOX
	@sandbox/bin/drift $(if $(FORMAT),--format $(FORMAT))
else
	@.venv/bin/python -m operations.drift $(STACK) $(if $(FORMAT),--format $(FORMAT))
endif

status: ## Show the machines, HAProxy's servers and the certificate; fails if one of them is unhealthy
	@$(STATUS)

registry-backup registry-restore: registry-%:
	@[ -n "$(FILE)" ] || { echo "FILE is empty; give a path, for example: make $@ FILE=registry.rdb STACK=$(STACK)" >&2; exit 1; }
	@$(call REGISTRY,$*)

registry-backup: ## Copy the cluster registry to a new file (FILE=registry.rdb; docs/database.md)
registry-restore: ## Replace the cluster registry by a backup (FILE=registry.rdb); then run make up

logs: ## Print the logs of a machine (MACHINE=edge1) or of the local cloud
	$(in_sandbox)
	@sandbox/bin/cloud logs $(MACHINE)

shell: ## Open a root shell on a machine (MACHINE=edge1)
	$(in_sandbox)
	@[ -n "$(MACHINE)" ] || { echo "MACHINE is empty; give a machine's name, for example: make shell MACHINE=edge1" >&2; exit 1; }
	@sandbox/bin/cloud shell $(MACHINE)

stack: ## Create a stack, with SSH keys and passwords as encrypted configuration (STACK=dev)
	@[ "$(STACK)" != sandbox ] || { echo "STACK is sandbox, which make up creates; give another name, for example: make stack STACK=dev" >&2; exit 1; }
	@.venv/bin/python -m operations.new_stack $(STACK)

cluster: ## Create a test cluster with the settings of STACK, or extend its lifetime (NAME=pr-123 TTL=4h)
ifdef ON_SANDBOX
	@sandbox/bin/setup
	@PULUMI_STACK="$(NAME)" LIKE=$(STACK) TTL="$(TTL)" AMS_ZIP="$(AMS_ZIP)" sandbox/bin/up
else
	$(usable_policies)
	@$(TEST_CLUSTERS) up -- "$(NAME)" "$(TTL)" $(STACK)
endif

cluster-down: ## Destroy a test cluster (NAME=pr-123, STACK as in make cluster)
	@$(TEST_CLUSTERS) down -- "$(NAME)"

clusters: ## List the test clusters and their expiry times (STACK=dev: in your account)
	@$(TEST_CLUSTERS) list

clusters-down-expired: ## Destroy the expired test clusters
	@$(TEST_CLUSTERS) down-expired

# The end-to-end tests in a folder share a cluster, and the clusters run beside each other.
END_TO_END := machines certificates serving stacks

# The longest start first, so that both cores of a small machine are busy to the end. Make stops at none that fails.
TESTS := $(END_TO_END:%=test-e2e-%) test-sandbox-plugins test-integration test-sandbox-images test-unit test-sandbox-cloud check
TEST_JOBS ?= 7

test: ## Run the checks and tests of CI, except the job with the official plugins
	@sandbox/bin/setup
	@echo "==> Checks and tests, $(TEST_JOBS) in parallel (17 minutes on two cores); the output of each appears when it ends"
	@exec tests/with-inotify-instances 1024 $(MAKE) --no-print-directory --keep-going --jobs=$(TEST_JOBS) --output-sync=target \
	    $(TESTS) PROGRESS=3 3>&1

export PROGRESS

test-unit test-integration: test-%:
	.venv/bin/pytest -q tests/$*

test-sandbox-cloud test-sandbox-images: test-sandbox-%:
	.venv/bin/pytest -q tests/sandbox/$*

# And the rest of tests/sandbox.
test-sandbox-plugins:
	.venv/bin/pytest -q tests/sandbox --ignore=tests/sandbox/cloud --ignore=tests/sandbox/images

test-e2e-%: export E2E_STATE = /var/lib/ant-media-sandbox-e2e-$*
test-e2e-machines: export E2E_ADDRESS = 127.77.0.2
test-e2e-stacks: export E2E_ADDRESS = 127.77.0.3
test-e2e-certificates: export E2E_ADDRESS = 127.77.0.4
test-e2e-serving: export E2E_ADDRESS = 127.77.0.5
test-e2e-%:
	.venv/bin/pytest -q tests/e2e/$* tests/e2e/test_sandbox_down.py

bench: ## Measure what a request costs, beside the guide's configuration, nginx and TCP mode (20 minutes)
	@sandbox/bin/setup
	@unshare --mount --pid --fork --kill-child --mount-proc timeout --foreground 20m .venv/bin/python -m bench.performance $(BENCH)

bench-live: export E2E_STATE = /var/lib/ant-media-sandbox-bench
bench-live: export E2E_ADDRESS = 127.77.0.6
bench-live: ## Measure what viewers see while machines fail and the cluster changes (LIVE="--rate 60": on a weak machine)
	@sandbox/bin/setup
	.venv/bin/python -m bench.live $(LIVE)
	.venv/bin/python -m bench.live_page

bench-update: export E2E_STATE = /var/lib/ant-media-sandbox-bench
bench-update: export E2E_ADDRESS = 127.77.0.6
bench-update: ## Measure previews, updates and their growth with the number of edges (docs/performance.md)
	@sandbox/bin/setup
	timeout --foreground 30m .venv/bin/python -m bench.preview
	timeout --foreground 30m .venv/bin/python -m bench.growth
	timeout --foreground 30m .venv/bin/python -m bench.update
	.venv/bin/python -m bench.update_page

check: ## Check format, lint, types, shell scripts and workflows
	.venv/bin/ruff format --check $(PYTHON_FILES)
	.venv/bin/ruff check $(PYTHON_FILES)
	.venv/bin/basedpyright
	.venv/bin/shellcheck -x $(SHELL_FILES) templates/scripts/every-machine/prelude.sh sandbox/engine/engine.sh tests/actionlint/actionlint.sh
	.venv/bin/actionlint -shellcheck .venv/bin/shellcheck .github/workflows/*.yml
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.github-actions .github/actions/*/action.yml
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.gitlab-ci --data-transform gitlab-ci .gitlab-ci.yml

format: ## Format the Python code
	.venv/bin/ruff format $(PYTHON_FILES)
	.venv/bin/ruff check --fix $(PYTHON_FILES)
