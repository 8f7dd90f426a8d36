# The two commands of the README are `make up` and `make test`. `make help` lists the rest.
# STACK=sandbox (default) is the local cloud on this machine, and so are the test clusters on it; any other stack is
# yours, through the pulumi on PATH.

STACK ?= sandbox
export PULUMI_STACK := $(STACK)
export SANDBOX_STATE SANDBOX_ADDRESS

ifneq ($(filter sandbox,$(STACK))$(wildcard $(or $(SANDBOX_STATE),/var/lib/ant-media-sandbox)/pulumi/Pulumi.$(STACK).yaml),)
ON_SANDBOX := yes
PULUMI := sandbox/bin/pulumi
RECOVER := sandbox/bin/recover
TEST_CLUSTERS := sandbox/bin/test-clusters
else
PULUMI := pulumi
RECOVER := .venv/bin/python -m operations.recovery $(STACK)
TEST_CLUSTERS := .venv/bin/python -m operations.test_clusters
endif

# What no environment may ever do (docs/policies.md).
POLICIES := --policy-pack policy $(if $(wildcard policy/$(STACK).json),--policy-pack-config policy/$(STACK).json)

# For what runs pulumi itself.
export PATH := $(CURDIR)/.venv/plugins:$(CURDIR)/.venv/engine:$(PATH)

# Where it is set, every run of Pulumi compiles pulumi_aws anew: 4 s each.
unexport PYTHONDONTWRITEBYTECODE

PYTHON_FILES := __main__.py cluster components operations policy sandbox tests bench
SHELL_FILES = $(shell grep -rlE '^\#!/usr/bin/env bash' --include='*' templates sandbox tests .ci | grep -v __pycache__)

# What failed, or violates a policy, leaves no plan: nobody can deploy it by mistake.
save_plan = $(if $(PLAN),--save-plan "$(PLAN)" || { status=$$?; rm -f "$(PLAN)"; exit $$status; })

in_sandbox = @[ "$(ON_SANDBOX)" ] || { echo "make $@ looks into the sandbox only, not into stack $(STACK)." >&2; exit 1; }

known_format = @case "$(FORMAT)" in "" | markdown) ;; *) echo "FORMAT=$(FORMAT): there is markdown; leave it out for plain text." >&2; exit 1 ;; esac

# Anything else would be asked of the real pulumi, though a test cluster may be meant that is gone.
up down preview outputs drift status logs shell cluster: known-stack
known-stack:
	@[ "$(ON_SANDBOX)$(wildcard Pulumi.$(notdir $(STACK)).yaml)" ] || { echo "STACK is $(or $(STACK),not given): there is no such stack on the sandbox, nor its Pulumi.STACK.yaml here. make stack makes one; for a test cluster: make cluster-down NAME=pr-123 STACK=dev" >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: known-stack help setup up down preview outputs drift status logs shell stack cluster cluster-down clusters clusters-down-expired test test-sandbox test-unit test-integration check format

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 24

setup: ## Install everything that the sandbox and the tests need on this machine
	@sandbox/bin/setup

up: ## Bring the cluster up (AMS_ZIP=path: with a real Ant Media Server on the sandbox; PLAN=file: only what was reviewed)
ifneq ($(PLAN),)
	@$(RECOVER)
	@.venv/bin/python -m operations.plan.apply "$(PLAN)" $(PULUMI) up $(POLICIES)
else ifeq ($(STACK),sandbox)
	@sandbox/bin/setup
	@AMS_ZIP="$(AMS_ZIP)" sandbox/bin/up
else
	@$(RECOVER)
	$(PULUMI) up $(POLICIES)
endif

down: ## Take the cluster away, and with it the local cloud
ifeq ($(STACK),sandbox)
	@sandbox/bin/down
else ifdef ON_SANDBOX
	@$(TEST_CLUSTERS) remove -- "$(STACK)"
else
	@$(RECOVER)
	$(PULUMI) destroy
endif

preview: ## Show what `make up` would change (FORMAT=markdown: as the comment of a pull request; PLAN=file: saves it for `make up`)
	$(known_format)
	@$(if $(PLAN),rm -f "$(PLAN)")
ifeq ($(FORMAT),markdown)
	@.venv/bin/python -m operations.preview $(STACK) $(PULUMI) preview --json --show-sames $(save_plan)
else
	@$(PULUMI) preview --diff $(POLICIES) $(save_plan)
endif

outputs: ## Print the stack's outputs as JSON
	@$(PULUMI) stack output --json

drift: ## Report what was changed by hand in the cloud and on the machines (FORMAT=markdown: as an issue)
	$(known_format)
ifdef ON_SANDBOX
	@sandbox/bin/drift $(FORMAT)
else
	@.venv/bin/python -m operations.drift $(STACK) $(FORMAT)
endif

status: ## Show the machines, HAProxy's servers and the certificate; fails when something is wrong
ifdef ON_SANDBOX
	@sandbox/bin/status
else
	@.venv/bin/python -m operations.status
endif

logs: ## Print the logs of a machine (MACHINE=edge1), or of the local cloud
	$(in_sandbox)
	@sandbox/bin/cloud logs $(MACHINE)

shell: ## Open a root shell on a machine (MACHINE=edge1)
	$(in_sandbox)
	@[ -n "$(MACHINE)" ] || { echo "Which machine? For example: make shell MACHINE=edge1" >&2; exit 1; }
	@sandbox/bin/cloud shell $(MACHINE)

stack: ## Make a new stack with its SSH keys and passwords as encrypted configuration (STACK=dev)
	@[ "$(STACK)" != sandbox ] || { echo "Which stack? For example: make stack STACK=dev (make up makes the sandbox's)" >&2; exit 1; }
	@.venv/bin/python -m operations.new_stack $(STACK)

cluster: ## Bring a test cluster up that is like STACK, or prolong it (NAME=pr-123 TTL=4h)
ifdef ON_SANDBOX
	@sandbox/bin/setup
	@PULUMI_STACK="$(NAME)" LIKE=$(STACK) TTL="$(TTL)" AMS_ZIP="$(AMS_ZIP)" sandbox/bin/up
else
	@$(TEST_CLUSTERS) up -- "$(NAME)" "$(TTL)" $(STACK)
endif

cluster-down: ## Take a test cluster down (NAME=pr-123, STACK as it was like)
	@$(TEST_CLUSTERS) down -- "$(NAME)"

clusters: ## List the test clusters and when they expire (STACK=dev: in your account)
	@$(TEST_CLUSTERS) list

clusters-down-expired: ## Take down the test clusters that have expired, and only those
	@$(TEST_CLUSTERS) down-expired

test: ## Everything that .ci/run checks: format, lint, types, unit, integration and end-to-end tests
	@sandbox/bin/setup
	@echo "==> Checks and tests without a cluster, two at a time (5 minutes); each shows its output when it is through"
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-sandbox check test-unit test-integration
	@echo "==> Tests of a whole cluster (20 minutes)"
	.venv/bin/pytest -q tests/e2e

# The first of them mostly waits for machines, the others compute.
test-sandbox test-unit test-integration: test-%:
	.venv/bin/pytest -q tests/$*

check: ## Format, lint, types, shell scripts, workflows
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
