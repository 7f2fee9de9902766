"""`virtex synthesize`: a synthetic data set of captioned scenes.

It consists of a COCO tree to pretrain on, and an ImageFolder and a VOC2007 tree to evaluate on.
"""

import argparse

from virtex.commands.arguments import add_quiet_argument, local_path
from virtex.commands.progress import Progress

TREES = ("coco", "imagefolder", "voc")

_NUMBERS = (
    ("--train", 8000, "training images in the COCO tree"),
    ("--val", 500, "held-out images in the COCO tree"),
    ("--evaluation-train", 1200, "training images in each of the ImageFolder and VOC trees"),
    ("--evaluation-val", 600, "test images in each of the ImageFolder and VOC trees"),
    ("--size", 80, "side length of the images in pixels"),
    ("--max-objects", 3, "maximum number of objects in an image, 1 to 3"),
    ("--seed", 0, "random seed of the scenes"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex synthesize`."""
    parser.add_argument(
        "output", type=local_path, metavar="DIR", help="directory to create, for DATA.ROOT"
    )
    for flag, default, description in _NUMBERS:
        parser.add_argument(
            flag,
            type=int,
            default=default,
            metavar="N",
            help=f"{description} (default: %(default)s)",
        )
    parser.add_argument(
        "--only",
        choices=TREES,
        action="append",
        help="write only this tree; may be given several times",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the scenes that an earlier `virtex synthesize` wrote to the directory",
    )
    add_quiet_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the trees; raises UserError for invalid values."""
    from virtex.synthetic.coco_tree import write_coco_tree
    from virtex.synthetic.imagefolder_tree import write_imagefolder_tree
    from virtex.synthetic.publishing import atomic_directory
    from virtex.synthetic.trees import Amount, Drawing, check_amount
    from virtex.synthetic.voc_tree import write_voc_tree
    from virtex.synthetic.words import SHAPES

    drawing = Drawing(arguments.seed, arguments.size, arguments.max_objects)
    pretraining = Amount(arguments.train, arguments.val)
    evaluation = Amount(arguments.evaluation_train, arguments.evaluation_val)
    work = {
        "coco": (write_coco_tree, pretraining),
        "imagefolder": (write_imagefolder_tree, evaluation),
        "voc": (write_voc_tree, evaluation),
    }
    trees = [tree for tree in TREES if arguments.only is None or tree in arguments.only]
    if "coco" in trees:
        check_amount(pretraining, "the COCO tree")
    if trees != ["coco"]:
        check_amount(evaluation, "each evaluation tree", least=len(SHAPES))
    options = {
        name: value
        for name, value in vars(arguments).items()
        if name not in ("output", "overwrite", "quiet")
    }
    with atomic_directory(arguments.output, arguments.overwrite, options) as root:
        for tree in trees:
            write, amount = work[tree]
            total = amount.train + amount.val
            with Progress(tree, total, "images", quiet=arguments.quiet) as progress:
                write(root, drawing, amount, progress.advance)
    print(f"scenes written to {arguments.output}", flush=True)
    return 0
