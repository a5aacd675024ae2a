# `make help` lists the targets. Everything lives in this folder: the environment in .venv, the demo in demo/,
# releases in releases/.
SHELL := /bin/bash
PYTHON ?= python3
PORT ?= 3000
# gRPC and /metrics lie beside it, so that two services run side by side
PORTS = --port $(PORT) --grpc-port $$(($(PORT) + 1)) --metrics-port $$(($(PORT) + 2))
# onnxruntime-gpu where a GPU answers, onnxruntime elsewhere; the two cannot be installed together
EXTRA := $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
BIN := .venv/bin
# what `make train` to `make promote` work on; the workflows in .github/ set them otherwise
CATALOGUE ?= demo
RELEASES ?= releases
TRAIN ?= --backbone convnet --weights none --epochs 30 --image-size 224 --learning-rate 0.003 --precision int8
IMAGE ?= vitrine
ENGINE ?= $(shell command -v docker >/dev/null 2>&1 && echo docker || echo podman)
OVERLAY ?= k8s/overlays/production/kustomization.yaml
RELEASE ?= $(shell ls $(RELEASES) 2>/dev/null | grep -E '^[0-9]+$$' | sort -n | tail -1)
REASON ?= release $(RELEASE)
WHO ?= $(shell id -un)@$(shell hostname)
TRAIN_DEMO := $(BIN)/vitrine train demo --releases releases --backbone convnet --weights none --epochs 30 --image-size 224 --learning-rate 0.003 --precision int8
# a test process for each core; a file's tests, which share a server, stay together. One thread in each: trainings
# side by side that take a thread a core wait for each other, and last three times as long
PYTEST := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/pytest --numprocesses=logical --maxprocesses=4 --dist=loadfile
POLL := --model-control-mode=poll --repository-poll-secs=2 --exit-on-error=false
# a process without compiled libraries spends four times as long on its start
unexport PYTHONDONTWRITEBYTECODE
export REASON WHO # a commit's message may hold anything: the shell reads it from the environment

.DEFAULT_GOAL := help
.PHONY: help install serve serve-triton serve-triton-inside ask test check check-k8s test-slow fuzz test-live test-container bench bench-large check-gpu docs picture lock clean
.PHONY: train gate bento image push image-reference propose promote

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed-$(EXTRA) ## make the environment (.venv)

# uv, which the lock holds too, installs the rest in a quarter of pip's time
.venv/installed-%: pyproject.toml requirements-%.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	$(PYTHON) -m venv --clear .venv # what the lock names, and nothing of an earlier one or of the other extra
	sed -n '/^uv==/,/[^\\]$$/p' requirements-$*.txt > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r .venv/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-$*.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

demo/items.csv: | install
	$(BIN)/vitrine demo-data demo

releases/1/manifest.json: | install demo/items.csv
	$(TRAIN_DEMO)

serve: install releases/1/manifest.json ## train the demo release if there is none, and serve it
	@echo "serving on http://127.0.0.1:$(PORT); in another terminal: make ask"
	VITRINE_STORE=$${VITRINE_STORE-releases/store.db} VITRINE_CATALOGUE_KEY=$${VITRINE_CATALOGUE_KEY-catalogue-demo} $(BIN)/vitrine serve releases/1 $(PORTS)

# a real Triton server, without Docker or a GPU; where NVIDIA's image runs, use that: triton/install.sh says what differs
.triton/installed: triton/install.sh $(wildcard triton/requirements/*.txt) triton/backends/onnxruntime/model.py
	PYTHON=$(PYTHON) triton/install.sh .triton
	touch $@

model_repository/encoder/1/model.onnx: releases/1/manifest.json
	$(BIN)/vitrine install-encoder releases/1 --model-repository model_repository

serve-triton: .triton/installed model_repository/encoder/1/model.onnx ## the same with the encoder in a Triton server beside the service
	.triton/tritonserver --model-repository=model_repository $(POLL) --http-port=8000 --grpc-port=8001 --metrics-port=8002 & \
	triton=$$!; trap "kill $$triton" EXIT; \
	VITRINE_ENCODER=triton VITRINE_TRITON_URL=127.0.0.1:8001 $(BIN)/vitrine serve releases/1 $(PORTS)

serve-triton-inside: .triton/installed model_repository/encoder/1/model.onnx ## the same with a Triton server that the service starts and watches
	VITRINE_ENCODER=triton VITRINE_TRITON_URL=127.0.0.1:8001 VITRINE_TRITON_SERVER=.triton/tritonserver VITRINE_MODEL_REPOSITORY=model_repository $(BIN)/vitrine serve releases/1 $(PORTS)

ask: ## send a photo of the demo to the running service
	@answer=$$(curl --silent --show-error --fail-with-body -F image=@demo/images/0004.jpg -F user_id=00007 -F k=3 http://127.0.0.1:$(PORT)/recommend) \
	|| { echo "no answer on port $(PORT): $${answer:-make serve says when it is ready}"; exit 1; }; \
	echo "$$answer" | $(PYTHON) -m json.tool

check: install ## ruff, mypy, import boundaries
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check ## the checks, then the tests
	$(PYTEST)

test-slow: install ## end to end: train, serve, attack, benchmark nothing
	$(PYTEST) --no-loadscope-reorder -m slow

fuzz: install ## a hundred thousand inputs that are nearly right: pictures, requests, tensors, catalogues (10 minutes)
	VITRINE_FUZZ=1 $(BIN)/pytest -s tests/fuzz

test-live: install ## pods killed a hundred times on each store, long sequences of changes, restarts and outages, commands killed (an hour)
	VITRINE_FUZZ=1 $(BIN)/pytest -s -m slow tests/service/live tests/end_to_end/test_killed_commands.py

test-container: install ## the image and its pods, run by podman: what the manifests say, a rollout, an operator's drill
	$(BIN)/pytest -m container tests/container

check-k8s: install ## render every overlay and component; hold them against schemas, and against each other
	$(BIN)/python -m k8s.check

train: install ## train CATALOGUE with the options TRAIN: the next release, in RELEASES and in the registry
	$(BIN)/vitrine train $(CATALOGUE) --releases $(RELEASES) $(TRAIN)

gate: install ## compare RELEASE (default: the newest) with what is in production, on what CATALOGUE holds out
	$(BIN)/vitrine gate $(RELEASE) --catalogue $(CATALOGUE) --releases $(RELEASES)

bento: install ## RELEASE and the service as a bento, in dist/
	$(BIN)/vitrine bento $(RELEASE) --releases $(RELEASES)

image: install ## RELEASE and the service as an image of IMAGE, by ENGINE (docker or podman); its tag is RELEASE and a digest of what it was made of
	$(BIN)/vitrine image $(RELEASE) --engine $(ENGINE) --repository $(IMAGE) --releases $(RELEASES)

TAGGED = $$(cat dist/vitrine-$(RELEASE).image)
# the digest under which the registry has the image; podman tells another one before the push, of what is not compressed
PUSHED = dist/$$(sed 's/.*://' dist/vitrine-$(RELEASE).image).digest
REFERENCE = $(TAGGED)@$$(cat $(PUSHED))
# no tag that starts a release, and no branch of the same release in other code, has this name
BRANCH = promotion/$$(sed 's/.*://' dist/vitrine-$(RELEASE).image)

push: ## the image to its registry
	@case "$(notdir $(ENGINE))" in \
	podman) $(ENGINE) push --digestfile "$(PUSHED)" "$(TAGGED)" ;; \
	*) $(ENGINE) push "$(TAGGED)" && $(ENGINE) image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$(TAGGED)" \
		| sed -n "s|^$(IMAGE:docker.io/%=%)@||p" > "$(PUSHED)"; test -s "$(PUSHED)" ;; \
	esac

image-reference: ## name, tag and digest of the image that was pushed, as `vitrine promote --image` takes them
	@test -s "$(PUSHED)" || { echo "the image of release $(RELEASE) was not pushed: make push RELEASE=$(RELEASE)" >&2; exit 1; }
	@echo "$(REFERENCE)"

propose: install ## the promotion as a pull request that changes one entry of OVERLAY
	$(BIN)/vitrine promote $(RELEASE) --to production --reason "$$REASON" --propose --write-overlay $(OVERLAY) --image "$(REFERENCE)" --catalogue $(CATALOGUE) --releases $(RELEASES)
	git switch --create "$(BRANCH)"
	git commit --message "Promote release $(RELEASE): $$REASON" $(OVERLAY)
	git push origin "$(BRANCH)"
	gh pr create --fill

promote: install ## have production name what OVERLAY names: once the pull request is merged
	$(BIN)/vitrine promote $$($(BIN)/python -m training.promotion.overlays $(OVERLAY)) --to production --reason "$$REASON" --who "$$WHO" --as-proposed --releases $(RELEASES)

bench: .venv/peers .triton/installed releases/1/manifest.json ## measure beside the peers on the demo (half an hour); tables and plots in benchmarks/results/
	$(BIN)/python benchmarks/encoder.py --pictures demo/images
	$(BIN)/python benchmarks/request.py releases/1
	$(BIN)/python benchmarks/scoring.py releases/1
	$(BIN)/python benchmarks/serving.py releases/1 --pictures demo/images --open-loop --overload
	$(BIN)/python benchmarks/inference.py releases/1
	$(BIN)/python benchmarks/live.py releases/1 --pictures demo/images
	$(BIN)/python benchmarks/shadow.py releases/1 --candidate releases/1 --pictures demo/images
	$(BIN)/python benchmarks/ann.py --items 100000 --work benchmarks/indexes
	$(BIN)/python benchmarks/growth.py --work benchmarks/indexes --sizes 10000 100000
	$(BIN)/python benchmarks/factorize.py demo
	$(BIN)/python benchmarks/ranking.py demo --trials 3

check-gpu: install ## everything that needs a GPU, beside the CPU: one table (six minutes at most)
	$(BIN)/python benchmarks/gpu.py

bench-large: .venv/peers ## the index at a million items beside the peers, and at three (an hour and more, 16 GiB)
	$(BIN)/python benchmarks/ann.py --items 1000000 --work benchmarks/indexes
	$(BIN)/python benchmarks/growth.py --work benchmarks/indexes

.venv/peers: benchmarks/requirements.txt | install
	$(BIN)/python -m pip install --quiet -r $<
	touch $@

docs: install ## write the parts of docs/ that follow from the code: settings, metrics, routes
	$(BIN)/python -m docs.generate

picture: install releases/1/manifest.json ## draw the README's picture from the demo release
	$(BIN)/python -m docs.picture releases/1 demo/images/0004.jpg docs/images/answers.jpg

lock: ## write the requirements files anew from pyproject.toml
	$(BIN)/python -m pip install --quiet pip-tools
	for extra in cpu gpu; do $(BIN)/pip-compile --quiet --strip-extras --allow-unsafe --generate-hashes --no-header --extra $$extra --extra training --extra dev -o requirements-$$extra.txt pyproject.toml; sed -i "/^--/d" requirements-$$extra.txt; done
	cd triton/requirements && for part in backend server client; do ../../$(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-annotate --no-header $$([ $$part = backend ] || echo --no-deps) $$part.in -o $$part.txt; done

clean: ## remove the environment, the demo and its releases
	rm -rf .venv demo releases
