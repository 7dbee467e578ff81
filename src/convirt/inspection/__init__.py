"""What a corpus, a benchmark or a labelled table holds, and what it shares with another: `convirt inspect`."""
