# The front door. `make help` lists what there is; CI calls the same targets.
#
# `make demo` and `make test` do all their own set-up, say what they are doing while you
# wait, and end with a verdict: PASS or FAIL.

SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CACHE   := $(or $(BELLOWS_CACHE),$(HOME)/.cache/bellows)
TARGET  := $(or $(CARGO_TARGET_DIR),target)
HOST     = $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
VERSION  = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
OUT     := target/bellows
IMAGES  := $(OUT)/images
# Static programs: they run in images that hold nothing else, and on any node.
STATIC   = $(TARGET)/$(HOST)/image
TESTBED  = $(STATIC)/testbed
# helm, kubectl and kind's checker, from the cache.
PROGRAMS = $$($(TESTBED) tools helm kube kind-check | paste -sd:)
KIND    := 0.33.0
# The name of the cluster that the targets here use.
NAME    ?= bellows
# Crates are tested with every backend and the test kit.
FEATURES := bellows-registry/embedded,bellows-registry/etcd,bellows-registry/testkit,bellows-sdk/testing,bellows-sdk/zstd,bellows-sdk/encryption,bellows-sdk/object-store
# The crates for crates.io.
PUBLISHED := -p bellows-registry -p bellows-sdk-macros -p bellows-sdk
# Empty for anybody else.
ROOT     = $(filter 0,$(shell id -u))
SAY      = @printf '\033[1m==> %s\033[0m\n'

help: ## List these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: ## The whole system on a real Kubernetes, checked at every step (warm: 3 min; first time: 25)
	@mkdir -p $(OUT)
	log=$(OUT)/demo.log
	if $(MAKE) demo-story 2>&1 | tee $$log; then exit; fi
	grep '^demo: FAIL' $$log | tail -n 1 | grep . || echo 'demo: FAIL set-up: what went wrong is above'
	exit 1

demo-story: root-or-docker setup images photos # On kind where a Docker engine answers, else on the testbed
	@if docker info >/dev/null 2>&1; then $(MAKE) demo-kind; exit; fi
	began=$$EPOCHREALTIME
	printf '\033[1m==> A Kubernetes of two nodes (usually 10 s, or at once if it is up)\033[0m\n'
	$(TESTBED) up --name $(NAME) --nodes 2
	up=$$(awk "BEGIN { print $$EPOCHREALTIME - $$began }")
	$(TESTBED) load-image --name $(NAME) $(IMAGES)/*.tar
	BELLOWS_TESTBED=$(NAME) BELLOWS_CLUSTER_UP_S=$$up $(TESTBED) run --name $(NAME) -- $(STATIC)/demo

demo-kind: # The same story on kind, where a Docker engine answers
	@kind=$$(command -v kind || echo $(CACHE)/kind-$(KIND)/kind)
	# Under another name until it is whole.
	[ -x $$kind ] || { GOBIN=$(CACHE)/kind-$(KIND).new go install sigs.k8s.io/kind@v$(KIND); mv -T $(CACHE)/kind-$(KIND).new $(CACHE)/kind-$(KIND); }
	# Every node sees the folder of photographs.
	mkdir -p $(OUT)/volume
	sed "s|^  - role: .*|&\n    extraMounts: [{ hostPath: $$PWD/$(OUT)/volume, containerPath: /bellows-volume }]|" \
		kind-config.yaml > $(OUT)/kind-config.yaml
	$$kind get clusters | grep -qx $(NAME) || $$kind create cluster --name $(NAME) --config $(OUT)/kind-config.yaml
	for image in $(IMAGES)/*.tar; do $$kind load image-archive --name $(NAME) $$image; done
	$$kind get kubeconfig --name $(NAME) > $(OUT)/kind.kubeconfig
	KUBECONFIG=$$PWD/$(OUT)/kind.kubeconfig BELLOWS_KIND=$(NAME) PATH="$(PROGRAMS):$$PATH" $(STATIC)/demo

test: ## Every test: crates, backends on a real etcd, charts, and real pods on a real Kubernetes
	@mkdir -p $(OUT)
	log=$(OUT)/test.log
	: > $$log
	verdict=PASS
	$(MAKE) root || { echo 'test: FAIL, nothing was run'; exit 1; }
	# All of them, also after a failure: one run says all that is wrong.
	$(MAKE) --keep-going test-crates test-charts test-cluster 2>&1 | tee $$log || verdict=FAIL
	$(MAKE) test-report 2>&1 | tee -a $$log || verdict=FAIL
	count() { awk -v word="$$1" '/^test result:/ { for (i = 2; i <= NF; i++) if ($$i ~ "^" word) n += $$(i - 1) } END { print n + 0 }' $$log; }
	printf '\n%s passed, %s failed\n' "$$(count passed)" "$$(count failed)"
	echo "test: $$verdict, $$(count passed) tests passed, $$(count failed) failed (log: $$log)"
	[ $$verdict = PASS ]

test-crates: setup tools ## Tests of the crates, with a real etcd (warm: 3 min)
	$(SAY) 'Crates, backends and documentation examples (usually 3 min, the first time 15)'
	$(if $(ROOT),,echo 'Without root: the tests of the testbed itself are left out')
	rm -rf $(OUT)/behaviours $(OUT)/conformance $(OUT)/behaviours.json $(OUT)/property.json $(OUT)/embedded.json
	cargo test --locked --no-fail-fast --workspace $(if $(ROOT),,--exclude bellows-testbed) --features $(FEATURES)

test-report: # What the tests of the crates left behind, as one file: target/bellows/behaviours.json
	@cargo test --quiet --locked --workspace --features $(FEATURES),bellows-tests/report --test report

test-charts: tools ## Charts and kind-config.yaml, by helm's and kind's own loaders
	$(SAY) 'Charts and kind-config.yaml (usually 5 s)'
	export PATH="$(PROGRAMS):$$PATH"
	helm lint --strict charts/bellows-crds charts/bellows
	# An etcd with TLS cannot be reached; a member that lost its folder is refused by the others.
	for wrong in 'etcd.external.endpoints={https://etcd:2379}' etcd.replicas=3,etcd.persistence.enabled=false; do
		if helm template bellows charts/bellows --set "$$wrong" >/dev/null 2>&1; then
			echo "The chart takes $$wrong"
			exit 1
		fi
	done
	# A namespace may look like a number, which YAML would take for one.
	if helm template bellows charts/bellows --namespace 2024 --set-string 'watchNamespaces={7}' | grep -nE 'namespace: +(2024|7)\b'; then
		echo 'A namespace is not quoted'
		exit 1
	fi
	# Names that Kubernetes takes, also for the longest release: 52 for a StatefulSet, whose pods carry a hash of it.
	helm template "$$(printf 'a%.0s' {1..53})" charts/bellows --set etcd.replicas=3 | awk '
		/^kind: / { most = 0 } /^kind: StatefulSet/ { most = 52 } /^kind: Service$$/ { most = 63 }
		most && /^  name: / { names++; if (length($$2) > most) { print "too long: " $$2; bad = 1 } }
		END { exit bad || names != 4 }'
	kind-check kind-config.yaml

test-cluster: root setup images photos ## Tests with real pods on a real Kubernetes (needs root; usually 4 min)
	$(SAY) 'Real pods on a real Kubernetes (usually 4 min)'
	tests=(cargo test --locked --no-fail-fast --workspace --features $(FEATURES),bellows-tests/cluster --test admission --test cluster --test dry_run --test variants)
	"$${tests[@]}" --no-run
	trap '$(TESTBED) down --name $(NAME)-test' EXIT
	$(TESTBED) up --name $(NAME)-test --nodes 2
	$(TESTBED) load-image --name $(NAME)-test $(IMAGES)/*.tar
	export BELLOWS_TESTBED=$(NAME)-test
	export CARGO_TARGET_$$(echo $(HOST) | tr a-z- A-Z_)_RUNNER="$(abspath $(TESTBED)) run --name $(NAME)-test --"
	"$${tests[@]}" -- --test-threads 1

images: tools ## Build the images the charts name, as archives in target/bellows/images
	$(SAY) 'Programs for images (usually a few seconds, the first time 7 min)'
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --profile image --target $(HOST) \
		-p bellows-operator -p bellows-example-thumbnails -p bellows-tests --bins
	mkdir -p $(IMAGES)
	pack() { $(TESTBED) image --image "$$1" --output "$(IMAGES)/$$2.tar" "$${@:3}"; }
	pack ghcr.io/bellows-dev/bellows-operator:$(VERSION) operator --file $(STATIC)/bellows-operator:/bellows-operator
	pack ghcr.io/bellows-dev/example-thumbnails:$(VERSION) thumbnails \
		--file $(STATIC)/thumbnails-worker:/thumbnails-worker --file $(STATIC)/thumbnails:/thumbnails
	pack quay.io/coreos/etcd:v3.7.3 etcd --file "$$($(TESTBED) tools etcd)/etcd":/usr/local/bin/etcd

photos: images # The photographs of the demo, fetched once into the cache: a cluster's network has no way out
	@$(STATIC)/demo prepare

tools: $(TESTBED) # Kubernetes, etcd and helm, built once into the cache
	$(SAY) 'Kubernetes, etcd, helm (from the cache; the first time built, 13 min)'
	$(TESTBED) tools >/dev/null

$(TESTBED): setup
	$(SAY) 'The testbed (the first time 1 min)'
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --profile image --target $(HOST) -p bellows-testbed

cluster-up: root setup images ## A Kubernetes on this machine with the images loaded (needs root)
	$(SAY) 'A Kubernetes of two nodes (usually 10 s, or at once if it is up)'
	$(TESTBED) up --name $(NAME) --nodes 2
	$(TESTBED) load-image --name $(NAME) $(IMAGES)/*.tar
	$(TESTBED) run --name $(NAME) -- kubectl get nodes
	echo 'Next: eval "$$(make -s cluster-env NAME=$(NAME))"; in-cluster helm install bellows charts/bellows --wait'

cluster-env: # Prints a shell function that runs commands inside that cluster's network
	@echo 'in-cluster() { $(abspath $(TESTBED)) run --name $(NAME) -- "$$@"; }'

cluster-down: $(TESTBED) ## Take that Kubernetes away, with everything in it
	kind=$$(command -v kind || echo $(CACHE)/kind-$(KIND)/kind)
	if docker info >/dev/null 2>&1 && [ -x $$kind ]; then
		$$kind delete cluster --name $(NAME)
		[ "$$(id -u)" = 0 ] || exit 0 # only root has made another one
	fi
	$(TESTBED) down --name $(NAME)

fmt: ## Format the code
	cargo fmt --all

lint: setup ## Formatting, clippy and documentation, warnings denied
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --features $(FEATURES),bellows-tests/cluster,bellows-tests/report -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps $(PUBLISHED) --features $(FEATURES)

# Cargo neither unpacks nor builds a registry's package of the same version again, and the
# SDK is built against the packages of the others: what earlier ones left must go.
package: setup ## Check that the crates for crates.io can be packaged and built from their packages
	cargo clean --quiet $(PUBLISHED)
	rm -rf "$${CARGO_HOME:-$$HOME/.cargo}"/registry/src/-*/bellows-{registry,sdk,sdk-macros}-$(VERSION)
	cargo package --locked $(PUBLISHED)

check-features: setup ## That the SDK compiles with each of its features alone
	for feature in '' $$(sed -n '/^\[features\]/,/^\[d/s/^\([a-z-]*\) = .*/\1/p' worker-sdk/Cargo.toml | grep -v default); do
		echo "bellows-sdk with $${feature:-no feature}"
		cargo check --locked --quiet -p bellows-sdk --no-default-features --features "$$feature"
	done

bench-lines: setup ## The same task in four libraries: all compile, and docs/reference/compared.md says their lines
	$(SAY) 'The same task in four libraries (usually 5 s, the first time 3 min)'
	cd bench
	cargo fmt --all --check
	cargo check --locked --workspace
	cd river
	if gofmt -l . | grep .; then echo 'is not formatted: gofmt -w it'; exit 1; fi
	go vet ./...
	cd ..
	cargo run --quiet --locked -p bench-lines

generate: setup ## Write generated files again (the CRD)
	cargo run --locked -p bellows-operator --bin crdgen

clean: ## Remove what was built here; the cache outside stays
	cargo clean
	rm -rf $(OUT)

root-or-docker: # A Kubernetes comes from one of them: said before anything is built
	@docker info >/dev/null 2>&1 || $(MAKE) root

root: # What a testbed needs of whom runs it and where: said before anything is built
	@case $$(pwd -P)/ in /var/*|/run/*)
		echo "Every node of the testbed has a $$(pwd -P | cut -d/ -f1-2) of its own, so no pod would see the files of this checkout."
		echo 'Clone it to another place, such as your home folder.'
		exit 1
	esac
	[ -n '$(ROOT)' ] && exit
	echo 'A Kubernetes of its own makes network namespaces, mounts and cgroups: run this as root.'
	echo 'Without root: make test-crates test-charts; and make demo where a Docker engine answers.'
	exit 1

setup: # What a new machine lacks: installed with apt-get as root, else named
	@need=()
	for program in cargo rustc go; do command -v $$program >/dev/null || need+=($$program); done
	if (( $${#need[@]} )); then
		echo "Bellows is built with Rust ($$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or later) and Go (1.26 or later)."
		echo "Missing here: $${need[*]}. Install them, and run this again."
		exit 1
	fi
	packages=()
	command -v cc >/dev/null || packages+=(gcc libc6-dev)
	# With the types that every protoc knows, which Debian keeps in a package of their own.
	protoc=$$(command -v protoc) && [ -e "$$(dirname "$$(readlink -f "$$protoc")")/../include/google/protobuf/descriptor.proto" ] ||
		packages+=(protobuf-compiler libprotobuf-dev)
	(( $${#packages[@]} )) || exit 0
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "Installing $${packages[*]} (usually 10 s)"
		install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${packages[@]}")
		# The first try is silent: a new machine has no package lists yet.
		"$${install[@]}" >/dev/null 2>&1 || { apt-get update -qq; "$${install[@]}" >/dev/null; }
	else
		echo "Please install: $${packages[*]} (the names are Debian's)"
		exit 1
	fi

.PHONY: help demo demo-story demo-kind photos test test-crates test-charts test-cluster test-report images tools cluster-up cluster-env cluster-down fmt lint package check-features bench-lines generate clean setup root root-or-docker
