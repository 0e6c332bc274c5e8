#!/usr/bin/env bash
# Wheels for tests/benchmarks/gpu.py on a machine with Python 3.12, torch and transformers but no network.
#   tests/benchmarks/gpu_wheels.sh FOLDER
# presswork is among them: its stages are found by entry points. Say `pip show NAME` there if one is missing.
set -euo pipefail
folder=${1:?say where: give a FOLDER}
cd "$(dirname "$0")/../.."
mkdir -p "$folder"
platforms=()
for name in manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64; do
  platforms+=(--platform "$name")
done
pip() { "${PYTHON:-python3}" -m pip "$@"; }
pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" -d "$folder" \
  hydra-core==1.3.8 omegaconf==2.3.1 compressed-tensors==0.19.0 datasets==5.2.0 dill==0.4.1 multiprocess==0.70.19 \
  gguf==0.19.0 pydantic==2.14.3 pydantic_core==2.50.4 annotated-types==0.8.0 typing-inspection \
  typing-extensions loguru==0.7.3 \
  llmcompressor==0.14.0.1 'auto-round>=0.14.1,<=0.15.1' nvidia-ml-py
# The first has no wheel on the index, the second is this folder.
pip wheel -q --no-deps -w "$folder" antlr4-python3-runtime==4.9.3 .
du -sh "$folder"
