"""Embeddings and ids to tokens: key-value cache, prefill and decode, sampling, and what is reused between turns."""
