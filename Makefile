# The commands for developers and CI. Needs Go, make and gcc.

GO ?= go
ROOT := $(CURDIR)
BIN := $(ROOT)/bin
TOOLS := $(ROOT)/hack/tools/go.mod
SEEDS ?= 10000
FLEETS ?= 300
DURATION ?= 10m

.DEFAULT_GOAL := help
.PHONY: help demo test soak verify unit e2e bench simulate model chaos build generate fmt clean

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "; print "Usage: make <target>\n"} /^[a-z0-9-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Show three replicas sharing work on a real API server (KUBECONFIG=... for your own cluster)
	@# Use KUBECONFIG only from make's command line, never from the environment, so that no cluster is
	@# changed by accident.
	@GO="$(GO)" exec hack/demo.sh $(if $(filter command line,$(origin KUBECONFIG)),-kubeconfig "$(abspath $(KUBECONFIG))")

test: ## Run the tests that must pass before each commit (CI runs them too): 8 minutes on 2 cores, 15 to 20 the first time
	@GO="$(GO)" exec hack/test.sh verify unit benchmarks controlplane e2e

soak: ## Run everything, for the changes that CONTRIBUTING.md lists: about an hour
	@GO="$(GO)" SEEDS=$(SEEDS) FLEETS=$(FLEETS) DURATION=$(DURATION) exec hack/test.sh verify_all unit_all client_go benchmarks mutants simulate controlplane e2e_all chaos

verify: ## Check formatting, vet, lint, import rules and generated code
unit: ## Run the unit tests, with the race detector for packages with goroutines
e2e: ## Run the short end-to-end tests: real replica processes on a real control plane
verify unit e2e:
	@GO="$(GO)" exec hack/test.sh $@

bench: ## Run the benchmarks for the README's figures
	hack/bench.sh

simulate: ## Run SEEDS (10000) seeded schedules of faults against the state machine, and FLEETS (300) against whole members
	@GO="$(GO)" SEEDS=$(SEEDS) FLEETS=$(FLEETS) exec hack/test.sh simulate

model: ## Check the models of the ownership protocol with spin (Debian: apt-get install spin)
	test/model/run.sh

chaos: ## Inject faults into real replicas on a real control plane for DURATION (10m); SEED=..., OUT=folder for the report and the picture
	@cd test && $(GO) run ./cmd/chaos -duration $(DURATION) $(if $(SEED),-seed $(SEED)) $(if $(OUT),-out "$(abspath $(OUT))")

build: ## Build the example controller into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/example-controller ./example-controller

generate: ## Generate deepcopy functions, clientset, listers and informers of the example
	hack/update-codegen.sh

fmt: ## Format all Go code
	$(GO) tool -modfile=$(TOOLS) gofumpt -w $$(find . -name '*.go' -not -path './bin/*' -not -path '*/generated/*' -not -name 'zz_generated*')

clean: ## Remove the built files
	rm -rf $(BIN)
