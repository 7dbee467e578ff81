"""From a source table to a corpus: plans, shards made in parallel, the audit (ConVIRT, section 2.1, appendix A)."""
