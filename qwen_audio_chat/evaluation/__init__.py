"""Evaluation: the paper's tasks, asked, answered, scored and reported so that anyone gets the same figures.

    python -m qwen_audio_chat evaluate --model M --task asr --data FILE.jsonl --output DIR [--batch-size N]

The way of a sample: `data` reads it, `tasks` and `prompting` say what is asked, `runner` asks `predictor` and keeps
every answer, `scoring` turns answers into `metrics` under a `normalization`, and `report` writes them down beside the
figures that were `published`. `scoreboard` does all that for the pocket model's held-out sets.

Differences from the released scripts, on purpose: a batch changes no answer; speech beyond 30 s is asked in pieces;
several right answers are accepted where the data have them; chroma is counted in MIDI numbers; a wrongly formed time or
note is an error of its own and shifts no other; what can't be computed is "not computed".
"""
