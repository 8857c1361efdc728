"""Tokenizers of transformers whose steps would take any time or memory for a prompt."""

import json
import re
import string
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from earmark.models.hf_files import check_model_files, check_tokenizer_files
from earmark.models.hf_tokenizer import check_tokenizer_json, find_pattern_problem

CLIP = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PUNCTUATION = "[" + re.escape(string.punctuation) + "]"


def new_tokenizer() -> Tokenizer:
    return Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))  # noqa: S106


def saved(folder: Path, tokenizer: Tokenizer, **entries: Any) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(tokenizer.to_str()) | entries))
    return path


@pytest.mark.parametrize("pattern", [CLIP, GPT2, LLAMA3, PUNCTUATION, r"\s+", " {2,}", r"\u200b"])
def test_patterns_of_known_tokenizers_are_read(pattern: str):
    Regex(pattern)  # which the library compiles, too

    assert not find_pattern_problem(pattern)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (r"(\w+\s?)+;", "repeats what may repeat"),
        ("(a|aa){2,}b", "repeats what may repeat"),
        (r"\w*\w*\w*;", "too many repetitions in a row"),
        ("a?" * 30 + "a" * 30, "too many repetitions in a row"),
        ("a+*b", "repeats what may repeat"),
        ("a{9}{9}", "repeats what may repeat"),
        (r"(a+)\1b", "parts that earmark does not know"),
        (r"(?<n>a|b\g<n>c)", "parts that earmark does not know"),
        ("a{1000}", "parts that earmark does not know"),
        ("[a", "parts that earmark does not know"),
        ("a|" * 200, "too many alternatives"),
        ("x" * 1001, "more than 1000 characters"),
    ],
)
def test_patterns_without_a_bound_are_refused(tmp_path: Path, pattern: str, says: str):
    tokenizer = new_tokenizer()
    for step in (
        {"normalizer": {"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}}},
        {"decoder": {"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}},
    ):
        with pytest.raises(ValueError, match=says) as caught:
            check_tokenizer_json(saved(tmp_path, tokenizer, **step))
        assert len(str(caught.value)) < 400


def test_known_steps_are_read(tmp_path: Path):
    tokenizer = new_tokenizer()
    clip = [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    siglip = [normalizers.Replace(Regex(PUNCTUATION), ""), normalizers.Strip()]
    bert = [normalizers.BertNormalizer(), normalizers.Replace(" ", "\N{LOWER ONE EIGHTH BLOCK}")]
    tokenizer.normalizer = normalizers.Sequence([*clip, *siglip, *bert])
    split = pre_tokenizers.Split(Regex(CLIP), "removed", invert=True)
    steps = [split, pre_tokenizers.ByteLevel(), pre_tokenizers.Metaspace()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.post_processor = processors.TemplateProcessing("$0 a", special_tokens=[("a", 1)])
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()])
    tokenizer.enable_padding(length=77)
    tokenizer.enable_truncation(77)

    check_tokenizer_json(saved(tmp_path, tokenizer))


def replace(pattern: object, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


NESTED: dict[str, Any] = {"type": "NFC"}
for _ in range(9):
    NESTED = {"type": "Sequence", "normalizers": [NESTED]}


@pytest.mark.parametrize(
    ("entry", "value", "says"),
    [
        ("normalizer", replace({"Regex": "."}, "x" * 20_000), "20,001 times as long"),
        (
            "normalizer",
            {"type": "Sequence", "normalizers": [replace({"String": "a"}, "a" * 9)] * 4},
            "6,561 times as long",
        ),
        ("normalizer", replace({"String": ""}, "a" * 99), "100 times as long"),
        ("normalizer", {"type": "Prepend", "prepend": "a" * 99}, "100 times as long"),
        ("normalizer", {"type": "Own"}, "normalizer 'Own', which earmark does not know"),
        ("normalizer", [1], "normalizer 'list', which earmark does not know"),
        ("normalizer", NESTED, "more than 64 steps as its normalizer, or nests them too deep"),
        (
            "normalizer",
            {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 64},
            "more than 64 steps",
        ),
        (
            "normalizer",
            {"type": "Precompiled", "precompiled_charsmap": "A" * 2_000_001},
            "too large tables of characters",
        ),
        ("pre_tokenizer", {"type": "Replace"}, "pre_tokenizer 'Replace'"),
        ("model", {"type": "Own"}, "model 'Own'"),
        ("post_processor", {"type": "Own"}, "post_processor 'Own'"),
        ("decoder", {"type": 7}, "decoder '7'"),
        ("padding", {"strategy": {"Fixed": 10**9}}, "pads texts to more than 65,536 tokens"),
        ("padding", {"pad_to_multiple_of": 10**9}, "pads texts to more than 65,536 tokens"),
        (
            "post_processor",
            {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A"}}] * 9_999},
            "a template of too many tokens",
        ),
    ],
)
def test_steps_without_a_bound_are_refused(tmp_path: Path, entry: str, value: Any, says: str):
    path = saved(tmp_path, new_tokenizer(), **{entry: value})

    for check in (
        lambda: check_tokenizer_json(path),
        lambda: check_model_files(tmp_path),
        lambda: check_tokenizer_files(tmp_path),
    ):
        with pytest.raises(ValueError, match=says) as caught:
            check()
        assert str(caught.value).startswith(str(path))
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize("content", ["[]", "7", "null", '"x"'])
def test_a_tokenizer_that_is_no_object(tmp_path: Path, content: str):
    (tmp_path / "tokenizer.json").write_text(content)

    with pytest.raises(ValueError, match="is no JSON object"):
        check_tokenizer_json(tmp_path / "tokenizer.json")
