"""The text tower of the lab: a bag of words, and one hidden layer."""

from collections.abc import Sequence
from math import log

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

HIDDEN = 256
LARGEST_SCALE = 100.0


class LabText(nn.Module):
    """Texts to embeddings that can be compared with a lab tower's activations.

    The order of the words does not count. The hidden layer lets two words mean, together,
    something else than their sum; without it the embeddings of 128 classes made of 16
    shapes and 8 textures would span 23 directions at most.

    Args:
        vocabulary: The words that it knows.
        features: How many numbers a text gets: as many as the image tower's activations.

    Example:
        >>> LabText(("circle", "red"), features=128).embed(["red circle", "circle"]).shape
        torch.Size([2, 128])
    """

    def __init__(self, vocabulary: Sequence[str], features: int) -> None:
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self.words = nn.EmbeddingBag(len(vocabulary) + 1, HIDDEN, mode="sum", padding_idx=0)
        self.norm = nn.LayerNorm(HIDDEN)
        self.project = nn.Linear(HIDDEN, features)
        self.log_scale = nn.Parameter(torch.tensor(log(1 / 0.07)))

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by to become logits, at most 100."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def forward(self, words: Int64[Tensor, "text word"]) -> Float[Tensor, "text feature"]:
        """Embeddings, before any normalisation, of texts as numbers of words."""
        return self.project(torch.relu(self.norm(self.words(words))))

    def read(self, texts: Sequence[str]) -> Int64[Tensor, "text word"]:
        """Numbers of the words of each text; shorter texts end in zeros.

        Args:
            texts: Words of the vocabulary, with spaces between them.

        Returns:
            For each word, 1 plus its place in the vocabulary.

        Raises:
            ValueError: If there is no text, or if a word is not in the vocabulary.
        """
        if not texts:
            raise ValueError("There is no text to read; give at least one.")
        places = {word: 1 + place for place, word in enumerate(self.vocabulary)}
        try:
            bags = [torch.tensor([places[word] for word in text.split()]) for text in texts]
        except KeyError as error:
            raise ValueError(
                f"The lab's text tower does not know the word {error}; use words of "
                "earmark.data.lab.VOCABULARY."
            ) from None
        return nn.utils.rnn.pad_sequence(bags, batch_first=True).long()

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "text feature"]:
        """Embeddings of texts, before any normalisation."""
        return self(self.read(texts).to(self.log_scale.device))
