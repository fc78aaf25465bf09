"""What one run of training is set up with; without PyTorch, so that the command's help text is quick."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

StageName = Literal["align", "joint", "pretrain", "finetune"]
Method = Literal["full", "lora", "qlora"]
OnError = Literal["raise", "skip"]


@dataclass
class TrainSettings:
    """Settings of one stage of training; the options of the command `train` have the same names."""

    model: str  # folder or hub id of the model to start from; "pocket" is the shipped one
    train: list[Path]  # files of data lines to learn from: lines of split "train", or of none
    output: Path  # folder for checkpoints, logs and the result
    dev: list[Path] = field(default_factory=list)  # files to measure on: lines of split "dev", or of none
    stage: StageName = "finetune"  # what is trained, see `stages.STAGES`
    method: Method = "full"  # of the language model: all weights, or adapters on weights of 16 or 4 bits
    lora_rank: int = 64  # rank of the adapters
    steps: int | None = None  # optimizer steps; None counts `epochs` instead
    epochs: float = 1.0  # passes over the data
    minutes: float | None = None  # length of the training, instead of `steps` and `epochs`
    learning_rate: float = 1.0  # factor on the stage's own learning rates
    warmup: int = 50  # steps of rising learning rate, at most a tenth of all
    decay: float = 0.2  # last share of the steps or minutes, in which the learning rate falls to 0
    batch_tokens: int = 2500  # padded tokens in a batch; a second of audio has 25
    accumulate: int = 1  # batches in one optimizer step
    alignment: float | None = None  # weight of the CTC loss beside the language model's; None takes the stage's
    corruption: float = 0.0  # highest share of random tokens in the history of the answers, see `Collator`
    augment: bool = False  # change the sound at random: rooms, noise, telephones, levels
    on_error: OnError = "raise"  # bad data lines: refuse to start, or leave them out
    check_audio: bool = True  # decode every audio file before the start
    eval_every: int = 200  # steps between measurements on `dev`
    save_every: int = 200  # steps between checkpoints
    log_every: int = 10  # steps between log lines
    keep: int = 2  # checkpoints kept
    workers: int = 1  # processes that prepare data
    seed: int = 0  # of everything random
    compile: bool = False  # compile the layers: faster on a GPU, after a start of a minute or two
    full_precision: bool = False  # compute in float32 even where bfloat16 is faster
    gradient_checkpointing: bool = False  # recompute activations: less memory, a third slower
