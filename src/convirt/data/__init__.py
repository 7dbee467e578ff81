"""Data: from archives and benchmarks to batches (ConVIRT, sections 2.1, 2.3, 3.1 and appendix A)."""
