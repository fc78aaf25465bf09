import pytest

from qwen_audio_chat.evaluation.normalization import DESCRIPTIONS, NORMALIZERS, normalize


@pytest.mark.parametrize(
    ("name", "language", "text", "expected"),
    [
        ("none", "en", "  Hello, World! ", "Hello, World!"),
        ("official", "en", "<|en|>Mister  Quilter , HE'S here", "mister quilter, he's here"),
        ("official", "zh", "今天 天气<|0.50|>很 好。", "今天天气很好。"),
        ("official", "de", "Guten Tag !", "guten tag!"),
        ("lower_no_punctuation", "en", '<|en|>It\'s "well-known", isn’t it?', "it's well known isn't it"),
        ("lower_no_punctuation", "fr", "L'été, ça va ?", "l'été ça va"),
        ("lower_no_punctuation", "zh", "今天， 天气很好。", "今天天气很好"),
        ("lower_no_punctuation", "hi", "नमस्ते!", "नमस्ते"),
        ("whisper_english", "en", "Mr. Quilter won't pay $20 <|sil|>", "mister quilter will not pay $20"),
        ("whisper_english", "en", "Twenty-three people", "23 people"),
        ("whisper_basic", "es", "¿Qué tal?", "qué tal"),
        ("whisper_basic", "zh", "今天很好。", "今 天 很 好"),
    ],
)
def test_known_texts(name, language, text, expected):
    assert normalize(text, name, language) == expected


def test_british_spelling_stays_without_whispers_list():
    assert normalize("the colour", "whisper_english") == "the colour"


def test_unknown_name_tells_the_known_ones():
    with pytest.raises(ValueError, match="lower_no_punctuation"):
        normalize("a", "upper")


def test_every_normaliser_is_described():
    assert NORMALIZERS.keys() == DESCRIPTIONS.keys()
