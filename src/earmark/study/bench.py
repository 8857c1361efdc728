"""The work of a study: one part of a pool, from its models to their records."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from re import sub
from shutil import rmtree
from typing import TYPE_CHECKING

from ..activations import Encoding, stored_activations
from ..data.folders import list_folders
from ..models.classifier import Classifier
from ..models.hub import one_line
from ..models.loading import load_model
from ..results import Record, kept_key, read_records, write_records
from ..signatures.robustness import Baseline
from ..tuning.interpolation import interpolated
from ..tuning.recipes import FINETUNE, SUPERVISED, EpochRecipe
from ..tuning.untrained import random_head, untrained, untrained_like
from .compared import compared
from .keys import key_of, key_of_lines, key_of_model, key_of_sets, key_of_settings
from .lessons import read_lessons, training_folder
from .lines import lines_for
from .members import Member, Part
from .progress import Tell, silent
from .scan import scan, scan_along
from .sets import Sets, find_sets
from .training import Running, run_key, train_on

if TYPE_CHECKING:
    from .pools import Cka, Overrides, Pool

RECORDS_FOLDER = "records"
_FAILURES = (ValueError, OSError, RuntimeError)  # of one model; the study goes on
_VERBS = {
    "loaded": "load",
    "finetuned": "finetune",
    "trained": "train",
    "untrained": "make",
}


@dataclass(frozen=True)
class Setting:
    """Where a study finds its data, where it writes, and how it runs.

    Attributes:
        pool: The pool.
        data: The folder of ImageNet, its shifts and Broden.
        out: The study's folder.
        device: Where models run.
        encoding: How activations are computed and kept.
        hold: Whether decoded images stay in memory, for small ones.
    """

    pool: "Pool"
    data: Path
    out: Path
    device: str = "cpu"
    encoding: Encoding = field(default_factory=Encoding)
    hold: bool = False


@dataclass(frozen=True)
class Failure:
    """What could not be done.

    Attributes:
        what: The work, with the full name of its model.
        why: In one line.
    """

    what: str
    why: str


@dataclass
class Done:
    """What came of a part, filled as it is done.

    Attributes:
        records: In the order of the work.
        failures: What could not be done.
    """

    records: list[Record]
    failures: list[Failure]


@dataclass(frozen=True)
class _End:
    """A model, and what fixes it: hashed once, since that reads all weights."""

    model: Classifier
    key: dict[str, object]


class Bench:
    """Does parts of one study one after another; what they share is read once.

    Args:
        setting: Where and how.
        tell: Told of progress.
    """

    def __init__(self, setting: Setting, tell: Tell = silent) -> None:
        self._setting = setting
        self._tell = tell
        self._sets: dict[tuple[str, ...], tuple[Sets, dict[str, object]]] = {}

    def do(self, part: Part) -> Done:
        """Everything that the pool asks of a part.

        What was done before from the same models, images and settings is read again. What
        cannot be done is told, and the rest goes on.

        Args:
            part: A family, or a single model.

        Returns:
            Its records.
        """
        done = Done([], [])
        ends: list[_End] = []
        for member in part.members:
            if (model := self._ready(member, done)) is not None:
                ends.append(end := _End(model, key_of_model(model)))
                with _attempting(f"measure {member.name}", done):
                    done.records.extend(self._measured(member, end))
        if len(ends) == 2:
            self._between(part, ends[0], ends[1], done)
        return done

    def _ready(self, member: Member, done: Done) -> Classifier | None:
        """The model, loaded or trained; None if it is vacant or cannot be had."""
        if member.made == "vacant":
            return None
        with _attempting(f"{_VERBS[member.made]} {member.name}", done):
            return member.called(self._made(member))
        return None

    def _made(self, member: Member) -> Classifier:
        if member.made == "trained":
            return self._trained(member)
        loaded = self._loaded(member.source)
        if member.made == "untrained":
            control = untrained_like(loaded)
            control.encoder.to(self._setting.device)
            return control
        return self._finetuned(member, loaded) if member.made == "finetuned" else loaded

    def _loaded(self, source: str) -> Classifier:
        return load_model(
            source,
            device=self._setting.device,
            cache=self._setting.out / "heads",
            progress=lambda done, total: self._tell("encode the class names", done, total),
        )

    def _trained(self, member: Member) -> Classifier:
        how = self._setting.pool.train
        recipe, classes = changed(SUPERVISED, how), self._classes()
        start = untrained(member.source, classes, name=member.name, seed=recipe.seed)
        return self._learned(member, start, recipe, how)

    def _finetuned(self, member: Member, loaded: Classifier) -> Classifier:
        how = self._setting.pool.finetune
        recipe = changed(FINETUNE, how)
        if not loaded.classes:  # an encoder that learned without labels or words
            classes, features = self._classes(), loaded.head.weight.shape[1]
            head = random_head(features, len(classes), seed=recipe.seed)
            loaded = replace(loaded, head=head, classes=classes)
        return self._learned(member, loaded, recipe, how)

    def _classes(self) -> tuple[str, ...]:
        """Those of the training images."""
        return tuple(list_folders(training_folder(self._setting.data)))

    def _learned(
        self, member: Member, start: Classifier, recipe: EpochRecipe, how: "Overrides"
    ) -> Classifier:
        setting = self._setting
        running = Running(
            setting.device,
            micro_batch=min(how.micro_batch or 64, recipe.batch_size),
            workers=setting.encoding.workers,
            precision=how.precision or "float32",
        )
        start, lessons = member.called(start), read_lessons(setting.data, start.classes)
        # Other weights, images or recipes are another run, in a folder of its own.
        folder = f"{slug(member.name)}-{run_key(start, lessons, recipe, running)[:8]}"
        out = setting.out / "models" / folder
        learned = train_on(start, lessons, recipe, out, running=running, tell=self._tell)
        learned.encoder.to(setting.device)
        return learned

    def _measured(self, member: Member, end: _End) -> list[Record]:
        model, (sets, known) = end.model, self._found(end.model)
        lines = lines_for(model.classes, sets)

        def make() -> list[Record]:
            store = self._setting.out / "activations"
            return scan(
                model,
                sets,
                lines.baselines,
                store,
                encoding=self._setting.encoding,
                tell=self._tell,
            )

        key = key_of("scan", model=end.key, **self._known(known, lines.baselines))
        return [*lines.records, *member.grouped(self._kept(member.name, key, make))]

    def _between(self, part: Part, zero: _End, one: _End, done: Done) -> None:
        """Along the path between two models, and their layers side by side."""
        for alpha in self._setting.pool.alphas:
            with _attempting(f"measure {part.label} at alpha {alpha:g}", done):
                done.records.extend(self._along(part, zero, one, alpha))
        if (how := self._setting.pool.cka) is not None:
            with _attempting(f"compare the layers of {part.label}", done):
                done.records.extend(self._compared(part, zero, one, how))

    def _along(self, part: Part, zero: _End, one: _End, alpha: float) -> list[Record]:
        sets, known = self._found(zero.model)
        if sets.imagenet.labels is None:
            raise ValueError(
                f"{sets.imagenet.root} has no class folders of the head's classes, and "
                "between two models accuracy is measured: give such a folder, or no alphas."
            )
        lines = lines_for(zero.model.classes, sets).baselines
        name = name_along(part, alpha)
        store = self._setting.out / "along" / slug(name)

        def make() -> list[Record]:
            return scan_along(
                replace(interpolated(zero.model, one.model, alpha), name=name),
                sets,
                lines,
                store,
                encoding=self._setting.encoding,
                tell=self._tell,
            )

        key = key_of(
            "along", ends=[zero.key, one.key], alpha=alpha, **self._known(known, lines)
        )
        try:
            records = self._kept(name, key, make)
        except _FAILURES:
            rmtree(store, ignore_errors=True)
            raise
        rmtree(store, ignore_errors=True)  # as many gigabytes again for each alpha
        return part.first.grouped(records, alpha=alpha)

    def _compared(self, part: Part, zero: _End, one: _End, how: "Cka") -> list[Record]:
        sets, known = self._found(zero.model)

        def make() -> list[Record]:
            workers = self._setting.encoding.workers
            read = self._readable(zero.model, sets)
            return compared(
                one.model, zero.model, read, how, workers=workers, tell=self._tell
            )

        compares = {"ends": [zero.key, one.key], "how": how.model_dump()}
        key = key_of("cka", **compares, **self._known(known, ()))
        return part.first.grouped(self._kept(name_of_layers(part), key, make))

    def _readable(self, model: Classifier, sets: Sets) -> Sets:
        """The sets without the images that measuring left out."""
        encoding, store = self._setting.encoding, self._setting.out / "activations"
        if not encoding.skip_unreadable:
            return sets
        kept = [
            one.without(stored_activations(model, one, store, encoding=encoding).skipped)
            for one in (sets.imagenet, *sets.shifts)
        ]
        return replace(sets, imagenet=kept[0], shifts=tuple(kept[1:]))

    def _found(self, model: Classifier) -> tuple[Sets, dict[str, object]]:
        """The images for a model's classes, and what fixes them; looked for once."""
        if model.classes not in self._sets:
            out = self._setting.out
            sets = find_sets(model, self._setting.data, passing_over=[out], tell=self._tell)
            known = key_of_sets(sets)
            self._sets[model.classes] = (_held(sets) if self._setting.hold else sets, known)
        return self._sets[model.classes]

    def _known(
        self, sets: Mapping[str, object], lines: Sequence[Baseline]
    ) -> dict[str, object]:
        setting = self._setting
        return {
            "sets": sets,
            "lines": key_of_lines(lines),
            "settings": key_of_settings(setting.encoding, setting.device),
        }

    def _kept(self, name: str, key: str, make: Callable[[], list[Record]]) -> list[Record]:
        """Records from disk where their key is this one; else made, and kept."""
        path = records_file(self._setting.out, name)
        if kept_key(path) != key:
            write_records(path, make(), key=key)
        return read_records(path)


def name_along(part: Part, alpha: float) -> str:
    """What a model between the two of a family is called."""
    first, second = part.members
    return f"{first.name} to {second.name}, alpha {alpha:g}"


def name_of_layers(part: Part) -> str:
    """What the comparison of the layers of a family's two models is called."""
    first, second = part.members
    return f"{first.name} to {second.name}, layers"


def changed(recipe: EpochRecipe, how: "Overrides") -> EpochRecipe:
    """A recipe with a pool's changes; how it is computed is no part of it."""
    given = how.given()
    return replace(recipe, **{key: given[key] for key in given if hasattr(recipe, key)})


def records_file(out: Path, name: str) -> Path:
    """Where a study keeps the records of one piece of work.

    Args:
        out: The study's folder.
        name: What the work is called: any text.

    Returns:
        A path that no other name has.

    Example:
        >>> records_file(Path("s"), "ViT-B-16,openai").name
        'ViT-B-16_openai-28cfe8.parquet'
    """
    return out / RECORDS_FOLDER / f"{slug(name)}.parquet"


def slug(name: str) -> str:
    """A name that a file can have, with six digits of a hash to tell it from others."""
    return (
        f"{sub(r'[^A-Za-z0-9.-]+', '_', name)[:80]}-{sha256(name.encode()).hexdigest()[:6]}"
    )


def _held(sets: Sets) -> Sets:
    concepts = sets.concepts
    return replace(
        sets,
        imagenet=sets.imagenet.held(),
        shifts=tuple(one.held() for one in sets.shifts),
        concepts=concepts and replace(concepts, images=concepts.images.held()),
    )


@contextmanager
def _attempting(what: str, done: Done) -> Generator[None]:
    """What fails in here is told in the end, and the study goes on."""
    try:
        yield
    except _FAILURES as error:
        done.failures.append(Failure(what, one_line(error)))
