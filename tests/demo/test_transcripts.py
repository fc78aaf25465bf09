"""Times in answers, without a browser."""

from qwen_audio_chat.demo.transcripts import meant_audio, readable, spans, timed_words, to_srt, to_vtt
from qwen_audio_chat.tags import TimedWord


def test_grounding_names_a_span_and_stays_a_sentence():
    answer = 'The word "dog" starts at <|2.33|> seconds and ends at <|3.26|> seconds.'
    assert timed_words(answer) == []
    assert spans(answer) == [TimedWord(2.33, 3.26, "")]
    assert readable(answer) == 'The word "dog" starts at 2.33 seconds and ends at 3.26 seconds.'


def test_chinese_words_join_without_spaces_english_with():
    assert readable("<|0.00|>面<|0.30|>条<|0.60|>机<|0.90|>") == "面条机"
    assert readable("<|0.00|>one<|0.30|>two<|0.60|>") == "one two"


def test_the_audio_that_is_named_else_the_only_one_else_the_last():
    assert meant_audio("When is it said in Audio 2?", [1, 2, 3], 3) == 2
    assert meant_audio("音频 1 呢？", [], 2) == 1
    assert meant_audio("When?", [4], 4) == 4
    assert meant_audio("When in Audio 9?", [1, 2], 2) == 2
    assert meant_audio("When?", [], 0) is None


def test_subtitles_break_at_pauses_and_escape_markup():
    words = [TimedWord(0, 0.5, "a<b"), TimedWord(0.5, 1, "c"), TimedWord(3, 3661.25, "d")]
    assert to_srt(words).split("\n\n")[0] == "1\n00:00:00,000 --> 00:00:01,000\na<b c"
    assert "00:00:03.000 --> 01:01:01.250\nd" in to_vtt(words)
    assert "a&lt;b c" in to_vtt(words)
