#!/usr/bin/env bash
# Make the environment of auto-round in FOLDER; nothing is done where it works already.
#   tests/benchmarks/setup_learned_peer.sh FOLDER && export PRESSWORK_AUTOROUND_PYTHON=FOLDER/bin/python
exec "$(dirname "$0")/../setup_venv.sh" "${1:-}" auto_round 'auto-round==0.15.1'
