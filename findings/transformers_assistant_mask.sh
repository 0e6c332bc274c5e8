#!/usr/bin/env bash
# Software: transformers 5.17.0, tokenizers 0.23.3, jinja2 3.1.6 (no torch needed).
# A good expert would guess: apply_chat_template(..., return_assistant_tokens_mask=True) marks the tokens between
#   {% generation %} and {% endgeneration %}, and no others.
# What happens: where a block ends in a character that belongs to no token (a line break, for tokenizers that drop white
#   space), char_to_token gives None for its end, and everything up to the end of the conversation is marked: the user's
#   later turns too. (Where a block begins so, it and all later blocks are not marked.) Byte-level tokenizers are right.
# Why it matters: a loss, or calibration statistics, "of the assistant's tokens only" silently take in the user's text.
#   Render with the block's positions and compare them with the offsets of the tokens instead.
set -euo pipefail
dir="$(mktemp -d)"
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
pip=("$dir/venv/bin/pip" install -q --no-compile --disable-pip-version-check)
"${pip[@]}" transformers==5.17.0 tokenizers==0.23.3 jinja2==3.1.6

cat > "$dir/check.py" <<'PY'
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}{{ end }}{% endgeneration %}"
    "{% else %}{{ m.content }}{{ end }}{% endif %}{% endfor %}"
)
TURNS = [("user", "ask"), ("assistant", "one"), ("user", "secret"), ("assistant", "two")]
MESSAGES = [{"role": role, "content": content} for role, content in TURNS]


def words() -> Tokenizer:
    names = ["[UNK]", "ask", "one", "secret", "two", "."]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, "[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return core


def byte_level() -> Tokenizer:
    names = [*sorted(pre_tokenizers.ByteLevel.alphabet())]
    core = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return core


for name, core in (
    ("words", words()),
    ("bytes", byte_level()),
):
    for end in (".", "\n"):
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, chat_template=TEMPLATE)
        found = tokenizer.apply_chat_template(
            MESSAGES, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, end=end
        )
        tokens = tokenizer.convert_ids_to_tokens(found["input_ids"])
        kept = [t for t, m in zip(tokens, found["assistant_masks"], strict=True) if m]
        print(f"{name}, turns end in {end!r}: counted {''.join(kept)}")
PY

expected="words, turns end in '.': counted one.two.
words, turns end in '\\n': counted onesecrettwo
bytes, turns end in '.': counted one.two.
bytes, turns end in '\\n': counted oneĊtwoĊ"
seen="$("$dir/venv/bin/python" -W ignore "$dir/check.py" 2> "$dir/log" || { cat "$dir/log" >&2; exit 1; })"
printf '%s\n' "$seen"
[[ "$seen" == "$expected" ]] || { printf 'CHANGED: expected\n%s\n' "$expected" >&2; exit 1; }
echo "as described"
