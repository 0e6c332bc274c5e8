#!/usr/bin/env bash
# Make the environment of the peer, llm-compressor, in FOLDER; nothing is done where it works already.
#   tests/benchmarks/setup_peer.sh FOLDER && export PRESSWORK_PEER_PYTHON=FOLDER/bin/python
exec "$(dirname "$0")/../setup_venv.sh" "${1:-}" llmcompressor 'llmcompressor==0.14.0.1'
