"""Evaluation: the paper's tasks, asked, answered, scored and reported so that anyone gets the same figures.

    python -m qwen_audio_chat evaluate --model M --task asr --data FILE.jsonl --output DIR [--batch-size N]

`samples` reads the data, `tasks` and `prompting` say what is asked, `runner` asks `predictor` and keeps every answer,
`scoring` turns answers into metrics under a `normalization`, and `report` writes them beside the figures that were
`published`.

Deliberate differences from the released scripts: a batch changes no answer; speech over 30 s is asked in pieces;
several right answers are accepted where the data have them; chroma is counted in MIDI numbers; a malformed time or note
is one error and shifts no other; what can't be computed is "not computed".
"""
