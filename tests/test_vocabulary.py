"""The words of captions: counted in the training reports alone, numbered, kept as JSON."""

import json
from pathlib import Path

import pytest

from convirt.data.corpora import Corpus
from convirt.data.loading.export import export
from convirt.data.loading.streaming import StreamedCorpus, open_corpus
from convirt.errors import InputError
from convirt.methods.captioning.vocabulary import END, PAD, SPECIAL, START, UNKNOWN, Vocabulary, report_words
from tiny_captioners import MakeConfig, make_captioner


def test_words_of_reports_are_lower_case_without_punctuation():
    report = ("The heart isn't enlarged, 2.5 cm.", "No  change -- stable.")
    assert report_words(report) == ["the", "heart", "is", "n't", "enlarged", "2.5", "cm", "no", "change", "stable"]


def test_the_vocabulary_holds_frequent_words_the_most_frequent_first():
    reports = [("b a.", "c b"), ("B a c rare",)]
    assert Vocabulary.of_reports(reports, 2).spellings == (*SPECIAL, "b", "a", "c")
    assert Vocabulary.of_reports(reports, 1).spellings == (*SPECIAL, "b", "a", "c", "rare")
    with pytest.raises(InputError, match=r"no word occurs 4 times .* lower objective\.min_count"):
        Vocabulary.of_reports(reports, 4)


def test_reports_are_cut_ended_and_padded():
    vocabulary = Vocabulary((*SPECIAL, "a", "b", "c"))
    inputs, targets = vocabulary.encode([("a b", "c."), ("b odd",), (".",), ("a a a a a",)], max_words=4)
    assert targets.tolist() == [[4, 5, 6, END], [5, UNKNOWN, END, PAD], [END, PAD, PAD, PAD], [4, 4, 4, 4]]
    assert inputs.tolist() == [[START, 4, 5, 6], [START, 5, UNKNOWN, PAD], [START, PAD, PAD, PAD], [START, 4, 4, 4]]
    assert vocabulary.decode([4, 6, END]) == ["a", "c"]


def test_the_vocabulary_is_of_the_training_reports_and_comes_back_from_the_folder(
    tiny_config: MakeConfig, tiny_corpus: Path, tmp_path: Path
) -> None:
    corpus = Corpus.open(tiny_corpus)
    captioner = make_captioner(tiny_config, tiny_corpus, "caption_lstm")
    train = [corpus.pair(int(index)).sentences for index in corpus.indices("train")]
    assert sorted(corpus.reports("train")) == sorted(train)
    assert captioner.vocabulary == Vocabulary.of_reports(train, 1)
    streamed = open_corpus(export(tiny_corpus, str(tmp_path / "export"), shard_mib=0.01))
    assert isinstance(streamed, StreamedCorpus)
    assert sorted(streamed.reports("train")) == sorted(train)
    assert streamed.held() == 0
    captioner.save_architecture(tmp_path)
    assert Vocabulary.load(tmp_path) == captioner.vocabulary
    assert json.loads((tmp_path / "vocabulary.json").read_text())[4:] == list(captioner.vocabulary.spellings[4:])


@pytest.mark.parametrize("text", ["", "{}", '["<pad>", "a"]', "[1]", '["<pad>","<start>","<end>","<unknown>","a","a"]'])
def test_a_damaged_vocabulary_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "vocabulary.json").write_text(text)
    with pytest.raises(InputError, match=r"^cannot read .*vocabulary\.json: [^\n]+$"):
        Vocabulary.load(tmp_path)
    with pytest.raises(InputError, match="not a captioner's checkpoint folder"):
        Vocabulary.load(tmp_path / "gone")
