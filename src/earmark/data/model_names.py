"""Names of one model in several public tables, and what a timm name says of its training data."""

import re

# Words of a timm tag that name a recipe or an author, as in "ra2_in1k"; numbers of epochs and
# sizes are others. A tag with any other word names more data or a teacher, or is not known.
_RECIPE_WORDS = """
a1 a1h a2 a2h a3 aa adv agc ah am ap apple aug augreg b1k b2k bd bt c1 c2 c2ns c3 ch cvnets d d1 d1h
d2 deit dm ens fb fcmae ft gluon goog idstcv in1k ix lamb mae miil ms msft mx nav naver nv paddle
pycls ra ra2 ra3 ra4 racm ram rmsp rvgg sail sam sbb sw tf tv tv2
"""
_RECIPES = frozenset(_RECIPE_WORDS.split())
_NUMBER = re.compile(r"\d+(ep)?|[ers]\d+")
# Architectures with a teacher or more data under a tag that does not say it: distilled DeiT and
# PiT, SSLD, BEiT v2 and EVA (CLIP as teacher), VOLO (token labels), DPN "extra" (ImageNet-5k).
_OTHER_DATA = re.compile(r"distilled|ssld|clip|dino|^beit|^eva|^volo|^dpn(68b|92|107)$|^ghostnetv3")

# From a name of the testbed to the name of the same weights in timm or open_clip.
_SYNONYMS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"(.+)_swsl", r"\1.fb_swsl_ig1b_ft_in1k"),
        (r"(.+)_ssl", r"\1.fb_ssl_yfcc100m_ft_in1k"),
        (r"instagram-(.+)", r"\1.fb_wsl_ig1b_ft_in1k"),
        (r"efficientnet-(b\d)-advprop-autoaug", r"tf_efficientnet_\1.ap_in1k"),
        (r"efficientnet-(b\d)-autoaug", r"tf_efficientnet_\1.aa_in1k"),
        (r"efficientnet-(b\d)-randaug", r"tf_efficientnet_\1.ra_in1k"),
        (r"efficientnet-(b\d)", r"tf_efficientnet_\1.in1k"),
        (r"efficientnet-l2-noisystudent", r"tf_efficientnet_l2.ns_jft_in1k"),
        (r"bit-m-r(\d+x\d)-ilsvrc2012", r"resnetv2_\1_bit.goog_in21k_ft_in1k"),
        (r"(dpn\d+b?)", r"\1.mx_in1k"),
        (r"senet154", r"legacy_senet154.in1k"),
        (r"se_(resne.+)", r"legacy_se\1.in1k"),
        (r"inceptionv3", r"inception_v3.tv_in1k"),
        (r"inceptionv4", r"inception_v4.tf_in1k"),
        (r"inceptionresnetv2", r"inception_resnet_v2.tf_in1k"),
        (r"(p?nasneta?\d?large)", r"\1.tf_in1k"),
        (r"xception", r"legacy_xception.tf_in1k"),
        (r"googlenet/inceptionv1", r"googlenet.tv_in1k"),
        (r"vit_b_32_clip_zeroshot", r"vit-b-32,openai"),
        (r"resnet50_clip_zeroshot", r"rn50,openai"),
        (r"((?:wide_)?resnet\d+(?:_2)?|densenet\d+|vgg\d+(?:_bn)?)", r"\1.tv_in1k"),
        (r"(resnext(?!101_64)\d+_\d+x\dd)", r"\1.tv_in1k"),
    )
)  # fmt: skip


def has_imagenet_only(name: str) -> bool:
    """Return whether a timm name says that its model saw ImageNet-1k alone.

    The tag after the dot must consist of ``in1k`` and of words that are known to name a recipe.
    Other data sets, teachers, unknown words and missing tags are refused, as are the few
    architectures whose tag does not tell of their teacher or their data.

    >>> [has_imagenet_only(name) for name in ("resnet50.a1_in1k", "vit.augreg_in21k_ft_in1k")]
    [True, False]
    >>> [has_imagenet_only(name) for name in ("deit3.fb_dist_in1k", "resnet50")]
    [False, False]
    """
    architecture, _, tag = name.partition(".")
    words = tag.split("_")
    is_known = all(word in _RECIPES or _NUMBER.fullmatch(word) for word in words)
    return "in1k" in words and is_known and not _OTHER_DATA.search(architecture)


def match_key(name: str) -> str:
    """Return a key that two public names of the same weights share.

    >>> match_key("resnet50") == match_key("timm/resnet50.tv_in1k")
    True
    >>> match_key("resnet50.a1_in1k") == match_key("resnet50.tv_in1k")
    False
    """
    name = re.sub(r"^(timm[:/]|hf-hub:timm/)", "", name.strip().lower())
    for pattern, synonym in _SYNONYMS:
        if match := pattern.fullmatch(name):
            name = match.expand(synonym)
            break
    return re.sub(r"[^a-z0-9.]", "", name)
