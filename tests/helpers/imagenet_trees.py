"""ImageNet, its shifts and Broden in their true layouts, small, and a model that knows.

Every image says in its pixels which of ImageNet's classes it shows, so that an oracle can
read the answer; what lies around it (a border, the order of folders) must be right then.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from earmark import Classifier, Head
from earmark.data.registry import class_ids, imagenet_wnids, objectnet_labels, objectnet_to_imagenet

SIDE = 8
WNIDS = imagenet_wnids()
PLACE = {wnid: place for place, wnid in enumerate(WNIDS)}


def picture(shown: int, *, border: int = 0, side: int = SIDE) -> Image.Image:
    """An image of one colour, red + 256 green being the class that it shows."""
    pixels = np.full((side + 2 * border, side + 2 * border, 3), 255, np.uint8)
    inner = pixels[border : border + side, border : border + side]
    inner[:] = (shown % 256, shown // 256, 7 * shown % 256)
    return Image.fromarray(pixels)


def save(path: Path, image: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_tree(root: Path, *, every: int = 1, side: int = SIDE) -> None:
    """All six sets, of every so manyth class one image, and ObjectNet's other folders."""
    for wnid in WNIDS[::every]:
        shown = picture(PLACE[wnid], side=side)
        save(root / "imagenet" / "val" / wnid / "1.png", shown)
        save(root / "sketch" / wnid / "1.png", shown)
        number = root / "imagenetv2-matched-frequency-format-val" / str(PLACE[wnid])
        save(number / "1.png", shown)
    for name in ("r", "a"):
        for wnid in class_ids(name)[::every]:
            save(root / f"imagenet-{name}" / wnid / "1.png", picture(PLACE[wnid], side=side))
    for folder, wnids in list(objectnet_to_imagenet().items())[::every]:
        shown = picture(PLACE[wnids[0]], border=2, side=side)
        save(root / "objectnet-1.0" / "images" / folder / "1.png", shown)
    other = next(folder for folder in objectnet_labels() if folder not in objectnet_to_imagenet())
    save(root / "objectnet-1.0" / "images" / other / "1.png", picture(3, border=2))


def write_broden(root: Path, *, images: int = 24, side: int = SIDE) -> None:
    """Broden, version 1: an object by mask, a colour and a scene by label."""
    rows: list[dict[str, object]] = []
    for image in range(images):
        save(root / "images" / f"{image}.jpg", picture(40 * image, side=side))
        mask = np.zeros((side, side, 3), np.uint8)
        mask[: side // 2, :, 0] = 1 if image % 3 == 0 else 0
        save(root / "images" / f"{image}_object.png", Image.fromarray(mask))
        row = dict.fromkeys(("color", "object", "part", "material", "scene", "texture"), "")
        row |= {"color": "2" if image % 2 else "", "scene": "3" if image < 9 else ""}
        row |= {"object": f"{image}_object.png", "image": f"{image}.jpg", "split": "train"}
        rows.append({**row, "ih": side, "iw": side, "sh": side, "sw": side})
    columns = ("image", "split", "ih", "iw", "sh", "sw")
    columns += ("color", "object", "part", "material", "scene", "texture")
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    (root / "label.csv").write_text(
        "number,name,category,frequency,coverage,syns\n"
        "1,cup,object(8),8,1,cup\n2,red-c,color(12),12,1,red\n3,bar-s,scene(9),9,1,bar\n"
    )


@dataclass(frozen=True)
class ReadClass:
    """The class that an image's first pixel says, after all that is done to the image."""

    def __call__(self, image: Image.Image) -> Tensor:  # noqa: D102
        red, green, _ = image.getpixel((0, 0))  # type: ignore[misc]
        return torch.tensor(float(red + 256 * green)).reshape(1, 1, 1)


CODES = torch.nn.functional.normalize(
    torch.randn(len(WNIDS), 256, generator=torch.Generator().manual_seed(0)), dim=1
)
"""A direction for each class, nearly at right angles to all others."""


class Answers(nn.Module):
    """The class that an image shows to the activations that stand for the answer."""

    def __init__(self, shown_as: Tensor) -> None:
        super().__init__()
        self.register_buffer("shown_as", shown_as)

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        return self.shown_as[images.flatten(1)[:, 0].long().clamp(0, len(WNIDS) - 1)]


def oracle(answers: Tensor | None = None, classes: tuple[str, ...] = WNIDS) -> Classifier:
    """A model whose logits are, for an image of class k, nearly row k of ``answers``.

    Args:
        answers: Of shape (class, class); None gives the right ones.
        classes: The head's classes, in any order; ``answers`` are in ImageNet's.

    Returns:
        The model.
    """
    answers = torch.eye(len(WNIDS)) if answers is None else answers
    order = torch.tensor([PLACE[wnid] for wnid in classes])
    head = Head(CODES[order])
    return Classifier(
        "oracle", "other", Answers(answers @ CODES).eval(), head, classes, ReadClass()
    )
