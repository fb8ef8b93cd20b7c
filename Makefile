# The two commands: `make demo` and `make test`. Both first make the environment, once, in $VENV.
#   VENV=path    where the environment goes (default .venv)
#   JOBS=2       test files that run at a time
#   SUITES=      those that `make test-all` runs (default: all)
#   PYTHON=path  the Python that it is made from (default: the first of python3, python3.14, ... that fits)
#   LOCKED=1     every package by its hash in platform/locked.txt: what is fetched is what was locked, or nothing is

VENV ?= .venv
PYTHON ?=
JOBS ?= 2
SUITES ?=
LOCKED ?=
export VENV PYTHON LOCKED

export RAY_USAGE_STATS_ENABLED = 0
export NO_ALBUMENTATIONS_UPDATE = 1
unexport HF_HUB_OFFLINE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.ONESHELL:
.SHELLFLAGS := -eu -c
.PHONY: help demo test test-all lint types layers quick test-end-to-end test-slow test-faults test-cluster test-fuzz test-attacks test-dashboards bench bench-scale env lock licences audit docs clean

help:
	@echo 'make demo       draw synthetic cracks, search a small recipe, write the leaderboard and its report'
	@echo 'make test       lint, types, layers, and the quick tests; stops at the first that fails'
	@echo 'make test-all   lint, types, layers, and every suite; goes on after a failure and ends with a table of them'
	@echo 'make test-end-to-end  searches, batches, services and the README on a real Ray, as people start them'
	@echo 'make test-slow  the tests that take minutes'
	@echo 'make test-faults  faults of trials and of clusters, and what they cost; those of storage as root'
	@echo 'make test-cluster  `ray up` on hosts of its own: as root, on Linux, with openssh-server, iproute2 and rsync'
	@echo 'make test-fuzz  the service against thousands of damaged images and drawn requests'
	@echo 'make test-attacks  the attacks that need root, another user or minutes: docs/security.md and docs/reliability.md'
	@echo 'make test-dashboards  the dashboards and alerts on a real Prometheus, and fissura dashboard in a browser'
	@echo 'make bench      the benchmarks, one after the other; `make bench-scale` the one that takes the longest'
	@echo 'make env        the environment alone; `make env LOCKED=1` takes every package by its hash'
	@echo 'make docs       build/docs/index.html: the API, from the docstrings'
	@echo 'make audit      known vulnerabilities of the packages in platform/locked.txt, where there is a network'
	@echo 'make lock       platform/locked.txt anew from platform/constraints.txt; `make licences` docs/licences.md'
	@echo 'make clean      remove the environment that make made, and the caches; never your results'

demo: env
	@"$$VENV/bin/fissura" demo

# what each suite runs stands in tests/suites.py
test: env
	@echo '== ruff, mypy, lint-imports, and the quick tests with pytest =='
	"$$VENV/bin/python" tests/suites.py --jobs $(JOBS) --stop lint format types layers quick

lint types layers quick: env
	@"$$VENV/bin/python" tests/suites.py --jobs $(JOBS) $(subst lint,lint format,$@)

test-end-to-end test-slow test-cluster test-fuzz test-attacks test-dashboards: env
	@"$$VENV/bin/python" tests/suites.py $(@:test-%=%)

test-faults: env
	@"$$VENV/bin/python" tests/suites.py faults storage

test-all: env
	@"$$VENV/bin/python" tests/suites.py --jobs $(JOBS) $(SUITES)

# without scale.py, which goes through 10,000 trials
bench: env
	@for script in $(filter-out benchmarks/scale.py,$(wildcard benchmarks/*.py)); do
	  echo "== $$script =="
	  "$$VENV/bin/python" "$$script"
	done

bench-scale: env
	"$$VENV/bin/python" benchmarks/scale.py

# An environment is whole when it holds the mark of this place and of these requirements; the mark is written last.
# One that was moved, or holds the mark of an unfinished installation, is made anew. One that something else made is
# used, but neither marked nor removed.
env:
	@made="$$VENV/.fissura-made" making="$$VENV/.fissura-making"
	wanted=$$(pwd; cat pyproject.toml platform/constraints.txt $(if $(LOCKED),platform/locked.txt) | cksum)
	if "$$VENV/bin/python" -c '' 2>/dev/null && [ "$$(cat "$$made" 2>/dev/null)" = "$$wanted" ]; then exit 0; fi
	if [ -e "$$made" ] || [ -e "$$making" ] || [ -z "$$(ls -A "$$VENV" 2>/dev/null)" ]; then ours=yes; else ours=; fi
	if [ -z "$$ours" ] && ! "$$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
	  echo "VENV=$$VENV is neither empty nor a Python environment: name another place, as in make VENV=.venv-fissura" >&2
	  exit 1
	fi
	if [ -e "$$made" ] && [ "$$(head -n 1 "$$made")" != "$$(pwd)" ]; then : > "$$making"; fi
	# what is installed already was not looked at by its hash
	if [ "$$LOCKED" ] && [ -e "$$made" ]; then : > "$$making"; fi
	if [ "$$ours" ] && { [ -e "$$making" ] || ! "$$VENV/bin/python" -c '' 2>/dev/null; }; then
	  if [ "$$PYTHON" ]; then set -- "$$PYTHON"; else set -- python3 python3.14 python3.13 python3.12 python3.11; fi
	  found= tried=
	  for python do
	    if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
	      found="$$python"
	      break
	    fi
	    tried="$$tried, $$python ($$("$$python" --version 2>/dev/null || echo 'not here'))"
	  done
	  if [ -z "$$found" ]; then
	    echo "fissura needs Python 3.11 to 3.14 with its venv module; tried$${tried#,}." >&2
	    echo "Install one (Debian, Ubuntu: apt install python3-venv) or name one: make PYTHON=/path/to/python3.11" >&2
	    exit 1
	  fi
	  mkdir -p "$$VENV"
	  : > "$$making"
	  find "$$VENV" -mindepth 1 -maxdepth 1 ! -name .fissura-making -exec rm -rf {} +
	  "$$found" -m venv "$$VENV"
	  echo '*' > "$$VENV/.gitignore"
	fi
	if [ "$$ours" ]; then
	  rm -f "$$made"
	  : > "$$making"
	fi
	echo "Installing fissura and what it needs into $$VENV (several GB, some minutes the first time)."
	install() { "$$VENV/bin/python" -m pip install -qq --no-input --disable-pip-version-check "$$@"; }
	if [ "$$LOCKED" ]; then
	  install --require-hashes -r platform/locked.txt
	  install --no-deps --no-build-isolation -e .
	else
	  install -c platform/constraints.txt -e '.[dev]'
	fi
	if [ "$$ours" ]; then
	  echo "$$wanted" > "$$making"
	  mv "$$making" "$$made"
	fi

# each tool in an environment of its own, which goes with it
lock: env
	@scratch="$$(mktemp -d)"; trap 'rm -rf "$$scratch"' EXIT
	"$$VENV/bin/python" -m venv "$$scratch"
	"$$scratch/bin/python" -m pip install -qq --disable-pip-version-check uv
	echo 'setuptools>=77' | "$$scratch/bin/uv" pip compile -q pyproject.toml - --extra dev -c platform/constraints.txt \
	  --generate-hashes --universal --python-version 3.11 --no-annotate \
	  --custom-compile-command 'make lock' -o platform/locked.txt

licences: env
	@"$$VENV/bin/python" docs/licences.py

docs: env
	@"$$VENV/bin/python" docs/api.py build/docs
	echo 'build/docs/index.html'

audit: env
	@scratch="$$(mktemp -d)"; trap 'rm -rf "$$scratch"' EXIT
	"$$VENV/bin/python" -m venv "$$scratch"
	if ! said="$$("$$scratch/bin/python" -m pip install -qq --disable-pip-version-check --retries 1 pip-audit 2>&1)"; then
	  echo "not audited: pip-audit cannot be fetched ($$(echo "$$said" | tail -n 1)); try again where there is a network" >&2
	  exit 1
	fi
	# a package that the service gives no answer on is not one without a fault
	if said="$$("$$scratch/bin/pip-audit" --strict --progress-spinner off --disable-pip --require-hashes -r platform/locked.txt 2>&1)"; then
	  echo "$$said"
	  exit 0
	fi
	case "$$said" in
	  *'could not be audited'*) echo "not audited: the service of vulnerabilities gave no answer on every package ($$(echo "$$said" | tail -n 1)); try again where it can be reached" >&2 ;;
	  *) echo "$$said" >&2 ;;
	esac
	exit 1

clean:
	@if [ -e "$$VENV/.fissura-made" ] || [ -e "$$VENV/.fissura-making" ]; then rm -rf "$$VENV"; fi
	rm -rf build dist platform/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find platform dashboards benchmarks tests -name __pycache__ -type d -exec rm -rf {} +
