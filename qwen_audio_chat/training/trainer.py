"""The training loop: transformers' Trainer, with batches by length, atomic checkpoints, a time limit and a plot."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import BatchSampler, DataLoader

from ..model.checkpoint import choose_dtype
from ..model.quantization import import_bitsandbytes
from .collator import Collator, Visits
from .manifest import Example
from .settings import TrainSettings

import_bitsandbytes()  # before Trainer's modules do, see there

from accelerate.utils import broadcast  # noqa: E402
from transformers import Trainer, TrainerCallback, TrainingArguments, get_wsd_schedule  # noqa: E402
from transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints  # noqa: E402

ELAPSED_FILE = "elapsed.json"  # of a checkpoint: the seconds of training until there
ENDLESS = 2**30  # steps of a run that ends by the clock
PARTIAL = "partial"  # a checkpoint is written here and then moved, so that it exists as a whole or not at all


def training_arguments(settings: TrainSettings) -> TrainingArguments:
    """Trainer's own form of the settings."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TrainingArguments(
        output_dir=str(settings.output),
        max_steps=ENDLESS if settings.minutes else settings.steps or -1,
        num_train_epochs=settings.epochs,
        gradient_accumulation_steps=settings.accumulate,
        warmup_steps=settings.warmup,
        weight_decay=0.01,
        adam_beta2=0.98,
        max_grad_norm=5.0 if settings.stage == "align" else 1.0,
        bf16=not settings.full_precision and choose_dtype(device) is torch.bfloat16,
        gradient_checkpointing=settings.gradient_checkpointing,
        logging_steps=settings.log_every,
        eval_strategy="steps" if settings.dev else "no",
        eval_steps=settings.eval_every,
        save_steps=settings.save_every,
        save_total_limit=settings.keep,
        prediction_loss_only=True,
        remove_unused_columns=False,
        dataloader_num_workers=settings.workers,
        accelerator_config={"even_batches": False, "non_blocking": device == "cuda"},
        report_to="none",
        disable_tqdm=True if settings.minutes else None,  # no bar can show an unknown number of steps
        logging_nan_inf_filter=False,  # it would wait for the device at every step
        seed=settings.seed,
        use_cpu=device == "cpu",
    )


class LengthBatches(BatchSampler):
    """Batches of similar lengths with a bounded padded size; their number is the same in every epoch.

    Args:
        lengths: of every example, in tokens.
        batch_tokens: bound on the longest length times the rows; an example beyond it is a batch of one.
        seed: of the order.
        replicas: number of processes; that of the batches is a multiple of it, so that all get equally many.
    """

    def __init__(self, lengths: Sequence[float], batch_tokens: float, seed: int = 0, replicas: int = 1):
        self.lengths = np.asarray(lengths, dtype=np.float64)
        self.seed, self.epoch = seed, 0
        self.sizes, count = [], 0
        for length in np.sort(self.lengths):
            if count and (count + 1) * length > batch_tokens:
                self.sizes.append(count)
                count = 0
            count += 1
        self.sizes.append(count)
        self.repeated = -len(self.sizes) % replicas

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.sizes) + self.repeated

    def __iter__(self) -> Iterator[list[int]]:
        """Batches of visits (see `collator.Visits`); which examples share a batch changes with the epoch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        order = np.argsort(self.lengths * rng.uniform(0.95, 1.05, len(self.lengths)))
        batches = np.split(order + self.epoch * len(self.lengths), np.cumsum(self.sizes)[:-1])
        batches = [batches[i] for i in rng.permutation(len(batches))]
        for batch in islice(cycle(batches), len(self)):
            yield batch.tolist()


class QwenAudioTrainer(Trainer):
    """Trainer for `QwenAudioForTraining`.

    Args:
        model: prepared by `stages.prepare`, perhaps wrapped by PEFT.
        arguments: see `training_arguments`.
        groups: groups of parameters, as `stages.prepare` returns them.
        train_examples, dev_examples: what to learn and what to measure on.
        collator, dev_collator: with and without randomness.
        length_of: the length of an example in tokens.
        batch_tokens: see `LengthBatches`.
        decay: last share of the steps or of the time, in which the learning rates fall to zero.
        minutes: ends the training after this time instead of a number of steps; what a resumed run has spent counts.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        arguments: TrainingArguments,
        groups: list[dict],
        train_examples: Sequence[Example],
        dev_examples: Sequence[Example],
        collator: Collator,
        dev_collator: Collator,
        length_of: Callable[[Example], float],
        batch_tokens: float,
        decay: float = 0.2,
        minutes: float | None = None,
    ):
        self.groups, self.dev_collator, self.length_of = groups, dev_collator, length_of
        self.batch_tokens, self.decay = batch_tokens, decay
        self._clock = _Clock(60 * minutes) if minutes else None
        self._partial_losses: dict[str, list[torch.Tensor]] = {}  # by name, since the last log line
        self.train_visits, self.dev_visits, self.train_collator = Visits(train_examples), Visits(dev_examples), collator
        self.output = Path(arguments.output_dir or ".")
        super().__init__(
            model,
            arguments,
            collator,
            self.train_visits,
            self.dev_visits if dev_examples else None,
            callbacks=[_SetEpoch(), _PlotLoss(), *([self._clock] if self._clock else [])],
        )
        self.model_accepts_loss_kwargs = False  # the loss is a mean over the batch
        self.output.mkdir(parents=True, exist_ok=True)
        if self.args.should_save:
            shutil.rmtree(self.output / PARTIAL, ignore_errors=True)

    def get_train_dataloader(self) -> DataLoader:
        replicas = self.accelerator.num_processes
        self.batches = self._batches(self.train_visits, self.args.data_seed or self.args.seed, replicas)
        return self.accelerator.prepare(self._loader(self.train_visits, self.batches, self.train_collator))

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        batches = self._batches(self.dev_visits, 0, self.accelerator.num_processes)
        return self.accelerator.prepare(self._loader(self.dev_visits, batches, self.dev_collator))

    def _batches(self, visits: Visits, seed: int, replicas: int) -> LengthBatches:
        return LengthBatches([self.length_of(each) for each in visits.examples], self.batch_tokens, seed, replicas)

    def _loader(self, dataset: Visits, batches: LengthBatches, collator: Collator) -> DataLoader:
        return DataLoader(
            dataset, batch_sampler=batches, collate_fn=collator, num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.device.type == "cuda",
        )  # fmt: skip

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            wrappers = ("module.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
            parameters = {}
            for name, parameter in (model or self._model).named_parameters():
                for wrapper in wrappers:
                    name = name.replace(wrapper, "")
                parameters[name] = parameter
            groups = [
                {key: value for key, value in group.items() if key != "names"}
                | {"params": [parameters[name] for name in group["names"]]}
                for group in self.groups
            ]
            self.optimizer = torch.optim.AdamW(
                groups,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                weight_decay=self.args.weight_decay,
                fused=True,  # one pass over the memory, which takes a quarter of the time on a CPU
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        """Warm-up, a constant rate, and a linear decay: a checkpoint from before the decay can start a longer run."""
        if self.lr_scheduler is None and self._clock is not None:
            clock, warmup, decay = self._clock, self.args.warmup_steps, self.decay

            def rate(step: int) -> float:
                rising = max(step / warmup, 10 * clock.share) if warmup else 1.0
                falling = (1 - clock.share) / decay if decay else 1.0
                return max(0.0, min(1.0, rising, falling))

            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, rate)
        elif self.lr_scheduler is None:
            self.lr_scheduler = get_wsd_schedule(
                optimizer or self.optimizer, min(int(self.args.warmup_steps), num_training_steps // 10),
                round(self.decay * num_training_steps), num_training_steps, decay_type="linear",
            )  # fmt: skip
        return self.lr_scheduler

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        if self._model.training:
            for name, value in outputs.items():
                if name != "loss":
                    self._partial_losses.setdefault(name, []).append(value.detach())
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def log(self, logs: dict[str, float], *args, **kwargs) -> None:
        if "loss" in logs:
            logs |= {name: round(torch.stack(values).mean().item(), 4) for name, values in self._partial_losses.items()}
            self._partial_losses.clear()
        super().log(logs, *args, **kwargs)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss of the held-out batches.

        Trainer's own loop gathers one loss per example, which fails where processes have batches of different sizes.
        """
        self._model.eval()
        total, batches = torch.zeros(2, device=self.args.device)
        for inputs in self.get_eval_dataloader():
            with torch.no_grad(), self.compute_loss_context_manager():
                loss = self._model(**self._prepare_inputs(inputs))["loss"]
            total, batches = total + loss.detach(), batches + 1
        sums: Any = self.accelerator.reduce(torch.stack((total, batches)), "sum")
        metrics = {f"{metric_key_prefix}_loss": float(sums[0] / sums[1])}
        self._model.train()
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @property
    def _model(self) -> torch.nn.Module:
        """The model, which Trainer types as one that may be missing."""
        assert self.model is not None
        return self.model

    def _get_output_dir(self, trial) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, PARTIAL) if getattr(self, "_is_saving", False) else folder

    def _save_checkpoint(self, model, trial) -> None:
        """Write the checkpoint into another folder, then rename it: a killed process leaves no half of a checkpoint."""
        self._is_saving = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._is_saving = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            name = f"checkpoint-{self.state.global_step}"
            if self._clock is not None:
                Path(self.output, PARTIAL, name, ELAPSED_FILE).write_text(json.dumps(self._clock.elapsed))
            shutil.rmtree(self.output / name, ignore_errors=True)
            os.replace(self.output / PARTIAL / name, self.output / name)
            rotate_checkpoints(str(self.output), self.args.save_total_limit)
        self.accelerator.wait_for_everyone()

    def resume(self) -> None:
        """Train to the end, from the last checkpoint where there is one."""
        checkpoint = get_last_checkpoint(str(self.output))
        if self._clock is not None and checkpoint and (file := Path(checkpoint, ELAPSED_FILE)).is_file():
            self._clock.elapsed = json.loads(file.read_text())
        self.train(resume_from_checkpoint=checkpoint)


class _Clock(TrainerCallback):
    """Ends the training after some seconds, with a checkpoint.

    Attributes:
        elapsed: seconds of training, those before an interruption included; all processes agree on them.
    """

    def __init__(self, seconds: float):
        self.seconds, self.elapsed, self._started = seconds, 0.0, 0.0

    @property
    def share(self) -> float:
        """How much of the time has passed; 1 is all."""
        return self.elapsed / self.seconds

    def on_train_begin(self, args, state, control, **kwargs):
        self._started = time.monotonic() - self.elapsed

    def on_optimizer_step(self, args, state, control, **kwargs):
        """Look at the clock before the next learning rate is chosen."""
        self.elapsed = time.monotonic() - self._started
        if args.world_size > 1:  # the processes stop at the same step
            agreed: Any = broadcast(torch.tensor(self.elapsed, device=args.device))
            self.elapsed = agreed.item()

    def on_step_end(self, args, state, control, **kwargs):
        if self.share >= 1:
            control.should_save = control.should_training_stop = True


class _SetEpoch(TrainerCallback):
    """Set the epoch of the batch sampler, which accelerate doesn't when several processes resume."""

    def on_epoch_begin(self, args, state, control, *, train_dataloader: Any, **kwargs):
        sampler = train_dataloader.batch_sampler
        while not isinstance(sampler, LengthBatches):
            sampler = sampler.batch_sampler
        sampler.set_epoch(int(state.epoch + 1e-6))


class _PlotLoss(TrainerCallback):
    """Draw training and held-out loss to `loss.png` at every evaluation and at the end."""

    def on_evaluate(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            plot_losses(state.log_history, Path(args.output_dir or ".", "loss.png"))

    on_train_end = on_evaluate


def plot_losses(history: Sequence[dict[str, float]], path: Path) -> None:
    """A chart of every loss in a Trainer's log history."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name in ("loss", "language_loss", "alignment_loss", "eval_loss"):
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        if points:
            axes.plot(
                *zip(*points, strict=True), label=name.replace("_", " "), marker="." if len(points) < 30 else None
            )
    axes.set(xlabel="step", ylabel="loss per token", ylim=(0, None))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")
    pyplot.close(figure)
