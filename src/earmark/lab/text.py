"""The lab's text encoder: a bag of words with one hidden layer."""

from collections.abc import Sequence
from math import log

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

HIDDEN_SIZE = 256
MAX_SCALE = 100.0


class LabText(nn.Module):
    """Encoder of texts to embeddings that are compared with a `LabResNet`'s activations.

    Word order does not count. The hidden layer lets a pair of words mean something other
    than their sum: without it the embeddings of 128 classes (16 shapes x 8 textures) would
    span at most 23 directions.
    """

    def __init__(self, vocabulary: Sequence[str], features: int) -> None:
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        n_tokens = len(vocabulary) + 1
        self.words = nn.EmbeddingBag(n_tokens, HIDDEN_SIZE, mode="sum", padding_idx=0)
        self.norm = nn.LayerNorm(HIDDEN_SIZE)
        self.project = nn.Linear(HIDDEN_SIZE, features)
        self.log_scale = nn.Parameter(torch.tensor(log(1 / 0.07)))

    @property
    def scale(self) -> Tensor:
        """Factor from cosines to logits, at most `MAX_SCALE`."""
        return self.log_scale.exp().clamp(max=MAX_SCALE)

    def forward(self, words: Int64[Tensor, "text word"]) -> Float[Tensor, "text feature"]:
        """Return embeddings of tokenized texts, before any normalization."""
        return self.project(torch.relu(self.norm(self.words(words))))

    def tokenize(self, texts: Sequence[str]) -> Int64[Tensor, "text word"]:
        """Return each word's index in the vocabulary, from 1; shorter texts end in zeros."""
        if not texts:
            raise ValueError("There is no text to tokenize; give at least one.")
        indices = {word: index for index, word in enumerate(self.vocabulary, start=1)}
        try:
            rows = [torch.tensor([indices[word] for word in text.split()]) for text in texts]
        except KeyError as error:
            raise ValueError(
                f"The lab's text encoder does not know the word {error}; use words of "
                "earmark.lab.world.VOCABULARY."
            ) from None
        return nn.utils.rnn.pad_sequence(rows, batch_first=True).long()

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "text feature"]:
        """Return embeddings of texts, before any normalization."""
        return self(self.tokenize(texts).to(self.log_scale.device))
