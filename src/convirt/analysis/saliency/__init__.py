"""Saliency: which pixels decide the score of a label, and whether they lie where the finding is."""
