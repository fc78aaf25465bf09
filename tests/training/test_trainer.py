"""Training runs: every stage learns, and only what it should; interruption and several processes change nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMultimodalLM, AutoTokenizer

from qwen_audio_chat.data.lines import DataError
from qwen_audio_chat.errors import UserError
from qwen_audio_chat.files import atomic_folder
from qwen_audio_chat.loading import POCKET
from qwen_audio_chat.pocket.release import release
from qwen_audio_chat.training.manifest import read_manifests
from qwen_audio_chat.training.run import examples_within, record_run, token_count, train
from qwen_audio_chat.training.stages import STAGES, prepare
from qwen_audio_chat.training.trainer import LengthBatches
from qwen_audio_chat.training.weights import load_model, merge_adapter


def options(folder, manifest, output, *more):
    return ["--model", folder, "--train", manifest, "--dev", manifest, "--output", output, "--batch-tokens", 260,
            "--warmup", 2, "--workers", 0, "--save-every", 4, "--eval-every", 100, *more]  # fmt: skip


def changed(before: Path, after: Path, tolerance: float = 0.0) -> set[str]:
    """Names of the weights that differ by more than a share of themselves."""
    old = AutoModelForMultimodalLM.from_pretrained(before).state_dict()
    new, info = AutoModelForMultimodalLM.from_pretrained(after, output_loading_info=True)
    assert not any(info.values())
    return {
        name for name, value in new.state_dict().items() if not value.float().allclose(old[name].float(), tolerance, 0)
    }


def parts(names: set[str]) -> set[str]:
    """Parts of the model that hold these weights."""
    return {name.removeprefix("model.").split(".")[0] for name in names}


def history(output: Path) -> list[dict]:
    last = max(output.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return json.loads((last / "trainer_state.json").read_text())["log_history"]


@pytest.mark.slow
def test_align_trains_projection_and_upper_encoder(tiny_folder, manifest, tmp_path, parse):
    output = tmp_path / "align"
    settings = parse(*options(tiny_folder, manifest, output, "--stage", "align", "--steps", 8))
    names = changed(tiny_folder, train(settings))
    assert "model.projector.linear.weight" in names
    assert parts(names) == {"projector", "audio_tower", "ctc_head"}
    assert "model.projector.scale" not in names
    assert (output / "final/alignment.safetensors").exists()
    assert (output / "loss.png").stat().st_size > 1000


@pytest.mark.slow
def test_finetune_trains_the_language_model_alone(tiny_folder, manifest, tmp_path, parse):
    settings = parse(*options(tiny_folder, manifest, tmp_path / "out", "--steps", 4, "--corruption", 0.2))
    names = changed(tiny_folder, train(settings))
    assert parts(names) == {"language_model"}
    assert not any("embed_tokens" in name for name in names)


@pytest.mark.slow
def test_joint_trains_the_language_model_and_what_feeds_it(tiny_folder, manifest, tmp_path, parse, tiny_tokenizer):
    settings = parse(
        *options(tiny_folder, manifest, tmp_path / "joint", "--stage", "joint", "--steps", 8, "--log-every", 2)
    )
    names = changed(tiny_folder, train(settings))
    embeddings = {name for name in names if "embed_tokens" in name or "lm_head" in name}
    assert parts(names - embeddings) == {"audio_tower", "projector", "language_model", "ctc_head"}
    assert not any("conv" in name or "embed_positions" in name for name in names)
    logged = [entry for entry in history(tmp_path / "joint") if "alignment_loss" in entry]
    assert logged and all("language_loss" in entry for entry in logged)


@pytest.mark.slow
def test_the_shipped_pocket_is_trained_as_floats():
    model = load_model(str(POCKET), "full")
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    _, groups = prepare(model, STAGES["finetune"], AutoTokenizer.from_pretrained(POCKET))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) > 100e6 and len(groups) == 1


@pytest.mark.slow
def test_pretrain_trains_the_encoder_and_only_the_rows_of_tags(tiny_folder, manifest, tmp_path, parse, tiny_tokenizer):
    output = tmp_path / "out"
    settings = parse(*options(tiny_folder, manifest, output, "--stage", "pretrain", "--steps", 4, "--alignment", 0.3))
    names = changed(tiny_folder, train(settings))
    tables = {"model.language_model.embed_tokens.weight", "lm_head.weight"}
    assert names >= tables and parts(names - tables) == {"projector", "audio_tower", "ctc_head"}
    old, new = (AutoModelForMultimodalLM.from_pretrained(f).lm_head.weight for f in (tiny_folder, output / "final"))
    moved = (old != new).any(dim=1).nonzero().flatten().tolist()
    tokens = set(tiny_tokenizer.convert_ids_to_tokens(moved))
    assert "<|transcribe|>" in tokens
    assert not tokens & {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "the", "Ġthe", "a"}


@pytest.mark.slow
def test_adapters_are_merged_into_the_result(tiny_folder, manifest, tmp_path, parse):
    output = tmp_path / "out"
    train(parse(*options(tiny_folder, manifest, output, "--steps", 4, "--method", "lora", "--lora-rank", 4)))
    adapter = load_file(output / "adapter/adapter_model.safetensors")
    assert adapter and all("language_model" in name for name in adapter)
    old = AutoModelForMultimodalLM.from_pretrained(tiny_folder, dtype=torch.bfloat16).state_dict()
    new = AutoModelForMultimodalLM.from_pretrained(output / "final").state_dict()
    names = {name for name in new if not torch.equal(new[name], old[name])}
    assert names and all("language_model.layers" in name and name.endswith("_proj.weight") for name in names)


@pytest.mark.slow
def test_adapters_on_four_bits_are_saved_alone(tiny_folder, manifest, tmp_path, parse):
    settings = parse(*options(tiny_folder, manifest, tmp_path / "out", "--steps", 4, "--method", "qlora", "--dev"))
    model = load_model(str(tiny_folder), "qlora")
    quantized = {name for name, module in model.named_modules() if type(module).__name__ == "Linear4bit"}
    assert quantized and all("language_model.layers" in name for name in quantized)
    folder = train(settings)
    assert folder == tmp_path / "out/adapter"
    learned = load_file(folder / "adapter_model.safetensors")
    started_at_zero = [value for name, value in learned.items() if "lora_B" in name]
    assert started_at_zero and all(value.any() for value in started_at_zero)
    merge_adapter(tiny_folder, folder, tmp_path / "merged")
    differing = changed(tiny_folder, tmp_path / "merged", tolerance=2**-8)  # more than bfloat16 rounds
    assert differing and all("language_model.layers" in name for name in differing)


def losses(output: Path) -> dict[int, float]:
    return {entry["step"]: entry["loss"] for entry in history(output) if "loss" in entry}


def start(folder, manifest, output, *more, launcher=()) -> subprocess.Popen:
    """The command in a process of its own, in float32 so that figures can be compared."""
    arguments = map(str, options(folder, manifest, output, "--full-precision", "--log-every", 1, *more))
    code = "import argparse; from qwen_audio_chat.commands import train_command; p = argparse.ArgumentParser(); " \
           "train_command.add_arguments(p); train_command.run(p.parse_args())"  # fmt: skip
    script = output.parent / "command.py"
    script.write_text(code.replace("; ", "\n"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    return subprocess.Popen([sys.executable, *launcher, str(script), *arguments], env=environment)


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_loss_curve(tiny_folder, manifest, tmp_path):
    settings = ("--stage", "pretrain", "--alignment", 0.3, "--steps", 24, "--corruption", 0.2, "--keep", 9)
    straight, broken = tmp_path / "straight", tmp_path / "broken"
    first, second = (start(tiny_folder, manifest, output, *settings) for output in (straight, broken))
    while not list(broken.glob("checkpoint-*")):
        assert second.poll() is None
        time.sleep(0.05)
    os.kill(second.pid, signal.SIGKILL)
    second.wait()
    assert not (broken / "final").exists()
    for folder in broken.glob("checkpoint-*"):  # whatever has the name of a checkpoint is whole
        assert (folder / "trainer_state.json").exists() and (folder / "optimizer.pt").exists()
    (broken / "partial" / "checkpoint-20").mkdir(parents=True)  # as a process killed while saving leaves it
    assert start(tiny_folder, manifest, broken, *settings).wait() == 0
    assert first.wait() == 0
    assert losses(broken) == losses(straight)
    assert not changed(straight / "final", broken / "final")


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tiny_folder, manifest, tmp_path):
    settings = ("--stage", "pretrain", "--steps", 4)
    one = start(tiny_folder, manifest, tmp_path / "one", *settings, "--accumulate", 2)
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29611")
    two = start(tiny_folder, manifest, tmp_path / "two", *settings, launcher=launcher)
    assert one.wait() == 0 and two.wait() == 0
    single, double = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert double == pytest.approx(single, rel=1e-4)


@pytest.mark.slow
def test_a_run_of_minutes_ends_on_time_with_its_decay_and_resumes(tiny_folder, manifest, tmp_path, parse):
    def settings(minutes: float):
        return parse(*options(tiny_folder, manifest, tmp_path / "out", "--minutes", minutes, "--decay", 0.5,
                              "--log-every", 1))  # fmt: skip

    started = time.monotonic()
    assert (train(settings(0.05)) / "config.json").exists()
    assert time.monotonic() - started < 30
    entries = [entry for entry in history(tmp_path / "out") if "loss" in entry]
    rates = [entry["learning_rate"] for entry in entries]
    top = max(rates)
    assert rates[0] < top and rates[-1] < 0.2 * top  # warm-up, then decay
    assert rates[rates.index(top) :] == sorted(rates[rates.index(top) :], reverse=True)
    last = max(tmp_path.glob("out/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert json.loads((last / "elapsed.json").read_text()) == pytest.approx(3, abs=0.5)

    train(settings(0.1))  # longer: three seconds are left
    steps = [entry["step"] for entry in history(tmp_path / "out") if "loss" in entry]
    assert steps == sorted(set(steps)) and steps[-1] > entries[-1]["step"]
    last = max(tmp_path.glob("out/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert json.loads((last / "elapsed.json").read_text()) == pytest.approx(6, abs=0.5)


@pytest.mark.slow
def test_two_processes_end_at_the_same_step(tiny_folder, manifest, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29613")
    run = start(tiny_folder, manifest, tmp_path / "two", "--minutes", 0.05, launcher=launcher)
    assert run.wait(timeout=120) == 0
    assert (tmp_path / "two/final/config.json").exists()


@pytest.mark.parametrize("other", [("--steps", 4), ("--epochs", 2)])
def test_minutes_exclude_steps_and_epochs(tiny_folder, manifest, tmp_path, parse, capsys, other):
    with pytest.raises(SystemExit):
        parse(*options(tiny_folder, manifest, tmp_path / "out", "--minutes", 1, *other))
    assert "not allowed with argument" in capsys.readouterr().err
    settings = parse(*options(tiny_folder, manifest, tmp_path / "out", "--steps", 4))
    settings.minutes = 1
    with pytest.raises(UserError, match="in steps or in minutes"):
        train(settings)


@pytest.mark.slow
def test_compiled_layers_learn_the_same(tiny_folder, manifest, tmp_path, parse):
    results = []
    for more in ((), ("--compile",)):
        settings = parse(*options(tiny_folder, manifest, tmp_path / f"out{len(more)}", "--stage", "joint", "--steps", 3,
                                  "--full-precision", "--log-every", 1, *more))  # fmt: skip
        train(settings)
        results.append(losses(settings.output))
    assert results[1] == pytest.approx(results[0], rel=1e-3)


def test_a_folder_holds_one_run(tiny_folder, manifest, tmp_path, parse):
    settings = options(tiny_folder, manifest, tmp_path / "out")
    record_run(parse(*settings, "--steps", 4))
    record_run(parse(*settings, "--steps", 8))  # longer, but the same
    with pytest.raises(UserError, match="another learning_rate, seed: choose another --output"):
        record_run(parse(*settings, "--seed", 5, "--learning-rate", 2))


def test_one_folder_of_a_model_may_be_written_in_several_ways(tiny_folder, manifest, tmp_path, parse):
    record_run(parse(*options(f"{tiny_folder}/", manifest, tmp_path / "out")))
    record_run(parse(*options(f"{tiny_folder.parent}/./{tiny_folder.name}", manifest, tmp_path / "out")))


def test_a_start_that_failed_leaves_nothing_behind(tiny_folder, manifest, tmp_path, parse):
    for bad in (["--model", tmp_path / "nowhere"], ["--train", tmp_path / "nowhere.jsonl"]):
        with pytest.raises(UserError):
            train(parse(*options(tiny_folder, manifest, tmp_path / "out"), *bad))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--steps", 0), ("--epochs", -1), ("--learning-rate", "nan"), ("--learning-rate", "inf"), ("--alignment", -1),
     ("--corruption", 5), ("--decay", 2), ("--batch-tokens", -5), ("--eval-every", 0), ("--save-every", 0),
     ("--keep", 0), ("--accumulate", 0), ("--log-every", -2), ("--workers", -1), ("--lora-rank", "x")],
)  # fmt: skip
def test_numbers_out_of_bounds_are_refused(tiny_folder, manifest, tmp_path, parse, capsys, option, value):
    with pytest.raises(SystemExit):
        parse(*options(tiny_folder, manifest, tmp_path), option, value)
    assert f"argument {option}: " in capsys.readouterr().err


def test_weights_that_are_not_finite_are_not_saved(tiny_folder, manifest, tmp_path, parse):
    settings = parse(*options(tiny_folder, manifest, tmp_path / "out", "--steps", 2, "--learning-rate", 1e12))
    settings.learning_rate = float("nan")
    with pytest.raises(UserError, match="lower --learning-rate"):
        train(settings)
    assert not (tmp_path / "out/final").exists()


def test_an_example_longer_than_the_model_is_refused_or_left_out(tiny_tokenizer, manifest, caplog):
    examples = read_manifests([manifest])
    tokens = sorted(round(token_count(example, tiny_tokenizer)) for example in examples)
    limit = tokens[-2]
    with pytest.raises(DataError, match=rf"train.jsonl:\d+: about {tokens[-1]} tokens, more than the model's {limit}"):
        examples_within(examples, limit, tiny_tokenizer, "raise")
    assert len(examples_within(examples, limit, tiny_tokenizer, "skip")) == len(examples) - 1
    assert "skipped" in caplog.text
    with pytest.raises(DataError, match="Every example"):
        examples_within(examples, 1, tiny_tokenizer, "skip")


def test_packed_weights_take_no_qlora(tiny_folder, tmp_path):
    release(tiny_folder, tmp_path / "packed")
    with pytest.raises(UserError, match="use --method lora or full"):
        load_model(str(tmp_path / "packed"), "qlora")


def test_every_process_gets_equally_many_batches_however_few_there_are():
    for lengths, replicas in (([5.0], 4), ([5.0, 9.0, 30.0], 2), ([5.0] * 7, 3)):
        batches = LengthBatches(lengths, batch_tokens=10, replicas=replicas)
        visited = list(batches)
        assert len(visited) == len(batches) and len(batches) % replicas == 0
        assert {place for batch in visited for place in batch} == set(range(len(lengths)))


def test_a_folder_gets_its_name_when_it_is_complete(tmp_path):
    folder = tmp_path / "final"
    for word in ("old", "new"):
        with atomic_folder(folder) as partial:
            (partial / word).touch()
            (partial / "config.json").touch()
            assert not (folder / word).exists()
    with pytest.raises(KeyboardInterrupt), atomic_folder(folder) as partial:
        (partial / "half").touch()
        raise KeyboardInterrupt
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "new"]
    (tmp_path / "talks").mkdir()
    (tmp_path / "talks/mine.wav").touch()
    with pytest.raises(ValueError, match="something other than a model"), atomic_folder(tmp_path / "talks"):
        pass
    assert (tmp_path / "talks/mine.wav").exists()
