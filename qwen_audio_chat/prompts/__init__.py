"""From messages to token ids: tokenizer, task tags, chat format, and the words that tasks are asked in."""
