"""`Audio`: one sound on its way to the model, decoded once, cut once, its log-mel computed once."""

import hashlib
from pathlib import Path

import numpy as np
import soundfile
import torch

from .cutting import MAX_CLIP_SECONDS, split_audio
from .decoding import MAX_FILE_BYTES, SAMPLE_RATE, AudioError, AudioSource, load_audio, to_wav_bytes
from .features import log_mel


class Audio:
    """A 16 kHz mono waveform. Made by `Audio.load` where a source enters; from there on the value is passed.

    Attributes:
        num_samples: its length.
        start: seconds at which it begins in the audio that it was cut from; 0 for a whole audio.
        file: the WAV file that holds the samples once `store` was called, else None.
    """

    def __init__(self, waveform: np.ndarray, start: float = 0.0):
        """A waveform as `load_audio` returns it, float32 [samples]."""
        self.num_samples, self.start = len(waveform), start
        self.file: Path | None = None
        self._waveform: np.ndarray | None = waveform
        self._offset = 0  # of the first sample in the file
        self._key: bytes | None = None
        self._pieces: dict[float, tuple[Audio, ...]] = {}
        self._log_mels: dict[int, torch.Tensor] = {}

    @classmethod
    def load(
        cls, source: "Audio | AudioSource", *, max_seconds: float = 7200.0, max_bytes: int = MAX_FILE_BYTES
    ) -> "Audio":
        """Decode a source (see `decoding.load_audio`); an `Audio` is returned as it is.

        Raises:
            AudioError: the source can't be decoded, or is longer or larger than allowed.
        """
        if isinstance(source, Audio):
            return source
        return cls(load_audio(source, max_seconds=max_seconds, max_bytes=max_bytes))

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.num_samples / SAMPLE_RATE

    @property
    def waveform(self) -> np.ndarray:
        """float32 [samples] within [-1, 1); read from the file each time once the audio is stored.

        Raises:
            AudioError: the file was deleted.
        """
        if self._waveform is not None:
            return self._waveform
        try:
            return soundfile.read(str(self.file), self.num_samples, self._offset, dtype="float32")[0]
        except (OSError, soundfile.SoundFileError) as error:
            raise AudioError("The audio was deleted; add it again.") from error

    @property
    def key(self) -> bytes:
        """A digest of the samples: equal sounds have equal keys, wherever they came from."""
        if self._key is None:
            self._key = hashlib.sha256(np.ascontiguousarray(self.waveform).data).digest()
        return self._key

    def pieces(self, max_seconds: float = MAX_CLIP_SECONDS) -> "tuple[Audio, ...]":
        """The audio in pieces of at most `max_seconds`, cut where it is quietest; itself where it is short enough.

        Raises:
            ValueError: `max_seconds` is under 0.01.
        """
        if max_seconds not in self._pieces:
            parts = split_audio(self.waveform, max_seconds)
            self._pieces[max_seconds] = (self,) if len(parts) == 1 else tuple(self._cut(parts))
        return self._pieces[max_seconds]

    def _cut(self, parts: list[np.ndarray]):
        offset = 0
        for part in parts:
            piece = Audio(part, self.start + offset / SAMPLE_RATE)
            if self.file is not None:
                piece._move_to(self.file, self._offset + offset)
            yield piece
            offset += len(part)

    def log_mel(self, n_mels: int = 80) -> torch.Tensor:
        """Log-mel of an audio of at most 30 s, [n_mels, frames], see `features.log_mel`; kept until `release`.

        Raises:
            AudioError: it is longer.
        """
        features = self._log_mels.get(n_mels)
        if features is None:  # another thread may call `release` at any moment
            features = self._log_mels[n_mels] = log_mel(self.waveform, n_mels)
        return features

    def release(self) -> None:
        """Let the log-mel go, of the pieces as well: it is no longer needed once the audio is encoded."""
        self._log_mels.clear()
        for pieces in self._pieces.values():
            for piece in pieces:
                piece._log_mels.clear()

    def store(self, path: Path) -> None:
        """Move the samples out of memory into a WAV file at `path`, 16 bits, which holds them exactly."""
        path.write_bytes(to_wav_bytes(self.waveform))
        self.key  # noqa: B018  computed now, while the samples are at hand
        self._move_to(path, 0)

    def _move_to(self, path: Path, offset: int) -> None:
        self.file, self._offset, self._waveform = path, offset, None
        for pieces in self._pieces.values():
            for piece in pieces:
                if piece is not self:
                    piece._move_to(path, offset + round((piece.start - self.start) * SAMPLE_RATE))
