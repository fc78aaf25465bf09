"""Times in answers, without a browser."""

from qwen_audio_chat.prompts.tags import TimedWord
from qwen_audio_chat.transcripts.subtitles import cues, to_srt, to_vtt
from qwen_audio_chat.transcripts.timed_words import readable, spans, timed_words


def test_grounding_names_a_span_and_stays_a_sentence():
    answer = 'The word "dog" starts at <|2.33|> seconds and ends at <|3.26|> seconds.'
    assert timed_words(answer) == []
    assert spans(answer) == [TimedWord(2.33, 3.26, "")]
    assert readable(answer) == 'The word "dog" starts at 2.33 seconds and ends at 3.26 seconds.'


def test_chinese_words_join_without_spaces_english_with():
    assert readable("<|0.00|>面<|0.30|>条<|0.60|>机<|0.90|>") == "面条机"
    assert readable("<|0.00|>one<|0.30|>two<|0.60|>") == "one two"


def test_subtitles_break_at_pauses_and_escape_markup():
    words = [TimedWord(0, 0.5, "a<b"), TimedWord(0.5, 1, "c"), TimedWord(3, 3661.25, "d")]
    assert to_srt(cues(words)).split("\n\n")[0] == "1\n00:00:00,000 --> 00:00:01,000\na<b c"
    assert "00:00:03.000 --> 01:01:01.250\nd" in to_vtt(cues(words))
    assert "a&lt;b c" in to_vtt(cues(words))


LONG = "<|0.00|>one<|0.50|>two<|29.00|><|0.00|><|sil|><|1.00|>three<|1.50|>"


def test_times_of_later_pieces_are_those_of_the_whole_audio():
    words = [TimedWord(0.0, 0.5, "one"), TimedWord(0.5, 29.0, "two"), TimedWord(30.4, 30.9, "three")]
    assert spans(LONG, (0.0, 29.4)) == words
    assert readable(LONG, (0.0, 29.4)) == "one two three"
    assert "00:00:30,400 --> 00:00:30,900\nthree" in to_srt(timed_words(LONG, (0.0, 29.4)))


def test_a_time_that_may_be_of_any_piece_names_no_place():
    assert spans("from <|2.33|> to <|3.26|>", (0.0, 29.4)) == []
    assert spans("at <|2.33|>, then at <|1.00|>", (0.0, 29.4, 55.0)) == []


def test_a_transcript_on_its_way_has_the_words_of_the_first_pieces():
    words = [TimedWord(0.0, 0.5, "one"), TimedWord(0.5, 29.0, "two"), TimedWord(30.4, 30.9, "three")]
    assert spans(LONG, (0.0, 29.4, 55.0)) == words
    assert readable(LONG[:30], (0.0, 29.4, 55.0)) == "one"
    assert readable("<|0.00|><|sil|><|0.40|>mallet<|0.64|>") == "mallet"


def test_times_that_name_no_words_stand_apart():
    assert readable("from<|2.33|>to<|3.26|>", (0.0, 29.4)) == "from 2.33 to 3.26"
    assert readable("从<|2.33|>到<|3.26|>。", (0.0, 29.4)) == "从 2.33 到 3.26。"
