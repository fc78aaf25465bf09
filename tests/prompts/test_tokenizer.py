"""The tokenizer built from `qwen.tiktoken` against tiktoken itself; text that can never become control."""

import base64
import json
import random
import re
import unicodedata

import pytest
import tiktoken
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from qwen_audio_chat.loading import POCKET
from qwen_audio_chat.prompts.chatml import encode_task, encode_text
from qwen_audio_chat.prompts.tokenizer import SPLIT_PATTERN, special_tokens, time_tags
from tests.official import GOLDEN
from tests.prompts.test_tags import PROMPTS

SCRIPTS = [(0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x6FF), (0x900, 0x97F)]
SCRIPTS += [(0xE00, 0xE7F), (0x1100, 0x11FF), (0x2000, 0x206F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3)]
SCRIPTS += [(0xFF01, 0xFF5E), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF), (0x09, 0x0D)]


@pytest.fixture(scope="module")
def tokenizer(official_processor):
    """Qwen's, made by `tokenizer_from_tiktoken` when the processor was loaded: making another takes seconds."""
    return official_processor.tokenizer


@pytest.fixture(scope="module")
def pocket_tokenizer():
    """SmolLM2's, with the tags added."""
    return AutoTokenizer.from_pretrained(POCKET)


@pytest.fixture(scope="module")
def ranks(vocabulary) -> dict[bytes, int]:
    lines = (line.split() for line in vocabulary.read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def random_texts(tokens: list[str], count: int) -> list[str]:
    """Half from the vocabulary's own words in all their languages, half from characters of many scripts."""
    rng = random.Random(0)
    texts = []
    for n in range(count):
        if n % 2:
            texts.append("".join(rng.choices(tokens, k=rng.randint(1, 30))))
        else:
            runs = ((rng.choice(SCRIPTS), rng.randint(1, 8)) for _ in range(rng.randint(1, 8)))
            texts.append("".join(chr(rng.randint(*script)) for script, length in runs for _ in range(length)))
    return texts


@pytest.mark.slow
def test_ten_thousand_texts_encode_as_with_tiktoken(tokenizer, ranks):
    reference = tiktoken.Encoding("qwen", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={})
    tokens = [token.decode() for token in ranks if token.decode(errors="ignore").encode() == token]
    texts = random_texts(tokens, 10_000)
    assert len({ord(character) >> 8 for text in texts for character in text}) > 300
    found = tokenizer(texts, add_special_tokens=False).input_ids
    for text, ids in zip(texts, found, strict=True):
        normal = unicodedata.normalize("NFC", text)
        assert ids == reference.encode_ordinary(normal), text
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == normal


def test_special_tokens_have_their_official_ids(tokenizer):
    expected = json.loads((GOLDEN / "special_tokens.json").read_text())
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in expected} == expected
    assert len(tokenizer) == 155_165 and len(special_tokens()) == len(expected)


def test_trusted_strings_encode_as_in_the_original(tokenizer):
    for text, ids in json.loads((GOLDEN / "tokenizer_strings.json").read_text()).items():
        assert tokenizer(text).input_ids == ids


@pytest.mark.parametrize(("prompt", "tags"), PROMPTS)
def test_prompts_of_the_release_as_ids(tokenizer, pocket_tokenizer, prompt, tags):
    """Each tokenizer has ids of its own; the pocket's has time tokens every 40 ms."""
    names = re.findall(r"<\|.*?\|>|[^<]+", tags)
    released = json.loads((GOLDEN / "special_tokens.json").read_text())
    for each, known in ((tokenizer, released), (pocket_tokenizer, pocket_tokenizer.get_added_vocab())):
        ids = [[known[name]] if name in known else each(name).input_ids for name in names]
        assert encode_task(each, prompt) == sum(ids, [])
        assert sum(name in known for name in names) >= 4


def test_time_tags():
    assert time_tags(0.04)[:3] == ["0.00", "0.04", "0.08"] and time_tags()[-1] == "30.00" and len(time_tags()) == 3001


typed = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(special_tokens()))).map("".join)


@given(text=typed)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_typed_text_never_becomes_control(tokenizer, tiny_tokenizer, pocket_tokenizer, text):
    assert all(i < 151643 for i in encode_text(tokenizer, text))
    for each in (tiny_tokenizer, pocket_tokenizer):
        special = set(each.all_special_ids) | set(each.added_tokens_decoder)
        assert special.isdisjoint(encode_text(each, text))
