"""Connectionist temporal classification: transcripts scored, searched and aligned by what the audio frames spell."""
