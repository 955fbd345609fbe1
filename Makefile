# `make` lists the commands.  Each sets up what it needs the first time (it then downloads) and
# nothing afterwards (it then works offline).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PY := $(BIN)/python
# V=1 shows what pip does.
PIP := $(PY) -m pip install --disable-pip-version-check $(if $(V),,--quiet --quiet)
# Exactly what a lock names, as long as the files have the hashes that stand there.
LOCKED := $(PIP) --require-hashes --no-deps --no-build-isolation -r

PROMPT ?= What is the capital of France?
# More options of the demo or of pytest: make demo ARGS=--compare, make test ARGS="-k format".
ARGS ?=

# Processes that `make test` runs its files in; a file runs in one of them, from first to last.
JOBS ?= 2

# A second Vulkan driver, which the tests require; set this to use a copy that you have.
ifndef WGPU_Q4_SWIFTSHADER_ICD
SWIFTSHADER := .cache/swiftshader/vk_swiftshader_icd.json
WGPU_Q4_SWIFTSHADER_ICD := $(CURDIR)/$(SWIFTSHADER)
endif

# naga, which translates the kernels for ExecuTorch.
NAGA := .cache/naga/node_modules/naga-wasm/package.json

# TypeScript, which checks the types of the examples' JavaScript.
TSC := .cache/tsc/node_modules/typescript/package.json

# Python for browsers, and numpy for it.
PYODIDE := .cache/pyodide/node_modules/pyodide/package.json
PYODIDE_NUMPY := .cache/pyodide/.stamp-numpy

# One of the backends of `make parity` is a browser; ARGS="--without chromium" goes without.
ifeq (,$(findstring --without chromium,$(ARGS)))
BROWSER := $(VENV)/.stamp-browser
endif

SPHINX := $(PY) -m sphinx --nitpicky --quiet -c docs -d build/site-cache

export PROMPT WGPU_Q4_SWIFTSHADER_ICD
# The models come from installed packages: nothing is fetched from a hub.
export HF_HUB_OFFLINE := 1
# Without a desktop session, the graphics libraries print a line for each try to find this folder.
ifndef XDG_RUNTIME_DIR
export XDG_RUNTIME_DIR := $(CURDIR)/.cache/run
endif

.DEFAULT_GOAL := help
# A later step of the set-up runs what an earlier one installs.
.NOTPARALLEL:
.PHONY: help demo unit test mutants fuzz soak check matrix-units lint format notebooks goldens glsl naga pyodide page python-page parity bench executorch-runtime architectures docs docs-links docs-pictures lock wheel clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: $(VENV)/.stamp-demo $(VENV)/.stamp-vulkan ## Let a language model answer PROMPT from 4-bit tied weights
	@$(PY) examples/tied_weight_inference.py --prompt "$$PROMPT" $(ARGS)

unit: $(VENV)/.stamp-unit ## Run the tests that need no GPU, no torch and no ExecuTorch
	$(PY) -m pytest tests/unit $(ARGS)

# The browser comes before SwiftShader, which is then copied out of it.
test: lint $(VENV)/.stamp-vulkan $(VENV)/.stamp-shader-tools $(NAGA) $(PYODIDE_NUMPY) $(VENV)/.stamp-browser $(SWIFTSHADER) ## Lint, check types, run every test
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

mutants: $(VENV)/.stamp-test $(VENV)/.stamp-vulkan $(VENV)/.stamp-shader-tools $(NAGA) $(SWIFTSHADER) ## Change the kernels in one place at a time, and see the tests notice
	$(PY) -m tools.mutants $(ARGS)

fuzz: $(VENV)/.stamp-unit ## Feed changed files to the readers for a minute (ARGS="--seconds 600"), on Linux
	$(LOCKED) requirements/fuzz.txt
	$(PY) -m tools.fuzz $(ARGS)

soak: $(VENV)/.stamp-test $(VENV)/.stamp-vulkan ## Use every op for minutes, in threads and on many devices, and check each result
	$(PY) -m tools.soak $(ARGS)

check: $(VENV)/.stamp-unit $(VENV)/.stamp-vulkan ## Compare every kernel with a float64 reference on this machine's adapter
	$(BIN)/wgpu-q4 check $(ARGS)

matrix-units: $(VENV)/.stamp-test ## Test the kernel for matrix units, on a GPU that has them
	$(PY) -m pytest tests/on_matrix_units.py $(ARGS)

lint: $(VENV)/.stamp-test $(TSC) ## Lint, check formatting and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy --strict
	$(BIN)/node $(dir $(TSC))bin/tsc --project tools/tsc

format: $(VENV)/.stamp-test ## Put the code into the form that lint asks for
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

notebooks: $(VENV)/.stamp-test $(VENV)/.stamp-vulkan ## Run the notebooks from clean and keep their outputs (ARGS=quickstart: that one)
	$(PY) -m tools.notebooks $(ARGS)

goldens: $(VENV)/.stamp-unit ## Write the composed shaders that matter to tests/goldens/
	$(PY) -m tools.goldens

glsl: $(VENV)/.stamp-test $(NAGA) ## Generate vulkan_glsl/ and webgpu_wgsl/ from wgsl/
	$(PY) -m tools.codegen

naga: $(NAGA) ## Install naga, the shader translator, into .cache

pyodide: $(PYODIDE_NUMPY) ## Install Pyodide, which is Python for browsers, and numpy for it into .cache

page: $(VENV)/.stamp-demo ## Write build/page, SmolLM2 in your browser, and serve it (ARGS="--serve 8001")
	$(BIN)/wgpu-q4 web $$($(PY) examples/smollm2.py) --out build/page --serve 8000 $(ARGS)

python-page: $(PYODIDE_NUMPY) ## Write build/python-page: this package in Python in your browser
	$(PY) -m tools.pyodide --local --out build/python-page $(ARGS)

bench: $(VENV)/.stamp-test $(VENV)/.stamp-vulkan ## Measure the kernels on this machine's adapter, beside others
	$(PY) -m benchmarks $(ARGS)

parity: $(VENV)/.stamp-test $(VENV)/.stamp-vulkan $(VENV)/.stamp-shader-tools $(BROWSER) $(SWIFTSHADER) ## Compare every backend on every case, and write build/parity.html
	$(PY) -m tools.parity --html build/parity.html $(ARGS)

executorch-runtime: $(VENV)/.stamp-test ## Run exported programs with your own ExecuTorch: RUNNER=path/to/executor_runner
	$(PY) -m tools.executorch_runtime --runner "$(RUNNER)" $(ARGS)

architectures: $(VENV)/.stamp-test $(VENV)/.stamp-vulkan ## Tie every architecture of transformers, and write docs/architectures.md
	$(PY) -m tools.architectures $(ARGS)

docs: $(VENV)/.stamp-test ## Build the documentation into build/site
	$(SPHINX) -W --keep-going -b html . build/site
	@echo "wgpu_q4: open build/site/index.html"

docs-links: $(VENV)/.stamp-test ## Ask the network whether the addresses in the documentation exist
	$(SPHINX) -b linkcheck . build/links

docs-pictures: $(VENV)/.stamp-test $(VENV)/.stamp-vulkan $(PYODIDE_NUMPY) $(BROWSER) ## Draw the figures of the documentation, and take its screenshots
	$(PY) -m tools.docs.figures
	$(PY) -m tools.docs.screenshots

lock: $(VENV)/.stamp-test ## Write requirements/*.txt; ARGS=--upgrade moves to the newest releases
	scripts/lock.sh $(PY) $(ARGS)

wheel: $(VENV)/.stamp-test ## Build the wheel and the source distribution into dist/
	$(PY) -m build --no-isolation

clean: ## Remove the environment, the downloads and everything built
	rm -rf $(VENV) .cache build dist .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up.  A stamp is touched when its step has succeeded, so a step that broke off runs again.

# pip comes first, since the one that Python brings may be years old; hatchling, setuptools and wheel
# come with it, so that packages are built without a build environment (and a network).
$(VENV)/.stamp-venv: requirements/build.txt
	scripts/make_venv.sh $(PYTHON) $(VENV)
	$(LOCKED) requirements/build.txt
	@touch $@

# $(1) is the lock, $(2) what else to install.
define install
	@echo "wgpu_q4: installing the Python packages of requirements/$(1).txt: some minutes, once"
	$(LOCKED) requirements/$(1).txt
	$(if $(2),$(PIP) $(2))
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@
endef

$(VENV)/.stamp-unit: $(VENV)/.stamp-venv pyproject.toml requirements/unit.txt
	$(call install,unit)

$(VENV)/.stamp-demo: $(VENV)/.stamp-venv pyproject.toml requirements/demo.txt requirements/torch.txt
	$(call install,demo,-r requirements/torch.txt)

# The other two are parts of this one.
$(VENV)/.stamp-test: $(VENV)/.stamp-venv pyproject.toml requirements/dev.txt requirements/torch.txt
	$(call install,dev,-r requirements/torch.txt)
	@touch $(VENV)/.stamp-unit $(VENV)/.stamp-demo

# Needs wgpu, which every lock but that of the set-up brings.
$(VENV)/.stamp-vulkan: | $(VENV)/.stamp-venv
	scripts/ensure_vulkan.sh $(PY)
	@touch $@

$(VENV)/.stamp-shader-tools: | $(VENV)/.stamp-venv
	scripts/ensure_shader_tools.sh
	@touch $@

# $(1) is the folder in tools/ with the lock, $(2) the folder in .cache.
define install_npm
	@mkdir -p .cache/$(2)
	cp tools/$(1)/package.json tools/$(1)/package-lock.json .cache/$(2)/
	cd .cache/$(2) && $(CURDIR)/$(BIN)/npm ci --ignore-scripts --no-audit --no-fund --silent
	@touch $@
endef

$(NAGA): tools/codegen/package-lock.json | $(VENV)/.stamp-test
	$(call install_npm,codegen,naga)

$(TSC): tools/tsc/package-lock.json | $(VENV)/.stamp-test
	$(call install_npm,tsc,tsc)

$(PYODIDE): tools/pyodide/package-lock.json | $(VENV)/.stamp-test
	$(call install_npm,pyodide,pyodide)

$(PYODIDE_NUMPY): $(PYODIDE)
	$(PY) -m tools.pyodide.parts
	@touch $@

$(VENV)/.stamp-browser: | $(VENV)/.stamp-test
	$(PY) -c "from tools.parity.browser import find_browser; exit(not find_browser())" \
		|| scripts/apt_install.sh chromium
	@touch $@

.cache/swiftshader/vk_swiftshader_icd.json:
	scripts/fetch_swiftshader.sh $(@D)
