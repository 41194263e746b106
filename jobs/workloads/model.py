"""A small BERT-style text classifier: embeddings, a stack of Transformer encoder layers, one linear layer on top.

J. Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding", 2019, with the
normalization before each part of a layer, which trains without a long warm-up (R. Xiong et al., "On Layer Normalization
in the Transformer Architecture", 2020).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .corpus import PASSAGE_WORDS, Vocabulary
from .errors import WorkloadError
from .files import write_result


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a model.

    Attributes:
        vocabulary: how many different numbers a word may have.
        classes: how many answers there are.
        length: positions of a passage, [CLS] included.
        width: numbers that stand for one word; a multiple of `heads`.
        layers: encoder layers.
        heads: attention heads a layer.
        dropout: share of activations that training leaves out.
    """

    vocabulary: int
    classes: int
    length: int = PASSAGE_WORDS[1] + 1
    width: int = 64
    layers: int = 2
    heads: int = 4
    dropout: float = 0.2


class EncoderLayer(nn.Module):  # type: ignore[misc]  # torch ships no types that mypy is given
    """Self-attention, then two linear layers with a GELU between, each added to what came in."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.dropout = nn.Dropout(shape.dropout)
        self.attention_norm = nn.LayerNorm(shape.width)
        self.query_key_value = nn.Linear(shape.width, 3 * shape.width)
        self.attention_out = nn.Linear(shape.width, shape.width)
        self.feed_norm = nn.LayerNorm(shape.width)
        self.feed_in = nn.Linear(shape.width, 4 * shape.width)
        self.feed_out = nn.Linear(4 * shape.width, shape.width)

    def forward(self, x: Tensor, filled: Tensor) -> Tensor:
        """From (batch, length, width) to the same; `filled` (batch, length) is False where there is padding."""
        x = x + self.dropout(self._attend(self.attention_norm(x), filled))
        return x + self.dropout(self.feed_out(functional.gelu(self.feed_in(self.feed_norm(x)))))

    def _attend(self, x: Tensor, filled: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.query_key_value(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=filled[:, None, None, :])
        return self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))


class TextClassifier(nn.Module):  # type: ignore[misc]  # torch ships no types that mypy is given
    """Passages of numbered words in, one score a class out."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.word = nn.Embedding(shape.vocabulary, shape.width, padding_idx=Vocabulary.PAD)
        self.position = nn.Embedding(shape.length, shape.width)
        for table in (self.word, self.position):
            nn.init.normal_(table.weight, std=0.02)
        self.dropout = nn.Dropout(shape.dropout)
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """From (batch, length) of word numbers to (batch, classes) of scores before the softmax."""
        filled = tokens != Vocabulary.PAD
        # No column that is padding in the whole batch: half of the work on short passages.
        length = int(filled.sum(dim=1).max())
        tokens, filled = tokens[:, :length], filled[:, :length]
        x = self.dropout(self.word(tokens) + self.position.weight[:length])
        for layer in self.layers:
            x = layer(x, filled)
        # [CLS] stands first and has looked at every word: it is the passage.
        return self.head(self.dropout(self.norm(x[:, 0])))


def hide_words(tokens: Tensor, share: float) -> Tensor:
    """Replace a random share of the words by the unknown word, so that no single word is learned by heart."""
    hidden = (torch.rand(tokens.shape, device=tokens.device) < share) & (tokens > Vocabulary.CLS)
    return tokens.masked_fill(hidden, Vocabulary.UNKNOWN)


def save_model(path: Path, model: TextClassifier, vocabulary: Vocabulary, classes: list[str]) -> None:
    """Write all that is needed to classify: the weights, the model's size, the words and the names of the classes."""
    weights = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    content = {"weights": weights, "shape": asdict(model.shape), "words": vocabulary.words, "classes": classes}
    write_result(path, lambda file: torch.save(content, file))


def load_model(path: Path) -> tuple[TextClassifier, Vocabulary, list[str]]:
    """Read what `save_model` wrote, ready to classify on the CPU.

    Raises:
        OSError: the file cannot be read.
        WorkloadError: it is no such file.
    """
    try:
        # weights_only: a file from elsewhere must not run code.
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        model = TextClassifier(Shape(**content["shape"]))
        model.load_state_dict(content["weights"])
        return model.eval(), Vocabulary(content["words"]), content["classes"]
    except OSError:
        raise
    except Exception as error:  # torch raises a dozen kinds for a damaged file; all mean the same
        raise WorkloadError(f"{path} is no model of text_classifier: {error}") from error
