#!/usr/bin/env bash
# Software: transformers 5.17.0, tokenizers 0.23.3 (no torch needed).
# A good expert would guess: truncation and padding given to one call, tok(text, truncation=True, max_length=8), belong to
#   this call; what save_pretrained writes afterwards is the tokenizer that was loaded.
# What happens: the call's settings stay in the Rust tokenizer and save_pretrained writes them into tokenizer.json.
#   transformers resets them at its next call and so never shows it; everything that reads tokenizer.json itself
#   (the tokenizers package, Rust and JavaScript servers) cuts and pads every text to the calibration length, silently.
#   Any later call without truncation, before saving, removes them again.
# Why it matters: compression tokenizes calibration data to a length and then saves the tokenizer beside the weights: the
#   published checkpoint truncates its users' prompts. Copy the original files, or save before calibrating.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check)
"${pip[@]}" transformers==5.17.0 tokenizers==0.23.3

cat > "$dir/check.py" <<'PY'
import json
import pathlib
import sys

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

folder = pathlib.Path(sys.argv[1])
vocabulary = {"[UNK]": 0, "[PAD]": 1, **{f"w{i}": i + 2 for i in range(40)}}
core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
core.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]")
long, short = " ".join(f"w{i}" for i in range(40)), "w1 w2"


def report(when: str) -> None:
    tokenizer.save_pretrained(folder)
    saved = json.loads((folder / "tokenizer.json").read_text())
    kept = [key for key in ("truncation", "padding") if saved[key] is not None]
    read = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw = [len(read.encode(text).ids) for text in (long, short)]
    auto = AutoTokenizer.from_pretrained(folder)
    own = [len(auto(text)["input_ids"]) for text in (long, short)]
    print(f"{when}: saved {kept}; lengths of 40 and 2 words: tokenizers {raw}, transformers {own}")


report("as made")
tokenizer(long, truncation=True, padding="max_length", max_length=8)
report("after a call with max_length=8")
tokenizer(long)
report("after a plain call")
PY

expected="as made: saved []; lengths of 40 and 2 words: tokenizers [40, 2], transformers [40, 2]
after a call with max_length=8: saved ['truncation', 'padding']; lengths of 40 and 2 words: tokenizers [8, 8], transformers [40, 2]
after a plain call: saved []; lengths of 40 and 2 words: tokenizers [40, 2], transformers [40, 2]"
seen="$("$dir/venv/bin/python" -W ignore "$dir/check.py" "$dir/saved" 2> "$dir/log" || { cat "$dir/log" >&2; exit 1; })"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
