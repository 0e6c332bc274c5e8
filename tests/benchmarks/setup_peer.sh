#!/usr/bin/env bash
# Make the environment of the peer, llm-compressor, in FOLDER; nothing is done where it works already.
#   tests/benchmarks/setup_peer.sh FOLDER && export PRESSWORK_PEER_PYTHON=FOLDER/bin/python
set -euo pipefail
folder=${1:?say where: setup_peer.sh FOLDER}
if "$folder/bin/python" -c 'import llmcompressor' >/dev/null 2>&1; then
  echo "$folder works already"
  exit 0
fi
python3 -m venv --clear "$folder"
# torch first, or the resolver would choose one with several GB of CUDA libraries.
"$folder/bin/pip" install -q 'torch==2.13.0'
"$folder/bin/pip" install -q 'torch==2.13.0' 'llmcompressor==0.14.0.1'
"$folder/bin/python" -c 'import llmcompressor; print("llmcompressor", llmcompressor.__version__)'
