#!/usr/bin/env bash
# Software: transformers 5.24.0 and 5.17.0, torch 2.13.0 (CPU).
# A good expert would guess: a Llama 4 with its vision tower (Llama4ForConditionalGeneration) is run on text alone, as
#   every release before could do; images are optional.
# What happens: 5.17.0 gives logits; 5.24.0 raises AttributeError in the forward, after all layers have run, since it
#   asks the text model's output for `image_outputs`.
# Why it matters: calibration and evaluation of the published checkpoints on text end there. Use the text model's class
#   (Llama4ForCausalLM), or transformers before 5.24.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check)
"${pip[@]}" torch==2.13.0 numpy==2.4.6 pillow

cat > "$dir/check.py" <<'PY'
import torch
import transformers
from transformers import Llama4Config, Llama4ForConditionalGeneration

transformers.logging.set_verbosity_error()
SHARED = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {"intermediate_size": 64, "intermediate_size_mlp": 64, "num_key_value_heads": 2, "vocab_size": 256}
TEXT |= {"head_dim": 16, "num_local_experts": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
VISION = {"intermediate_size": 256, "image_size": 28, "patch_size": 14, "vision_output_dim": 64}
VISION |= {"projector_input_dim": 64, "projector_output_dim": 64}
torch.manual_seed(0)
config = Llama4Config(text_config=SHARED | TEXT, vision_config=SHARED | VISION)
model = Llama4ForConditionalGeneration(config).eval()
try:
    with torch.no_grad():
        shape = list(model(input_ids=torch.arange(3, 11)[None], use_cache=False).logits.shape)
    print(f"{transformers.__version__}: logits {shape}")
except AttributeError as error:
    print(f"{transformers.__version__}: AttributeError: {error}")
PY

expected="5.17.0: logits [1, 8, 256]
5.24.0: AttributeError: 'MoeCausalLMOutputWithPast' object has no attribute 'image_outputs'"
found=""
for version in 5.17.0 5.24.0; do
  "${pip[@]}" "transformers==$version"
  found+="${found:+$'\n'}$("$dir/venv/bin/python" "$dir/check.py" 2>/dev/null)"
done
echo "$found"
if [ "$found" != "$expected" ]; then
  echo "changed; was:"
  echo "$expected"
  exit 1
fi
