"""Metrics and statistics as pure array functions."""
