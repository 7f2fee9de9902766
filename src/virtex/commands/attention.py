"""`virtex attention`: the attention of a model for each word of a caption, as an image."""

import argparse
import io
from dataclasses import replace
from pathlib import Path

from virtex.commands.arguments import (
    add_checkpoint_arguments,
    add_device_argument,
    add_image_limits,
    choose_device,
    image_limits,
    load_checkpoint,
    local_path,
)
from virtex.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex attention`."""
    parser.add_argument("image", type=local_path, metavar="IMAGE", help="image file to caption")
    add_checkpoint_arguments(parser)
    add_image_limits(parser.add_argument_group("image files"))
    shown = parser.add_argument_group("output")
    shown.add_argument(
        "--caption",
        metavar="TEXT",
        help="caption to visualize (default: the best caption found by beam search)",
    )
    shown.add_argument(
        "--heads",
        action="store_true",
        help="add a row for each attention head below the mean over heads",
    )
    shown.add_argument(
        "--layer",
        type=int,
        default=-1,
        metavar="N",
        help="index of the decoder layer; negative values count from the end (default: the last "
        "layer)",
    )
    shown.add_argument(
        "--output",
        type=local_path,
        metavar="FILE",
        help="PNG file to write (default: NAME_attention.png in the current directory, where NAME "
        "is the name of IMAGE)",
    )
    shown.add_argument(
        "--overwrite", action="store_true", help="overwrite the output file if it exists"
    )
    add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Caption the image, draw the panels and say where they are; raises `UserError`."""
    image: Path = arguments.image
    output: Path = arguments.output or Path(f"{image.stem}_attention.png")
    _check(image, output, overwrite=arguments.overwrite)

    from PIL import Image

    from virtex.files import write_whole
    from virtex.plots.attention_panels import attention_panels
    from virtex.text.normalize import normalize_caption

    device = choose_device(arguments.device)
    pretrained = load_checkpoint(arguments).to(device)
    pretrained = replace(pretrained, limits=image_limits(arguments))
    tokens = None
    if arguments.caption is not None:
        tokens = pretrained.captioner().tokenizer.encode(normalize_caption(arguments.caption))
    looked = pretrained.attention(image, tokens, layer=arguments.layer)
    if not looked.attention.words:
        raise UserError(
            f"no word of {arguments.caption!r} is in the model's vocabulary"
            if arguments.caption is not None
            else f"the model finds no word for {image}; give --caption TEXT"
        )
    panels = attention_panels(
        looked.pixels,
        looked.attention.words,
        looked.attention.maps.cpu().numpy(),
        heads=arguments.heads,
    )
    png = io.BytesIO()
    Image.fromarray(panels).save(png, "PNG")
    write_whole(output, png.getvalue())
    print(f"caption   {looked.text}\nwritten   {output}")
    return 0


def _check(image: Path, output: Path, *, overwrite: bool) -> None:
    if not image.is_file():
        raise UserError(f"{image} is not a file; name an image file")
    if output.suffix.lower() != ".png":
        raise UserError(
            f"--output {output}: the output is a PNG file, so its name must end in .png"
        )
    if output.is_dir():
        raise UserError(f"--output {output} is a directory; name a file in it")
    if output.exists() and not overwrite:
        raise UserError(f"{output} exists; give --overwrite to replace it, or another --output")
