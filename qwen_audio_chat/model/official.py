"""The layout of the released checkpoints (model type "qwen"): configuration, weight names, ids and defaults.

Qwen-Audio's files have the same model type and class name as text-only Qwen and Qwen-VL; only the `audio` part of
their configuration tells them apart.
"""

from typing import Any

from transformers import GenerationConfig
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, WeightConverter, WeightRenaming

from ..errors import UserError
from ..prompts.tokenizer import AUDIO_END, AUDIO_PLACEHOLDER, AUDIO_START, END_OF_TEXT, IM_END, IM_START, special_tokens

MODEL_TYPE = "qwen"
VOCABULARY_FILE = "qwen.tiktoken"
LICENCE = (
    "Qwen-Audio's weights are used under the Tongyi Qianwen License Agreement, which allows commercial use but asks "
    "services with more than 100 million monthly users for a licence of their own: see the file LICENSE beside them."
)
TOKEN_IDS = {token: 151643 + n for n, token in enumerate(special_tokens())}

# Official names of weights as regular expressions, and ours.
_WEIGHT_NAMES = {
    r"^transformer\.wte\.": "model.language_model.embed_tokens.",
    r"^transformer\.ln_f\.": "model.language_model.norm.",
    r"^transformer\.h\.": "model.language_model.layers.",
    r"\.ln_1\.": ".input_layernorm.",
    r"\.ln_2\.": ".post_attention_layernorm.",
    r"\.attn\.c_proj\.": ".self_attn.o_proj.",
    r"\.mlp\.w1\.": ".mlp.up_proj.",
    r"\.mlp\.w2\.": ".mlp.gate_proj.",
    r"\.mlp\.c_proj\.": ".mlp.down_proj.",
    r"^transformer\.audio\.audio_bos_eos_token\.": "model.projector.boundary_embeddings.",
    r"^transformer\.audio\.proj\.": "model.projector.linear.",
    r"^transformer\.audio\.positional_embedding$": "model.audio_tower.embed_positions.weight",
    r"^transformer\.audio\.ln_post\.": "model.audio_tower.layer_norm.",
    r"^transformer\.audio\.blocks\.": "model.audio_tower.layers.",
    r"^transformer\.audio\.": "model.audio_tower.",
    r"\.attn\.query\.": ".self_attn.q_proj.",
    r"\.attn\.key\.": ".self_attn.k_proj.",
    r"\.attn\.value\.": ".self_attn.v_proj.",
    r"\.attn\.out\.": ".self_attn.out_proj.",
    r"\.attn_ln\.": ".self_attn_layer_norm.",
    r"\.mlp\.0\.": ".fc1.",
    r"\.mlp\.2\.": ".fc2.",
    r"\.mlp_ln\.": ".final_layer_norm.",
}

# Registered only for the official model type: our own files have our names, whatever their language model is.
register_checkpoint_conversion_mapping(
    MODEL_TYPE,
    [WeightRenaming(source, target) for source, target in _WEIGHT_NAMES.items()]
    + [WeightConverter("attn.c_attn", [f"self_attn.{x}_proj" for x in "qkv"], [Chunk(dim=0)])],
    overwrite=True,
)


def translate_config(official: dict[str, Any]) -> dict[str, Any]:
    """The values of an official config.json in the terms of `QwenAudioConfig`.

    Raises:
        UserError: it belongs to text-only Qwen or Qwen-VL, or its ids don't fit the tokenizer.
    """
    audio = official.get("audio")
    if not isinstance(audio, dict):
        raise UserError(
            "This is a text-only Qwen or a Qwen-VL checkpoint, which has no audio encoder: "
            "use Qwen/Qwen-Audio-Chat or Qwen/Qwen-Audio."
        )
    start = audio.get("audio_start_id")
    if start != TOKEN_IDS[AUDIO_START]:
        first_upload = " as in the first upload of Qwen-Audio-Chat" if start == TOKEN_IDS[AUDIO_START] + 1 else ""
        raise UserError(
            "This checkpoint's audio_start_id is {start}{first_upload}, but its tokenizer has {expected}, so that the "
            "model would not hear any audio: download its current files.",
            start=start,
            first_upload=first_upload,
            expected=TOKEN_IDS[AUDIO_START],
        )
    heads = official["num_attention_heads"]
    return {
        "model_type": MODEL_TYPE,
        "dtype": official.get("torch_dtype"),
        "audio_config": {
            "num_mel_bins": audio["n_mels"],
            "max_source_positions": audio["n_ctx"],
            "d_model": audio["n_state"],
            "encoder_attention_heads": audio["n_head"],
            "encoder_layers": audio["n_layer"],
            "encoder_ffn_dim": 4 * audio["n_state"],
        },
        "text_config": {
            "model_type": "qwen_audio_text",
            "vocab_size": official["vocab_size"],
            "hidden_size": official["hidden_size"],
            "intermediate_size": official["intermediate_size"] // 2,  # the official value counts gate and up together
            "num_hidden_layers": official["num_hidden_layers"],
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": official["seq_length"],
            "rms_norm_eps": official["layer_norm_epsilon"],
            "rope_parameters": {"rope_type": "default", "rope_theta": float(official["rotary_emb_base"])},
            "use_dynamic_ntk": official["use_dynamic_ntk"],
            "use_logn_attn": official["use_logn_attn"],
            "initializer_range": official["initializer_range"],
        },
        "audio_start_id": TOKEN_IDS[AUDIO_START],
        "audio_end_id": TOKEN_IDS[AUDIO_END],
        "audio_token_id": TOKEN_IDS[AUDIO_PLACEHOLDER],
        "tie_word_embeddings": official["tie_word_embeddings"],
    }


def generation_config(released: GenerationConfig, vocab_size: int) -> GenerationConfig:
    """Sampling and chat format as released, stop ids for chat and tagged prompts, and only ids that mean something.

    Suppressed are `<audio>`, `</audio>` and the placeholder, which only mark the place of a clip in a prompt, and the
    rows of the embedding beyond the tokenizer's last token.
    """
    prompt_only = [TOKEN_IDS[token] for token in (AUDIO_PLACEHOLDER, AUDIO_START, AUDIO_END)]
    return GenerationConfig(
        do_sample=released.do_sample,
        top_k=released.top_k,
        top_p=released.top_p,
        max_new_tokens=released.max_new_tokens,
        chat_format=getattr(released, "chat_format", "chatml"),  # "raw" for the pretrained model
        eos_token_id=[TOKEN_IDS[token] for token in (END_OF_TEXT, IM_END, IM_START)],
        pad_token_id=TOKEN_IDS[END_OF_TEXT],
        suppress_tokens=prompt_only + list(range(max(TOKEN_IDS.values()) + 1, vocab_size)),
    )
