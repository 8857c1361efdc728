"""Folders of images that are none of the datasets that earmark knows."""

from ..images import ImageSet
from .classes import empty_folders
from .decoding import Pool, unreadable
from .reports import Fault, Fix, Report, count
from .trees import Tree, is_image

TITLE = "your own images"


class OwnImages:
    """Images of a user's own, in class folders or in none: counted and decoded.

    Args:
        tree: What lies there.
        expected: The title of the dataset that was expected there, if any was.
    """

    def __init__(self, tree: Tree, *, expected: str = "") -> None:
        self._tree, self._expected = tree, expected
        files = tree.files() or [name for name in tree.loose if is_image(name)]
        self._images = ImageSet("own", tree.root, tuple(files))
        self.steps = len(self._images)

    def run(self, pool: Pool) -> Report:
        """Look for images that cannot be read.

        Args:
            pool: Where the images are decoded.

        Returns:
            What was found.
        """
        if not len(self._images):
            return self._nothing()
        used = [name for name, folder in self._tree.folders.items() if folder.images]
        of = count(len(used), "class") if used else "No class folder"
        notes = [f"{of} and {count(len(self._images), 'image')}."]
        if self._expected:
            notes.append(f"{self._expected} lies here by its name, but has other classes.")
        empty = empty_folders(self._tree) if used else ()
        faults = (*empty, *unreadable(self._images, pool))
        where = self._tree.root
        return Report("", TITLE, where, len(self._images), None, faults, tuple(notes))

    def _nothing(self) -> Report:
        root = self._tree.root
        is_empty = f"{root} should hold {self._expected}, but has no class folder of images"
        unknown = (
            f"{root} is no dataset that earmark knows: give the folder of one, of several, "
            f"or of images as {root / 'CLASS' / 'IMAGE'}"
        )
        text = f"{is_empty}: fill it." if self._expected else f"{unknown}."
        kind, title = (
            ("empty", self._expected) if self._expected else ("unknown", "unknown")
        )
        return Report("", title, root, 0, None, (Fault(kind, text, (Fix(root, text),)),))
