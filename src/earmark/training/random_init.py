"""Classifiers with random weights, to train from scratch or as controls."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

import torch

from ..models.classifier import Classifier, EncoderSpec, Head
from ..models.family import example_architectures, get_family
from ..models.head_extraction import probe_output
from ..models.model_id import parse_model_id


def random_classifier(
    architecture: str, classes: tuple[str, ...], *, name: str, seed: int = 0
) -> Classifier:
    """Return a classifier of a random encoder and a random linear head, on the CPU."""
    # Images are preprocessed as for OpenAI's models if the architecture is open_clip's, and
    # else as its library does.
    model_id = parse_model_id(architecture)
    family = get_family(model_id.family) if model_id.family else None
    if family is None or family.build_random is None:
        examples = example_architectures(trainable=True)
        raise ValueError(f"{architecture!r} cannot be trained: give one such as {examples}.")
    if problem := family.find_problem(model_id.model, untrained=True):
        raise ValueError(f"{problem}.")
    with use_seed(seed):
        encoder, config, transform = family.build_random(model_id.model)
    features = probe_output(encoder, transform.input_size)
    if features.ndim != 2:
        raise ValueError(
            f"{architecture} returns {features.ndim - 1} axes per image, not one vector: "
            "choose an architecture that pools."
        )
    return Classifier(
        name=name,
        role="supervised",
        encoder=encoder,
        head=random_head(features.shape[1], len(classes), seed=seed + 1),
        classes=classes,
        transform=transform,
        backbone=model_id.model,
        pretraining="none",
        spec=EncoderSpec(family.name, config),
    )


def reinitialize(classifier: Classifier, *, seed: int = 0) -> Classifier:
    """Return the control of a classifier: the same, with random weights, on the CPU."""
    if (spec := classifier.encoder_spec) is None:
        raise ValueError(f"The encoder of {classifier.name} cannot be rebuilt: its spec is None.")
    with use_seed(seed):
        encoder = spec.build_encoder()
    features, classes = classifier.head.weight.shape[1], len(classifier.classes)
    return replace(
        classifier,
        name=f"{classifier.name} untrained",
        role="other",
        encoder=encoder.requires_grad_(requires_grad=False).eval(),
        head=random_head(features, classes, seed=seed + 1),
        pretraining="none",
        text_tower=None,
    )


def random_head(features: int, classes: int, *, seed: int = 0) -> Head:
    """Return a head with bias, initialized as torch initializes a linear layer."""
    with use_seed(seed):
        linear = torch.nn.Linear(features, classes)
    return Head(linear.weight.detach(), linear.bias.detach())


def add_zero_bias(head: Head) -> Head:
    """Return a head with a bias to train, which is 0 if there was none."""
    if head.bias is not None:
        return head
    return replace(head, bias=torch.zeros(len(head.weight), device=head.weight.device))


@contextmanager
def use_seed(seed: int) -> Generator[None]:
    """Draw on the CPU from a seed, and restore the random state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
