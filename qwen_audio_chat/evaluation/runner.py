"""Inference over samples: in batches, over several processes, and resumable after any interruption."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from ..audio.audio import Audio
from ..audio.cutting import MAX_CLIP_SAMPLES, MAX_CLIP_SECONDS
from ..audio.decoding import AudioError
from ..data.lines import DataError
from ..errors import UserError
from ..files import atomic_write, record_run_identity
from .normalization import CHARACTER_LANGUAGES
from .predictions import IDENTITY_FILE, PARTS_FOLDER, RESULT_FILE, Prediction, PredictionFile, read_predictions
from .prompting import Request, chat_messages, languages, request, tag_prompt
from .samples import Sample, fingerprint
from .tasks import Task
from .time_metrics import words_to_text

Predict = Callable[[list[Request]], list[str]]
"""Takes requests of one kind (all tag prompts or all conversations) and returns their answers."""

WINDOW_BATCHES = 8
"""Batches whose audio is loaded ahead and sorted by length, so that the clips of a batch are about equally long."""

_NO_AUDIO = Audio(np.zeros(0, np.float32))  # stands in where only the text of a question is checked


@dataclass
class _Job:
    """A sample in progress: its requests (several where long audio is asked in pieces) and their answers so far."""

    sample: Sample
    requests: list[Request] = field(default_factory=list)
    answers: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None
    notice: str | None = None


def processes() -> PartialState:
    """This process among those that `accelerate launch` or `torchrun` started; alone if none did."""
    return PartialState(cpu=not torch.accelerator.is_available())  # without it, processes on CPUs don't connect


class Runner:
    """Asks a model about samples and keeps every answer.

    Each process (started by `accelerate launch` or `torchrun`) writes its own part file below `output`/parts. When all
    samples are done, the main process joins the parts in `output`/predictions.jsonl, in the order of the samples. What
    is on disk is never asked again, even with another batch size or number of processes.

    Args:
        task: what to ask.
        samples: all samples; every process gets the same ones.
        output: folder of this run.
        model: name of the model, part of the identity of the run.
        prompt: ask by tags, or by questions in a chat.
        language: of the audio, where neither sample nor source names it.
        transcript_seconds: of the longest speech that it transcribes at a time, see `AudioChat.transcript_seconds`.

    Raises:
        DataError: a sample can't be asked in this way, or the folder holds the predictions of another run.
    """

    def __init__(
        self,
        task: Task,
        samples: Sequence[Sample],
        output: Path,
        *,
        model: str,
        prompt: Literal["tags", "chat"] = "tags",
        language: str = "en",
        transcript_seconds: float = MAX_CLIP_SECONDS,
    ):
        self.task, self.samples, self.output = task, list(samples), output
        self.prompt: Literal["tags", "chat"] = prompt
        self.language, self.transcript_seconds = language, transcript_seconds
        for sample in self.samples:  # a missing question should be found before hours of work
            if prompt == "chat":
                chat_messages(task, sample, [_NO_AUDIO] * len(sample.audios))
            else:
                tag_prompt(task, sample, language)
        self.identity = {
            "model": model,
            "task": task.name,
            "prompt": prompt,
            "language": language,
            "transcript_seconds": transcript_seconds,
            "official": all(sample.official for sample in self.samples),
            "samples": len(self.samples),
            "data": fingerprint(self.samples),
        }

    def run(self, predict: Predict, batch_size: int = 1) -> list[Prediction]:
        """Answer what isn't answered yet and return all predictions, in the order of the samples.

        Args:
            predict: answers up to `batch_size` requests.
            batch_size: requests asked at once.

        Raises:
            DataError: the folder holds the predictions of another run.
        """
        state = processes()
        difference = self._difference_to_folder() if state.is_main_process else None
        if difference := next((each for each in gather_object([difference]) if each), None):
            raise DataError(
                "{output} holds the predictions of another run ({difference}); choose another --output or delete that "
                "folder.",
                output=str(self.output),
                difference=difference,
            )
        # Gathering also makes every process finish reading before any starts to write.
        done = {prediction.index: prediction for prediction in gather_object(self._stored())}
        todo = [sample for sample in self.samples if sample.index not in done]
        mine = todo[state.process_index :: state.num_processes]
        with (
            PredictionFile(self.output / PARTS_FOLDER / f"{state.process_index:05d}.jsonl") as part,
            tqdm(total=len(mine), desc=self.task.name, unit="clip", disable=not state.is_main_process) as progress,
        ):
            fresh = []
            for prediction in self._predict_all(mine, predict, batch_size):
                part.add(prediction)
                fresh.append(prediction)
                progress.update()
        done |= {prediction.index: prediction for prediction in gather_object(fresh)}
        predictions = [done[sample.index] for sample in self.samples]
        if state.is_main_process:
            self._write_result(predictions)
        state.wait_for_everyone()
        return predictions

    def _difference_to_folder(self) -> str | None:
        """Record this run in its folder; what differs if the folder already holds another one."""
        for name, recorded in record_run_identity(self.output / IDENTITY_FILE, self.identity).items():
            return f"{name}: {recorded}, now {self.identity[name]}"
        return None

    def _stored(self) -> list[Prediction]:
        files = [self.output / RESULT_FILE, *sorted((self.output / PARTS_FOLDER).glob("*.jsonl"))]
        return [prediction for file in files if file.exists() for prediction in read_predictions(file)]

    def _write_result(self, predictions: list[Prediction]) -> None:
        atomic_write(self.output / RESULT_FILE, "".join(prediction.to_line() for prediction in predictions))
        shutil.rmtree(self.output / PARTS_FOLDER)  # every process has closed its own

    def _predict_all(self, samples: list[Sample], predict: Predict, batch_size: int) -> Iterator[Prediction]:
        size = batch_size * WINDOW_BATCHES
        windows = [samples[start : start + size] for start in range(0, len(samples), size)]
        with ThreadPoolExecutor(1) as loader:  # loads the next window while the model answers this one
            loading = [loader.submit(self._load_window, window) for window in windows[:1]]
            for following in [*windows[1:], []][: len(windows)]:
                jobs = loading.pop().result()
                loading.append(loader.submit(self._load_window, following))
                yield from self._predict_window(jobs, predict, batch_size)

    def _load_window(self, samples: list[Sample]) -> list[_Job]:
        return [self._load(sample) for sample in samples]

    def _load(self, sample: Sample) -> _Job:
        job = _Job(sample)
        try:
            audios = [Audio.load(source() if callable(source) else source) for source in sample.audios]
        except AudioError as error:
            job.error = str(error)
            return job
        job.seconds = round(sum(audio.seconds for audio in audios), 3)
        groups = [audios]
        transcribes = self.task.tags is not None and self.task.tags.task == "transcribe"
        longest = self.transcript_seconds if transcribes and self.task.joins_pieces else MAX_CLIP_SECONDS
        # A conversation takes long audio whole, if the model can; the tag format takes a single clip.
        if job.seconds > longest and (self.prompt == "tags" or longest < MAX_CLIP_SECONDS):
            if self.task.joins_pieces:
                groups = [[piece] for piece in audios[0].pieces(longest)]
                job.notice = f"asked in {len(groups)} pieces"
            else:
                groups = [[Audio(audio.waveform[:MAX_CLIP_SAMPLES]) for audio in audios]]
                job.notice = f"cut to the first {MAX_CLIP_SECONDS:g} s"
        job.requests = [request(self.task, sample, group, self.prompt, self.language) for group in groups]
        return job

    def _predict_window(self, jobs: list[_Job], predict: Predict, batch_size: int) -> Iterator[Prediction]:
        yield from (self._prediction(job) for job in jobs if job.error)
        items = [(job, place) for job in jobs for place in range(len(job.requests))]
        items.sort(key=lambda item: sum(audio.num_samples for audio in item[0].requests[item[1]].audios))
        for start in range(0, len(items), batch_size):
            batch = [(job, place) for job, place in items[start : start + batch_size] if not job.error]
            self._answer(batch, predict)
            for job in {id(job): job for job, _ in batch}.values():
                if job.error or len(job.answers) == len(job.requests):
                    yield self._prediction(job)

    def _answer(self, batch: list[tuple[_Job, int]], predict: Predict) -> None:
        """Fill in the answers of a batch; where it fails, ask one by one to find the clips that cause it."""
        if not batch:
            return
        try:
            answers = predict([job.requests[place] for job, place in batch])
        except UserError as error:
            if len(batch) == 1:
                batch[0][0].error = str(error)
                return
            for item in batch:
                self._answer([item], predict)
            return
        for (job, place), answer in zip(batch, answers, strict=True):
            job.answers[place] = answer

    def _prediction(self, job: _Job) -> Prediction:
        sample = job.sample
        audio_language, text_language = languages(self.task, sample, self.language)
        references = sample.references
        if self.task.name == "srwt" and sample.words:
            references = (words_to_text(sample.words),)
        separator = "" if text_language in CHARACTER_LANGUAGES else " "
        return Prediction(
            index=sample.index,
            audio=sample.name,
            references=references,
            prediction=None if job.error else separator.join(job.answers[place] for place in sorted(job.answers)),
            source=sample.source,
            question=sample.question,
            audio_language=audio_language,
            text_language=text_language,
            seconds=job.seconds,
            error=job.error,
            notice=job.notice,
        )
