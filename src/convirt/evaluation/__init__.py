"""What a pretrained encoder is worth: linear evaluation and zero-shot retrieval (ConVIRT, sections 3 and 4)."""
