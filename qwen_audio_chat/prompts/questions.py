"""What a task is asked with, in words and in tags: the page asks it, and training and evaluation can ask the same.

The words are for chat models. A pretrained model knows only the tags (`tags.TaskPrompt`).
"""

import re
from dataclasses import dataclass, replace

from .tags import TaskPrompt

UNKNOWN = "unknown"  # the label of what nobody can name: silence and noise
DECLINE = "I can't tell what that is."  # and the answer to a question about it

# Languages that the tags know; their names in English and in Chinese.
LANGUAGE_NAMES = {
    "en": ("English", "英语"),
    "zh": ("Chinese", "中文"),
    "de": ("German", "德语"),
    "es": ("Spanish", "西班牙语"),
    "fr": ("French", "法语"),
    "it": ("Italian", "意大利语"),
    "ja": ("Japanese", "日语"),
    "ko": ("Korean", "韩语"),
}


@dataclass(frozen=True)
class TaskQuestion:
    """A task in words, (English, Chinese), where `{language}` is the one to translate into; and in tags, if it has."""

    words: tuple[str, str]
    tags: TaskPrompt | None = None


QUESTIONS = {
    "transcribe": TaskQuestion(
        ("What does the person say?", "这段语音说了什么？"), TaskPrompt("transcribe", instruction="wo_itn")
    ),
    "translate": TaskQuestion(
        ("Translate the speech into {language}.", "请把这段语音翻译成{language}。"),
        TaskPrompt("translate", instruction="itn"),
    ),
    "words": TaskQuestion(
        (
            "Write down what is said in the audio, with the time of each word.",
            "写出音频中所说的话，并标出每个词的时间。",
        ),
        TaskPrompt("transcribe", timestamps=True),
    ),
    "caption": TaskQuestion(
        ("Describe the audio in one sentence.", "用一句话描述这段音频。"),
        TaskPrompt("caption", "unknown", instruction="caption_clotho"),
    ),
    "sounds": TaskQuestion(
        ("What sound is this?", "这是什么声音？"), TaskPrompt("keyword", "unknown", instruction="event")
    ),
    "scene": TaskQuestion(
        ("In what kind of place was this recorded?", "这段音频是在什么场景录制的？"),
        TaskPrompt("keyword", "unknown", instruction="scene"),
    ),
    "emotion": TaskQuestion(
        ("Which emotion does the speaker show?", "说话人的情绪是什么？"),
        TaskPrompt("keyword", instruction="emotion_recognition"),
    ),
    "note": TaskQuestion(
        (
            "Which instrument plays this note, and what are its pitch and loudness?",
            "这个音符由什么乐器演奏？音高和力度是多少？",
        ),
        TaskPrompt("keyword", "unknown", instruction="note_analysis"),
    ),
    "compare": TaskQuestion(("How do these audios differ?", "这些音频有什么不同？")),
    # For audio that comes without words, one and several.
    "hear": TaskQuestion(("What do you hear?", "你听到了什么？"), TaskPrompt("caption", "unknown")),
    "hear_each": TaskQuestion(("What is in each of these audios?", "这些音频里分别有什么？")),
}


# Other ways to ask for a transcript; training asks in them, too.
TRANSCRIBE = (
    QUESTIONS["transcribe"].words[0], "Transcribe the audio.", "Transcribe this audio.", "What is said in the audio?",
    "Write down what is said.", "Please transcribe the speech.", "Convert the speech to text.", "What did they say?",
    "Give me the transcript.", "Recognize the speech and write it out.", "Type what you hear.",
)  # fmt: skip


_TRANSCRIBE_ONLY = re.compile(r"(please )?transcribe((?! and )[^.,:;?!])*[.!]?")


def wants_transcript(message: dict) -> bool:
    """Whether a message asks for the words of its audio and nothing else: in tags, or in words that say so."""
    if message["role"] != "user":
        return False
    if (task := message.get("task")) is not None:
        return task.task == "transcribe" and not task.timestamps
    content = message["content"]
    parts = [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]
    words = " ".join(parts).strip().lower()
    known = (*TRANSCRIBE, QUESTIONS["transcribe"].words[1])
    return words in {each.lower() for each in known} or _TRANSCRIBE_ONLY.fullmatch(words) is not None


def question(task: str, lang: str = "en", target: str = "en") -> str:
    """The words for a task (a key of `QUESTIONS`) in `lang` ("en" or "zh"); `target` is what to translate into."""
    index = 1 if lang == "zh" else 0
    return QUESTIONS[task].words[index].format(language=LANGUAGE_NAMES[target][index])


def task_prompt(words: str, *, pretrained: bool) -> TaskPrompt | None:
    """The tags to ask with in place of `words`; None where words are the way.

    Speech is taken to be in the language of the question, since tags must name one.

    Args:
        words: what the user wrote; tags stand in for exactly the words of `question`.
        pretrained: the model knows tags only: any other words become a question in tags. Otherwise tags are used only
            for the times of words.
    """
    task, prompt = _IN_TAGS.get(words, (None, None))
    if not pretrained:
        return prompt if task == "words" else None
    return prompt or TaskPrompt("question", question=words)


def _in_tags() -> dict[str, tuple[str, TaskPrompt]]:
    """Every question of a task that has tags: words → (task, tags)."""
    known = {}
    for task, asked in QUESTIONS.items():
        if asked.tags is None:
            continue
        for lang in ("en", "zh"):
            spoken = lang if asked.tags.audio_language == "en" else asked.tags.audio_language
            for target in LANGUAGE_NAMES:
                written = {"transcribe": lang, "translate": target}.get(asked.tags.task, "en")
                if task == "translate":
                    spoken = "unknown" if target == lang else lang
                prompt = replace(asked.tags, audio_language=spoken, text_language=written)
                known[question(task, lang, target)] = task, prompt
    return known


_IN_TAGS = _in_tags()
