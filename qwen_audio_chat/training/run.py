"""`train`: one stage of training from manifests, at any size."""

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from accelerate.utils import set_seed  # transformers' own imports bitsandbytes too early, see `trainer`
from transformers import PreTrainedTokenizerFast

from ..audio.cutting import MAX_CLIP_SECONDS
from ..audio.features import TOKENS_PER_SECOND
from ..data.lines import DataError
from ..errors import UserError
from ..files import record_run_identity
from ..prompts.chatml import encode_conversation, encode_text
from ..resources import resolve_model_name
from .alignment import AlignmentHead, load_head
from .alignment_targets import alignment_target, alignment_vocabulary
from .augment import augment
from .collator import TrainingCollator
from .manifest import Clip, Example, audio_seconds, read_manifests
from .objective import fit_alignment_head
from .settings import OnError, TrainSettings
from .stages import prepare, stage_of
from .trainer import QwenAudioTrainer, training_arguments
from .weights import load_model, load_processor, save_result

RUN_IDENTITY = (
    "model", "train", "stage", "method", "lora_rank", "learning_rate", "batch_tokens", "accumulate", "alignment",
    "corruption", "augment", "seed",
)  # fmt: skip
"""The settings that make a run what it is. Its length, and how often it is measured, may change when it resumes."""
PROMPT_TOKENS = 16  # upper bound of the tags and boundaries around a clip's text

log = logging.getLogger(__name__)


def train(settings: TrainSettings) -> Path:
    """Train one stage, resuming from the last checkpoint in `settings.output` if there is one.

    Returns:
        The folder of the trained model, `<output>/final`; of QLoRA, `<output>/adapter`.

    Raises:
        DataError: a manifest has bad lines and `on_error` is "raise", or nothing can be learned from it.
        UserError: the folder holds another run, or method, stage and model don't go together.
    """
    if settings.minutes is not None and settings.steps is not None:
        raise UserError("Give the length of the training in steps or in minutes, not in both.")
    set_seed(settings.seed)  # before anything random is drawn, such as the weights of an alignment head
    stage = stage_of(settings)
    source = resolve_model_name(settings.model)
    read = partial(read_manifests, on_error=settings.on_error, check_audio=settings.check_audio)
    examples = read(settings.train, split="train")
    dev = read(settings.dev, split="dev", default_split="dev") if settings.dev else []
    if not stage.language:
        examples, dev = (
            [each for each in group if alignment_target(each) and audio_seconds(each) <= MAX_CLIP_SECONDS]
            for group in (examples, dev)
        )
        if not examples or (settings.dev and not dev):
            option = "--dev" if examples else "--train"
            raise DataError("No clip of {option} says or is anything that the alignment could learn.", option=option)

    processor = load_processor(source)
    model = load_model(source, settings.method)
    record_run(settings)  # only after everything is read, so that a failed start leaves nothing behind
    limit = model.config.text_config.max_position_embeddings
    examples, dev = (examples_within(group, limit, processor.tokenizer, settings.on_error) for group in (examples, dev))
    if stage.alignment:
        head = load_head(source)
        is_new = head is None
        if is_new:
            vocabulary = alignment_vocabulary(processor.tokenizer, examples)
            head = AlignmentHead(model.config.text_config.hidden_size, vocabulary)
        model.attach_alignment(head, stage.alignment)
        if is_new and stage.language:  # the gradients of a random head would damage a model that is already trained
            aligned = [example for example in examples if alignment_target(example)]
            fit_alignment_head(model, TrainingCollator(processor, text=False), aligned, settings.seed)
    arguments = training_arguments(settings)
    if settings.compile:
        model.compile_layers(arguments.device.type)
    model, groups = prepare(model, stage, processor.tokenizer, settings.lora_rank)
    for group in groups:
        group["lr"] *= settings.learning_rate
    trainer = QwenAudioTrainer(
        model, arguments, groups, examples, dev,
        TrainingCollator(
            processor, settings.seed, augment if settings.augment else None,
            mask_features=settings.stage == "pretrain", corruption=settings.corruption, text=stage.language,
        ),
        TrainingCollator(processor, text=stage.language),
        lambda example: token_count(example, processor.tokenizer), settings.batch_tokens, settings.decay,
        settings.minutes,
    )  # fmt: skip
    trainer.resume()
    weights = trainer.accelerator.get_state_dict(trainer.model)  # under FSDP all processes gather them together
    final = settings.output / "final"
    if not trainer.is_world_process_zero():
        return final
    return save_result(trainer.accelerator.unwrap_model(trainer.model), weights, processor, final)


def examples_within(
    examples: Sequence[Example], limit: int, tokenizer: PreTrainedTokenizerFast, on_error: OnError
) -> list[Example]:
    """The examples of at most `limit` tokens, the model's positions.

    Raises:
        DataError: some are longer, and `on_error` is "raise"; or no example is left.
    """
    counts = {example.origin: round(token_count(example, tokenizer)) for example in examples}
    too_long = {origin: count for origin, count in counts.items() if count > limit}
    for origin, count in too_long.items():
        reason = f"{origin}: about {count} tokens, more than the model's {limit}: shorten it"
        if on_error == "raise":
            raise DataError("{reason}, or leave such lines out by --on-error skip.", reason=reason)
        log.warning("skipped %s", reason)
    kept = [example for example in examples if example.origin not in too_long]
    if examples and not kept:
        raise DataError("Every example has more tokens than the model's {limit}.", limit=limit)
    return kept


def token_count(example: Example, tokenizer: PreTrainedTokenizerFast) -> float:
    """Approximate tokens of an example: 25 for a second of audio, and those of its text."""
    if isinstance(example, Clip):
        text = len(encode_text(tokenizer, example.text)) + PROMPT_TOKENS
    else:
        text = len(encode_conversation(tokenizer, example.messages, [[0]] * len(example.audios)).input_ids)
    return text + TOKENS_PER_SECOND * audio_seconds(example)


def record_run(settings: TrainSettings) -> None:
    """Note in the output folder which run it holds, so that no other run resumes from its checkpoints.

    Raises:
        UserError: it already holds another run.
    """
    if int(os.environ.get("RANK", 0)):  # the first of several processes does it for all
        return
    identity = {name: str(getattr(settings, name)) for name in RUN_IDENTITY}
    if Path(settings.model).exists():
        identity["model"] = str(Path(settings.model))  # the same folder can be written in several ways
    if other := record_run_identity(settings.output / "run.json", identity):
        raise UserError(
            "{output} holds a run with another {settings}: choose another --output, or remove it.",
            output=str(settings.output),
            settings=", ".join(other),
        )
