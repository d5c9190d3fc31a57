#!/usr/bin/env bash
# `make gpu`: the CUDA paths on a machine with a CUDA device, within 8 minutes; a table at the end.
#
#   bash tests/gpu/run.sh [--device cpu] [--quick] [--out FILE]
#
# For machines that have a PyTorch 2.11 of their own and no package index. PYTHON names the Python
# that holds PyTorch [.venv/bin/python where there is one, else python3]; WHEELS a folder of wheels
# of what it lacks, which are unpacked beside it and installed nowhere. What is lacking, as a rule:
# soundfile cffi pycparser soxr pydantic pydantic-core annotated-types typing-inspection
# iterative-stratification, each at the version of requirements.lock.
set -euo pipefail
root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cd "$root"
python=${PYTHON:-python3}
if [[ -z ${PYTHON:-} && -x .venv/bin/python ]]; then python=.venv/bin/python; fi
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
if [[ -n ${WHEELS:-} ]]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$WHEELS"/*.whl
  export PYTHONPATH=$PYTHONPATH:$site
fi
"$python" -m tests.gpu.check "$@"
