"""Quantized weights: rounding, kernels, every q, k and v at each precision, saves that reload equal, the pocket."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import BitsAndBytesConfig

from qwen_audio_chat.model import QwenAudioConfig, QwenAudioForConditionalGeneration, QwenAudioProcessor, quantization
from qwen_audio_chat.model.checkpoint import CheckpointError, load_model
from qwen_audio_chat.model.quantization import DECODER_LAYERS, PackedConfig, quantization_config, quantize_for_release
from qwen_audio_chat.model.quantized_layers import QuantizedEmbedding, QuantizedLinear, dequantize, quantize
from qwen_audio_chat.prompts.conversation import Conversation
from tests.conftest import build_tiny_model
from tests.golden.golden_inputs import CASES
from tests.official import golden_inputs

SHAPES = [(576, 576), (192, 576), (1536, 576), (576, 1536), (45, 64), (2051, 2080)]  # the pocket's, and odd ones
NEAR = {"packed int8": 0.03, "packed int4": 0.4, "NF4": 0.4}  # of the original's logits, random and 64 wide as it is
PRECISIONS = {  # the largest relative error of a weight, a little above what rounding normal noise costs
    "packed int8": (PackedConfig({DECODER_LAYERS: 8}), 0.01),
    "packed int4": (PackedConfig({DECODER_LAYERS: 4}), 0.09),
    "NF4": (
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16),
        0.1,
    ),
    "LLM.int8": (BitsAndBytesConfig(load_in_8bit=True), 0.01),
}


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def quantize_while_loading(official_folder):
    def load(precision: str, folder=official_folder) -> QwenAudioForConditionalGeneration:
        quantization.import_bitsandbytes()
        config = PRECISIONS[precision][0]
        if isinstance(config, BitsAndBytesConfig):
            config.llm_int8_skip_modules = quantization.FLOAT_MODULES
        return QwenAudioForConditionalGeneration.from_pretrained(
            folder, dtype=torch.bfloat16, quantization_config=config
        )

    return load


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [8, 4])
def test_kernels_multiply_with_the_plain_values(shape, bits):
    torch.manual_seed(0)
    weight = 0.05 * torch.randn(shape) + 0.01
    values, scales = quantize(weight, bits)
    plain = dequantize(values, scales, torch.float32)
    assert relative(plain, weight) < {8: 0.01, 4: 0.09}[bits]
    layer = QuantizedLinear(*shape, bits, bias=True, dtype=torch.bfloat16)
    layer.weight.data, layer.scales.data, layer.bias.data = values, scales, torch.randn(shape[0]).bfloat16()
    layer.prepare(torch.bfloat16)
    for rows in (1, 3, 50):
        hidden = torch.randn(2, rows, shape[1]).bfloat16()
        wanted = nn.functional.linear(hidden.float(), plain, layer.bias.float())
        for dense in (layer.dense, None):
            layer.dense, kept = dense, layer.dense
            assert relative(layer(hidden), wanted) < 0.005
            layer.dense = kept


MULTIPLY = """
import sys, torch
from qwen_audio_chat.model.quantized_layers import QuantizedLinear, quantize
results, generator = [], torch.Generator().manual_seed(0)
for shape in [(576, 1536), (45, 64)]:
    for bits in (8, 4):
        layer = QuantizedLinear(*shape, bits, bias=False, dtype=torch.bfloat16)
        layer.weight.data, layer.scales.data = quantize(torch.randn(shape, generator=generator), bits)
        layer.prepare()
        results += [layer(torch.randn(rows, shape[1], generator=generator)) for rows in (1, 5)]
torch.save({"unit": torch.backends.cpu.get_cpu_capability(), "results": results}, sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() != "AVX512", reason="needs a CPU with both")
def test_kernels_for_older_cpus_give_the_same(tmp_path):
    """Environment variables make PyTorch use AVX2 and Numba compile for an older processor."""
    runs = {}
    for unit, cpu in {"AVX2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}, "AVX512": {}}.items():
        environment = os.environ | cpu | {"ATEN_CPU_CAPABILITY": unit.lower()}
        subprocess.run([sys.executable, "-c", MULTIPLY, tmp_path / unit], env=environment, check=True)
        runs[unit] = torch.load(tmp_path / unit)
        assert runs[unit]["unit"] == unit
    for old, new in zip(*(run["results"] for run in runs.values()), strict=True):
        assert relative(old, new) < 0.001


def test_rounding_keeps_what_is_on_a_grid_of_sixteen_steps():
    steps = torch.randint(0, 16, (64, 4, 32)).float()
    steps[..., 0], steps[..., 1] = 0, 15
    weight = (steps * torch.rand(64, 4, 1) - torch.rand(64, 4, 1)).flatten(1)
    assert relative(dequantize(*quantize(weight, 4), torch.float32), weight) < 0.01
    zero = torch.zeros(8, 32)
    for bits in (8, 4):
        assert torch.equal(dequantize(*quantize(zero, bits), torch.float32), zero)
    with pytest.raises(ValueError, match="don't divide by 32"):
        quantize(torch.randn(8, 48), 4)


def float_weight(layer: nn.Module) -> torch.Tensor:
    if isinstance(layer, QuantizedLinear):
        return dequantize(layer.weight, layer.scales, torch.float32)
    if type(layer).__name__ == "Linear4bit":
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    if type(layer).__name__ == "Linear8bitLt":
        return layer.weight.data.float() * layer.weight.SCB.float()[:, None] / 127
    return layer.weight.float()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_weight_agrees_with_its_source(official_folder, quantize_while_loading, precision):
    """Above all q, k and v, which are split from one c_attn: some quantizers only see the first of them."""
    source = QwenAudioForConditionalGeneration.from_pretrained(official_folder, dtype=torch.bfloat16)
    model = quantize_while_loading(precision)
    tolerance = PRECISIONS[precision][1]
    for name, layer in source.named_modules():
        if isinstance(layer, nn.Linear):
            found = model.get_submodule(name)
            if DECODER_LAYERS in name:
                assert type(found) is not nn.Linear
                assert 1e-4 < relative(float_weight(found), layer.weight) < tolerance, name
            else:
                assert type(found) is nn.Linear and torch.equal(found.weight, layer.weight), name
            if layer.bias is not None:
                assert torch.equal(found.bias, layer.bias), name


def check_save(model, cases, folder) -> None:
    """A saved model gives the same logits to the bit; the model runs first, which may change its weights' layout."""
    before = [model(**inputs, logits_to_keep=32).logits for inputs in cases]
    model.save_pretrained(folder)
    again = QwenAudioForConditionalGeneration.from_pretrained(folder)
    for inputs, logits in zip(cases, before, strict=True):
        for each in (model, again):
            assert torch.equal(each(**inputs, logits_to_keep=32).logits, logits)
        greedy = [each.generate(**inputs, max_new_tokens=12, do_sample=False) for each in (model, again)]
        assert torch.equal(*greedy)


@pytest.mark.slow
@pytest.mark.parametrize("precision", NEAR)
def test_golden_saves_reload_equal(quantize_while_loading, official_processor, expected, precision, tmp_path):
    model = quantize_while_loading(precision)
    official_processor.save_pretrained(tmp_path)
    processor = QwenAudioProcessor.from_pretrained(tmp_path)
    cases = {name: golden_inputs(processor, name) for name in CASES}
    check_save(model, list(cases.values()), tmp_path)
    for name, inputs in cases.items():
        assert torch.equal(inputs["input_ids"], torch.from_numpy(expected[f"{name}__input_ids"]).long())
        logits = model(**inputs, logits_to_keep=1).logits[:, -1, ::37]
        assert relative(logits, torch.from_numpy(expected[f"{name}__last_logits_every_37th"])) < NEAR[precision]


@pytest.mark.slow
@pytest.mark.parametrize("precision", NEAR)
def test_saves_of_a_pocket_shape_reload_equal(quantize_while_loading, tiny_tokenizer, question, precision, tmp_path):
    """Fewer heads of keys than of queries, and a head tied to the embeddings."""
    source = build_pocket(tiny_tokenizer)
    source.save_pretrained(tmp_path / "floats")
    model = quantize_while_loading(precision, tmp_path / "floats")
    check_save(model, [question], tmp_path / "quantized")
    assert relative(model(**question).logits, source(**question).logits) < 0.3


def build_pocket(tokenizer, layers: int = 2) -> QwenAudioForConditionalGeneration:
    """Random weights in the shapes of the pocket model: 576 wide, 9 heads, 3 of keys, tied embeddings."""
    config = build_tiny_model(tokenizer).config
    for name, value in dict(hidden_size=576, intermediate_size=1536, num_attention_heads=9, head_dim=64).items():
        setattr(config.text_config, name, value)
    config.text_config.num_key_value_heads = 3
    config.text_config.num_hidden_layers = layers
    config.text_config.initializer_range = 0.03
    config.audio_config.d_model, config.audio_config.encoder_ffn_dim = 64, 256
    torch.manual_seed(0)
    return QwenAudioForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def pocket(tiny_tokenizer, tiny_processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pocket")
    model = build_pocket(tiny_tokenizer)
    quantize_for_release(model, folder, {"audio_tower": 8, "embed_tokens": 8, DECODER_LAYERS: 4})
    tiny_processor.save_pretrained(folder)
    return model, folder


@pytest.fixture
def question(tiny_processor, clip):
    conversation = Conversation().ask("What is said?", [clip(2.0)])
    return tiny_processor.apply_chat_template(conversation, add_generation_prompt=True)


def test_pocket_is_stored_small_and_loads_like_any_model(pocket, question):
    model, folder = pocket
    assert next(model.parameters()).dtype == torch.float32  # releasing leaves the trained model alone
    stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert stored < 0.19 * 4 * model.num_parameters()
    loaded, _ = load_model(folder, device="cpu")
    assert loaded.precision == "packed 4-bit" and loaded(**question).logits.dtype == loaded.dtype
    embedding, head = loaded.get_input_embeddings(), loaded.lm_head
    assert isinstance(embedding, QuantizedEmbedding) and isinstance(head, QuantizedLinear)
    assert head.weight is embedding.weight and head.scales is embedding.scales
    assert type(loaded.model.audio_tower.layers[0].fc1) is nn.Linear  # 8 bits in the file, floats in use
    assert relative(loaded.model.audio_tower.layers[0].fc1.weight, model.model.audio_tower.layers[0].fc1.weight) < 0.01
    for name, layer in loaded.named_modules():
        if isinstance(layer, QuantizedLinear):
            assert relative(float_weight(layer), model.get_submodule(name).weight) < {8: 0.01, 4: 0.09}[layer.bits]


def test_kernels_take_weights_from_anywhere_in_a_mapped_file(tmp_path):
    rows, columns = 1519, 576
    values, scales = quantize(torch.randn(rows, columns), 8)
    hidden = torch.randn(5, columns).bfloat16()
    results = []
    for offset in (0, 1, 8):
        storage = torch.empty(offset + values.numel(), dtype=torch.int8)
        layer = QuantizedLinear(rows, columns, 8, bias=False, dtype=torch.bfloat16)
        layer.weight.data = storage[offset:].view(rows, columns).copy_(values)
        layer.scales.data = scales
        layer.prepare()
        results.append(layer(hidden.new_empty(offset + hidden.numel())[offset:].view(hidden.shape).copy_(hidden)))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


@pytest.mark.parametrize(
    "parts", [{DECODER_LAYERS: 8}, {DECODER_LAYERS: 4, "embed_tokens": 4}, {"audio_tower": 4, "embed_tokens": 8}]
)
def test_parts_are_chosen_by_the_configuration(tiny_tokenizer, question, parts, tmp_path):
    quantize_for_release(build_pocket(tiny_tokenizer, layers=1), tmp_path, parts)
    loaded = QwenAudioForConditionalGeneration.from_pretrained(tmp_path)
    config = QwenAudioConfig.from_pretrained(tmp_path)
    config.quantization_config["dequantize"] = True
    floats = QwenAudioForConditionalGeneration.from_pretrained(tmp_path, config=config)
    assert relative(loaded(**question).logits, floats(**question).logits) < 0.03
    body = loaded.model.language_model.layers[0].mlp.up_proj
    assert getattr(body, "bits", None) == parts.get(DECODER_LAYERS)
    assert getattr(loaded.get_input_embeddings(), "bits", None) == parts.get("embed_tokens")


def test_pocket_saved_again_reloads_equal(pocket, question, tmp_path):
    loaded = QwenAudioForConditionalGeneration.from_pretrained(pocket[1])
    before = loaded(**question).logits
    loaded.save_pretrained(tmp_path)
    assert torch.equal(QwenAudioForConditionalGeneration.from_pretrained(tmp_path)(**question).logits, before)
    assert torch.equal(loaded(**question).logits, before)


def test_pocket_becomes_floats_for_training_and_gpus(pocket, question):
    packed, _ = load_model(pocket[1], device="cpu")
    model, _ = load_model(pocket[1], device="cpu", quantization="none")
    assert model.precision in ("bfloat16", "float32") and model.dtype.is_floating_point
    assert not any(isinstance(layer, (QuantizedLinear, QuantizedEmbedding)) for layer in model.modules())
    assert model.lm_head.weight is model.get_input_embeddings().weight and model.lm_head.weight.requires_grad
    layer = packed.model.language_model.layers[0].self_attn.k_proj
    assert torch.equal(model.model.language_model.layers[0].self_attn.k_proj.weight.float(),
                       dequantize(layer.weight, layer.scales, model.dtype).float())  # fmt: skip
    assert relative(model(**question).logits, packed(**question).logits) < 0.03
    with torch.enable_grad():
        model(**question, labels=question["input_ids"]).loss.backward()
    assert model.model.language_model.layers[0].mlp.gate_proj.weight.grad is not None


def test_decoding_by_kernels_agrees_with_the_prompt(pocket, question):
    """A cached prefix and a recomputed one may differ by rounding only."""
    model = QwenAudioForConditionalGeneration.from_pretrained(pocket[1])
    whole = model(**question).logits[:, -1]
    ids = question["input_ids"]
    prefix = model(**question | {"input_ids": ids[:, :-1], "attention_mask": question["attention_mask"][:, :-1]})
    step = model(input_ids=ids[:, -1:], past_key_values=prefix.past_key_values)
    assert relative(step.logits[:, -1], whole) < 0.03


def test_what_is_already_quantized_is_not_quantized_again(pocket):
    with pytest.raises(CheckpointError, match="already quantized"):
        load_model(pocket[1], device="cpu", quantization="int8")


def test_method_for_each_device(monkeypatch):
    assert quantization_config("int4", "cpu").parts == {DECODER_LAYERS: 4}
    assert quantization_config("int8", "cpu").parts == {DECODER_LAYERS: 8}
    fast = quantization_config("int4", "cuda")
    assert fast.bnb_4bit_quant_type == "nf4" and "lm_head" in fast.llm_int8_skip_modules
    assert quantization_config("int8", "cuda").load_in_8bit
    assert quantization_config("none", "mps") is None
    with pytest.raises(ValueError, match="isn't available on mps"):
        quantization_config("int4", "mps")
    monkeypatch.setattr(quantization, "import_bitsandbytes", lambda: False)
    with pytest.raises(ValueError, match="pip install bitsandbytes"):
        quantization_config("int4", "cuda")
