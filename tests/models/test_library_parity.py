"""The same weights of a CLIP give the same activations through three libraries."""

import json
from pathlib import Path

import pytest
import torch
from helpers.hf_fakes import image_processor
from torch import Tensor

import earmark.models._torchvision_compat  # noqa: F401 # before what imports torchvision
from earmark.models.hf_models import load_hf
from earmark.models.open_clip_models import load_open_clip
from earmark.models.timm_models import load_timm

WIDTH, LAYERS, SHARED = 256, 10, 512
PAIRS = {
    "ln_1": ("norm1", "layer_norm1"),
    "ln_2": ("norm2", "layer_norm2"),
    "attn.out_proj": ("attn.proj", "self_attn.out_proj"),
    "mlp.c_fc": ("mlp.fc1", "mlp.fc1"),
    "mlp.c_proj": ("mlp.fc2", "mlp.fc2"),
}


def blocks(state: dict[str, Tensor], library: int, blocks: str) -> dict[str, Tensor]:
    """The transformer's blocks under the names of timm (0) or transformers (1)."""
    renamed = {}
    for layer in range(LAYERS):
        old, new = f"transformer.resblocks.{layer}", f"{blocks}.{layer}"
        for name, names in PAIRS.items():
            for part in ("weight", "bias"):
                renamed[f"{new}.{names[library]}.{part}"] = state[f"{old}.{name}.{part}"]
        for part in ("weight", "bias"):
            joint = state[f"{old}.attn.in_proj_{part}"]
            if library == 0:
                renamed[f"{new}.attn.qkv.{part}"] = joint
            else:
                for letter, third in zip("qkv", joint.chunk(3), strict=True):
                    renamed[f"{new}.self_attn.{letter}_proj.{part}"] = third.clone()
    return renamed


def norms(state: dict[str, Tensor], before: str, after: str) -> dict[str, Tensor]:
    return {
        f"{new}.{part}": state[f"{old}.{part}"]
        for old, new in (("ln_pre", before), ("ln_post", after))
        for part in ("weight", "bias")
    }


def as_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        "cls_token": state["class_embedding"][None, None],
        "pos_embed": state["positional_embedding"][None],
        "patch_embed.proj.weight": state["conv1.weight"],
        "head.weight": state["proj"].T.contiguous(),
        "head.bias": torch.zeros(SHARED),
        **norms(state, "norm_pre", "norm"),
        **blocks(state, 0, "blocks"),
    }


def as_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    tower = {
        "embeddings.class_embedding": state["class_embedding"],
        "embeddings.position_embedding.weight": state["positional_embedding"],
        "embeddings.patch_embedding.weight": state["conv1.weight"],
        **norms(state, "pre_layrnorm", "post_layernorm"),
        **blocks(state, 1, "encoder.layers"),
    }
    named = {f"vision_model.{name}": value for name, value in tower.items()}
    return named | {"visual_projection.weight": state["proj"].T.contiguous()}


@pytest.fixture
def visual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A CLIP of open_clip whose every image weight counts, saved as ``clip.pt``."""
    import open_clip

    config = {
        "embed_dim": SHARED,
        "vision_cfg": {"image_size": 224, "layers": LAYERS, "width": WIDTH, "patch_size": 16},
        "text_cfg": {"layers": 1, "width": 64, "heads": 1, "vocab_size": 49408},
    }
    (tmp_path / "earmark-parity.json").write_text(json.dumps(config))
    for known in ("_MODEL_CONFIG_PATHS", "_MODEL_CONFIGS"):
        before = getattr(open_clip.factory, known)
        monkeypatch.setattr(open_clip.factory, known, before.copy())
    open_clip.add_model_config(tmp_path)
    model = open_clip.create_model("earmark-parity").eval()
    for parameter in model.visual.parameters():
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    return {name: value.clone() for name, value in model.visual.state_dict().items()}


@torch.no_grad()
def test_one_tower_through_three_libraries(visual: dict[str, Tensor], tmp_path: Path):
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig

    torch.save(as_timm(visual), tmp_path / "timm.pt")
    folder = tmp_path / "hf"
    CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=WIDTH // 64,
        image_size=224,
        patch_size=16,
        projection_dim=SHARED,
        hidden_act="gelu",
        architectures=["CLIPVisionModelWithProjection"],
    ).save_pretrained(folder)
    image_processor("CLIP")().save_pretrained(folder)
    save_file(as_transformers(visual), folder / "model.safetensors", {"format": "pt"})
    images = torch.randn(2, 3, 224, 224)
    ours = load_open_clip("earmark-parity", str(tmp_path / "clip.pt")).encoder(images)
    timm = load_timm("vit_xsmall_patch16_clip_224.tinyclip_yfcc15m", str(tmp_path / "timm.pt"))
    assert ours.std() > 0.05
    torch.testing.assert_close(timm.encoder(images), ours, atol=1e-4, rtol=1e-4)
    hf = load_hf(str(folder))
    torch.testing.assert_close(hf.encoder(images), ours, atol=1e-4, rtol=1e-4)
