"""Layer by layer: what is captured, what CKA makes of it; models are left as found."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.encoding_fakes import SIDE, ToTensor, make_classifier, make_images, write_image
from helpers.hsic_oracles import dense_hsic
from helpers.imagenet_trees import picture, save, write_tree
from torch import Tensor, nn

from earmark import Classifier, load_model
from earmark.data.image_set import ImageSet
from earmark.data.registry import PAPER_SHIFTS
from earmark.models import _torchvision_compat  # noqa: F401
from earmark.signatures.hsic import minibatches
from earmark.study.layer_cka import accumulate
from earmark.study.layer_cka.compare import (
    LayerCKAConfig,
    LayerCKAResult,
    compare_layers,
    find_comparison_sets,
)
from earmark.study.layer_cka.hooks import OUTPUT_NAME, find_layers

IMAGES = 22


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return make_images(tmp_path_factory.mktemp("layers") / "images", IMAGES)


class Net(nn.Module):
    """A residual block with in-place activations and sums, and what is no layer."""

    def __init__(self, *, width: int = 4, dead: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.block = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.Tanh())
        self.dead = nn.Conv2d(width, 2, 1)
        self.attention = nn.MultiheadAttention(width, 2)
        self.tokens = nn.Linear(width, 3)
        self.windows = nn.Linear(width, 2)
        self.unused = nn.Linear(1, 1)
        self.fc = nn.Linear(3, 6)
        self.drop = nn.Dropout(0.5)
        if dead:
            nn.init.zeros_(self.dead.weight)

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        x = self.relu(self.norm(self.conv(images)))
        x = self.relu(self.block(x).add_(x))
        self.dead(x)
        sequence = x.flatten(2).permute(2, 0, 1)  # token first
        sequence, _ = self.attention(sequence, sequence, sequence)
        self.windows(sequence.transpose(0, 1).reshape(-1, 4, sequence.shape[2]))
        return self.drop(self.fc(self.tokens(sequence).mean(dim=0)))


def net(**options: object) -> Classifier:
    return make_classifier(Net(**options))  # type: ignore[arg-type]


def pixels(images: ImageSet) -> Tensor:
    return torch.stack([ToTensor()(images.open(image)) for image in range(len(images))])


def by_hand(model: Classifier, images: ImageSet) -> dict[str, Tensor]:
    """Some steps of `Net`, written out, nothing in place."""
    encoder = model.encoder
    with torch.no_grad():
        found = {"norm": encoder.norm(encoder.conv(pixels(images)))}
        x = found["norm"].relu()
        found["block.1"] = encoder.block[0](x).tanh()
        x = (found["block.1"] + x).relu()
        tokens = x.flatten(2).permute(0, 2, 1)
        heard = encoder.attention(*[tokens.transpose(0, 1)] * 3)[0].transpose(0, 1)
        found["tokens"] = encoder.tokens(heard)
        found["fc"] = encoder.fc(found["tokens"].mean(dim=1))
    return {name: rows.flatten(1).double() for name, rows in found.items()}


def standardised(rows: Tensor) -> Tensor:
    spread, mean = torch.std_mean(rows, dim=0, correction=0)
    return ((rows - mean) / spread)[:, spread > 0]


def ratio(x: Tensor, y: Tensor, batches: list[list[int]]) -> float:
    def hsic(a: Tensor, b: Tensor) -> float:
        found: list[float] = []
        for batch in batches:
            sides = [(side[batch] - side[batch].mean(dim=0)).numpy() for side in (a, b)]
            found.append(dense_hsic(*(side @ side.T for side in sides), unbiased=True))
        return float(np.mean(found))

    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


def shuffled(batch_size: int, seed: int = 0) -> list[list[int]]:
    order = np.random.default_rng(seed).permutation(IMAGES)
    return [[int(order[i]) for i in batch] for batch in minibatches(IMAGES, batch_size)]


@pytest.mark.parametrize("kind", ["same", "all"])
@pytest.mark.parametrize(("narrow", "batch_size"), [(0, 4), (0, 9), (0, 30), (6, 5), (999, 7)])
def test_matches_dense_hsics_of_features_by_hand(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch, batch_size: int, narrow: int, kind: str
):
    """Exact over all images where narrow, whatever the batch; else means over batches."""
    first, second = net(), net()
    x, y = by_hand(first, images), by_hand(second, images)
    monkeypatch.setattr(accumulate, "MAX_CACHED_WIDTH", narrow)

    found = compare_layers(
        first, second, images, layers=[*x], config=LayerCKAConfig(kind, batch_size)
    )

    assert len(found.rows) == len(x) ** (2 if kind == "all" else 1)
    batches = shuffled(batch_size)
    for row in found.rows:
        a, b = x[row.layer], y[row.other]
        is_narrow = max(a.shape[1], b.shape[1]) <= narrow
        assert row.exact == (is_narrow or len(batches) == 1)
        used = [[*range(IMAGES)]] if row.exact else batches
        assert row.cka == pytest.approx(ratio(a, b, used), abs=1e-5)  # float32 layers
        assert row.standardized == pytest.approx(
            ratio(standardised(a), standardised(b), used), abs=1e-5
        )
        told = "exact over all images" if row.exact else f"minibatches of {batch_size}"
        if not is_narrow and len(batches) < 5:
            assert (row.low, row.standardized_high) == (None, None)
            got = f"at least 5 minibatches, got {len(batches)}"
            told += f"; An interval needs {got}"
        else:
            assert -1 <= row.low <= row.cka <= row.high <= 1
            assert row.standardized_low <= row.standardized <= row.standardized_high
        assert (row.note, row.n) == (told, IMAGES)
        assert [*x][row.place] == row.layer


def test_to_1e_8_where_layers_are_float64(images: ImageSet, monkeypatch: pytest.MonkeyPatch):
    """No forward pass has the same bits in another batch, but for float64's."""
    first, second = (replace(model, encoder=model.encoder.double()) for model in (net(), net()))
    transform = ToDouble()
    first, second = (replace(first, transform=transform), replace(second, transform=transform))
    with torch.no_grad():
        x, y = (model.encoder.conv(pixels(images).double()).flatten(1) for model in (first, second))
    for narrow, batches in ((10_000, [[*range(IMAGES)]]), (0, shuffled(6))):
        monkeypatch.setattr(accumulate, "MAX_CACHED_WIDTH", narrow)
        (row,) = compare_layers(
            first, second, images, layers="conv", config=LayerCKAConfig(batch_size=6)
        ).rows
        assert row.cka == pytest.approx(ratio(x, y, batches), abs=1e-8)
        assert row.standardized == pytest.approx(
            ratio(standardised(x), standardised(y), batches), abs=1e-8
        )


class ToDouble(ToTensor):
    """The same numbers, which `encoded` turns to the weights' type."""


def test_what_is_a_layer_and_what_is_not(images: ImageSet):
    layers, skipped = find_layers(net(), images, ["*"])

    assert [layer.name for layer in layers] == [
        "conv",
        "norm",
        "block.0",
        "block.1",
        "dead",
        "tokens",
        OUTPUT_NAME,
    ]
    assert {layer.name: layer.axes[0] for layer in layers if layer.axes[0]} == {"tokens": 1}
    places = (SIDE // 2) ** 2
    assert {layer.name: layer.features for layer in layers} == {
        "conv": 4 * places,
        "norm": 4 * places,
        "block.0": 4 * places,
        "block.1": 4 * places,
        "dead": 2 * places,
        "tokens": 3 * places,
        OUTPUT_NAME: 6,
    }
    assert skipped["attention"] == "returns a tuple, not a tensor"
    assert skipped["relu"] == "is called 2 times for a batch"
    assert skipped["windows"].endswith("for 3 images: no axis of images")
    assert skipped["block"] == "returns what block.1 returns"
    assert skipped["drop"] == "returns what fc returns"
    assert skipped["fc"] == f"returns what {OUTPUT_NAME} returns"
    assert "unused" not in skipped


class Layouts(nn.Module):
    """What it returns lies in memory in four ways, and its rows in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first, self.tokens = nn.Identity(), nn.Identity(), nn.Identity()
        self.swapped, self.cut = nn.Identity(), nn.Identity()

    def forward(self, images: Tensor) -> Tensor:  # noqa: D102
        last = self.last(images.contiguous(memory_format=torch.channels_last))
        first = self.first(last.contiguous(memory_format=torch.contiguous_format) + 1)
        tokens = self.tokens(first.flatten(2).permute(2, 0, 1).contiguous())  # token first
        self.swapped(tokens.permute(2, 1, 0))
        return self.cut(first[:, :, 0].flatten(1))


def test_rows_are_no_copies_and_their_features_have_one_order(images: ImageSet):
    model = make_classifier(Layouts())
    layers = {layer.name: layer for layer in find_layers(model, images, ["*"])[0]}
    x = torch.randn(5, 3, 4, 6)
    tokens = x.flatten(2).permute(2, 0, 1).contiguous()
    cases = {
        "last": x.contiguous(memory_format=torch.channels_last),
        "first": x,
        "tokens": tokens,
        "swapped": tokens.permute(2, 1, 0),
    }

    for name, output in cases.items():
        rows, again = layers[name].rows(output), layers[name].rows(output.contiguous())
        assert rows.shape == (5, 72)
        assert torch.equal(rows, again)
        assert rows.sort(dim=1).values.equal(x.flatten(1).sort(dim=1).values)
        if name in {"last", "first"}:
            assert rows.is_contiguous()
            assert rows.data_ptr() == output.data_ptr()


def test_what_was_changed_in_place_is_another_layer(images: ImageSet):
    """The block of a ResNet returns its last norm's tensor, added to and rectified."""
    block = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.ReLU(inplace=True))
    model = make_classifier(nn.Sequential(block, nn.Flatten()))

    layers, skipped = find_layers(model, images, ["*"])

    assert [layer.name for layer in layers] == ["0.0", "0.1", "0.2", OUTPUT_NAME]
    assert skipped["0"] == "returns what 0.2 returns"


def test_a_model_is_1_with_itself_and_with_what_is_only_rotated(images: ImageSet):
    first, second = net(), net()
    second.encoder.load_state_dict(first.encoder.state_dict())
    rotation, _ = torch.linalg.qr(torch.randn(6, 6))
    second.encoder.fc.weight.data = 3 * rotation @ first.encoder.fc.weight.data

    itself = compare_layers(first, first, images, layers="[bcnt]*", config=LayerCKAConfig())
    rotated = compare_layers(first, second, images, layers="fc", config=LayerCKAConfig())

    assert [row.cka for row in itself.rows] == pytest.approx([1] * 5, abs=1e-9)
    assert [row.standardized for row in itself.rows] == pytest.approx([1] * 5, abs=1e-9)
    assert rotated.rows[0].cka == pytest.approx(1, abs=1e-5)


def test_one_encoder_runs_once_and_all_pairs_are_those_of_two(images: ImageSet):
    first, passes = net(), []
    first.encoder.conv.register_forward_pre_hook(lambda *_: passes.append(1))
    twin = net()
    twin.encoder.load_state_dict(first.encoder.state_dict())
    how = LayerCKAConfig("all", 8, standardized=False)

    once = compare_layers(first, first, images, layers=["conv", "fc"], config=how)
    shown = len(passes)
    twice = compare_layers(first, twin, images, layers=["conv", "fc"], config=how)

    assert shown == 2 + 3  # two to find its layers, and one a batch
    assert [row.cka for row in once.rows] == pytest.approx(
        [row.cka for row in twice.rows], abs=1e-12
    )
    assert {row.standardized for row in once.rows} == {None}


@pytest.mark.parametrize("kind", ["same", "all"])
def test_a_dead_layer_loses_no_other(images: ImageSet, kind: str):
    found = compare_layers(
        net(), net(dead=True), images, layers=["conv", "dead", "fc"], config=LayerCKAConfig(kind)
    )

    for row in found.rows:
        if row.other == "dead":
            assert (row.cka, row.standardized) == (None, None)
            assert "of dead in tiny do not tell the images apart (HSIC 0)" in row.note
        else:
            assert row.cka is not None
            assert "HSIC" not in row.note


def test_two_preprocessings_are_both_used(images: ImageSet):
    """Scaled pixels, whose convolution has no bias, are alike; the others are not."""
    first = net()
    nn.init.zeros_(first.encoder.conv.bias)
    second = make_classifier(Net(), ToTensor(scale=1.0))
    second.encoder.load_state_dict(first.encoder.state_dict())

    found = compare_layers(first, second, images, layers=["conv", "fc"])

    assert found.rows[0].cka == pytest.approx(1, abs=1e-6)
    assert abs(1 - (found.rows[1].cka or 0)) > 1e-3
    with pytest.raises(ValueError, match="one encoder with two preprocessings"):
        compare_layers(first, replace(second, encoder=first.encoder), images)


def test_the_room_for_activations_is_bounded(images: ImageSet, monkeypatch: pytest.MonkeyPatch):
    def exact(room: int) -> list[str]:
        monkeypatch.setattr(accumulate, "MAX_CACHED_BYTES", room)
        found = compare_layers(net(), net(), images, config=LayerCKAConfig(batch_size=8))
        return [row.layer for row in found.rows if row.exact]

    assert exact(2 * 4 * IMAGES * 6) == [OUTPUT_NAME]
    assert exact(2 * 4 * IMAGES * 6 - 1) == []
    assert {"dead", OUTPUT_NAME} <= {*exact(2**31)}


def test_a_sample_is_drawn_by_seed_and_told(images: ImageSet):
    def compared(**options: int) -> LayerCKAResult:
        return compare_layers(
            first, second, images, layers="fc", config=LayerCKAConfig(batch_size=5, **options)
        )

    first, second = net(), net()
    features = [by_hand(model, images)["fc"] for model in (first, second)]
    drawn = np.random.default_rng(3).permutation(IMAGES)[:9]

    (row,) = compared(sample=9, seed=3).rows

    assert row.cka == pytest.approx(ratio(*features, [drawn.tolist()]), abs=1e-5)
    assert row.n == 9
    assert row.note == "exact over all images, 9 of 22 images drawn with seed 3"
    assert compared(sample=99).rows[0].note == "exact over all images"


class Draws(nn.Module):
    """Draws in every mode."""

    def forward(self, rows: Tensor) -> Tensor:  # noqa: D102
        return rows + torch.rand_like(rows)


@pytest.mark.parametrize("fails", [False, True])
def test_models_and_random_numbers_are_left_as_found(images: ImageSet, fails: bool):
    models = [net(), net()]
    for model in models:
        model.encoder.fc = nn.Sequential(model.encoder.fc, Draws())
        model.encoder.train()
        model.encoder.norm.eval()
    statistics = models[0].encoder.norm.running_mean.clone()
    modes = [[part.training for part in model.encoder.modules()] for model in models]
    before = torch.random.get_rng_state()

    def tell(what: str, done: int, total: int) -> None:
        if fails and what.startswith("compare"):
            raise KeyboardInterrupt

    if fails:
        with pytest.raises(KeyboardInterrupt):
            compare_layers(models[0], models[1], images, progress=tell)
    else:
        compare_layers(models[0], models[1], images, progress=tell)

    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert torch.equal(models[0].encoder.norm.running_mean, statistics)
    for model, was in zip(models, modes, strict=True):
        parts = [*model.encoder.modules()]
        assert [part.training for part in parts] == was
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in parts)


def test_what_cannot_be(images: ImageSet, tmp_path: Path):
    few = make_images(tmp_path / "few", 3)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: compare_layers(net(), net(), few), "at least 4 images, got 3"),
        (lambda: LayerCKAConfig(batch_size=3), "a batch of at least 4 images, got 3"),
        (lambda: LayerCKAConfig(sample=2), "a sample of at least 4 images, got 2"),
        (lambda: LayerCKAConfig(pairs="some"), "pairs must be 'same' or 'all', got 'some'"),
        (
            lambda: compare_layers(net(), net(), images, layers="layer9"),
            "No module of tiny matches layer9 and is called: .* conv, norm, fc, drop",
        ),
        (
            lambda: compare_layers(net(), net(), images, layers="att*"),
            r"\(attention returns a tuple, not a tensor\)",
        ),
        (
            lambda: compare_layers(
                net(), make_classifier(), images, layers=["fc", "5"], config=LayerCKAConfig("same")
            ),
            "such as fc and 5: compare all pairs",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_an_unreadable_image_is_named(tmp_path: Path):
    broken = make_images(tmp_path / "broken", 8)
    broken.path(5).write_bytes(b"no image")

    with pytest.raises(ValueError, match=r"Cannot read the image .*5\.png"):
        compare_layers(net(), net(), broken)


def test_the_labs_towers(tmp_path: Path):
    for image in range(12):
        write_image(tmp_path / f"{image}.png", seed=image, side=32)
    shown = ImageSet("noise", tmp_path, tuple(f"{image}.png" for image in range(12)))
    towers = [load_model(f"lab:{name}") for name in ("zero-shot", "finetuned")]

    found = compare_layers(*towers, shown, layers=["blocks.?", "pool"])

    assert [row.layer for row in found.rows] == ["blocks.0", "blocks.1", "blocks.2", "pool"]
    assert [row.place for row in found.rows] == [0, 1, 2, 3]
    values = [row.cka or 0 for row in found.rows]
    assert values == sorted(values, reverse=True)  # finetuning changes late layers most
    assert 0 < values[3] < values[0] < 1


def test_architectures_of_three_libraries(images: ImageSet):
    """A tiny ViT of open_clip, and ResNets of timm and torchvision with in-place ReLUs."""
    import open_clip
    import timm
    import torchvision

    vision = {"layers": 2, "width": 16, "head_width": 8, "patch_size": 8, "image_size": SIDE}
    words = {"context_length": 4, "vocab_size": 9, "width": 8, "layers": 1, "heads": 1}
    vit = make_classifier(open_clip.CLIP(6, vision, words).visual)
    bottleneck = torchvision.models.resnet.Bottleneck
    ours = make_classifier(torchvision.models.ResNet(bottleneck, [1, 1, 1, 1]))
    timms = make_classifier(timm.create_model("test_resnet", num_classes=0))
    how = LayerCKAConfig(standardized=False)
    blocks = "transformer.resblocks.?"

    across = compare_layers(vit, ours, images, layers=[blocks, "layer?", OUTPUT_NAME], config=how)
    two = compare_layers(timms, ours, images, layers="layer?", config=how)
    inside, _ = find_layers(ours, images, ["layer1.*"])

    assert len(across.rows) == 3 * 5
    assert {row.layer for row in across.rows} == {f"{blocks[:-1]}{i}" for i in (0, 1)} | {
        OUTPUT_NAME
    }
    assert all(abs(row.cka or 9) <= 1.001 for row in across.rows)
    assert [row.layer for row in two.rows] == [f"layer{i}" for i in (1, 2, 3, 4)]
    # The block rectifies a sum in place: it is another layer than its last norm.
    assert [layer.name for layer in inside][-1] == "layer1.0"
    attention = find_layers(vit, images, ["*"])[1]
    assert attention["transformer.resblocks.0.attn"].startswith("returns a tuple")


def test_images_of_any_folder(tmp_path: Path):
    write_tree(tmp_path / "data", every=250, side=8)
    (tmp_path / "data" / "broden1_224").mkdir()  # which is not read
    for image in range(5):
        save(tmp_path / "own" / f"{image}.png", picture(image))

    sets = find_comparison_sets(net(), net(), tmp_path / "own")
    assert [(one.name, len(one)) for one in sets] == [("own", 5)]
    headless = replace(net(), head=replace(net().head, weight=torch.zeros(0, 6)), classes=())
    shifts = find_comparison_sets(headless, headless, tmp_path / "data")
    assert [one.name for one in shifts] == ["imagenet", *PAPER_SHIFTS]
    assert len(shifts[0]) == 4
