"""Pretraining methods by name; a new one is a file here and a line below."""

from convirt.methods.base import Method
from convirt.methods.convirt import ConVIRT

METHODS: dict[str, type[Method]] = {
    "convirt": ConVIRT,
}

__all__ = ["METHODS", "ConVIRT", "Method"]
