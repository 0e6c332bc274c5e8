#!/usr/bin/env bash
# Make an environment for a package that needs torch, for CPUs; nothing is done where it works already.
#   tests/setup_venv.sh FOLDER MODULE REQUIREMENT [PACKAGE THAT MUST NOT BE THERE ...]
set -euo pipefail
folder=${1:?say where: give a FOLDER} module=$2 requirement=$3 unwanted=("${@:4}")
if "$folder/bin/python" -c "import $module" >/dev/null 2>&1; then
  echo "$folder works already"
  exit 0
fi
python3 -m venv --clear "$folder"
# torch first, or the resolver would choose one with several GB of CUDA libraries.
"$folder/bin/pip" install -q 'torch==2.13.0'
"$folder/bin/pip" install -q 'torch==2.13.0' "$requirement"
if ((${#unwanted[@]})); then
  "$folder/bin/pip" uninstall -q -y "${unwanted[@]}"
fi
"$folder/bin/python" -c "import $module; print('$module', $module.__version__)"
