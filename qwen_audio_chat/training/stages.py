"""What each stage of training changes (arXiv 2311.07919, section 2.2 and 2.3).

"align" and "joint" are this project's additions, for an encoder and a language model that never met.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from ..prompts.tokenizer import special_tokens
from .objective import QwenAudioForTraining


@dataclass(frozen=True)
class Stage:
    """One stage. Learning rates of AdamW stand with the parts they belong to; a part without one stays frozen.

    Attributes:
        encoder: rate of the audio encoder's upper layers and last norm.
        encoder_layers: how many upper layers; None means all of them and the convolutions.
        projector: rate of the projection, the clips' boundaries and the alignment head.
        tags: rate of the added tags' rows in embedding and head.
        text: rate of the language model, without its embedding and head.
        text_method: train all of the language model, or adapters on its linear layers (LoRA, Hu et al., 2021), its own
            weights in 16 or in 4 bits (QLoRA, Dettmers et al., 2023).
        alignment: weight of the CTC loss beside the language model's.
        language: whether the language model's loss is computed at all.
    """

    encoder: float | None = None
    encoder_layers: int | None = None
    projector: float | None = None
    tags: float | None = None
    text: float | None = None
    text_method: Literal["full", "lora", "qlora"] = "full"
    alignment: float = 0.0
    language: bool = True


STAGES = {
    "align": Stage(encoder=3e-4, encoder_layers=3, projector=2e-3, alignment=1.0, language=False),
    "joint": Stage(encoder=3e-5, encoder_layers=3, projector=1e-4, tags=3e-4, text=1.5e-4, alignment=0.2),
    "pretrain": Stage(encoder=1e-4, projector=5e-4, tags=1e-3),
    "finetune": Stage(text=1e-4),
}


def added_rows(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids of the tags that a text model has never seen: all special tokens but ChatML's."""
    ids = tokenizer.convert_tokens_to_ids(special_tokens(0.01, extra=0) + special_tokens(0.04, extra=0))
    chat = tokenizer.convert_tokens_to_ids(special_tokens(0.04, extra=0)[:3])
    return sorted(set(ids) - {None, tokenizer.unk_token_id, *chat})


def train_rows_only(table: nn.Embedding | nn.Linear, rows: Sequence[int]) -> None:
    """Let only these rows of an embedding or head learn, by zeroing the others' gradients.

    AdamW leaves a row without gradients as it is, if the table has no weight decay.
    """
    keep = torch.zeros(len(table.weight), 1)
    keep[list(rows)] = 1
    table.weight.requires_grad_(True)
    table.weight.register_hook(lambda gradient: gradient * keep.to(gradient))


def prepare(
    model: QwenAudioForTraining, stage: Stage, tokenizer: PreTrainedTokenizerFast, lora_rank: int = 64
) -> tuple[nn.Module, list[dict]]:
    """Freeze and unfreeze a model for a stage.

    Returns:
        The model to train (wrapped by PEFT for LoRA and QLoRA), and groups of parameters: their "names" and "lr".
        Names, because FSDP puts other tensors in the parameters' place.

    Raises:
        ValueError: the stage combines adapters with training of other parts.
    """
    model.requires_grad_(False)
    if stage.text is not None and stage.text_method != "full":
        if stage.encoder or stage.projector or stage.tags:
            raise ValueError(
                "LoRA and QLoRA train the language model's adapters alone: use --method full with this stage."
            )
        return _with_adapters(model, stage, lora_rank)
    groups = []
    names = {parameter: name for name, parameter in model.named_parameters()}

    def train(parameters: Iterable[nn.Parameter], rate: float | None) -> None:
        parameters = list(parameters)
        if rate is not None and parameters:
            for parameter in parameters:
                parameter.requires_grad_(True)
            groups.append({"names": [names[parameter] for parameter in parameters], "lr": rate})

    encoder = model.model.audio_tower
    train(_upper(encoder, stage.encoder_layers), stage.encoder)
    projection = list(model.model.projector.parameters())
    if not stage.language:  # boundaries and scale matter to the language model alone
        projection = list(model.model.projector.linear.parameters())
    train(projection, stage.projector)
    if model.alignment_head is not None:
        heads = (head for head in (model.alignment_head, model.ctc_head) if head is not None)
        train((parameter for head in heads for parameter in head.parameters()), stage.projector)
    table = model.get_input_embeddings()
    train((p for p in model.model.language_model.parameters() if p is not table.weight), stage.text)
    if stage.tags is not None:
        tables = {id(t.weight): t for t in (table, model.lm_head)}.values()  # once where they are tied
        for each in tables:
            train_rows_only(each, added_rows(tokenizer))
        groups.append({"names": [names[each.weight] for each in tables], "lr": stage.tags, "weight_decay": 0.0})
    return model, groups


def _upper(encoder: nn.Module, layers: int | None) -> Iterator[nn.Parameter]:
    """The parameters of the upper layers; the positions are fixed sinusoids and never train."""
    if layers is None:
        yield from (p for p in encoder.parameters() if p is not encoder.embed_positions.weight)
        return
    for layer in encoder.layers[len(encoder.layers) - layers :]:
        yield from layer.parameters()
    yield from encoder.layer_norm.parameters()


def _with_adapters(model: QwenAudioForTraining, stage: Stage, rank: int) -> tuple[nn.Module, list[dict]]:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training  # imports bitsandbytes: only if needed

    if stage.text_method == "qlora":
        model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
    names = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules=rf".*language_model\..*\.({names})"
    )
    wrapped = get_peft_model(model, config)
    return wrapped, [{"names": [n for n, p in wrapped.named_parameters() if p.requires_grad], "lr": stage.text}]
