"""Data as JSON lines: labelled clips, clips in the official format, and dialogues.

    {"audio": "clip.flac", "text": "hello there"}
    {"audio": "bell.wav", "task": "keyword", "instruction": "vocal_classification", "text": "bell", "split": "train"}
    {"audio": "clip.wav", "gt": "hello there", "source": "librispeech_test_clean"}
    {"messages": [{"role": "user", "content": [{"type": "audio", "audio": "a.wav"}, {"type": "text", "text": "Who?"}]},
                  {"role": "assistant", "content": "A dog."}]}

Audio paths are relative to the file's folder. Null is as good as a missing field. What is wrong with a line becomes one
sentence that names the file and the line.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StrictBool, ValidationError, ValidationInfo
from pydantic_core import PydanticCustomError

from ..errors import UserError
from ..prompts.messages import Message
from ..prompts.tags import LANGUAGES, TASKS
from ..prompts.tokenizer import INSTRUCTION_TAGS

LANGUAGE_TAGS = (*LANGUAGES, "zh_tr", "unknown")
CHOICES = {
    "task": TASKS,
    "audio_language": LANGUAGE_TAGS,
    "text_language": LANGUAGE_TAGS,
    "instruction": [name for name in INSTRUCTION_TAGS if not name.startswith("midi_")],  # those are answers
}
"""The values that a field may have."""

NOTE_FIELDS = frozenset(
    "id speaker suite set group language duration written label instrument pitch velocity licence license".split()
)
"""Notes about a clip that neither training nor evaluation reads; every other unknown field is a mistake."""


class DataError(UserError):
    """What is wrong with a file of data lines, or with one of its lines."""


def _one_of_choices(value: str, info: ValidationInfo) -> str | None:
    choices = CHOICES[str(info.field_name)]
    if value and value not in choices:
        sentence = 'there is no {name} "{value}"; choose one of {choices}.'
        raise PydanticCustomError(
            "choice", sentence, {"name": info.field_name, "value": value, "choices": ", ".join(choices)}
        )
    return value or None


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


Choice = Annotated[str | None, AfterValidator(_one_of_choices)]
AudioPath = Annotated[str, Field(min_length=1)]
Texts = Annotated[
    list[str], BeforeValidator(_as_list), Field(min_length=1, description="must be a text or a list of texts")
]
AudioPaths = Annotated[
    list[AudioPath], BeforeValidator(_as_list), Field(min_length=1, description="must be the path of a file")
]
Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class TextPart(BaseModel):
    """A piece of text in a message of a dialogue."""

    type: Literal["text"]
    text: str


class AudioPart(BaseModel):
    """An audio in a message of a dialogue."""

    type: Literal["audio"]
    audio: AudioPath


class Turn(BaseModel):
    """A message of a dialogue; a text stands for one text part."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[list[Annotated[TextPart | AudioPart, Field(discriminator="type")]], BeforeValidator(_as_parts)]

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


def _audio_from_users_only(messages: list[Turn]) -> list[Turn]:
    if any(isinstance(part, AudioPart) and turn.role != "user" for turn in messages for part in turn.content):
        raise ValueError("audio in a message that is not a user's")
    return messages


class DataLine(BaseModel):
    """What every kind of line may have. The description of a field is what an error says of it."""

    source: Annotated[str, BeforeValidator(str)] = ""
    split: str | None = None
    seconds: Seconds | None = Field(None, description="must be a number of at least 0")
    alignment_text: str | None = Field(None, alias="heard")  # what the frames learn to say, see `alignment_targets`


class ClipLine(DataLine):
    """One labelled clip, or several audios with one question, in the format of this project."""

    audio: AudioPaths
    text: Texts
    task: Choice = None
    audio_language: Choice = None
    text_language: Choice = None
    instruction: Choice = None
    question: str | None = None
    timestamps: StrictBool = Field(False, description="must be true or false")
    words: list[tuple[float, float, str]] = Field([], description='must be a list of [start_s, end_s, "word"]')


class OfficialLine(DataLine):
    """One clip as in the data files of the released evaluation scripts."""

    audio: AudioPaths
    gt: Texts
    question: str | None = None


class DialogueLine(DataLine):
    """One conversation."""

    messages: Annotated[
        list[Turn],
        Field(
            min_length=1,
            description='must be turns with a "role" (system, user or assistant) and a "content": a text, or parts '
            '{"type": "text", "text": "..."} and, from the user, {"type": "audio", "audio": "clip.wav"}',
        ),
        AfterValidator(_audio_from_users_only),
    ]

    @property
    def audio(self) -> list[str]:
        """The audios of all messages, in order, as the line names them."""
        return [part.audio for turn in self.messages for part in turn.content if isinstance(part, AudioPart)]

    def to_messages(self, audios: Iterable[Any]) -> list[Message]:
        """The conversation, with `audios` in the places of those that the line names."""
        remaining = iter(audios)
        return [
            {
                "role": turn.role,
                "content": [
                    {"type": "audio", "audio": next(remaining)}
                    if isinstance(part, AudioPart)
                    else {"type": "text", "text": part.text}
                    for part in turn.content
                ],
            }
            for turn in self.messages
        ]


def read_text_lines(path: Path) -> list[tuple[str, str]]:
    """The lines of a file that aren't blank, each with its origin, "file:line", for messages.

    Raises:
        DataError: the file can't be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines() would also split inside texts
    except OSError as error:
        raise DataError(
            "The data file {path} cannot be read: {reason}.", path=str(path), reason=error.strerror or error
        ) from error
    except UnicodeDecodeError as error:
        raise DataError("The data file {path} isn't UTF-8 text; is it a JSONL file?", path=str(path)) from error
    return [(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]


@contextmanager
def located(origin: str) -> Iterator[None]:
    """Put the origin of a line before any user's error that is raised inside.

    Raises:
        DataError: in place of that error.
    """
    try:
        yield
    except UserError as error:
        raise DataError("{origin}: {reason}", origin=origin, reason=error) from error


def parse_json(text: str) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        DataError: the line holds something else.
    """
    try:
        record = json.loads(text)
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError("half of a character (a lone surrogate such as \\ud83d) isn't text.") from error
    except RecursionError as error:
        raise DataError("this isn't JSON of a line (too deep).") from error
    except ValueError as error:  # also numbers of thousands of digits
        raise DataError("this isn't JSON ({reason}).", reason=getattr(error, "msg", error)) from error
    if not isinstance(record, dict):
        raise DataError('a line must be a JSON object such as {"audio": "clip.wav", "text": "..."}.')
    return record


def parse_line(record: Mapping[str, Any], *, check_names: bool = True) -> ClipLine | OfficialLine | DialogueLine:
    """The line that a JSON object describes.

    Args:
        record: the JSON object.
        check_names: refuse fields that nothing knows, which are probably misspelt.

    Raises:
        DataError: a field is missing, unknown, or has a value that it can't have.
    """
    model = DialogueLine if "messages" in record else OfficialLine if "gt" in record else ClipLine
    known = {field.alias or name for name, field in model.model_fields.items()}
    if check_names and (unknown := sorted(record.keys() - known - NOTE_FIELDS)):
        raise DataError(
            'there is no field "{name}"; known fields are {known}.', name=unknown[0], known=", ".join(sorted(known))
        )
    try:
        return model.model_validate({name: value for name, value in record.items() if value is not None})
    except ValidationError as error:
        raise _sentence(model, error) from error


def _sentence(model: type[DataLine], error: ValidationError) -> DataError:
    """The first thing that pydantic found, as a sentence."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    if first["type"] == "missing" and len(first["loc"]) == 1:
        fields = '"messages"' if name == "messages" else '"audio" and "text", or "messages"'
        return DataError('the field "{name}" is missing: a line needs {fields}.', name=name, fields=fields)
    if first["type"] == "choice":
        return DataError("{sentence}", sentence=first["msg"])
    if first["loc"][-1] == "audio":  # of a part of a message
        return DataError('"audio" must be the path of a file.')
    fields = {field.alias or key: field for key, field in model.model_fields.items()}
    return DataError('"{name}" {needs}.', name=name, needs=fields[name].description or "must be a text")


def audio_paths(names: Sequence[str], folder: Path) -> list[Path]:
    """The files of the audios of a line.

    Raises:
        DataError: one of them is missing.
    """
    for name in names:
        if not os.path.isfile(folder / name):  # Path.is_file() raises an error where a name is too long
            raise DataError("the audio file {name} is missing.", name=name)
    return [folder / name for name in names]
