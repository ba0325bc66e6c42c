"""The decoding loop: sampling, logits processors, beam search, generation_config.json."""
