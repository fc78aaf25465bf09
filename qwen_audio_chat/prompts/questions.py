"""How each task is asked, in words and in tags; the page, training and evaluation all ask alike.

Chat models are asked in words. A pretrained model knows only the tags (`tags.TaskPrompt`).
"""

import re
from dataclasses import dataclass, replace

from .messages import Message, message_text
from .tags import TaskPrompt

UNKNOWN = "unknown"  # label of what nobody can name: silence and noise
DECLINE = "I can't tell what that is."  # the answer to a question about it

# The languages of the tags, with their names in English and in Chinese.
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
    """A task as text in English and Chinese, with `{language}` to translate into, and in tags if it has any."""

    text: tuple[str, str]
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


# Ways to ask for a transcript; training uses them all.
TRANSCRIBE = (
    QUESTIONS["transcribe"].text[0], "Transcribe the audio.", "Transcribe this audio.", "What is said in the audio?",
    "Write down what is said.", "Please transcribe the speech.", "Convert the speech to text.", "What did they say?",
    "Give me the transcript.", "Recognize the speech and write it out.", "Type what you hear.",
)  # fmt: skip


_TRANSCRIBE_ONLY = re.compile(r"(please )?transcribe((?! and )[^.,:;?!])*[.!]?")


def wants_transcript(message: Message) -> bool:
    """Whether a message asks only for what is said in its audio, in tags or in words."""
    if message["role"] != "user":
        return False
    if (task := message.get("task")) is not None:
        return task.task == "transcribe" and not task.timestamps
    text = message_text(message).strip().lower()
    known = (*TRANSCRIBE, QUESTIONS["transcribe"].text[1])
    return text in {question.lower() for question in known} or _TRANSCRIBE_ONLY.fullmatch(text) is not None


def question(task: str, lang: str = "en", target: str = "en") -> str:
    """The question for a task (a key of `QUESTIONS`) in `lang`, "en" or "zh"; `target` is what to translate into."""
    index = 1 if lang == "zh" else 0
    return QUESTIONS[task].text[index].format(language=LANGUAGE_NAMES[target][index])


def task_prompt(text: str, *, pretrained: bool) -> TaskPrompt | None:
    """The tags to ask with instead of `text`; None where the text itself is to be asked.

    Speech is assumed to be in the language of the question, since tags must name one.

    Args:
        text: what the user wrote; only the exact text of a `question` is replaced.
        pretrained: the model knows only tags, so that any other text becomes a question in tags. For other models tags
            are used only for the times of words.
    """
    task, prompt = _IN_TAGS.get(text, (None, None))
    if not pretrained:
        return prompt if task == "words" else None
    return prompt or TaskPrompt("question", question=text)


def _in_tags() -> dict[str, tuple[str, TaskPrompt]]:
    """Every question of a task that has tags: text → (task, tags)."""
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
