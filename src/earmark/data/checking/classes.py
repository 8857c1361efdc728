"""Faults of a dataset that lies as one folder of images per class."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..catalogue import Dataset, objectnet_labels
from ..folders import nearest
from ..images import ImageSet
from .borders import border_faults, border_sample
from .counts import count_faults
from .decoding import Pool, unreadable
from .names import NUMBERS, class_names, meant_by
from .order import first_images
from .reports import Fault, Fix, Report, count, some
from .trees import Tree, is_image

_NEAREST = 50  # a comparison with 1,000 names takes some ms: not for thousands of folders


class ClassFolders:
    """A dataset, and the folders in which its images should lie.

    Args:
        dataset: What is known of it.
        tree: What lies there.
        instead_of: The title of the dataset that was expected there, if it was another.
    """

    def __init__(self, dataset: Dataset, tree: Tree, *, instead_of: str = "") -> None:
        self._dataset, self._tree, self._instead_of = dataset, tree, instead_of
        self._classes = class_names(dataset, tree.folders)
        known = frozenset(self._classes)
        self._meant = {name: meant_by(name, known) for name in tree.folders}
        # ObjectNet has more folders than classes that ImageNet has too.
        other = objectnet_labels() if dataset.classes == "objectnet" else {}
        self._unused = {n for n, klass in self._meant.items() if not klass and n in other}
        read = {n: one for n, one in tree.folders.items() if n not in self._unused}
        self._read = replace(tree, folders=read)
        files = self._read.files()
        self._images = ImageSet(
            dataset.name, tree.root, tuple(files), border=dataset.border
        )
        self._sample = border_sample(self._images)
        self.steps = len(files) + len(self._sample)

    def run(self, pool: Pool) -> Report:
        """Look for every fault.

        Args:
            pool: Where the images are decoded.

        Returns:
            What was found.
        """
        root, sizes = self._tree.root, self._sizes()
        folders = {klass: name for name, klass in self._meant.items() if klass}
        faults = (
            *self._faults_of_place(),
            *self._faults_of_names(),
            *empty_folders(self._read),
            *_strays(self._read),
            *count_faults(self._dataset, root, sizes, folders=folders),
            *self._faults_of_order(),
            *unreadable(self._images, pool),
            *border_faults(self._images, self._sample, pool),
        )
        return Report(
            self._dataset.name,
            self._dataset.title,
            root,
            sum(sizes.values()),
            self._dataset.images,
            faults,
            tuple(self._notes()),
        )

    def _sizes(self) -> dict[str, int]:
        """How many images each class has."""
        sizes = dict.fromkeys(self._classes, 0)
        for name, klass in self._meant.items():
            if klass:
                sizes[klass] += len(self._tree.folders[name].images)
        return sizes

    def _faults_of_place(self) -> Iterator[Fault]:
        if self._instead_of:
            root, title = self._tree.root, self._dataset.title
            remedy = f"It holds {title}, not {self._instead_of}: move it to its own place."
            yield Fault("place", f"{root}: {remedy}", (Fix(root, remedy),))

    def _faults_of_names(self) -> Iterator[Fault]:
        root = self._tree.root
        uses = Counter(self._meant.values())
        wrong = {
            name: klass
            for name, klass in self._meant.items()
            if klass and klass != name and not (name.isdecimal() and uses[klass] == 1)
        }
        extra = [
            name
            for name, klass in self._meant.items()
            if not klass and name not in self._unused
        ]
        yield from _misnamed(root, wrong)
        yield from _extra(root, extra, self._classes)
        yield from _missing(root, [name for name in self._classes if name not in uses])

    def _faults_of_order(self) -> Iterator[Fault]:
        if self._dataset.name == "imagenet" and self._classes is not NUMBERS:
            folders = {file: file.split("/")[0] for file in self._images.files}
            classes = {file: self._meant[name] or name for file, name in folders.items()}
            yield from first_images(self._tree.root, classes)

    def _notes(self) -> Iterator[str]:
        if self._classes is NUMBERS:
            yield (
                "The class folders are numbered: earmark reads their names as numbers; in "
                "the order of strings, 10 would come before 2."
            )
        name = self._tree.root.resolve().name
        if self._dataset.name == "v2" and "matched" not in name:
            yield f"The name {name} does not tell which variant of ImageNet-V2 this is."
        if self._unused:
            yield f"{count(len(self._unused), 'folder')} of no class of ImageNet: not read."
        loose = len([name for name in self._tree.loose if is_image(name)])
        if loose:
            yield f"{count(loose, 'image')} beside the class folders: not read."


def _misnamed(root: Path, wrong: Mapping[str, str]) -> Iterator[Fault]:
    if wrong:
        fixes = tuple(
            Fix(
                root / name,
                f"Move what it holds into {klass}, which is there too."
                if (root / klass).exists()
                else f"Rename it to {klass}.",
            )
            for name, klass in wrong.items()
        )
        pairs = [f"{name!r} is {klass}" for name, klass in wrong.items()]
        text = f"{count(len(fixes), 'class folder')} misnamed ({some(pairs)}): rename."
        yield Fault("class-name", text, fixes)


def _extra(root: Path, names: Sequence[str], classes: Sequence[str]) -> Iterator[Fault]:
    if not names:
        return
    near = {name: f" (nearest: {nearest(name, classes)})" for name in names[:_NEAREST]}
    fixes = tuple(
        Fix(root / name, f"It is no class{near.get(name, '')}: rename or remove it.")
        for name in names
    )
    from_1 = classes is NUMBERS and "1000" in names and not (root / "0").exists()
    remedy = "count the folders from 0, not from 1" if from_1 else "rename or remove"
    said = some([f"{name}{near.get(name, '')}" for name in names])
    text = f"{count(len(names), 'folder')} of no class: {said}: {remedy}."
    yield Fault("extra-class", text, fixes)


def _missing(root: Path, names: Sequence[str]) -> Iterator[Fault]:
    if names:
        remedy = "The class folder is missing: add it."
        fixes = tuple(Fix(root / name, remedy) for name in names)
        text = f"{count(len(names), 'class folder')} missing ({some(names)}): add."
        yield Fault("missing-class", text, fixes)


def empty_folders(tree: Tree) -> Iterator[Fault]:
    """A fault, if there are class folders without an image.

    Args:
        tree: What lies there.

    Yields:
        The fault, at most one.
    """
    names = [name for name, folder in tree.folders.items() if not folder.images]
    if names:
        remedy = "The class folder holds no image: fill or remove it."
        fixes = tuple(Fix(tree.root / name, remedy) for name in names)
        text = (
            f"{count(len(names), 'class folder')} without an image ({some(names)}): fill."
        )
        yield Fault("empty-class", text, fixes)


def _strays(tree: Tree) -> Iterator[Fault]:
    names = [
        f"{n}/{other}" for n, folder in tree.folders.items() for other in folder.others
    ]
    if names:
        remedy = "It is no image, but lies in a class folder: remove it."
        fixes = tuple(Fix(tree.root / name, remedy) for name in names)
        text = f"{count(len(names), 'entry')} of class folders no images ({some(names)}): "
        yield Fault("stray", f"{text}remove.", fixes)
