"""Image classification by pretrained encoders: linear evaluation and fine-tuning (ConVIRT, section 4.1)."""
