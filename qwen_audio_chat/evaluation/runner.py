"""Inference over samples: batched, over several processes, and resumable at any moment."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm import tqdm

from ..audio.cutting import MAX_CLIP_SECONDS, split_audio
from ..audio.decoding import SAMPLE_RATE, AudioError, load_audio
from ..files import atomic_write, record_run_identity
from .data import DataError, Sample, fingerprint
from .normalization import CHARACTER_LANGUAGES
from .predictions import PARTS, RESULT, SETTINGS, Prediction, PredictionFile, read_predictions
from .prompting import Request, chat_messages, languages, request, tag_prompt
from .tasks import Task
from .word_times import words_to_text

Predict = Callable[[list[Request]], list[str]]
"""Takes requests of one kind (all tag prompts or all conversations) and returns their answers."""

WINDOW = 8
"""Batches whose audio is loaded ahead and sorted by length, so that the clips of a batch are about equally long."""


@dataclass
class _Job:
    """A sample under way: its requests (more than one where long audio is asked in pieces) and their answers."""

    sample: Sample
    requests: list[Request] = field(default_factory=list)
    answers: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None
    notice: str | None = None


def processes() -> PartialState:
    """This process among those that `accelerate launch` or `torchrun` started; alone if none did."""
    return PartialState(cpu=not torch.accelerator.is_available())  # without the flag, CPUs would not find each other


class Runner:
    """Asks a model about samples and keeps every answer.

    Each process writes its own part file below `output`/parts; when all samples are done, the main process puts the
    parts together in `output`/predictions.jsonl, in the order of the samples. Whatever is on disk is never asked
    again, also with another batch size or number of processes (started by `accelerate launch` or `torchrun`).

    Args:
        task: what to ask.
        samples: all samples; every process gets the same ones.
        output: folder of this run.
        model: name of the model, part of the identity of the run.
        prompt: "tags" or "chat".
        language: of the audio, where neither sample nor source tells.
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
        prompt: str = "tags",
        language: str = "en",
        transcript_seconds: float = MAX_CLIP_SECONDS,
    ):
        self.task, self.samples, self.output = task, list(samples), output
        self.prompt, self.language, self.transcript_seconds = prompt, language, transcript_seconds
        for sample in self.samples:  # a question that is missing should be known before hours of work
            if prompt == "chat":
                chat_messages(task, sample, [np.empty(0)] * len(sample.audios))
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

        Raises:
            DataError: the folder holds the predictions of another run.
        """
        state = processes()
        problem = self._claim_folder() if state.is_main_process else None
        if problem := next((text for text in gather_object([problem]) if text), None):
            raise DataError(problem)
        # Gathering also makes every process finish reading before any starts to write.
        done = {prediction.index: prediction for prediction in gather_object(self._stored())}
        todo = [sample for sample in self.samples if sample.index not in done]
        mine = todo[state.process_index :: state.num_processes]
        with (
            PredictionFile(self.output / PARTS / f"{state.process_index:05d}.jsonl") as part,
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

    def _claim_folder(self) -> str | None:
        """Make the folder this run's own; a sentence if it belongs to another."""
        for name, theirs in record_run_identity(self.output / SETTINGS, self.identity).items():
            return (
                f"{self.output} holds the predictions of another run ({name}: {theirs}, now {self.identity[name]}); "
                "choose another --output or delete that folder."
            )
        return None

    def _stored(self) -> list[Prediction]:
        files = [self.output / RESULT, *sorted((self.output / PARTS).glob("*.jsonl"))]
        return [prediction for file in files if file.exists() for prediction in read_predictions(file)]

    def _write_result(self, predictions: list[Prediction]) -> None:
        atomic_write(self.output / RESULT, "".join(prediction.to_line() for prediction in predictions))
        shutil.rmtree(self.output / PARTS)  # every process has closed its own

    def _predict_all(self, samples: list[Sample], predict: Predict, batch_size: int) -> Iterator[Prediction]:
        size = batch_size * WINDOW
        windows = [samples[start : start + size] for start in range(0, len(samples), size)]
        with ThreadPoolExecutor(1) as loader:
            ahead = loader.submit(self._load_window, windows[0]) if windows else None
            for following in [*windows[1:], None][: len(windows)]:
                jobs = ahead.result()
                ahead = loader.submit(self._load_window, following) if following else None
                yield from self._predict_window(jobs, predict, batch_size)

    def _load_window(self, samples: list[Sample]) -> list[_Job]:
        return [self._load(sample) for sample in samples]

    def _load(self, sample: Sample) -> _Job:
        job = _Job(sample)
        try:
            audios = [load_audio(source() if callable(source) else source) for source in sample.audios]
        except AudioError as error:
            job.error = str(error)
            return job
        job.seconds = round(sum(map(len, audios)) / SAMPLE_RATE, 3)
        groups = [audios]
        transcribes = self.task.tags is not None and self.task.tags.task == "transcribe"
        longest = self.transcript_seconds if transcribes and self.task.joins_pieces else MAX_CLIP_SECONDS
        # A conversation takes long audio as it is, if the model can; the tag format knows one clip.
        if job.seconds > longest and (self.prompt == "tags" or longest < MAX_CLIP_SECONDS):
            if self.task.joins_pieces:
                groups = [[piece] for piece in split_audio(audios[0], longest)]
                job.notice = f"asked in {len(groups)} pieces"
            else:
                groups = [[audio[: int(MAX_CLIP_SECONDS * SAMPLE_RATE)] for audio in audios]]
                job.notice = f"cut to the first {MAX_CLIP_SECONDS:g} s"
        job.requests = [request(self.task, sample, group, self.prompt, self.language) for group in groups]
        return job

    def _predict_window(self, jobs: list[_Job], predict: Predict, batch_size: int) -> Iterator[Prediction]:
        yield from (self._prediction(job) for job in jobs if job.error)
        items = [(job, place) for job in jobs for place in range(len(job.requests))]
        items.sort(key=lambda item: sum(map(len, item[0].requests[item[1]].audios)))
        for start in range(0, len(items), batch_size):
            batch = [(job, place) for job, place in items[start : start + batch_size] if not job.error]
            self._answer(batch, predict)
            for job in {id(job): job for job, _ in batch}.values():
                if job.error or len(job.answers) == len(job.requests):
                    yield self._prediction(job)

    def _answer(self, batch: list[tuple[_Job, int]], predict: Predict) -> None:
        """Fill in the answers of a batch; where it fails, find the clips that are to blame one by one."""
        if not batch:
            return
        try:
            answers = predict([job.requests[place] for job, place in batch])
        except ValueError as error:
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
