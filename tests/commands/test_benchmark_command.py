"""The benchmark measures what its figures are named after, on a tiny random model; no test asserts a speed."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from qwen_audio_chat.__main__ import main
from qwen_audio_chat.benchmark import measures, peers
from qwen_audio_chat.chat import AudioChat
from qwen_audio_chat.commands import benchmark_command
from tests.conftest import build_tiny_model


@pytest.fixture(params=["llama", "qwen_audio_text"])
def chat(request, tiny_tokenizer, tiny_processor) -> AudioChat:
    model = build_tiny_model(tiny_tokenizer, request.param)
    return AudioChat(model, tiny_processor, name="tiny", precision="float32")


def test_all_three_ways_give_the_same_answers_and_reuse_computes_less(chat):
    found = measures.times_to_first_token(chat, repeats=1, clip_s=2.0, new_tokens=6)
    assert found["identical_answers"] == 1
    assert found["reused_tokens"][0] == 0
    for prompt, reused in zip(found["prompt_tokens"][1:], found["reused_tokens"][1:], strict=True):
        assert reused > 3 * 50  # the three clips at least
        assert prompt - reused < 80  # one question
    for way in ("ttft_s", "ttft_without_reuse_s", "ttft_cached_features_s"):
        assert len(found[way]) == 5 and all(seconds > 0 for seconds in found[way])


@pytest.mark.slow
def test_reuse_changes_no_token_of_the_shipped_pocket_in_float32(float_pocket):
    assert measures.times_to_first_token(float_pocket, repeats=1, clip_s=3.0, new_tokens=12)["identical_answers"] == 1


def test_only_the_ways_that_reuse_embeddings_skip_the_encoder(chat, monkeypatch):
    calls = []
    encode = chat.model.get_audio_features
    monkeypatch.setattr(chat.model, "get_audio_features", lambda *args: calls.append(1) or encode(*args))
    measures.times_to_first_token(chat, repeats=1, clip_s=1.0, new_tokens=2)
    assert len(calls) == 3 + 5 * 3 + 3  # with reuse, without, features kept


def test_bytes_per_token(chat):
    text = chat.model.model.language_model
    floats = sum(p.numel() for layer in text.layers for name, p in layer.named_parameters() if "proj.weight" in name)
    assert measures.gb_per_token(chat) == pytest.approx(4 * (floats + chat.model.lm_head.weight.numel()) / 1e9)


def test_work_of_the_encoder_follows_the_length_of_the_clip(chat):
    gflop = {seconds: measures.encoder_seconds(chat, seconds, 1)[1] for seconds in (5, 10, 20)}
    assert gflop[10] == pytest.approx(2 * gflop[5], rel=0.3)
    assert gflop[20] == pytest.approx(4 * gflop[5], rel=0.6)


def test_clips_differ_and_have_the_requested_length():
    a, b = measures.speech(20, 0), measures.speech(20, 1)
    assert len(a) == len(b) == 20 * 16000 and not np.array_equal(a, b)


def test_decode_is_measured_after_a_cache_of_that_length(chat, monkeypatch):
    lengths = []
    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, k, *a, **kw: lengths.append(k.shape[-2]) or attend(q, k, *a, **kw)
    )
    assert measures.ms_per_token(chat, context=70, tokens=3) > 0
    assert sorted(set(lengths)) == [71, 72, 73, 74]


@pytest.mark.slow
def test_command_prints_one_object_with_all_figures(monkeypatch, capsys, tiny_chat, tmp_path):
    monkeypatch.setattr(benchmark_command, "load_from", lambda args: tiny_chat)
    assert main(["benchmark", "--quick", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    figures = json.loads(printed.out.strip().splitlines()[-1])
    wanted = "ttft_s ttft_without_reuse_s ttft_cached_features_s ms_per_token ms_per_token_by_context load_s "
    wanted += "encoder_s_per_audio_s peak_rss_mib read_gb_per_s share_of_bandwidth identical_answers"
    assert set(wanted.split()) <= set(figures)
    assert all(name in printed.err for name in wanted.split())
    assert json.loads((tmp_path / "benchmark.json").read_text()) == figures
    assert (tmp_path / "ms_per_token.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_number_of_threads_is_an_option(monkeypatch, capsys, tiny_tokenizer, tiny_processor):
    before = torch.get_num_threads()
    model = build_tiny_model(tiny_tokenizer)
    monkeypatch.setattr(
        benchmark_command, "load_from", lambda args: AudioChat(model, tiny_processor, name="tiny", precision="?")
    )
    try:
        assert main(["benchmark", "--quick", "--threads", "1"]) == 0
    finally:
        torch.set_num_threads(before)
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["threads"] == 1
    assert main(["benchmark", "--repeats", "0"]) == 2


@pytest.mark.slow
def test_peers_of_the_same_shape_are_measured_or_say_why_not(chat):
    found = peers.measure(chat, {"ms_per_token": 1.0, "ttft_without_reuse_s": [1.0]})
    assert found["transformers_generate_ms_per_token"]["value"] > 0
    assert found["qwen2_audio_ttft_s"]["value"] > 0
    assert found["llama_cpp_ms_per_token"] == {"value": None, "reason": "only measured beside the pocket model"}
    encoder = found["ctranslate2_encoder_s_per_audio_s"]
    assert encoder["value"] or encoder["reason"] == "needs pip install ctranslate2"
