"""Zero-shot heads, against open_clip's own builder and the words that it ships."""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from torch.testing import assert_close

import earmark.data
from earmark.models import _torchvision_compat  # noqa: F401
from earmark.models.classifier import Classifier, Head, TextTower
from earmark.models.preprocessing import Preprocessing
from earmark.models.zeroshot import (
    Prompts,
    imagenet_prompts,
    imagenet_wnids,
    load_prompts,
    with_zero_shot_head,
    zero_shot_head,
)

FEATURES = 6
VISION = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
BIRDS = Prompts(
    ("n01", "n02", "n03"), ("goose", "mute swan", "duck"), ("a {}.", "{} {}", "the small {}")
)


class Tower:
    """Embeddings that depend on the text only; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """One embedding for each text."""
        self.asked.append([*texts])
        return torch.stack([self._one(text) for text in texts])

    def _one(self, text: str) -> Tensor:
        letters = torch.tensor([ord(letter) for letter in text], dtype=torch.float32)
        return (letters[:, None] * torch.arange(1, FEATURES + 1)).sin().sum(dim=0)

    @property
    def texts(self) -> list[str]:
        """All that it was asked."""
        return [text for batch in self.asked for text in batch]


def classifier(tower: Tower | None, *, fingerprint: str = "f", scale: float = 10.0):
    return Classifier(
        name="tiny",
        role="finetuned",
        encoder=nn.Identity(),
        head=Head(torch.zeros(0, FEATURES), normalizes=True),
        classes=(),
        transform=Preprocessing(None, None, (0, 0, 0), (1, 1, 1)),
        text_tower=tower and TextTower(tower, scale, fingerprint, nn.Identity()),
    )


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Classifier]:
    """A tiny model of open_clip's, and the classifier that earmark makes of its file."""
    from open_clip import factory

    from earmark.models.open_clip_models import load_open_clip

    paths, known = [*factory._MODEL_CONFIG_PATHS], dict(factory._MODEL_CONFIGS)
    folder = tmp_path_factory.mktemp("config")
    config = {
        "embed_dim": 16,
        "vision_cfg": VISION,
        "text_cfg": {"width": 32, "layers": 2, "heads": 2},
    }
    (folder / "tiny-words.json").write_text(json.dumps(config))
    factory.add_model_config(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = factory.create_model("tiny-words").eval()
    save_file(dict(model.state_dict()), folder / "towers.safetensors")
    loaded = load_open_clip("tiny-words", str(folder / "towers.safetensors"))
    factory._MODEL_CONFIG_PATHS[:], factory._MODEL_CONFIGS = paths, known
    return model, loaded


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_equals_open_clips_builder(towers: tuple[nn.Module, Classifier], batch_size: int):
    from open_clip import SIMPLE_IMAGENET_TEMPLATES, build_zero_shot_classifier, get_tokenizer

    model, loaded = towers
    prompts = imagenet_prompts("simple")
    some = Prompts(prompts.classes[:5], prompts.names[:5], prompts.templates)
    expected = (
        build_zero_shot_classifier(
            model, get_tokenizer("ViT-B-32"), some.names, SIMPLE_IMAGENET_TEMPLATES
        ).T
        * model.logit_scale.exp().item()
    )

    made = with_zero_shot_head(loaded, some, batch_size=batch_size)

    assert_close(made.head.weight, expected, rtol=1e-5, atol=1e-5)
    assert (cosine_similarity(made.head.weight, expected) >= 1 - 1e-6).all()
    assert (made.head.bias, made.head.normalizes) == (None, True)
    assert made.classes == some.classes
    assert (made.role, made.encoder) == (loaded.role, loaded.encoder)


def test_is_the_head_of_its_phrasings():
    tower = Tower()

    made = with_zero_shot_head(classifier(tower), BIRDS, batch_size=2)

    expected = zero_shot_head(Tower(), BIRDS.texts, scale=10.0)
    assert_close(made.head.weight, expected.weight, rtol=0, atol=0)
    assert made.role == "finetuned"


def test_reads_each_text_once_and_the_short_ones_together():
    names = ("crane", "crane", "crane of steel")
    tower, twins = Tower(), Prompts(("a", "b", "c"), names, ("{}", "a tall {}"))

    made = with_zero_shot_head(classifier(tower), twins, batch_size=1)
    with_zero_shot_head(classifier(tower), BIRDS, batch_size=4)

    assert tower.texts[:2] == ["crane", "a tall crane"]
    assert_close(made.head.weight[0], made.head.weight[1])
    lengths = [len(text) for text in tower.texts[4:]]
    assert lengths == sorted(lengths)
    assert [len(batch) for batch in tower.asked] == [1, 1, 1, 1, 4, 4, 1]


def test_the_order_of_texts_is_that_of_every_process():
    """Not that of a set of strings, whose hashes differ from one process to another."""
    tower = Tower()
    words = ["ox", "an", "be", "cat", "ant", "bee", "cow", "do"]
    with_zero_shot_head(classifier(tower), Prompts(tuple(words), tuple(words), ("{}",)))

    assert tower.texts == sorted(words, key=lambda text: (len(text), text))


def test_a_head_that_tells_nothing_apart_is_refused():
    def embed(texts: Sequence[str]) -> Tensor:
        return torch.ones(len(texts), FEATURES)

    flat = TextTower(embed, 10.0, "f", nn.Identity())
    with pytest.raises(ValueError, match="All 3 rows of the head of tiny are equal"):
        with_zero_shot_head(replace(classifier(None), text_tower=flat), BIRDS)


def test_tells_its_progress():
    told: list[tuple[int, int]] = []

    with_zero_shot_head(
        classifier(Tower()),
        BIRDS,
        batch_size=4,
        progress=lambda done, total: told.append((done, total)),
    )

    assert told == [(4, 9), (8, 9), (9, 9)]


def test_averages_in_float64():
    """Rounding of single embeddings would show, were it added up in float32."""
    names = tuple(f"{number}" for number in range(400))
    prompts = Prompts(("one",), ("goose",), tuple(f"{{}} {name}" for name in names))
    rows = Tower()(prompts.texts[0]).double()
    mean = (rows / rows.norm(dim=1, keepdim=True)).mean(dim=0)

    made = with_zero_shot_head(classifier(Tower()), prompts)

    expected = (10 * mean / mean.norm()).float()
    assert_close(made.head.weight[0], expected, rtol=0, atol=0)


def test_keeps_heads(tmp_path: Path):
    first, second = Tower(), Tower()

    made = with_zero_shot_head(classifier(first), BIRDS, cache=tmp_path / "heads")
    again = with_zero_shot_head(classifier(second), BIRDS, cache=tmp_path / "heads")

    assert_close(again.head.weight, made.head.weight, rtol=0, atol=0)
    assert (again.head.normalizes, again.classes) == (True, BIRDS.classes)
    assert first.asked
    assert not second.asked
    assert len([*(tmp_path / "heads").iterdir()]) == 1


def test_heads_are_kept_apart_by_all_they_depend_on(tmp_path: Path):
    tower = Tower()
    with_zero_shot_head(classifier(tower), BIRDS, cache=tmp_path)
    renamed = replace(BIRDS, classes=("x", "y", "z"))
    with_zero_shot_head(classifier(tower), renamed, cache=tmp_path)
    assert len(tower.texts) == 9

    for other, prompts in [
        (classifier(tower, fingerprint="g"), BIRDS),
        (classifier(tower, scale=11.0), BIRDS),
        (classifier(tower), replace(BIRDS, names=("goose", "duck", "mute swan"))),
        (classifier(tower), replace(BIRDS, templates=BIRDS.templates[:2])),
    ]:
        tower.asked.clear()
        with_zero_shot_head(other, prompts, cache=tmp_path)
        assert tower.asked


def test_heads_are_kept_apart_by_what_computes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made, tower = classifier(Tower()), Tower()
    with_zero_shot_head(made, BIRDS, cache=tmp_path)
    elsewhere = TextTower(tower, 10.0, "f", nn.Linear(1, 1, device="meta"))

    with_zero_shot_head(replace(made, text_tower=elsewhere), BIRDS, cache=tmp_path)
    assert tower.asked

    monkeypatch.setattr(torch, "__version__", "9.9")
    with_zero_shot_head(classifier(later := Tower()), BIRDS, cache=tmp_path)
    assert later.asked


def other_head(path: Path) -> None:
    save_file({"weight": torch.ones(3, FEATURES)}, path)


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_shape(path: Path) -> None:
    save_file({"weight": torch.ones(2, FEATURES)}, path)


def other_tensors(path: Path) -> None:
    save_file({"bias": torch.ones(3)}, path)


@pytest.mark.parametrize(
    "damage",
    [
        other_head,
        one_bit,
        other_shape,
        other_tensors,
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: path.write_bytes(b""),
    ],
)
def test_damaged_heads_are_made_again(tmp_path: Path, damage: Callable[[Path], object]):
    made = with_zero_shot_head(classifier(Tower()), BIRDS, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    damage(path)

    with pytest.warns(UserWarning, match=rf"{path} is damaged or not earmark's \("):
        again = with_zero_shot_head(classifier(Tower()), BIRDS, cache=tmp_path)

    assert_close(again.head.weight, made.head.weight, rtol=0, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_zero_shot_head(classifier(Tower()), BIRDS, cache=tmp_path)


def test_a_kept_head_of_another_name_is_not_believed(tmp_path: Path):
    with_zero_shot_head(classifier(Tower(), fingerprint="g"), BIRDS, cache=tmp_path)
    (other,) = tmp_path.iterdir()
    with_zero_shot_head(classifier(Tower()), BIRDS, cache=tmp_path)
    (own,) = set(tmp_path.iterdir()) - {other}
    own.write_bytes(other.read_bytes())

    with pytest.warns(UserWarning, match="its content has changed"):
        with_zero_shot_head(classifier(Tower()), BIRDS, cache=tmp_path)


def test_nothing_is_kept_of_a_failure(tmp_path: Path):
    def broken(_: Sequence[str]) -> Tensor:
        raise RuntimeError("out of memory")

    failing = replace(classifier(None), text_tower=TextTower(broken, 1.0, "f", nn.Identity()))
    with pytest.raises(RuntimeError, match="out of memory"):
        with_zero_shot_head(failing, BIRDS, cache=tmp_path)

    assert not [*tmp_path.iterdir()]


def test_no_text_tower():
    with pytest.raises(ValueError, match=r"tiny has no text tower.*--head FILE.*probe"):
        with_zero_shot_head(classifier(None), BIRDS)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_no_batch(batch_size: int):
    with pytest.raises(ValueError, match=f"batch_size must be >= 1, got {batch_size}"):
        with_zero_shot_head(classifier(Tower()), BIRDS, batch_size=batch_size)


def test_imagenets_classes_and_names_are_open_clips():
    from open_clip import IMAGENET_CLASSNAMES

    facts = Path(earmark.data.__file__).parent / "facts" / "imagenet_wnids.txt"

    prompts = imagenet_prompts()

    assert prompts.classes == imagenet_wnids() == tuple(facts.read_text().split())
    assert prompts.names == tuple(IMAGENET_CLASSNAMES)


@pytest.mark.parametrize(
    ("which", "source", "count"),
    [("openai", "OPENAI_IMAGENET_TEMPLATES", 80), ("simple", "SIMPLE_IMAGENET_TEMPLATES", 7)],
)
def test_templates_say_what_open_clips_say(which: str, source: str, count: int):
    import open_clip

    says = getattr(open_clip, source)
    prompts = imagenet_prompts(which)

    assert len(prompts.templates) == len(says) == count
    for number in (0, 1, 134, 999):
        said = tuple(say(prompts.names[number]) for say in says)
        assert prompts.texts[number] == said


@given(name=st.text(min_size=1).filter(str.strip))
def test_names_are_said_as_they_are(name: str):
    """Braces too, which `str.format` would read."""
    assert Prompts(("x",), (name,), ("a {} or {}",)).texts == ((f"a {name} or {name}",),)


def test_reads_lists_of_classes(tmp_path: Path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeffgoose\nn02\tmute swan\n duck \n\n", "utf-8")

    prompts = load_prompts(path, "simple")

    assert prompts.classes == ("goose", "n02", "duck")
    assert prompts.names == ("goose", "mute swan", "duck")
    assert prompts.templates == imagenet_prompts("simple").templates


def test_reads_objects_of_classes(tmp_path: Path):
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"n02": "swan", "n01": "crâne"}), "utf-8")

    prompts = load_prompts(path, None)

    assert (prompts.classes, prompts.names) == (("n02", "n01"), ("swan", "crâne"))
    assert prompts.templates == imagenet_prompts("openai").templates


@pytest.mark.parametrize("name", [str, Path])
def test_reads_templates(tmp_path: Path, name: type):
    path = tmp_path / "templates.txt"
    path.write_text("a photo of {}.\na {c}, a {c}\n")

    prompts = load_prompts(None, name(path))

    assert prompts.templates == ("a photo of {}.", "a {}, a {}")
    assert prompts.classes == imagenet_wnids()


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("n.txt", "", "n.txt is empty"),
        ("n.txt", "\n \n", "n.txt is empty"),
        ("n.txt", "goose\n\nduck", "Line 2 of .*n.txt is empty"),
        ("n.txt", "goose\nduck\ngoose", "class 'goose' is repeated 2 times"),
        ("n.txt", "n01\tgoose\nn01\tduck", "class 'n01' is repeated 2 times"),
        ("n.txt", "n01\t \n", "'n01' has no name"),
        ("n.txt", "\tgoose", "no class, or an empty one"),
        ("n.json", "{", "n.json is not JSON"),
        ("n.json", "[" * 100_000, r"n.json is not JSON \(nested too deep\)"),
        ("n.json", "[]", "n.json holds no classes"),
        ("n.json", '["goose"]', "n.json holds no classes"),
        ("n.json", "{}", "n.json holds no classes"),
        ("n.json", '{"n01": 3}', "names class 'n01' 3: give a string"),
        ("n.json", '{"n01": {"a": "b"}}', "names class 'n01'"),
        ("n.json", '{"n01": ""}', "'n01' has no name"),
        ("n.json", '{"n01": "goose", "n01": "duck"}', "class 'n01' is repeated 2 times"),
    ],
)
def test_classes_that_cannot_be_read(tmp_path: Path, file: str, content: str, says: str):
    (path := tmp_path / file).write_text(content)

    with pytest.raises(ValueError, match=says):
        load_prompts(path, "simple")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("a {}\na photo", "Line 2 of .* has no {}"),
        ("a {name}", "Line 1 of .* has no {}"),
        ("a {}\na {c}", r"template 'a \{\}' is repeated 2 times"),
    ],
)
def test_templates_that_cannot_be_read(tmp_path: Path, content: str, says: str):
    (path := tmp_path / "templates.txt").write_text(content)

    with pytest.raises(ValueError, match=says):
        load_prompts(None, path)


def test_no_text_in_a_file(tmp_path: Path):
    (path := tmp_path / "names.txt").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ValueError, match=r"names\.txt is not UTF-8"):
        load_prompts(path, "simple")


def test_no_file(tmp_path: Path):
    for classnames, templates in [(tmp_path / "a", None), (None, tmp_path / "a")]:
        with pytest.raises(FileNotFoundError, match=r"No file at .*a: check"):
            load_prompts(classnames, templates)


@pytest.mark.parametrize(
    ("classes", "names", "templates", "says"),
    [
        ((), (), ("{}",), "no class"),
        (("a",), (), ("{}",), "1 classes have 0 names"),
        (("a", "b"), ("x", ""), ("{}",), "Class 'b' has no name"),
        (("a",), ("x",), (), "no template"),
        (("a",), ("x",), ("a",), "'a' has no {}"),
    ],
)
def test_prompts_are_whole(
    classes: tuple[str, ...], names: tuple[str, ...], templates: tuple[str, ...], says: str
):
    with pytest.raises(ValueError, match=says):
        Prompts(classes, names, templates)
