# `make bench` sets up and runs the main job, `make test` sets up and runs every check. Nothing else is needed.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: bench test env lint types docs browser performance evidence nightly night baseline speed speed-baseline clean

bench: env
	$(BIN)/bench run --all

test: env lint types
	$(BIN)/python -m pytest -n auto --durations=20

lint: env
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: env
	$(BIN)/mypy

docs: env
	$(PIP) --editable '.[docs]'
	$(BIN)/mkdocs build --strict

# the site in a headless Chromium, which playwright fetches unless SLIMBENCH_CHROMIUM names one
browser: env
	$(PIP) --editable '.[browser]'
	test -n "$$SLIMBENCH_CHROMIUM" || $(BIN)/python -m playwright install --with-deps chromium
	SLIMBENCH_CHROMIUM="$${SLIMBENCH_CHROMIUM:-$$($(BIN)/python tests/chromium.py)}" $(BIN)/python -m pytest tests/test_site_browser.py

performance: env
	$(BIN)/python -m pytest benchmarks/performance --benchmark-only

# the comparison on real data (BENCH_DATA), what matters most first. Stop it at any time, `timeout 1h make evidence` too: the next
# call goes on. RUN="--device cuda --jobs 8" goes to every `bench run`. The published records of segmentation and super resolution are
# made with RUN="--precision fp32" and ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2: on x86 they come out again, to the bit
STORE ?= bench_store
part = $(BIN)/bench run --store $(STORE) $(RUN) $(1) || [ $$? -eq 1 ]

evidence: env
	$(call part,cifar10-reduced --keep 0.5 --keep 0.25 --keep 0.1)
	$(call part,segmentation-reduced --keep 0.5 --keep 0.1 --seeds n=2)
	$(call part,super_resolution-reduced --keep 0.5 --keep 0.1 --seeds n=2)
	$(call part,super_resolution-reduced-rewound --keep 0.5 --keep 0.25)
	$(call part,segmentation-reduced-rewound --keep 0.5 --seeds n=2)
	$(call part,cifar10-reduced-rewound --keep 0.5 --keep 0.25)
	$(call part,dcss-cifar-reduced)
	$(call part,dcss-edsr-reduced)
	$(call part,dcss-segmentation-reduced)
	$(call part,dcss-super-resolution-reduced)
	$(call part,etpf-lenet-reduced)
	$(call part,etpf-resnet-reduced)
	$(call part,resconv-resnet-reduced)
	$(call part,resconv-no-retraining-reduced)
	$(call part,resconv-plain-reduced)
	$(call part,dass-cifar-thinned)
	$(call part,gpp-cifar-reduced)
	$(call part,gpp-cifar-reduced-controls)
	$(call part,gpp-streams-reduced)
	$(call part,gpp-ladder-reduced)
	$(call part,cifar10-reduced --seeds n=6)
	$(call part,segmentation-reduced --seeds n=6)
	$(call part,super_resolution-reduced --seeds n=6)
	$(call part,cifar10-reduced-rewound --seeds n=6)
	$(call part,segmentation-reduced-rewound --seeds n=6)
	$(call part,super_resolution-reduced-rewound --seeds n=6)

# a store for each commit, and for each way that sources differ from it: an interrupted night goes on, and no record of other code is
# taken for tonight's
NIGHT = $(eval NIGHT := nightly/$$(shell $$(BIN)/python -c 'from slimbench.environment import commit; print(commit() or "none")'))$(NIGHT)
# in float32, held to AVX2: so one baseline is good for every x86 machine, to the bit
NIGHTLY = ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(BIN)/bench run nightly --precision fp32 --store $(NIGHT)

# a cell that fails is status 1 here, and a finding there; whatever else ends the run ends the night
nightly: env
	rm -f nightly/summary.md nightly/junit.xml
	$(NIGHTLY) || [ $$? -eq 1 ]
	$(BIN)/bench check --baseline baselines/nightly.json --store $(NIGHT) --summary nightly/summary.md --junit nightly/junit.xml

night: env
	$(NIGHTLY)

# by hand alone: make baseline BECAUSE="why the numbers may move"
baseline: night
	$(BIN)/bench baseline --store $(NIGHT) --because "$${BECAUSE:?say why}"

# against what `make speed-baseline` saved, which a slow night therefore never replaces; exit status 2 on another machine
SPEED := $(BIN)/python -m pytest benchmarks/performance/test_runner.py --benchmark-only

speed: env
	@ls .benchmarks/*/*.json >/dev/null 2>&1 || { echo "No times are saved: make speed-baseline takes them." >&2; exit 2; }
	$(SPEED) --benchmark-compare --benchmark-compare-fail=min:30%

speed-baseline: env
	$(SPEED) --benchmark-save=harness

env: .venv/ready

# torch first, then basicsr without build isolation: its build would otherwise fetch a torch of its own. At last yapf
# (mmengine's) writes a cache, which two processes that import it for the first time at once would read half-written
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
	  { echo "SlimBench needs Python 3.11 or 3.12: run make with PYTHON=python3.11, say." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(PIP) torch torchvision setuptools wheel
	$(PIP) --no-build-isolation basicsr
	$(PIP) --editable '.[dev]'
	$(BIN)/python -c 'import yapf'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .benchmarks nightly
