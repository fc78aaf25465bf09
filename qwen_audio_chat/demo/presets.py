"""The buttons above the box: one for each task family of the paper (arXiv 2311.07919, table 1)."""

# Key of `prompts.questions.QUESTIONS` → title in English and in Chinese.
PRESETS = {
    "transcribe": ("Transcribe", "转写"),
    "translate": ("Translate", "翻译"),
    "words": ("Timed words", "逐字时间"),
    "caption": ("Describe", "描述"),
    "sounds": ("Sounds", "声音"),
    "scene": ("Scene", "场景"),
    "emotion": ("Emotion", "情感"),
    "note": ("Music note", "音符"),
    "compare": ("Compare", "比较"),
}
