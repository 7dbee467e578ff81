"""The text encoder f_u (ConVIRT, section 2.3): any Hugging Face encoder, pooled over the vectors of real tokens.

Shapes: B sentences, T tokens of the longest sentence, D size of the feature h_u.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging

from convirt.config import TextEncoderConfig
from convirt.encoders.sources import checkpoint_folder, hub_answers, local_path, model_folder, read_tensors
from convirt.errors import InputError

FOLDER = "text_encoder"

CHUNKS = 4
"""Groups of like length that a batch of sentences is encoded in on a CPU."""


class TextEncoder(nn.Module):
    """f_u: sentences to features h_u; its embeddings and first layers may be frozen.

    The frozen part is not trained and always in evaluation mode, so that its dropout is off. Nothing below the first
    trained tensor needs a gradient, so automatic differentiation keeps none of its activations.
    """

    def __init__(self, model: Any, tokenizer: Any, config: TextEncoderConfig) -> None:
        super().__init__()
        # BERT's pooler is not a part of f_u: it would be a trained tensor that never gets a gradient.
        if getattr(model, "pooler", None) is not None:
            model.pooler = None
        self.model: Any = model
        self.tokenizer = tokenizer
        self.tokenizer.padding_side = "right"
        self.config = config
        self.dim = int(model.config.hidden_size)
        positions = getattr(model.config, "max_position_embeddings", config.max_tokens)
        self.max_tokens = min(config.max_tokens, int(tokenizer.model_max_length), positions)
        # A plain tuple, so that the modules are not registered a second time.
        self._frozen = tuple(_frozen_modules(model, config))
        for module in self._frozen:
            module.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "TextEncoder":
        """Set training mode; the frozen part stays in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def tokenize(self, sentences: list[str]) -> dict[str, Tensor]:
        """Word pieces with the special tokens, cut to `max_tokens`, padded to the longest.

        Returns:
            `input_ids` and `attention_mask` (0 at padding), int64 of shape B x T, on the CPU.
        """
        tokens = self.tokenizer(
            list(sentences), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}

    def forward(self, tokens: dict[str, Tensor]) -> Tensor:
        """Encode what `tokenize` gave.

        Returns:
            h_u_BD, not normalised: the pool over all output vectors of a sentence, special tokens included, padding
            left out.
        """
        rows = len(tokens["attention_mask"])
        if tokens["attention_mask"].is_cuda or rows < 2 * CHUNKS:
            return self._encode(tokens)
        # On a CPU padding costs as much as text: sentences of like length go together, padded no further than need be.
        lengths_B = tokens["attention_mask"].sum(dim=1)
        order_B = torch.argsort(lengths_B, stable=True)
        parts = [
            self._encode({name: tensor[part, : int(lengths_B[part].max())] for name, tensor in tokens.items()})
            for part in order_B.chunk(CHUNKS)
        ]
        return torch.cat(parts)[torch.argsort(order_B)]

    def _encode(self, tokens: dict[str, Tensor]) -> Tensor:
        states_BTD = self.model(**tokens).last_hidden_state
        real_BT1 = tokens["attention_mask"].bool()[:, :, None]
        if self.config.pooling == "max":
            return states_BTD.masked_fill(~real_BT1, -torch.inf).amax(dim=1)
        if self.config.pooling == "mean":
            return states_BTD.masked_fill(~real_BT1, 0).sum(dim=1) / real_BT1.sum(dim=1)
        return states_BTD[:, 0]

    def save_architecture(self, folder: Path) -> None:
        """Write `text_encoder/` (configuration, tokenizer), which `load_text_encoder` rebuilds this from."""
        self.model.config.save_pretrained(folder / FOLDER)
        self.tokenizer.save_pretrained(folder / FOLDER)


def build_text_encoder(config: TextEncoderConfig, *, seed: int = 0) -> TextEncoder:
    """Build f_u with its initial weights.

    Args:
        config: Source (a checkpoint or run of ours too), pooling and what is frozen.
        seed: Decides random weights; the global random state is left as it was.

    Raises:
        InputError: The source cannot be had or read, or every layer would be frozen.
    """
    path = local_path(config.source)
    if path is not None and (checkpoint := checkpoint_folder(path)) is not None:
        return _from_checkpoint(checkpoint, config, seed)
    source = config.source if path is None else str(model_folder(path))
    # Without the hub, its cache on this machine may still hold the model.
    local = path is not None or not hub_answers()
    model_config, tokenizer = _config_and_tokenizer(source, local=local)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.weights == "random":
            model = AutoModel.from_config(model_config)
        else:
            model = _pretrained(source, model_config, local=local)
    return TextEncoder(model.float(), tokenizer, config)


def _from_checkpoint(folder: Path, config: TextEncoderConfig, seed: int) -> TextEncoder:
    """The text tower of one of our checkpoints, as a start for another run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = load_text_encoder(folder, config)
    if config.weights == "random":
        return encoder
    tensors = read_tensors(folder / "model.safetensors")
    prefix = f"{FOLDER}."
    try:
        encoder.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: its weights do not fit its text encoder ({reason}); take another run") from None
    return encoder


def load_text_encoder(folder: Path, config: TextEncoderConfig) -> TextEncoder:
    """Rebuild f_u from a checkpoint folder; its weights are arbitrary until a state dict is loaded.

    Raises:
        InputError: The folder lacks `text_encoder/`, or it is damaged.
    """
    if not (folder / FOLDER / "config.json").exists():
        raise InputError(f"no {FOLDER}/config.json in {folder}: not a checkpoint folder, or damaged")
    model_config, tokenizer = _config_and_tokenizer(str(folder / FOLDER), local=True)
    with torch.random.fork_rng(devices=[]):  # the global random state is left as it was
        model = AutoModel.from_config(model_config)
    return TextEncoder(model.float(), tokenizer, config)


def _config_and_tokenizer(source: str, *, local: bool) -> tuple[Any, Any]:
    try:
        model_config = AutoConfig.from_pretrained(source, local_files_only=local)
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
        if _loses_case(tokenizer):
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local, do_lower_case=False)
    except Exception as error:  # the hub's client and the readers of many formats raise many types
        raise _unavailable(source, error) from error
    return model_config, tokenizer


def _loses_case(tokenizer: Any) -> bool:
    """Whether the tokenizer lowers case although its vocabulary has capitals, as ClinicalBERT's does.

    Its folder says nothing of case, so the library's default for uncased BERT applies, and the word pieces that the
    model was trained on are never met.
    """
    pieces = [piece for piece in tokenizer.get_vocab() if piece not in tokenizer.all_special_tokens]
    capitals = sum(piece != piece.lower() and not piece.startswith("[") for piece in pieces)
    return capitals > 0.01 * len(pieces) and tokenizer.tokenize("A") == tokenizer.tokenize("a")


def _pretrained(source: str, model_config: Any, *, local: bool) -> Any:
    options: dict[str, Any] = {"config": model_config, "output_loading_info": True}
    pickled = Path(source) / "pytorch_model.bin"
    try:
        with _quiet():
            # A pickle in a local folder is read here, not by the library, so that no version of it runs its code.
            if pickled.exists() and not list(Path(source).glob("*.safetensors")):
                with torch.device("meta"):
                    architecture: Any = type(AutoModel.from_config(model_config))
                model, report = architecture.from_pretrained(None, state_dict=read_tensors(pickled), **options)
            else:
                model, report = AutoModel.from_pretrained(source, local_files_only=local, weights_only=True, **options)
    except InputError:
        raise
    except Exception as error:
        raise _unavailable(source, error) from error
    # The library fills gaps with random weights. The pooler alone may be missing: it is not used.
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith("pooler.")):
        raise InputError(
            f"the weights in {source} do not fit its config.json: {len(missing)} missing, first {missing[0]}"
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no report of the heads that f_u leaves out; what matters is checked and raised."""
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _unavailable(source: str, error: Exception) -> InputError:
    if Path(source).exists():
        return InputError(f"cannot read a Hugging Face model in {source}: {str(error).splitlines()[0]}")
    return InputError(
        f"cannot get {source!r} from the Hugging Face hub ({type(error).__name__}): "
        "check the name and the network, or give a local folder as text_encoder.source"
    )


def _frozen_modules(model: Any, config: TextEncoderConfig) -> list[nn.Module]:
    """The embeddings and the first layers, as the configuration says."""
    count = model.config.num_hidden_layers
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    if config.frozen_layers and not stacks:
        raise InputError(f"cannot freeze single layers of {config.source!r}: set text_encoder.frozen_layers to 0")
    if config.frozen_layers >= count:
        raise InputError(
            f"text_encoder.frozen_layers is {config.frozen_layers}, but {config.source!r} has {count} layers: "
            f"at least one must train, so give at most {count - 1}"
        )
    frozen = list(stacks[0][: config.frozen_layers]) if config.frozen_layers else []
    if config.freeze_embeddings:
        frozen.insert(0, getattr(model, "embeddings", None) or model.get_input_embeddings())
    return frozen
