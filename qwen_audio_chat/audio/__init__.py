"""From any source to what the model takes: decoding, cutting, log-mel; `audio.Audio` holds it all together."""
