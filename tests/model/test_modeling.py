"""The model as any of transformers: saving, batches, gradients, masks."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForMultimodalLM, AutoProcessor, DynamicCache, LlamaForCausalLM

from qwen_audio_chat.model import QwenAudioConfig, QwenAudioForConditionalGeneration, QwenAudioProcessor
from qwen_audio_chat.model.decoder import ntk_alpha
from qwen_audio_chat.model.encoder import sinusoids
from qwen_audio_chat.prompts.conversation import Conversation
from tests.conftest import build_tiny_model


@pytest.fixture
def conversations(clip):
    return [
        Conversation().ask("What is said?", [clip(1.0)]),
        Conversation().ask("Compare them.", [clip(3.1, 300), clip(0.3, 900)]).answer("Fine.").ask("Why?"),
        Conversation().ask("hi"),
    ]


def test_batch_equals_single_in_any_order(tiny_model, tiny_processor, conversations):
    batch = tiny_processor.apply_chat_template(conversations, add_generation_prompt=True)
    backwards = tiny_processor.apply_chat_template(conversations[::-1], add_generation_prompt=True)
    with torch.no_grad():
        together, reversed_ = tiny_model(**batch).logits, tiny_model(**backwards).logits.flip(0)
        for row, conversation in enumerate(conversations):
            inputs = tiny_processor.apply_chat_template(conversation, add_generation_prompt=True)
            alone = tiny_model(**inputs).logits[0]
            tolerance = dict(atol=1e-5 * float(alone.abs().max()), rtol=0)
            torch.testing.assert_close(together[row, -len(alone) :], alone, **tolerance)
            torch.testing.assert_close(reversed_[row, -len(alone) :], alone, **tolerance)


def test_batch_generates_what_single_does(tiny_model, tiny_processor, conversations):
    def answers(group):
        inputs = tiny_processor.apply_chat_template(group, add_generation_prompt=True)
        output = tiny_model.generate(**inputs, max_new_tokens=8, do_sample=False, min_new_tokens=8)
        return output[:, inputs["input_ids"].shape[1] :].tolist()

    assert answers(conversations) == [answers([conversation])[0] for conversation in conversations]


def test_padding_is_harmless_beyond_the_trained_length(tiny_tokenizer, tiny_processor, clip):
    model = build_tiny_model(tiny_tokenizer, "qwen_audio_text")
    long = Conversation().ask("Long", [clip(30.0), clip(30.0, 300), clip(24.0, 700)])
    longer = Conversation().ask("Longer", [clip(30.0), clip(30.0, 300), clip(29.0, 700)])
    batch = tiny_processor.apply_chat_template([long, longer], add_generation_prompt=True)
    alone = tiny_processor.apply_chat_template(long, add_generation_prompt=True)
    assert alone["input_ids"].shape[1] > 2048
    with torch.no_grad():
        together, single = model(**batch, logits_to_keep=1).logits[0], model(**alone, logits_to_keep=1).logits[0]
    torch.testing.assert_close(together, single, atol=1e-5, rtol=0)


def test_the_pocket_shape_is_llama_with_clips_in_its_embeddings(tiny_tokenizer, tiny_processor, conversations):
    """Compared with transformers' own Llama, clip by clip and row by row, because the original has no such shape."""
    model = build_tiny_model(tiny_tokenizer)
    llama = LlamaForCausalLM(model.config.text_config).eval()
    llama.model.load_state_dict(model.model.language_model.state_dict())
    table, projector = llama.get_input_embeddings().weight, model.model.projector
    for conversation in conversations:
        inputs = tiny_processor.apply_chat_template(conversation, add_generation_prompt=True)
        clips = zip(inputs.get("input_features", []), inputs.get("feature_lengths", []), strict=True)
        with torch.no_grad():
            frames = [frame for clip, n in clips for frame in model.get_audio_features(clip[None, :, :n], n[None])[0]]
            start, end = projector.boundary_embeddings.weight
            replaced = {model.config.audio_start_id: start, model.config.audio_end_id: end}
            embeddings = [
                frames.pop(0) if i == model.config.audio_token_id else replaced.get(i, table[i])
                for i in inputs["input_ids"][0].tolist()
            ]
            expected = llama(inputs_embeds=torch.stack(embeddings)[None]).logits
            torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-4, rtol=0)
        assert not frames


def test_the_rotary_base_stays_while_an_answer_crosses_the_trained_length(tiny_tokenizer):
    model = build_tiny_model(tiny_tokenizer, "qwen_audio_text")
    prompt = torch.randint(300, (1, 2040), generator=torch.Generator().manual_seed(0))
    kept = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: kept.append(output.shape[1]))
    answer = model.generate(prompt, max_new_tokens=20, min_new_tokens=20, do_sample=False)
    assert kept == [1] * 20  # also for the prompt, only the last position is multiplied by the vocabulary
    cache = DynamicCache()
    cache.ntk_alpha = torch.ones(1)
    with torch.no_grad():
        kept_base = model(answer[:, :-1], past_key_values=cache, logits_to_keep=20).logits
        new_base = model(answer[:, :-1], logits_to_keep=20).logits
    stops = model.generation_config.eos_token_id
    kept_base[..., stops] = -torch.inf  # as min_new_tokens does
    assert torch.equal(kept_base.argmax(-1), answer[:, 2040:])
    assert (kept_base[:, -1] - new_base[:, -1])[kept_base[:, -1].isfinite()].abs().max() > 1e-3


@pytest.mark.parametrize("num_samples", [1, 159, 160, 479, 480])
def test_the_shortest_clips_have_one_token(tiny_model, tiny_processor, num_samples):
    for clip in (np.zeros(num_samples, np.float32), np.full(num_samples, 0.5, np.float32)):
        inputs = tiny_processor.apply_chat_template(Conversation().ask("What?", [clip]), add_generation_prompt=True)
        assert int((inputs["input_ids"] == tiny_model.config.audio_token_id).sum()) == 1
        with torch.no_grad():
            assert torch.isfinite(tiny_model(**inputs).logits).all()


def test_steps_of_the_rotary_base():
    lengths = torch.tensor([1, 2048, 2049, 4096, 4097, 8192, 8193])
    assert ntk_alpha(lengths, 2048).tolist() == [1, 1, 3, 3, 7, 7, 15]


def test_save_and_reload_with_auto_classes(tiny_model, tiny_processor, conversations, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    model, processor = AutoModelForMultimodalLM.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), QwenAudioConfig)
    assert isinstance(model, QwenAudioForConditionalGeneration) and isinstance(processor, QwenAudioProcessor)
    assert model.generation_config.eos_token_id == tiny_model.generation_config.eos_token_id
    inputs = processor.apply_chat_template(conversations, add_generation_prompt=True)
    expected = tiny_processor.apply_chat_template(conversations, add_generation_prompt=True)
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, tiny_model(**expected).logits)


def test_new_encoder_has_whispers_positions(tiny_model):
    positions = tiny_model.model.audio_tower.embed_positions.weight
    assert torch.equal(positions, sinusoids(*positions.shape)) and not positions.requires_grad


def test_gradients_reach_every_trainable_parameter(tiny_tokenizer, tiny_processor, conversations):
    model = build_tiny_model(tiny_tokenizer).train()
    inputs = tiny_processor.apply_chat_template(conversations, add_generation_prompt=True)
    plain = model(**inputs, labels=inputs["input_ids"]).loss
    plain.backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == {"ctc_head.weight", "ctc_head.bias"}  # which plays no part in the loss of tokens
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name])


def test_no_row_of_a_padded_batch_is_undefined(tiny_model, tiny_processor, conversations):
    inputs = tiny_processor.apply_chat_template(conversations, add_generation_prompt=True)
    assert (inputs["attention_mask"] == 0).any()
    with torch.no_grad():
        assert torch.isfinite(tiny_model(**inputs).logits).all()


def test_placeholders_must_match_the_clips(tiny_model, tiny_processor, conversations):
    inputs = tiny_processor.apply_chat_template(conversations[0], add_generation_prompt=True)
    inputs["feature_lengths"] = inputs["feature_lengths"] - 8
    with pytest.raises(ValueError, match="audio placeholders"):
        tiny_model(**inputs)


def test_base_model_is_found_by_auto_class(tiny_model):
    assert type(AutoModel.from_config(tiny_model.config)).__name__ == "QwenAudioModel"


def test_readable_prompt(tiny_processor, conversations):
    text = tiny_processor.apply_chat_template(conversations[1], add_generation_prompt=True, tokenize=False)
    assert "Audio 1:<audio></audio>\nAudio 2:<audio></audio>\nCompare them." in text
