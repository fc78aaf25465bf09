"""Qwen-Audio-Chat: talk about many audios in many turns, anywhere."""
