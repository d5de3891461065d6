# Everything a newcomer needs: `make demo` and `make test`. `make help` lists the rest.

PYTHON ?= python3
GO ?= go
VENV := .venv
BIN := $(VENV)/bin
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GO_PACKAGES := ./go/... ./capi/... ./examples/...
SOURCES := $(shell find go capi python -type f -not -path '*/_native/*' -not -path '*/__pycache__/*' -not -path '*/testdata/*' -not -name '*_test.go' 2>/dev/null) pyproject.toml go.mod go.sum

export GOTOOLCHAIN := local
export SOURCE_DATE_EPOCH ?= 1760000000
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: release help build kubernetes demo test test-go test-python check bench campaign exits fuzz wheel sanitize clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 14

build: $(VENV)/.installed ## build the wheel from source and install it into .venv

$(VENV)/.tools: pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("make: Python 3.11 or newer is needed; name one with: make PYTHON=python3.x")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip 'setuptools==84.2.1'
	$(BIN)/python -m pip install --quiet --group dev
	touch $@

$(VENV)/.installed: $(VENV)/.tools $(SOURCES)
	rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .
	$(BIN)/python -m pip install --quiet build/wheel/*.whl
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall build/wheel/*.whl
	touch $@

kubernetes: build ## build receptor-kubernetes, which runs units as pods, and put it beside the daemon in .venv
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w" -o $(BIN)/receptor-kubernetes ./go/cmd/receptor-kubernetes

demo: build ## the main job on real input: make demo [INPUT=file-or-folder]
	$(BIN)/python examples/two_hops.py $(INPUT)

test: test-go test-python ## every test

test-go: ## the engine's tests, under the race detector
	$(GO) vet $(GO_PACKAGES)
	$(GO) test -race -timeout 600s $(GO_PACKAGES)

test-python: build ## the Python packages and what crosses languages
	RECEPTOR_DAEMON=$(CURDIR)/$(BIN)/receptor $(BIN)/python -m pytest tests

check: $(VENV)/.tools ## format, vet, lint, strict type check
	@unformatted=$$(gofmt -l go capi examples); test -z "$$unformatted" || { echo "gofmt is needed on: $$unformatted"; exit 1; }
	$(GO) vet $(GO_PACKAGES)
	CGO_ENABLED=0 $(GO) build -o /dev/null ./go/cmd/receptor
	$(GO) run $(STATICCHECK) $(GO_PACKAGES)
	$(BIN)/ruff format --check python tests examples
	$(BIN)/ruff check python tests examples
	$(BIN)/mypy

bench: build ## the figures of the README, measured on this machine: make bench [TOPICS="mesh work"]
	$(BIN)/python tests/bench/run.py $(TOPICS)

campaign: build ## kill daemons, links, runners and commands while units run: SECONDS=60 a round, ROUNDS=3 rounds, from SEED
	$(BIN)/python tests/work_campaign.py --program $(BIN)/receptor --seconds $(or $(SECONDS),60) --rounds $(or $(ROUNDS),3) $(if $(SEED),--seed $(SEED))

exits: build ## end interpreters under load, EXITS=60 times each kind of load with each Python of this machine
	RECEPTOR_EXITS=$(or $(EXITS),60) $(BIN)/python -m pytest -o faulthandler_timeout=0 tests/python/test_hazards.py -k exits_under_load

# At the end of its time the fuzzer of Go fails now and then with nothing but "context deadline exceeded", whatever the target:
# it compares the context that has ended to one below it, which ends a moment later. If what it has kept passes, nothing was found.
fuzz: ## every fuzz target for FUZZTIME (default 20s) each
	@set -e; log=$$(mktemp); trap 'rm -f "$$log"' EXIT; for package in $$($(GO) list ./go/...); do \
		for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "$$package $$target"; passed=true; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(or $(FUZZTIME),20s) -fuzzminimizetime 100x $$package >"$$log" 2>&1 || passed=false; \
			cat "$$log"; \
			$$passed || { grep -qx '    context deadline exceeded' "$$log" && $(GO) test -run "^$$target$$" $$package; }; \
		done; \
	done

wheel: $(VENV)/.tools ## the wheel and the source distribution, in dist/, checked in a clean environment
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(BIN)/python -c 'from setuptools import build_meta; build_meta.build_sdist("dist")' >/dev/null
	$(BIN)/python tests/packaging/check_wheel.py dist
	ls -l dist

sanitize: $(VENV)/.tools ## the C library under cgocheck2 and the address sanitizer
	$(BIN)/python tests/packaging/sanitize.py

RELEASE := dist/release
LINE := $(subst x,==========,xxxxxxxxxx)
release: ## the static binaries of each platform with their licences, and checksums, in dist/release
	rm -rf $(RELEASE) && mkdir -p $(RELEASE)
	set -e; version=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml | head -1); \
	for platform in $(or $(PLATFORMS),linux/amd64 linux/arm64); do \
		for program in receptor receptor-kubernetes; do \
			name=$${program}_$${version}_$$(echo $$platform | tr / _); \
			CGO_ENABLED=0 GOOS=$${platform%/*} GOARCH=$${platform#*/} $(GO) build -trimpath -ldflags "-s -w -X github.com/pyreceptor/pyreceptor/go/daemon.Version=$$version" -o $(RELEASE)/$$program ./go/cmd/$$program; \
			cp LICENSE python/THIRD-PARTY-LICENSES $(RELEASE); \
			modules=$$($(GO) list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}}={{.Dir}}{{end}}{{end}}' ./go/cmd/$$program | sort -u); \
			for module in $$modules; do \
				! grep -qxF "$${module%%=*}" python/THIRD-PARTY-LICENSES || continue; \
				texts=$$(find "$${module#*=}" -type f \( -iname 'LICEN[CS]E*' -o -iname 'NOTICE*' -o -iname 'COPYING*' \) | sort); \
				test -n "$$texts" || { echo "make: $${module%%=*} has no licence in $${module#*=}" >&2; exit 1; }; \
				{ printf '\n%s\n' $(LINE) "$${module%%=*}" $(LINE); cat $$texts; } >> $(RELEASE)/THIRD-PARTY-LICENSES; \
			done; \
			tar -C $(RELEASE) --owner=0 --group=0 -czf $(RELEASE)/$$name.tar.gz $$program LICENSE THIRD-PARTY-LICENSES; \
			rm $(RELEASE)/$$program $(RELEASE)/LICENSE $(RELEASE)/THIRD-PARTY-LICENSES; \
		done; \
	done; \
	cd $(RELEASE) && sha256sum *.tar.gz > receptor_$${version}_checksums.txt && ls -l

clean: ## remove what the targets above made
	rm -rf $(VENV) build dist python/receptor/_native python/*.egg-info
