"""Zero-shot classification: images compared with prompts in the shared space."""
