"""Complete jobs on a model: translate, transcribe, classify, embed, score."""
