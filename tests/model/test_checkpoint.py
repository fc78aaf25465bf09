"""Official and own checkpoints: exact against the original, complete, and refused in one sentence when broken."""

import inspect
import json
import shutil
import sys
import types

import huggingface_hub
import modelscope
import numpy as np
import pytest
import torch
from accelerate import infer_auto_device_map
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMultimodalLM, AutoProcessor

from qwen_audio_chat.model import (
    QwenAudioConfig,
    QwenAudioForConditionalGeneration,
    QwenAudioModel,
    QwenAudioProcessor,
    checkpoint,
)
from qwen_audio_chat.model.checkpoint import CheckpointError, load_model
from qwen_audio_chat.prompts.conversation import Conversation
from qwen_audio_chat.resources import POCKET
from tests.conftest import build_tiny_model
from tests.golden.golden_inputs import CASES, waveform
from tests.official import golden_inputs, official_config, official_shapes


@pytest.fixture(scope="session")
def official_model(official_folder):
    return AutoModelForMultimodalLM.from_pretrained(official_folder, dtype=torch.float32)


def check_golden(model, processor, name: str, expected: dict) -> None:
    inputs = golden_inputs(processor, name)
    assert np.array_equal(inputs["input_ids"], expected[f"{name}__input_ids"])
    is_long = inputs["input_ids"].shape[1] > 2048
    with torch.no_grad():
        logits = model(**inputs, logits_to_keep=1 if is_long else 0).logits.numpy()
    assert np.abs(logits[:, -1, ::37] - expected[f"{name}__last_logits_every_37th"]).max() < 1e-4
    if not is_long:
        difference = np.abs(logits[..., ::9973] - expected[f"{name}__all_logits_every_9973rd"])
        assert difference[inputs["attention_mask"].bool().numpy()].max() < 1e-4
    answer = model.generate(**inputs, max_new_tokens=12, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    assert np.array_equal(answer, expected[f"{name}__greedy_ids"])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_golden_from_the_official_layout(official_model, official_processor, expected, name):
    check_golden(official_model, official_processor, name, expected)


def test_golden_encoder(official_model, official_processor, expected):
    """The embeddings of a clip in a prompt: its start, some of its frames, its end."""
    start, end = official_model.model.projector.boundary_embeddings.weight[:, None]
    for name in [key.split("__")[1] for key in expected if key.startswith("encoder__")]:
        (clip,) = official_processor.clips(waveform(name))
        with torch.no_grad():
            (frames,) = official_model.get_audio_features(clip[None], torch.tensor([clip.shape[-1]]))
            embeddings = torch.cat((start, frames, end))
        found = embeddings[:: max(1, len(embeddings) // 40)].numpy()
        assert np.abs(found - expected[f"encoder__{name}"]).max() < 1e-4


@pytest.mark.slow
def test_golden_without_fused_attention(official_folder, official_processor, expected):
    model = AutoModelForMultimodalLM.from_pretrained(official_folder, dtype=torch.float32, attn_implementation="eager")
    for name in ("two_audios", "tagged_batch_left_padded"):
        check_golden(model, official_processor, name, expected)


@pytest.mark.slow
def test_golden_after_saving_in_our_layout(official_model, official_processor, expected, tmp_path):
    official_model.save_pretrained(tmp_path)
    official_processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen_audio"
    assert set(load_file(tmp_path / "model.safetensors")) == set(official_model.state_dict())
    model, processor = load_model(tmp_path, device="cpu", quantization="none")
    if model.dtype != torch.float32:
        model = QwenAudioForConditionalGeneration.from_pretrained(tmp_path)
    for name in CASES:
        check_golden(model, processor, name, expected)
    assert model.generation_config.suppress_tokens == official_model.generation_config.suppress_tokens


@pytest.mark.slow
def test_names_from_before_version_2_load_as_the_new_ones(tmp_path, clip):
    """The shipped pocket's files hold the old names of the CTC head, a fresh save the new ones."""
    assert "letters" in json.loads((POCKET / "config.json").read_text())
    old_weights = json.loads((POCKET / checkpoint.INDEX_FILE).read_text())["weight_map"]
    assert "letter_head.weight" in old_weights and "ctc_head.weight" not in old_weights
    old, processor = load_model(POCKET, device="cpu")
    old.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["ctc_alphabet"] == old.config.ctc_alphabet and "letters" not in config
    new_weights = load_file(tmp_path / "model.safetensors")
    assert "ctc_head.weight" in new_weights and "letter_head.weight" not in new_weights

    new, _ = load_model(tmp_path, device="cpu")
    inputs = processor.apply_chat_template(Conversation().ask("What is said?", [clip(2.0)]))
    with torch.no_grad():
        assert torch.equal(old(**inputs).logits, new(**inputs).logits)
        (frames,) = old.get_audio_features(inputs["input_features"], inputs["feature_lengths"])
        assert torch.equal(old.ctc_head(frames), new.ctc_head(frames))


def test_generation_defaults(official_model):
    config = official_model.generation_config
    assert config.eos_token_id == [151643, 151645, 151644] and config.pad_token_id == 151643
    assert (config.do_sample, config.top_p, config.top_k, config.max_new_tokens) == (True, 0.5, 0, 512)
    assert set(config.suppress_tokens) == {151851, 155163, 155164, *range(155165, 155947)}


def test_configuration_and_base_model(official_folder, official_model):
    config = QwenAudioConfig.from_dict(official_config(tiny=False))
    text, audio = config.text_config, config.audio_config
    assert (text.intermediate_size, text.rms_norm_eps, text.max_position_embeddings) == (11008, 1e-6, 2048)
    assert (audio.encoder_layers, audio.d_model, audio.encoder_ffn_dim) == (32, 1280, 5120)
    assert (config.audio_start_id, config.audio_end_id, config.audio_token_id) == (155163, 155164, 151851)
    assert type(official_model.config) is QwenAudioConfig and official_model.config.model_type == "qwen_audio"
    assert type(AutoModel.from_pretrained(official_folder)) is QwenAudioModel


def load_on_meta(shapes: dict[str, list[int]]) -> QwenAudioForConditionalGeneration:
    """The real configuration through the real loading path, with weights that have shapes only."""
    config = QwenAudioConfig.from_dict(official_config(tiny=False))
    weights = {name: torch.empty(shape, dtype=torch.bfloat16, device="meta") for name, shape in shapes.items()}
    return QwenAudioForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=weights, device_map={"": "meta"}, dtype=torch.bfloat16
    )


@pytest.mark.slow
def test_all_official_parameters_are_consumed():
    shapes = official_shapes()
    assert len(shapes) == 749
    model = load_on_meta(shapes)
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == 8_396_222_464
    with pytest.raises(ValueError, match="embed_positions.* missing"):
        load_on_meta({name: shape for name, shape in shapes.items() if "positional" not in name})
    with pytest.raises(ValueError, match="visual.* not of this model"):
        load_on_meta(shapes | {"transformer.visual.proj": [2, 2]})
    with pytest.raises(ValueError, match=r"down_proj.weight \(4096, 9999\) have another shape"):
        load_on_meta(shapes | {"transformer.h.3.mlp.c_proj.weight": [4096, 9999]})


def test_several_devices_never_split_a_layer(official_folder, official_model, official_processor, tmp_path):
    model = load_on_meta(official_shapes())
    room = {0: "7GB", 1: "7GB", "cpu": "30GB"}
    places = infer_auto_device_map(model, max_memory=room, no_split_module_classes=model._no_split_modules)
    assert {0, 1} <= set(places.values())
    assert not [name for name in places if ".layers." in name and name.split(".layers.")[1].count(".")]
    places = {"model.audio_tower": "cpu", "model.projector": "cpu", "model.language_model": "disk", "lm_head": "cpu"}
    model = QwenAudioForConditionalGeneration.from_pretrained(
        official_folder, device_map=places, offload_folder=tmp_path, dtype=torch.float32
    )
    inputs = golden_inputs(official_processor, "one_audio")
    with torch.no_grad():
        offloaded, whole = model(**inputs, logits_to_keep=1).logits, official_model(**inputs, logits_to_keep=1).logits
    assert torch.equal(offloaded, whole)


@pytest.mark.slow
def test_no_code_of_a_repository_runs(official_folder, tmp_path):
    folder = shutil.copytree(official_folder, tmp_path / "copy")
    trap = f"open({str(tmp_path / 'ran')!r}, 'w')"
    for file in ("configuration_qwen.py", "modeling_qwen.py", "tokenization_qwen.py"):
        (folder / file).write_text(trap)
    load_model(folder, device="cpu")
    AutoModelForMultimodalLM.from_pretrained(folder)
    AutoProcessor.from_pretrained(folder)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def broken(official_folder, tmp_path):
    """A copy of the checkpoint to damage."""
    return shutil.copytree(official_folder, tmp_path / "broken")


def refusal(folder, **settings) -> str:
    with pytest.raises(CheckpointError) as error:
        load_model(folder, device="cpu", **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def edit_config(folder, **changes) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_configurations_that_are_refused(broken):
    audio = official_config()["audio"]
    edit_config(broken, audio=audio | {"audio_start_id": 155164})
    assert "155164 as in the first upload" in refusal(broken)
    edit_config(broken, audio=None)
    assert "text-only Qwen or a Qwen-VL" in refusal(broken)
    edit_config(broken, visual={"width": 1664})
    assert "text-only Qwen or a Qwen-VL" in refusal(broken)
    edit_config(broken, model_type="llama")
    assert "'llama'" in refusal(broken)
    (broken / "config.json").unlink()
    assert "no config.json" in refusal(broken)


@pytest.fixture
def known_tokenizer(official_processor, monkeypatch):
    """Saves the tests of weights the two seconds it takes to read the real vocabulary."""
    monkeypatch.setattr(QwenAudioProcessor, "from_pretrained", lambda folder: official_processor)


def test_files_that_are_refused(broken, known_tokenizer):
    first, second = sorted(broken.glob("model-*.safetensors"))[:2]
    whole = first.read_bytes()
    for damaged in (whole[:-1], whole[:5], b"", b"\0" * len(whole)):
        first.write_bytes(damaged)
        assert f"{first.name} is cut or damaged" in refusal(broken)
    first.write_bytes(whole)
    second.unlink()
    assert f"lacks {second.name}" in refusal(broken)
    for index in ("[]", "{}", "{", '{"weight_map": []}'):
        (broken / checkpoint.INDEX_FILE).write_text(index)
        assert "index.json is damaged" in refusal(broken)
    (broken / checkpoint.INDEX_FILE).unlink()
    assert "no weights" in refusal(broken)
    (broken / "pytorch_model.bin").write_bytes(b"pickle")
    assert "pickles" in refusal(broken)
    with pytest.raises(OSError, match="safetensors"):
        QwenAudioForConditionalGeneration.from_pretrained(broken)


@pytest.mark.parametrize("precision", ["none", "int8", "int4"])
@pytest.mark.parametrize("layer", ["audio.conv1", "h.0.attn.c_attn", "h.0.mlp.w1"])
def test_wrong_shapes_are_refused(broken, known_tokenizer, precision, layer):
    name = f"transformer.{layer}.weight"
    shard = broken / json.loads((broken / checkpoint.INDEX_FILE).read_text())["weight_map"][name]
    weights = load_file(shard)
    save_file(weights | {name: weights[name][:-3].contiguous()}, shard)
    assert "have another shape" in refusal(broken, quantization=precision)


def test_tokenizers_that_are_refused(broken):
    lines = (broken / "qwen.tiktoken").read_bytes().splitlines(keepends=True)
    (broken / "qwen.tiktoken").write_bytes(b"".join(lines[:-1]) + b"x")
    assert "not a tiktoken vocabulary" in refusal(broken)
    (broken / "qwen.tiktoken").write_bytes(b"".join(lines[:100] + lines[101:]))
    assert "incomplete" in refusal(broken)


@pytest.mark.slow
def test_ids_of_model_and_tokenizer_must_agree(tiny_tokenizer, official_processor, tmp_path):
    build_tiny_model(tiny_tokenizer).save_pretrained(tmp_path)
    official_processor.save_pretrained(tmp_path)
    assert "different models" in refusal(tmp_path)


def test_names_that_are_not_there(tmp_path):
    assert "isn't on this machine" in refusal("owner/a-model-nobody-has", offline=True)
    assert "isn't on this machine" in refusal("owner/a-model-nobody-has", offline=True, hub="modelscope")
    assert "There is no folder" in refusal(tmp_path / "nothing")
    assert "hub must be" in refusal("owner/name", hub="elsewhere")
    assert "quantization must be" in refusal("owner/name", quantization="int3")
    with pytest.raises(CheckpointError, match="no device 'tpu'"):
        load_model("owner/name", device="tpu")


@pytest.mark.parametrize("hub", [huggingface_hub, modelscope])
def test_hubs_take_what_they_are_asked(hub):
    inspect.signature(hub.snapshot_download).bind("owner/name", revision="", local_files_only=True, allow_patterns=[])


@pytest.mark.parametrize("hub", ["huggingface", "modelscope"])
def test_hubs_give_safetensors_and_no_code(hub, tiny_tokenizer, tiny_processor, tmp_path, monkeypatch):
    build_tiny_model(tiny_tokenizer).save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    asked = {}

    def snapshot_download(name, **settings):
        asked.update(settings, name=name)
        return str(tmp_path)

    module = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, {"huggingface": "huggingface_hub"}.get(hub, hub), module)
    model, _ = load_model("owner/name", device="cpu", hub=hub, offline=True, revision="v1")
    assert model.precision in ("float32", "bfloat16")
    assert asked["name"] == "owner/name" and asked["revision"] == "v1" and asked["local_files_only"]
    assert not any(pattern.endswith((".py", ".bin")) or pattern == "*" for pattern in asked["allow_patterns"])


def test_licence_is_shown_once(official_folder, known_tokenizer, caplog, monkeypatch):
    monkeypatch.setattr(checkpoint, "_licence_shown", False)
    for _ in range(2):
        load_model(official_folder, device="cpu")
    assert sum("Tongyi Qianwen" in record.message for record in caplog.records) == 1
