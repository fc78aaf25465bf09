"""Which parts of the model each training stage changes, and at which rates (arXiv 2311.07919, sections 2.2 and 2.3).

"align" and "joint" are this project's additions, for an encoder and a language model that never met.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from ..errors import UserError
from ..model.encoder import QwenAudioEncoder
from ..prompts.tokenizer import END_OF_TEXT, IM_END, IM_START, special_tokens
from .objective import QwenAudioForTraining
from .settings import Method, StageName, TrainSettings

ADAPTER_LEARNING_RATE = 2e-4  # adapters start from zero and take a higher rate than whole weights
ADAPTED_LAYERS = r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True)
class Stage:
    """One stage: a learning rate of AdamW for each part that learns; a part without one stays frozen.

    Attributes:
        encoder: learning rate of the audio encoder's upper layers and last norm.
        encoder_layers: how many upper layers; None means all of them and the convolutions.
        projector: learning rate of the projection, the embeddings of a clip's start and end, and both CTC heads.
        tags: learning rate of the added tags' rows in the embedding and the head.
        text: learning rate of the language model, without its embedding and head.
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
    text_method: Method = "full"
    alignment: float = 0.0
    language: bool = True


STAGES: dict[StageName, Stage] = {
    "align": Stage(encoder=3e-4, encoder_layers=3, projector=2e-3, alignment=1.0, language=False),
    "joint": Stage(encoder=3e-5, encoder_layers=3, projector=1e-4, tags=3e-4, text=1.5e-4, alignment=0.2),
    "pretrain": Stage(encoder=1e-4, projector=5e-4, tags=1e-3),
    "finetune": Stage(text=1e-4),
}


def stage_of(settings: TrainSettings) -> Stage:
    """The stage that settings name, with the changes that they make to it."""
    stage = STAGES[settings.stage]
    if settings.method != "full":
        stage = replace(stage, text_method=settings.method, text=ADAPTER_LEARNING_RATE)
    return stage if settings.alignment is None else replace(stage, alignment=settings.alignment)


def added_rows(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids of the tags that a text model has never seen: all special tokens but ChatML's."""
    tokens = {*special_tokens(0.01, extra=0), *special_tokens(0.04, extra=0)} - {END_OF_TEXT, IM_START, IM_END}
    ids = [tokenizer.convert_tokens_to_ids(token) for token in tokens]
    return sorted({i for i in ids if isinstance(i, int) and i != tokenizer.unk_token_id})


def train_rows_only(table: nn.Embedding | nn.Linear, rows: Sequence[int]) -> None:
    """Let only these rows of an embedding or head learn, by zeroing the gradients of all others.

    Without weight decay, AdamW doesn't change a row whose gradients are zero.
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
        The model to train (wrapped by PEFT for LoRA and QLoRA), and groups of parameters with their "names" and "lr":
        names, because FSDP replaces the parameters themselves.

    Raises:
        UserError: the stage combines adapters with training of other parts.
    """
    model.requires_grad_(False)
    if stage.text is not None and stage.text_method != "full":
        if stage.encoder or stage.projector or stage.tags:
            raise UserError(
                "LoRA and QLoRA train the language model's adapters alone: use --method full with this stage."
            )
        return _with_adapters(model, stage, lora_rank)
    groups = []
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}

    def train(parameters: Iterable[nn.Parameter], rate: float | None) -> None:
        parameters = list(parameters)
        if rate is not None and parameters:
            for parameter in parameters:
                parameter.requires_grad_(True)
            groups.append({"names": [names[parameter] for parameter in parameters], "lr": rate})

    encoder = model.model.audio_tower
    train(_upper(encoder, stage.encoder_layers), stage.encoder)
    projection = list(model.model.projector.parameters())
    if not stage.language:  # only the language model reads the boundaries and the scale
        projection = list(model.model.projector.linear.parameters())
    train(projection, stage.projector)
    if model.alignment_head is not None:
        heads = (head for head in (model.alignment_head, model.ctc_head) if head is not None)
        train((parameter for head in heads for parameter in head.parameters()), stage.projector)
    table = model.get_input_embeddings()
    assert isinstance(table, nn.Embedding)
    train((p for p in model.model.language_model.parameters() if p is not table.weight), stage.text)
    if stage.tags is not None:
        tables = {id(t.weight): t for t in (table, model.lm_head)}.values()  # only one where they are tied
        for tag_table in tables:
            train_rows_only(tag_table, added_rows(tokenizer))
        tag_names = [names[tag_table.weight] for tag_table in tables]
        groups.append({"names": tag_names, "lr": stage.tags, "weight_decay": 0.0})
    return model, groups


def _upper(encoder: QwenAudioEncoder, layers: int | None) -> Iterator[nn.Parameter]:
    """The parameters of the upper layers; the positions are fixed sinusoids, which don't learn."""
    if layers is None:
        yield from (p for p in encoder.parameters() if p is not encoder.embed_positions.weight)
        return
    for layer in encoder.layers[len(encoder.layers) - layers :]:
        yield from layer.parameters()
    yield from encoder.layer_norm.parameters()


def _with_adapters(model: QwenAudioForTraining, stage: Stage, rank: int) -> tuple[nn.Module, list[dict]]:
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training  # optional

    if stage.text_method == "qlora":
        model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.05, target_modules=ADAPTED_LAYERS)
    wrapped = get_peft_model(model, config)
    return wrapped, [{"names": [n for n, p in wrapped.named_parameters() if p.requires_grad], "lr": stage.text}]
