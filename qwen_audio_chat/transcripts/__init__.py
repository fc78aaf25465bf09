"""Transcripts: long audio in parts, words with times, subtitles."""
