"""An encoder put to use: an index of a corpus, searched by sentence, by image, or by both."""
