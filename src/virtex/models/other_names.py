"""The names of a backbone's weights in other libraries: timm and detectron2.

Each function maps the keys of torchvision's networks without classifier, one to one.
"""

import re
from collections.abc import Iterable

_TIMM = {
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_l_32": "vit_large_patch32_224",
    "vit_h_14": "vit_huge_patch14_224",
}
_LIKE_TORCHVISION = re.compile(r"(wide_)?resne[xt]t?\d+|convnext_\w+")
_RULES = {
    "vit": (
        (r"^conv_proj\.", "patch_embed.proj."),
        (r"^class_token$", "cls_token"),
        (r"^encoder\.pos_embedding$", "pos_embed"),
        (r"^encoder\.ln\.", "norm."),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attn.qkv."),
        (r"\.self_attention\.out_proj\.", ".attn.proj."),
        (r"\.mlp\.0\.", ".mlp.fc1."),
        (r"\.mlp\.3\.", ".mlp.fc2."),
    ),
    "convnext": (
        (r"^features\.0\.(\d)\.", r"stem.\1."),
        (r"^classifier\.0\.", "norm_pre."),
        (r"^features\.([246])\.(\d)\.", lambda m: f"stages.{int(m[1]) // 2}.downsample.{m[2]}."),
        (
            r"^features\.([1357])\.(\d+)\.",
            lambda m: f"stages.{int(m[1]) // 2}.blocks.{m[2]}.",
        ),
        (r"\.layer_scale$", ".gamma"),
        (r"\.block\.0\.", ".conv_dw."),
        (r"\.block\.2\.", ".norm."),
        (r"\.block\.3\.", ".mlp.fc1."),
        (r"\.block\.5\.", ".mlp.fc2."),
    ),
}
_DETECTRON2 = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer(\d)\.", lambda m: f"res{int(m[1]) + 1}."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
)


def timm_architecture(name: str) -> str | None:
    """The name of a torchvision network in timm; None if it is not known to be the same there."""
    if name in _TIMM:
        return _TIMM[name]
    return name if _LIKE_TORCHVISION.fullmatch(name) else None


def timm_arguments(name: str, image_size: int, bands: int) -> dict[str, object]:
    """The arguments of timm's model for which its features are the mean of our grid."""
    arguments: dict[str, object] = {} if bands == 3 else {"in_chans": bands}
    if name.startswith("vit_"):
        arguments |= {"img_size": image_size, "global_pool": "avg", "fc_norm": False}
    elif name.startswith("convnext_"):
        arguments |= {"head_norm_first": True}
    return arguments


def timm_keys(name: str, keys: Iterable[str]) -> dict[str, str]:
    """timm's name of each key of a network for which `timm_architecture` has a name."""
    rules = _RULES.get(name.partition("_")[0], ())
    return {key: _renamed(key, rules) for key in keys}


def detectron2_keys(keys: Iterable[str]) -> dict[str, str]:
    """detectron2's name of each key of a ResNet, without counters of batch norm."""
    named = (key for key in keys if not key.endswith(".num_batches_tracked"))
    return {key: _renamed(key, _DETECTRON2) for key in named}


def _renamed(key: str, rules: Iterable[tuple[str, object]]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)  # type: ignore[call-overload]
    return key
