"""Ready-made questions for the task families of the paper (arXiv 2311.07919, table 1)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A task as a button: what it is called and what it asks, both as (English, Chinese)."""

    name: str
    icon: str
    title: tuple[str, str]
    question: tuple[str, str]


# Keys are ISO codes; values name the language in English and in Chinese.
TARGET_LANGUAGES = {
    "en": ("English", "英语"),
    "zh": ("Chinese", "中文"),
    "de": ("German", "德语"),
    "es": ("Spanish", "西班牙语"),
    "fr": ("French", "法语"),
    "it": ("Italian", "意大利语"),
    "ja": ("Japanese", "日语"),
    "ko": ("Korean", "韩语"),
}

PRESETS = (
    Preset("transcribe", "✍", ("Transcribe", "转写"), ("What does the person say?", "这段语音说了什么？")),
    Preset(
        "translate",
        "⇄",
        ("Translate", "翻译"),
        ("Translate the speech into {language}.", "请把这段语音翻译成{language}。"),
    ),
    Preset(
        "words",
        "⏱",
        ("Timed words", "逐字时间"),
        (
            "Recognize the speech and give the start and end time of each word.",
            "识别语音，并给出每个词的开始和结束时间。",
        ),
    ),
    Preset("caption", "❝", ("Describe", "描述"), ("Describe the audio in one sentence.", "用一句话描述这段音频。")),
    Preset("sounds", "♒", ("Sounds", "声音"), ("Which sounds are in this audio?", "这段音频里有哪些声音？")),
    Preset(
        "scene",
        "⌂",
        ("Scene", "场景"),
        ("In what kind of place was this recorded?", "这段音频是在什么场景录制的？"),
    ),
    Preset("emotion", "☺", ("Emotion", "情感"), ("What is the emotion of the speaker?", "说话人的情绪是什么？")),
    Preset(
        "note",
        "♪",
        ("Music note", "音符"),
        ("Which instrument plays, and which pitch?", "这是什么乐器，音高是多少？"),
    ),
    Preset("compare", "≟", ("Compare", "比较"), ("How do these audios differ?", "这些音频有什么不同？")),
)


def question(preset: Preset, lang: str, target_language: str = "zh") -> str:
    """The preset's question in `lang` ("en" or "zh")."""
    index = 1 if lang == "zh" else 0
    return preset.question[index].format(language=TARGET_LANGUAGES[target_language][index])
