"""Figures that Qwen-Audio's authors published for their base model without fine-tuning on a task.

From arXiv 2311.07919, table 3, and the repository's README. Rates are fractions here, BLEU is on its scale of 0 to 100.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One published figure.

    Attributes:
        task: name of the task.
        dataset: its usual name.
        keys: what the source of matching samples contains, such as "librispeech" and "test_clean".
        metric: name of the metric.
        value: the figure.
        baseline: the best figure of another model in the paper's table, None where it has none.
    """

    task: str
    dataset: str
    keys: tuple[str, ...]
    metric: str
    value: float
    baseline: str | None = None


PUBLISHED = (
    Published("asr", "LibriSpeech dev-clean", ("librispeech", "dev_clean"), "wer", 0.018, "SpeechT5 0.021"),
    Published("asr", "LibriSpeech dev-other", ("librispeech", "dev_other"), "wer", 0.040, "SpeechT5 0.055"),
    Published("asr", "LibriSpeech test-clean", ("librispeech", "test_clean"), "wer", 0.020, "SALMONN 0.021"),
    Published("asr", "LibriSpeech test-other", ("librispeech", "test_other"), "wer", 0.042, "SALMONN 0.049"),
    Published("asr", "Aishell1 dev", ("aishell1", "dev"), "cer", 0.012, "MMSpeech-large 0.016"),
    Published("asr", "Aishell1 test", ("aishell1", "test"), "cer", 0.013, "MMSpeech-large 0.019"),
    Published("asr", "Aishell2 Mic test", ("aishell2", "mic"), "cer", 0.033, "MMSpeech-base 0.045"),
    Published("asr", "Aishell2 iOS test", ("aishell2", "ios"), "cer", 0.031, "Paraformer-large 0.029"),
    Published("asr", "Aishell2 Android test", ("aishell2", "android"), "cer", 0.033, "MMSpeech-base 0.040"),
    Published("s2tt", "CoVoST2 en-de", ("covost2", "en_de"), "bleu", 25.1, "SALMONN 18.6"),
    Published("s2tt", "CoVoST2 de-en", ("covost2", "de_en"), "bleu", 33.9, "SpeechLLaMA 27.1"),
    Published("s2tt", "CoVoST2 en-zh", ("covost2", "en_zh"), "bleu", 41.5, "SALMONN 33.1"),
    Published("s2tt", "CoVoST2 zh-en", ("covost2", "zh_en"), "bleu", 15.7, "SpeechLLaMA 12.3"),
    Published("s2tt", "CoVoST2 es-en", ("covost2", "es_en"), "bleu", 39.7, "SpeechLLaMA 27.9"),
    Published("s2tt", "CoVoST2 fr-en", ("covost2", "fr_en"), "bleu", 38.5, "SpeechLLaMA 25.2"),
    Published("s2tt", "CoVoST2 it-en", ("covost2", "it_en"), "bleu", 36.0, "SpeechLLaMA 25.9"),
    Published("srwt", "Industrial data test", ("industrial",), "aas_ms", 51.5, "Force-aligner 60.3"),
    Published("aac", "Clotho test", ("clotho",), "cider", 0.441, "Pengi 0.416"),
    Published("aac", "Clotho test", ("clotho",), "spice", 0.136, "Pengi 0.126"),
    Published("aac", "Clotho test", ("clotho",), "spider", 0.288, "Pengi 0.271"),
    Published("asc", "CochlScene test", ("cochlscene",), "accuracy", 0.795, "CochlScene 0.669"),
    Published("asc", "TUT2017 eval", ("tut2017",), "accuracy", 0.649, "Pengi 0.353"),
    Published("ser", "MELD test", ("meld",), "accuracy", 0.557, "WavLM-large 0.542"),
    Published("aqa", "ClothoAQA test", ("clotho",), "accuracy", 0.579, "ClothoAQA 0.542"),
    Published("aqa", "ClothoAQA test", ("clotho",), "binary_accuracy", 0.749, "Pengi 0.645"),
    Published("vsc", "VocalSound test", ("vocalsound",), "accuracy", 0.9289, "Pengi 0.6035"),
    Published("mna", "NSynth test", ("nsynth",), "qualities_map", 0.4742, "Pengi 0.3860"),
    Published("mna", "NSynth test", ("nsynth",), "instrument_accuracy", 0.7882, "Pengi 0.5007"),
)


def published_for(task: str, source: str) -> list[Published]:
    """The published figures for a task on the data set that `source` names."""
    name = source.lower().replace("-", "_")
    return [row for row in PUBLISHED if row.task == task and all(key in name for key in row.keys)]
