"""`virtex attention`: an image of the model's attention for each word of a caption."""

import argparse
import io
import sys
from pathlib import Path

from virtex.commands.arguments import (
    CHECKPOINTS_OWN,
    add_checkpoint_arguments,
    add_device_argument,
    add_image_limits,
    add_pixel_arguments,
    check_output,
    load_on_device,
    local_path,
)
from virtex.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex attention`."""
    parser.add_argument("image", type=local_path, metavar="IMAGE", help="image file to caption")
    add_checkpoint_arguments(parser)
    images = parser.add_argument_group("image files")
    add_image_limits(images)
    add_pixel_arguments(images, CHECKPOINTS_OWN)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--caption",
        metavar="TEXT",
        help="caption to visualize (default: the best caption found by beam search)",
    )
    output.add_argument(
        "--heads",
        action="store_true",
        help="add a row for each attention head below the mean over heads",
    )
    output.add_argument(
        "--layer",
        type=int,
        default=-1,
        metavar="N",
        help="index of the decoder layer; negative values count from the end (default: the last "
        "layer)",
    )
    output.add_argument(
        "--output",
        type=local_path,
        metavar="FILE",
        help="PNG file to write (default: NAME_attention.png in the current directory, where NAME "
        "is the name of IMAGE)",
    )
    output.add_argument(
        "--overwrite", action="store_true", help="overwrite the output file if it exists"
    )
    add_device_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Caption the image, draw the panels and print the caption; raises `UserError`."""
    image: Path = arguments.image
    output: Path = arguments.output or Path(f"{image.stem}_attention.png")
    if not image.is_file():
        raise UserError(f"{image} is not a file; name an image file")
    if output.suffix.lower() != ".png":
        raise UserError(f"--output {output}: expected a file name that ends in .png")
    check_output(output, None if arguments.overwrite else "give --overwrite to replace it")

    from PIL import Image

    from virtex.build.images import pixel_settings
    from virtex.data.pixel_sample import pixel_lines
    from virtex.files import write_whole
    from virtex.plots.attention_panels import attention_panels
    from virtex.plots.fonts import font_advice

    pretrained = load_on_device(arguments)
    for line in pixel_lines([image], pixel_settings(pretrained.config.data), pretrained.limits):
        print(line, file=sys.stderr)
    tokens = None
    if arguments.caption is not None:
        tokenizer = pretrained.captioner().tokenizer
        tokens = tokenizer.encode(tokenizer.normalize(arguments.caption))
    found = pretrained.attention(image, tokens, layer=arguments.layer)
    if not found.attention.words:
        raise UserError(
            f"no word of {arguments.caption!r} is in the model's vocabulary"
            if arguments.caption is not None
            else f"the model generates no word for {image}; give --caption TEXT"
        )
    panels = attention_panels(
        found.pixels,
        found.attention.words,
        found.attention.maps.cpu().numpy(),
        caption=found.text,
        heads=arguments.heads,
    )
    png = io.BytesIO()
    Image.fromarray(panels).save(png, "PNG")
    write_whole(output, png.getvalue())
    advice = font_advice([found.text])
    if advice is not None:
        print(advice, file=sys.stderr)
    print(f"caption   {found.text}\nwritten   {output}")
    return 0
