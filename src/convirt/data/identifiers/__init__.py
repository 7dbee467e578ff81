"""Identifiers of people left in the text of reports."""
