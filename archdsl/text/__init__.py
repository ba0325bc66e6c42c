"""Text and tokens: tokenizers, special tokens, chat templates."""
