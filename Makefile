# `make launch-train` and `make test` are all a newcomer needs; `brc` in .venv/bin is for those who stay.
PYTHON ?= python3
PRESET ?= quickstart
ARGS ?=
HUMANOID_BENCH ?= git+https://github.com/carlosferrazza/humanoid-bench@791405f\#egg=humanoid_bench
DEX_ENVS ?= https://github.com/naumix/BiggerRegularizedCategorical
VENV := .venv
BIN := $(VENV)/bin
# uv, if it is on the path, installs the same into the same place, faster.
INSTALL := $(if $(shell command -v uv),uv pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet --disable-pip-version-check)
INSTALLED := $(VENV)/installed

CLUSTER ?= cluster.yaml
RUN ?=
GRAFANA_URL ?= http://localhost:3000
PROMETHEUS_URL ?= http://localhost:9090
BENCHMARK ?=
ACTORS ?=
# Ray's newer autoscaler loses nodes of the local provider, and all that is here was tried with this one.
RAY_UP = RAY_UP_enable_autoscaler_v2=0 RAY_AUTH_MODE=token $(BIN)/ray
REMOTE = CLUSTER=$(CLUSTER) $(BIN)/brc remote

.PHONY: fast dashboards secrets up down status scale resume report logs stop help setup install-humanoid-bench install-shadow-hand launch-train test lint proofs benchmark gpu-proof docs clean cluster-proof

help:
	@echo "make launch-train [PRESET=quickstart] [ARGS=...]   set up, then train"
	@echo "make up [CLUSTER=cluster.yaml]                     set up, then bring a cluster up: launch-train then trains there"
	@echo "make status [RUN=...]                              runs, there or here, and how they are"
	@echo "make scale BENCHMARK=dmc ACTORS=64 [RUN=...]       have so many actors"
	@echo "make resume RUN=... [ARGS=...]                     go on with a run that was stopped"
	@echo "make report RUN=...                                write a page of one run"
	@echo "make logs [RUN=...]                                follow a run on the cluster"
	@echo "make stop [RUN=...]                                stop a run; it can be resumed"
	@echo "make down [CLUSTER=cluster.yaml]                   end the cluster and all that runs on it"
	@echo "make dashboards GRAFANA_URL=... PROMETHEUS_URL=... put the dashboards there; the token is in GRAFANA_TOKEN"
	@echo "make fast                                          tests of single parts, in a minute or two"
	@echo "make test                                          set up, then lint, type check and test"
	@echo "make proofs                                        the tests that take many minutes"
	@echo "make cluster-proof                                 a cluster on several hosts of this machine, as root"
	@echo "make benchmark                                     every benchmark, one JSON object a line"
	@echo "make install-humanoid-bench                        HumanoidBench, from its repository"
	@echo "make install-shadow-hand                           the Shadow hand and its 114 objects, likewise"
	@echo "make gpu-proof [ARGS=...]                          width 4096 on a GPU: tests, speed, dogs over the paper's curve"
	@echo "make docs                                          write what is made of code anew: settings, metrics, dashboards"
	@echo "make clean                                         remove the virtual environment and caches, not runs"

# The stamp is newer than what it was made from, so a second call goes straight on. Nothing of this is written to
# standard output: where nobody reads that any more, make would end, and with it what is trained behind it.
$(INSTALLED): pyproject.toml constraints.txt setup.py replay/store/gather.c learner/networks/norm.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with make PYTHON=/path/to/python3"; exit 2; }
	@echo "setting up $(VENV)" >&2
	@$(PYTHON) -m venv $(VENV) >&2
	@$(INSTALL) -c constraints.txt -e '.[test]' >&2
	@$(INSTALL) -c constraints.txt --no-deps dm_control >&2
	@touch $@

setup: $(INSTALLED)

# It is on no package index, and its pins are for a MuJoCo that nothing else here works with.
install-humanoid-bench: setup
	$(INSTALL) --no-deps -e '$(HUMANOID_BENCH)'

# It has no package of its own; what newer MuJoCos refuse to read is taken out.
install-shadow-hand: setup
	$(INSTALL) -c constraints.txt -e '.[shadow-hand]'
	rm -rf $(VENV)/dex-envs && git clone --quiet $(DEX_ENVS) $(VENV)/dex-envs
	git -C $(VENV)/dex-envs checkout --quiet eec512f
	sed -i 's/ apirate="[^"]*"//' $(VENV)/dex-envs/dex_envs/assets/hand/*.xml
	cp -r $(VENV)/dex-envs/dex_envs "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	rm -rf $(VENV)/dex-envs

launch-train: setup
	@$(REMOTE) train $(PRESET) $(ARGS)

# What only a cluster's own machines are to know. Made once; `ray up` brings them there.
secrets: setup
	@RAY_AUTH_MODE=token $(BIN)/ray get-auth-token --generate > /dev/null
	@umask 077 && mkdir -p ~/.brc && { [ -s ~/.brc/redis_password ] || \
	  $(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(32))' > ~/.brc/redis_password; }

up: secrets
	$(RAY_UP) up $(CLUSTER) -y --no-config-cache

down: setup
	@$(BIN)/python -m cluster.deploy.down $(CLUSTER)

status: setup
	@$(REMOTE) status $(RUN)

scale: setup
	@$(REMOTE) scale $(RUN) $(BENCHMARK)=$(ACTORS)

resume: setup
	@$(REMOTE) resume $(RUN) $(ARGS)

report: setup
	@$(REMOTE) report $(RUN)

logs: setup
	@$(REMOTE) logs $(RUN)

stop: setup
	@$(REMOTE) stop $(RUN)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Two tests at a time. A process that has done its half takes tests from the other.
test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not long and not cluster"

# Single parts, without Ray and without a run, in two processes.
fast: setup
	$(BIN)/python -m pytest tests/unit -n 2 --dist loadfile -m "not long" -q

# Several hosts on this machine: needs root, and what tests/cluster/test_proof.py names.
cluster-proof: setup
	$(BIN)/python -m pytest -m cluster -s

proofs: setup
	$(BIN)/python -m pytest -m long --timeout 7200

benchmark: setup
	$(INSTALL) -c constraints.txt -e '.[benchmark]'
	$(BIN)/python -m benchmarks $(ARGS)

gpu-proof: setup
	$(BIN)/python -m benchmarks.gpu_proof $(ARGS)

dashboards: setup
	@$(BIN)/python -m dashboards.grafana.push $(GRAFANA_URL) --prometheus $(PROMETHEUS_URL)

docs: setup
	$(BIN)/python -m cluster.cli.configuration_docs > docs/configuration.md
	$(BIN)/python -m dashboards.metrics.docs > docs/metrics.md
	$(BIN)/python docs/module_map.py > docs/modules.md
	$(BIN)/python -m dashboards.grafana.dashboards

clean:
	rm -rf $(VENV) build replay/store/*.so .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
