"""Mistakes on the command line: each one is told in a few lines, with what to write instead."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import cli

Command = Callable[[str], str]

QUICK = {
    "=3": "'=3' names no key | write KEY=3",
    "mode": "'mode' says no value | write mode=VALUE",
    "model.path mode=plan": "'model.path' says no value | write model.path=VALUE",
    "modifier=[": "a ']' is missing | write modifier=[...]",
    "modifier={gptq:": "a '}' is missing | write modifier={...}",
    "modifier=gptq,": "it ends with a comma | modifier=[gptq]",
    "scheme.targets=a=b,c": "cannot be read: mismatched input '=' | write KEY=VALUE",
    "--foo": "there is no option --foo | did you mean",
    "--scheme w4a16": "no option --scheme | keys of the config have no dashes: scheme=w4a16",
    "--config-dir /nope mode=plan": "--config-dir /nope: there is no such folder | give the folder",
    "--config-name nope": "there is no config 'nope' | --config-name",
    "--resolve": "--resolve only shows | --cfg job --resolve",
    "recipe=/nope.yaml": "/nope.yaml cannot be read | give recipe=FILE",
    "scheme=w4a17": "scheme=w4a17: there is no such option | did you mean w4a16?",
    "model=org/name": "model=org/name: there is no such option | model=hub model.id=org/name",
    "modifier=fooquant": "modifier=fooquant: there is no such option | choose one of autoround",
    "eval=foo": "eval=foo: there is no such option | choose one of",
    "experiment=int4_fp8": "nothing of the group experiment is chosen | add it: +experiment=int4",
    "dataset.path=a.txt": "dataset.path: there is no such key | it is a key of dataset=chat, json",
    "modifier.awq.duo_scaling=both": "there is no such key | it is there with modifier=awq",
    "scheme=w4a16_g64,fp8": "has several values for one run | add -m for a job with each",
    "+save.compressed=false": "in the config already | leave out the +: save.compressed=false",
}
"""Words -> what is told | what to do."""

OTHERS = {
    "modifier=[gptq,rtn]": "modifier: there are 2 solvers: gptq, rtn | leave one of them",
    "modifier=[gptq,smoothquant]": "'smoothquant' comes after the solver | put 'gptq' last",
    "dataset=text": "dataset.path is missing | give dataset.path=VALUE",
    "model=local": "model.path is missing | give model.path=VALUE",
    "model=local model.path=/nope": "there is no folder /nope | give the path of a model folder",
    "model=local model.path=/": "has no weights | give the path of a model folder",
    "model=gguf model.path=/nope": "/nope | .gguf",
    "scheme.weights.group_size=0": "scheme.weights.group_size is 0 | give a positive group_size",
    "scheme.weights.group_size=abc": "group_size is 'abc' | which is not a whole number",
    "scheme.weights.group_size=100": "which does not divide the width | group sizes that divide",
    "scheme.weights.num_bits=17": "num_bits is 17 | integers have 2 to 8 bits",
    "scheme=w4a16": "group_size is 128, which does not divide | group sizes that divide all",
    "scheme.weights=null": "'gptq' would do nothing | modifier=[] for none",
    "scheme.ignore=lm_head": "which is not a list | write scheme.ignore=[lm_head]",
    "scheme.ignore=[foo]": "'foo', which matches no module | leave it out",
    "scheme.targets=[Linaer]": "'Linaer' of scheme matches no module | did you mean Linear?",
    "scheme.wieghts.num_bits=4": "there is no such key | did you mean weights?",
    "dataset.num_samples=0": "dataset.num_samples is 0 | give 1 or more",
    "dataset.sequence_length=1": "dataset.sequence_length is 1 | give 2 or more",
    "dataset=text dataset.path=/nope": "the dataset /nope does not exist | give a file",
    "eval=text eval.dataset.path=/nope": "the dataset /nope does not exist | give a file",
    "calibrate.batch_size=0": "error: calibrate.batch_size is 0 | give 1 or more",
    "calibrate.experts=foo": "error: calibrate.experts is 'foo' | choose one of all, routed",
    "calibrate.propagate=foo": "calibrate.propagate is 'foo' | choose one of compressed, original",
    "device=gpu": "device is 'gpu' | did you mean cuda?",
    "device=tpu": "device is 'tpu' | choose one of auto, cpu, cuda",
    "mode=pln": "mode is 'pln' | did you mean plan?",
    "mode=explain": "is told no key | say key=KEY",
    "mode=explain key=scheme.weights.groupsize": "no such key | did you mean group_size?",
    "mode=gc": "is told nothing to free | gc.unreferenced=true",
    "mode=report": "needs the folder of a run | mode=ls lists them",
    "mode=report report.run=/nope": "there is no /nope/result.json | give the folder of a run",
    "mode=ls ls.fliter=x": "ls.fliter: there is no such key | did you mean filter?",
    "key=scheme": "key is 'scheme' with mode=plan | only mode=explain",
    "checkpoint=/tmp/x": "with mode=plan | only mode=verify",
    "store.max_bytes=lots": "'lots' is no number of bytes | write such as 8GB",
    "store.lock=foo": "'foo' is not a kind of lock | use one of flock, soft, none",
    "store.dir=/proc/nope": "cannot be created or written | set store.dir",
    "runner.workers=0": "runner.workers is 0 | give 1 or more",
    "runner.kind=ray": "runner.kind is 'ray' | the only kind is local",
    "verify.unpack=foo": "verify.unpack is 'foo' | choose one of all, codes",
    "graph=data_free": "statistics of activations are needed | say modifier=rtn",
    "objective=eval.perplexity.compresed": "objective is | did you mean eval.perplexity.comp",
    "modifier.gptq.dampening_frac=-1": "dampening_frac is -1.0 | give more than 0",
    "modifier.gptq.actorder=foo": "actorder is 'foo' | choose one of",
    "attention=fp8 kv_cache=fp8": "are both given | leave one",
    "+foo.bar=1": "foo | no",
}


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs a command that must fail by a mistake of the user; gives what it says."""
    monkeypatch.chdir(tmp_path)

    def call(words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["presswork", *words.split()])
        with pytest.raises(SystemExit) as left:
            cli.main()
        told = capsys.readouterr()
        assert (left.value.code, told.out) == (1, "")
        return told.err

    return call


def check(told: str, expected: str) -> None:
    assert told.startswith("error: ") and "Traceback" not in told
    assert len(told.splitlines()) <= 9 and "graph.nodes" not in told
    flat = " ".join(told.split())
    assert all(part in flat for part in expected.split(" | ")), told


@pytest.mark.parametrize(("words", "expected"), QUICK.items())
def test_a_word_that_cannot_be_read_is_told(command: Command, words: str, expected: str) -> None:
    check(command(words), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "expected"), OTHERS.items())
def test_a_mistake_in_the_config_is_told(command: Command, words: str, expected: str) -> None:
    check(command(words if "mode=" in words else f"mode=plan {words}"), expected)
