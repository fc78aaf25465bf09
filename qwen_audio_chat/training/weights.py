"""The weights at both ends of a run: loaded to be trained, and saved when they are."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoProcessor

from ..errors import UserError
from ..files import atomic_folder
from ..model import QwenAudioConfig, QwenAudioProcessor
from ..model.quantization import bitsandbytes_config, import_bitsandbytes, unpack_while_loading
from .objective import QwenAudioForTraining
from .settings import Method

MAX_SHARD_SIZE = "45MB"


def load_model(source: str, method: Method) -> QwenAudioForTraining:
    """The model of a folder or hub id: in float32 to train all of it, in bfloat16 under adapters, in 4 bits for QLoRA.

    Raises:
        UserError: there is no such model, or its weights can't be trained by this method.
    """
    with _missing_files_reported(source):
        config = QwenAudioConfig.from_pretrained(source)
    if unpack_while_loading(config) and method == "qlora":
        raise UserError(
            "{source} has weights of 8 bits, which QLoRA can't take: use --method lora or full.", source=source
        )
    options: dict[str, Any] = {"config": config, "dtype": torch.float32 if method == "full" else torch.bfloat16}
    if method == "qlora":
        options["quantization_config"] = bitsandbytes_config("int4")
    with _missing_files_reported(source):
        return QwenAudioForTraining.from_pretrained(source, **options)


def load_processor(source: str) -> QwenAudioProcessor:
    """The processor of a folder or hub id.

    Raises:
        UserError: there is none.
    """
    with _missing_files_reported(source):
        return AutoProcessor.from_pretrained(source)


@contextmanager
def _missing_files_reported(source: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # what transformers raises where a folder, a file or a hub can't be reached
        reason = str(error).partition("\n")[0]
        raise UserError("The model {source} can't be loaded: {reason}", source=source, reason=reason) from error


def save_result(model: Any, weights: Mapping[str, Any] | None, processor: QwenAudioProcessor, folder: Path) -> Path:
    """Write a trained model to `folder`; of QLoRA, whose base has 4 bits, the adapters alone, to `adapter` beside it.

    Args:
        model: `QwenAudioForTraining`, perhaps wrapped by PEFT.
        weights: its state, gathered from all processes.
        processor: the model's.
        folder: for a model that is written whole.

    Returns:
        The folder written last.

    Raises:
        UserError: training has diverged.
    """
    if hasattr(model, "merge_and_unload"):  # PEFT's wrapper
        adapter = folder.with_name("adapter")
        with atomic_folder(adapter) as writing:
            model.save_pretrained(writing)
        if getattr(model.base_model.model, "is_loaded_in_4bit", False):
            return adapter
        model, weights = model.merge_and_unload(), None
    if not all(parameter.isfinite().all() for parameter in model.parameters() if parameter.is_floating_point()):
        raise UserError("The weights are no longer finite numbers: train again with a lower --learning-rate.")
    model.save_plain(folder, processor, weights, max_shard_size=MAX_SHARD_SIZE)
    return folder


def merge_adapter(source: str | Path, adapter: str | Path, output: Path) -> None:
    """Write the model of `source` with the changes of an adapter, as a folder that loads like any model.

    The model is held in bfloat16 on the CPU meanwhile.
    """
    import_bitsandbytes()  # before PEFT does, see there
    from peft import PeftModel  # optional

    model: Any = PeftModel.from_pretrained(load_model(str(source), "lora"), adapter).merge_and_unload()
    model.save_plain(output, load_processor(str(source)))
