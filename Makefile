# The targets that work, and what they need. `make` alone lists them.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.version=$(VERSION)
# No machine's clock can be right that is before the commit that its agent was built from.
BUILT   := $(shell git log -1 --format=%cI 2>/dev/null)

# One set of flags for build, vet and test: with two, everything is compiled twice.
export CGO_ENABLED = 0
export GOFLAGS = -trimpath -buildvcs=false

# Tools are run at one version each, and kept out of go.mod.
STATICCHECK   := honnef.co/go/tools/cmd/staticcheck@v0.8.2
CONTROLLERGEN := sigs.k8s.io/controller-tools/cmd/controller-gen@v0.20.0

# What `make generate` writes.
GENERATED = api/v1alpha1/zz_generated.deepcopy.go internal/apiserver/crds/*.yaml
N ?= 5
# For which machines `make dist` builds.
ARCH ?= amd64

.PHONY: help build etcd test test-long check generate lab lab-down e2e soak cuts bench dist dist-check offline clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## bin/metald and bin/metald-agent, both static
	go build -ldflags '$(LDFLAGS)' -o bin/metald ./cmd/metald
	go build -ldflags '$(LDFLAGS) -X main.built=$(BUILT)' -o bin/metald-agent ./cmd/metald-agent

etcd: ## build/etcd, of the version of metald's own client: what test-long and bench run against
	cd test/etcd && GOFLAGS= go build -trimpath -ldflags '-s -w' -o ../../build/etcd go.etcd.io/etcd/server/v3

test: ## all quick tests: no root, no network, no QEMU
	go test ./...

test-long: etcd ## the race detector (needs gcc), a real etcd, 200 kill -9, Kubernetes' own clients, a real TPM (needs swtpm), drives erased in QEMU, disks written (root, gdisk, mtools, dosfstools, genisoimage)
	CGO_ENABLED=1 go test -race -count=1 ./internal/inventory/... ./internal/pxe/... ./internal/provision/...
	go test -tags long -count=1 -run Simulator ./internal/bmc
	go test -tags long -count=1 -run Long ./internal/provision
	go test -tags long -count=1 -run TestKillNine ./internal/inventory/engine
	go test -tags long -count=1 ./internal/inventory ./internal/inventory/etcd
	go test -tags long -count=1 -run 'TestDoorOnEtcd|TestHostWithHangingBMC' ./internal/apiserver ./internal/daemon
	go test -tags long -count=1 ./internal/agent/tpm ./internal/agent/erase ./cmd/metald-agent ./internal/imaging/disk ./internal/imaging/configdrive
	cd test/clients && go test -count=1 -timeout 20m ./...

check: ## format, vet, staticcheck, the rules of the house, generated files
	@bad=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$bad" || { echo "gofmt would change:" $$bad; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	cd test/clients && go vet ./... && go run $(STATICCHECK) ./...
	go test -count=1 ./test
	@before=$$(cat $(GENERATED) | sha256sum); $(MAKE) --no-print-directory generate; \
		test "$$before" = "$$(cat $(GENERATED) | sha256sum)" || { echo "generated files were old: commit what 'make generate' wrote"; exit 1; }

generate: ## make the generated code and the CustomResourceDefinitions anew
	go run $(CONTROLLERGEN) object paths=./api/...
	go generate ./internal/...

lab: ## three virtual hosts and a control plane, from off to Ready nodes (root, Debian 12)
	go run ./test/lab up

lab-down: ## end everything that make lab started; what was built is kept
	go run ./test/lab down

e2e: ## the whole path on real firmware, unattended, leaving nothing behind (root, Debian 12)
	go run ./test/lab build
	go test -tags e2e -count=1 -timeout 55m -v ./test/e2e

soak: ## make e2e N times, 5 unless N= says otherwise, beside a busy core if BUSY=1; logs and a summary in build/soak
	go run ./test/lab build
	go run ./test/lab soak $(N) $(if $(filter 1,$(BUSY)),busy)

cuts: ## pull a machine's plug ten times while its image is written, and look at its disk each time
	go run ./test/lab build
	go test -tags e2e -count=1 -timeout 60m -v ./test/e2e -run 'TestFirstLight|TestRunningMachineIsOnlyRead|TestDisksAreInstalled|TestPowerCuts' -cuts 10

bench: etcd ## measure beside peers and print BENCH lines; ONLY="P16 P18" for some (root, Debian 12)
	go run ./test/bench -only "$(ONLY)"

dist: ## what a site without internet installs (dpkg-deb, kmod, Debian's mirror); ARCH=amd64,arm64 for both
	go run ./deploy/release -version '$(VERSION)' -arch '$(ARCH)' -out dist

dist-check: ## make dist twice, as two people would, and compare every byte
	go run ./deploy/release -version '$(VERSION)' -arch '$(ARCH)' -out build/release/one
	mkdir -p build/release/tmp && umask 077 && TZ=Asia/Tokyo LC_ALL=C.UTF-8 TMPDIR=$(CURDIR)/build/release/tmp \
		go run ./deploy/release -version '$(VERSION)' -arch '$(ARCH)' -out build/release/two
	diff -r build/release/one build/release/two && cat build/release/one/SHA256SUMS

offline: ## install dist/ where there is no internet, up to a host's inspection: docs/offline.md (root, Debian 12)
	go run ./test/offline -dist dist -out docs/offline.md

clean: ## remove what was built
	rm -rf bin build dist
