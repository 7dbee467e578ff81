"""Whether a corpus still holds what it was written with: its fingerprint, computed anew while it is read."""

from typing import Any

from convirt.data.corpora import Corpus
from convirt.data.records import Pair
from convirt.data.shards import Fingerprint, pair_digest
from convirt.errors import InputError

REMEDY = "prepare it again, or copy it anew from where it is whole"


class Integrity:
    """Follows a pass over all pairs of a corpus, in their order."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._found = Fingerprint(corpus.image_size)
        self._damage = ""

    def follow(self, pair: Pair) -> None:
        """Go on with the next pair; images that say what their pixels are (`content`) are not decoded again."""
        try:
            self._found.update([pair_digest(pair, self._corpus.image_size)])
        except InputError as error:
            self._damage = self._damage or str(error)

    def judge(self) -> dict[str, Any]:
        """Return what was `found`, whether the corpus is `intact`, and a `line` that says so."""
        found = self._found.hexdigest()
        says = self._corpus.fingerprint
        line = "Intact: its content has the fingerprint that it was written with."
        intact = False
        if self._damage:
            line = f"DAMAGED: {self._damage}; {REMEDY}."
        elif found != says:
            line = f"DAMAGED: its content has the fingerprint {found[:16]}, corpus.json says {says[:16]}; {REMEDY}."
        else:
            try:
                self._corpus.check()
                intact = True
            except InputError as error:
                line = f"DAMAGED: {error}."
        return {"found": found, "intact": intact, "line": line}


def tell(found: dict[str, Any] | None, show: bool) -> dict[str, Any] | None:
    """Return what `Integrity.judge` found; without names of files and pairs unless `show`."""
    if found is None or show or found["intact"]:
        return found
    return {**found, "line": f"DAMAGED: it does not hold what it was written with; {REMEDY}."}
