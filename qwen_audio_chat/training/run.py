"""`python -m qwen_audio_chat train`: one stage of training from manifests, at any size."""

import argparse
import logging
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from transformers import AutoProcessor, TrainingArguments, set_seed

from ..audio.features import TOKENS_PER_SECOND
from ..commands.arguments import number
from ..files import atomic_folder, record_run_identity
from ..model import QwenAudioConfig
from ..model.checkpoint import choose_dtype
from ..model.quantization import bitsandbytes_config, unpack_while_loading
from ..prompts.chatml import encode_conversation, encode_text
from .alignment import AlignmentHead, fit_head, load_head
from .alignment_targets import alignment_target
from .augment import augment
from .collator import Collator
from .manifest import Clip, Example, ManifestError, read_manifests, seconds
from .objective import QwenAudioForTraining
from .stages import STAGES, Stage, prepare
from .trainer import QwenAudioTrainer

RUN_IDENTITY = ("model", "train", "stage", "method", "lora_rank", "learning_rate", "batch_tokens", "accumulate", "alignment",
         "corruption", "augment", "seed")  # fmt: skip
"""What makes a run; how long it goes on, and how often it is measured, may change."""
ADAPTER_RATE = 2e-4  # adapters start from zero and take a higher rate than whole weights

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    count, share, amount = number(int, 1), number(float, 0, 1), number(float, 0)
    add("--model", required=True, help="folder or hub id of the model to start from")
    add("--train", type=Path, nargs="+", required=True, help="manifests (JSONL) to learn from")
    add("--dev", type=Path, nargs="*", default=[], help="manifests to measure on: lines of split dev or of none")
    add("--output", type=Path, required=True, help="folder for checkpoints, logs and the result")
    add("--stage", choices=STAGES, default="finetune", help="what is trained (default: %(default)s)")
    add(
        "--method",
        choices=("full", "lora", "qlora"),
        default="full",
        help="of the language model (default: %(default)s)",
    )
    add("--lora-rank", type=count, default=64, help="rank of the adapters (default: %(default)s)")
    add("--steps", type=count, default=None, help="optimizer steps; instead of --epochs")
    add("--epochs", type=number(float, 0.001), default=1.0, help="passes over the data (default: %(default)s)")
    add("--learning-rate", type=amount, default=1.0, help="factor on the stage's own learning rates (default: 1)")
    add("--warmup", type=number(int, 0), default=50, help="steps of rising rate, at most a tenth of all (default: 50)")
    add("--decay", type=share, default=0.2, help="last part of the steps in which the rate falls to 0 (default: 0.2)")
    add(
        "--batch-tokens",
        type=count,
        default=2500,
        help="padded tokens in a batch; 25 a second of sound (default: 2500)",
    )
    add("--accumulate", type=count, default=1, help="batches for one step (default: 1)")
    add("--alignment", type=amount, default=None, help="weight of the CTC loss beside the language model's")
    add("--corruption", type=share, default=0.0, help="most random words in the answers' history (default: 0)")
    add("--augment", action="store_true", help="change the sound at random: rooms, noise, telephones, levels")
    add("--on-error", choices=("raise", "skip"), default="raise", help="bad manifest lines: refuse or leave out")
    add("--no-check", action="store_true", help="don't decode every audio file before the start")
    add("--eval-every", type=count, default=200, help="steps between evaluations (default: 200)")
    add("--save-every", type=count, default=200, help="steps between checkpoints (default: 200)")
    add("--log-every", type=count, default=10, help="steps between log lines (default: 10)")
    add("--keep", type=count, default=2, help="checkpoints kept (default: 2)")
    add("--workers", type=number(int, 0), default=1, help="processes that prepare data (default: 1)")
    add("--seed", type=int, default=0, help="of everything that is random (default: 0)")
    add("--full-precision", action="store_true", help="compute in float32 even where bfloat16 is faster")
    add("--gradient-checkpointing", action="store_true", help="recompute activations: less memory, a third slower")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """The command: train one stage and tell where the result is."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    print(f"The trained model is in {train(args)}.")


def train(args: argparse.Namespace) -> Path:
    """Train one stage; goes on from the last checkpoint in `--output` if there is one.

    Returns:
        The folder of the trained model, `<output>/final`.

    Raises:
        ManifestError: a manifest has bad lines and `--on-error` is "raise".
        ValueError: the folder holds another run.
    """
    set_seed(args.seed)  # before anything new is drawn, such as the alignment head
    stage = stage_of(args)
    read = partial(read_manifests, on_error=args.on_error, check_audio=not args.no_check)
    examples = read(args.train, split="train")
    dev = read(args.dev, split="dev", default_split="dev") if args.dev else []
    if not stage.language:
        examples, dev = ([e for e in each if alignment_target(e) and seconds(e) <= 30] for each in (examples, dev))
        if not examples or (args.dev and not dev):
            whose = "--dev" if examples else "--train"
            raise ManifestError(f"No clip of {whose} says or is anything that the alignment could learn.")

    processor = AutoProcessor.from_pretrained(args.model)
    model = load_model(args.model, args.method)
    record_run(args)  # not before all is read: a start that failed leaves nothing behind
    limit = model.config.text_config.max_position_embeddings
    examples, dev = (fitting(each, limit, processor.tokenizer, args.on_error) for each in (examples, dev))
    if stage.alignment:
        head = load_head(args.model)
        is_new = head is None
        if is_new:
            vocabulary = alignment_vocabulary(processor.tokenizer, examples)
            head = AlignmentHead(model.config.text_config.hidden_size, vocabulary)
        model.attach_alignment(head, stage.alignment)
        if is_new and stage.language:  # a model that can do something would be pulled out of shape by a random head
            fit_head(model, Collator(processor, text=False), [e for e in examples if alignment_target(e)], args.seed)
    model, groups = prepare(model, stage, processor.tokenizer, args.lora_rank)
    for group in groups:
        group["lr"] *= args.learning_rate
    trainer = QwenAudioTrainer(
        model, training_arguments(args), groups, examples, dev,
        Collator(
            processor, args.seed, augment if args.augment else None, mask_features=args.stage == "pretrain",
            corruption=args.corruption, text=stage.language,
        ),
        Collator(processor, text=stage.language),
        lambda example: length(example, processor.tokenizer), args.batch_tokens, args.decay,
    )  # fmt: skip
    trainer.resume()
    return save(trainer, processor, args.output / "final")


def fitting(examples: list[Example], limit: int, tokenizer, on_error: str) -> list[Example]:
    """The examples of at most `limit` tokens, the model's positions.

    Raises:
        ManifestError: some are longer, and `on_error` is "raise"; or no example is left.
    """
    longer = {example.origin: n for example in examples if (n := round(length(example, tokenizer))) > limit}
    for origin, tokens in longer.items():
        reason = f"{origin}: about {tokens} tokens, more than the model's {limit}: shorten it"
        if on_error == "raise":
            raise ManifestError(f"{reason}, or leave such lines out by --on-error skip.")
        log.warning("skipped %s", reason)
    kept = [example for example in examples if example.origin not in longer]
    if examples and not kept:
        raise ManifestError(f"Every example has more tokens than the model's {limit}.")
    return kept


def record_run(args: argparse.Namespace) -> None:
    """Note in the output folder what run it holds, so that no other one goes on from its checkpoints.

    Raises:
        ValueError: it holds another one already.
    """
    if int(os.environ.get("RANK", 0)):  # the first process speaks for all
        return
    identity = {name: str(getattr(args, name)) for name in RUN_IDENTITY}
    if Path(args.model).exists():
        identity["model"] = str(Path(args.model))  # one folder may be written in several ways
    if other := record_run_identity(args.output / "run.json", identity):
        differing = ", ".join(other)
        raise ValueError(f"{args.output} holds a run with another {differing}: choose another --output, or remove it.")


def stage_of(args: argparse.Namespace) -> Stage:
    """The stage with the command's changes."""
    stage = STAGES[args.stage]
    if args.method != "full":
        stage = replace(stage, text_method=args.method, text=ADAPTER_RATE)
    return stage if args.alignment is None else replace(stage, alignment=args.alignment)


def load_model(source: str, method: str) -> QwenAudioForTraining:
    """The model in float32 to train all of it, in bfloat16 under adapters, or in 4 bits for QLoRA."""
    config = QwenAudioConfig.from_pretrained(source)
    if unpack_while_loading(config) and method == "qlora":
        raise ValueError(f"{source} has weights of 8 bits, which QLoRA can't take: use --method lora or full.")
    options = {"config": config, "dtype": torch.float32 if method == "full" else torch.bfloat16}
    if method == "qlora":
        options["quantization_config"] = bitsandbytes_config("int4")
    return QwenAudioForTraining.from_pretrained(source, **options)


def training_arguments(args: argparse.Namespace) -> TrainingArguments:
    """Trainer's settings."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TrainingArguments(
        output_dir=str(args.output),
        max_steps=args.steps or -1,
        num_train_epochs=args.epochs,
        gradient_accumulation_steps=args.accumulate,
        warmup_steps=args.warmup,
        weight_decay=0.01,
        adam_beta2=0.98,
        max_grad_norm=5.0 if args.stage == "align" else 1.0,
        bf16=not args.full_precision and choose_dtype(device) is torch.bfloat16,
        gradient_checkpointing=args.gradient_checkpointing,
        logging_steps=args.log_every,
        eval_strategy="steps" if args.dev else "no",
        eval_steps=args.eval_every,
        save_steps=args.save_every,
        save_total_limit=args.keep,
        prediction_loss_only=True,
        remove_unused_columns=False,
        dataloader_num_workers=args.workers,
        accelerator_config={"even_batches": False},
        report_to="none",
        seed=args.seed,
        use_cpu=device == "cpu",
    )


def alignment_vocabulary(tokenizer, examples: list[Example]) -> list[int]:
    """Every token of what the clips say."""
    told = filter(None, map(alignment_target, examples))
    return sorted({token for each in told for token in each.tokens(tokenizer)})


def length(example: Example, tokenizer) -> float:
    """Tokens of an example, nearly: 25 for a second of sound, and its text."""
    if isinstance(example, Clip):
        text = len(encode_text(tokenizer, example.text)) + 16
    else:
        text = len(encode_conversation(tokenizer, example.messages, [[0]] * len(example.audios)).input_ids)
    return text + TOKENS_PER_SECOND * seconds(example)


def save(trainer: QwenAudioTrainer, processor, folder: Path) -> Path:
    """Write the trained model: whole where that is possible, else (QLoRA) the adapters alone."""
    weights = trainer.accelerator.get_state_dict(trainer.model)  # FSDP gathers them from all processes
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model)
        if hasattr(model, "merge_and_unload"):  # PEFT's wrapper
            with atomic_folder(folder.with_name("adapter")) as writing:
                model.save_pretrained(writing)
            if getattr(model.base_model.model, "is_loaded_in_4bit", False):
                return folder.with_name("adapter")
            model, weights = model.merge_and_unload(), None
        if not all(parameter.isfinite().all() for parameter in model.parameters() if parameter.is_floating_point()):
            raise ValueError("The weights are no longer finite numbers: train again with a lower --learning-rate.")
        model.save_plain(folder, processor, weights, max_shard_size="45MB")
    return folder
