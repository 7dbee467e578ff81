"""Zero-shot retrieval by pretrained encoders (ConVIRT, section 3.2)."""
