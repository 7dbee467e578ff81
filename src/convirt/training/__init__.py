"""Training: one loop for every method, with checkpoints that resume bit for bit (ConVIRT, appendix A)."""
