"""Every command of the documentation and of comments in conf/ is planned as it stands.

Names in capitals (DIR, FILE) are those of tiny models and files. Those that need what is not here
(the hub, GGUF files, quantized folders, experts, lm-eval) are composed and checked, not planned.
Some that compress a small folder are run to the end (slow).
"""

from __future__ import annotations

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.config.primary import asks_sweep, gathered, primary_config
from pipeline.config.recipe_import import imported
from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs, register
from pipeline.registry import Registry
from pipeline.sweeps.check import check_jobs, told
from pipeline.sweeps.command import composed
from pipeline.sweeps.plan import planned
from tests.frozen.models import write_model, write_text
from tests.pipeline import tiny
from tests.pipeline.tiny import write_files
from tests.stages.recipes import texts
from tests.stages.schemes.presets import PACKS_SIX

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "stages" / "docs").glob("*.md"))]
COMMAND = re.compile(r"^(?:python -m pipeline|presswork) (?P<words>.+)$", re.MULTILINE)
COMMENT = re.compile(r"^#.*?python -m pipeline (?P<words>[^`;\n]+)", re.MULTILINE)
ROW = re.compile(r"^\| `[^\n]*\| `(?P<words>[\w.=\[\], +-]+)`[^\n]*\|$", re.MULTILINE)
CONFIG = re.compile(r"^```yaml (?P<name>\S+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
ELSEWHERE = (
    *("ORG/NAME", "model=gguf", "GPTQ_DIR", "AWQ_DIR", "dataset=ultrachat", "eval=tasks"),
    *("mode=verify", "modifier=reap", "modifier=[reap", "graph=data_free", "[...]"),
    *("AWQ_FOLDER", "eval=full", "dataset=wikitext", "dataset=hub", "dataset=parquet"),
    *("tracker=", "hydra/launcher="),
)
INSTALLED = {
    **{f"tracker={name}": find_spec(name) is not None for name in ("mlflow", "trackio", "wandb")},
    **dict.fromkeys(("scheme=mxfp6", "scheme=mxfp4xfp8"), PACKS_SIX),
}
"""Choices that need what not every environment has, and whether this one has it."""
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)


def commands() -> list[str]:
    shell = [block for page in PAGES for block in SHELL.findall(page.read_text())]
    found = [match["words"] for block in shell for match in COMMAND.finditer(block)]
    # the words of the table for those who come from llm-compressor: parts of commands
    rows = [
        f"model=local model.path=DIR {row}" if "model=" not in row else row
        for row in ROW.findall(PAGES[0].read_text())
        if "=" in row
    ]
    return list(dict.fromkeys([*found, *rows, *comments()]))


def comments() -> list[str]:
    """The commands in comments of shipped configs; `--help` and the plain command are others'."""
    files = sorted(own_configs().rglob("*.yaml"))
    found = [m["words"] for file in files for m in COMMENT.finditer(file.read_text())]
    said = [words.partition("   #")[0].strip() for words in found]
    return [words for words in said if "=" in words]


FAST = [each for each in commands() if "path=DIR" in each and not each.startswith("-m")][::12]
"""Some of those of a small model; the others are slow tests."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the names in capitals, and the tutorial's folder of configs, stand for."""
    register()  # for --config-dir, as the command line does
    folder = tmp_path_factory.mktemp("small")
    model = write_model(folder / "model", "llama")
    (model / "chat_template.jinja").write_text(TEMPLATE)
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (folder / "chat.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    (folder / "rows.jsonl").write_text(json.dumps({"text": "one two three " * 4000}) + "\n")
    (folder / "recipe.yaml").write_text(texts.GPTQ_GROUPS)
    text = write_text(folder / "text.txt")
    tutorial = (ROOT / "stages" / "docs" / "tutorial.md").read_text()
    write_files(folder, {match["name"]: match["text"] for match in CONFIG.finditer(tutorial)})
    return {
        "acme/conf": str(folder / "acme" / "conf"),
        "FILE.jsonl": str(folder / "chat.jsonl"),
        "dataset=chat dataset.path=FILE": f"dataset=chat dataset.path={folder / 'chat.jsonl'}",
        "dataset=json dataset.path=FILE": f"dataset=json dataset.path={folder / 'rows.jsonl'}",
        "recipe=FILE": f"recipe={folder / 'recipe.yaml'}",
        "FILE": str(text),
        "DIR": str(model),
    }


def words_of(command: str, small: dict[str, str]) -> tuple[str, ...]:
    for name, value in small.items():
        command = re.sub(rf"(?<![A-Z_]){re.escape(name)}\b", value, command)
    words = [word for word in shlex.split(command) if not word.startswith(("hydra", "+hydra"))]
    return tuple(gathered(words))


def first_of_sweep(word: str) -> str:
    """`key=a,b` -> `key=a`, where the commas are no list's; `choice(a,b)` likewise."""
    key, _, value = word.partition("=")
    value = value.removeprefix("choice(").removesuffix(")")
    return word if value.startswith(("[", "{", "interval")) else f"{key}={value.partition(',')[0]}"


def check(command: str, small: dict[str, str], cwd: Path) -> None:
    for word, here in INSTALLED.items():
        if word in command and not here:
            pytest.skip(f"{word} needs a package, or a version of it, that is not here")
    words = words_of(command, small)
    given = primary_config(words)
    recipe = imported(given.overrides, Registry.load).overrides
    overrides = (*recipe, *given.overrides)
    if any(name in command for name in ELSEWHERE):
        plain = [first_of_sweep(word) for word in overrides if "[...]" not in word]
        cfg = tiny.composed(own_configs(), *plain, name="config")
        load_config(cfg, Registry.load(), overrides=plain)
        return
    jobs = [overrides]
    if asks_sweep(words):
        with given.initialized():
            cfg = composed(given.name, overrides)
        jobs = list(planned(cfg, command, cwd).jobs)
    found = check_jobs(given, jobs, cwd).impossible
    assert not found, told(found, len(jobs))


@pytest.mark.parametrize("command", FAST)
def test_a_command_of_the_documentation_can_run(
    command: str, small: dict[str, str], tmp_path: Path
) -> None:
    check(command, small, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", [each for each in commands() if each not in FAST])
def test_every_other_command_can_run(command: str, small: dict[str, str], tmp_path: Path) -> None:
    check(command, small, tmp_path)
