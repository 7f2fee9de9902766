"""Fuzz targets of the readers of binary files: checkpoints, images and vocabularies."""

import io
import pickletools
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tests.fuzz.mutation import mutated

from virtex.checkpoints import file as checkpoint
from virtex.checkpoints import state as restore
from virtex.data.images import ImageLimits, read_image
from virtex.errors import UserError
from virtex.text.tokenizer import Tokenizer, train

_NAMES = (
    b"torch.FloatTensor os.system builtins.bytearray torch.Size torch.device torch.DoubleStorage "
    b"collections.OrderedDict torch/_utils._rebuild_tensor_v2 torch/_utils._rebuild_sparse_tensor "
    b"torch/_utils._rebuild_nested_tensor torch/storage.UntypedStorage torch.float64"
).split()


class CheckpointTarget:
    """A checkpoint in either format of torch; in half of them records change, not the archive."""

    name = "checkpoint"
    allowed = (UserError,)
    _words = (
        *(opcode.code.encode("latin-1") for opcode in pickletools.opcodes),
        *(b"c" + name.replace(b".", b"\n").replace(b"/", b".") + b"\n" for name in _NAMES),
        *b"PK\1\2|PK\3\4|PK\5\6|PK\6\6|PK\7\x08|)R|K\0|M\xff\xff|h\1|J\xff\xff\xff\x7f".split(b"|"),
        b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
    )

    def __init__(self) -> None:
        weights = torch.linspace(-1, 1, 24).reshape(6, 4)
        captions = [f"a red dog {number} on a blue cat" for number in range(30)]
        tokenizer = torch.frombuffer(bytearray(train(captions, 30)), dtype=torch.uint8)
        plain = {"iteration": 7, "config": {"OPTIM": {"LR": 1e-3, "LR_STEPS": [1, 2]}, "NO": None}}
        # The old format names storages by their addresses: with one of them, inputs are the same
        # in every process once the name is replaced.
        views = {"model": OrderedDict(a=weights.T, b=torch.nn.Parameter(weights[1])), **plain}
        old = io.BytesIO()
        torch.save(views, old, _use_new_zipfile_serialization=False)
        address = str(weights.untyped_storage()._cdata).encode()
        named = len(address).to_bytes(4, "little") + address
        self._seeds = [old.getvalue().replace(named, b"\1\0\0\0k")]
        state = {**views, "tokenizer": tokenizer[:100], "versions": {"virtex": "2"}}
        state["optimizer"] = {"state": {0: {"sum": torch.ones(2, 0)}}, "slow": [torch.tensor(3)]}
        for value in (state, views["model"]):
            new = io.BytesIO()
            torch.save(value, new)
            self._seeds.append(new.getvalue())

    def generate(self, rng: np.random.Generator) -> bytes:
        seed, other = (self._seeds[int(rng.integers(len(self._seeds)))] for _ in range(2))
        if rng.integers(3) and seed.startswith(b"PK"):
            return self._other_records(seed, other, rng)
        return mutated(seed, rng, self._words, other)

    def _other_records(self, seed: bytes, other: bytes, rng: np.random.Generator) -> bytes:
        """A well-formed archive, whose checksums fit, of records that were changed."""
        with zipfile.ZipFile(io.BytesIO(seed)) as archive:
            infos = archive.infolist()
            records = [[info.filename, archive.read(info), zipfile.ZIP_STORED] for info in infos]
        for _ in range(int(rng.integers(1, 3))):
            index = 0 if rng.integers(3) else int(rng.integers(len(records)))
            record = records[index]
            match int(rng.integers(12)):
                case 0:
                    record[2] = zipfile.ZIP_DEFLATED
                case 1:
                    record[0] = mutated(record[0].encode(), rng, (b"/", b"..", b"\0"), b"x").decode(
                        errors="replace"
                    )
                case 2:
                    records.insert(index, list(records[int(rng.integers(len(records)))]))
                case 3:
                    del records[index]
                case _:
                    record[1] = mutated(record[1], rng, self._words, other)
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, content, kind in records:
                archive.writestr(zipfile.ZipInfo(name[:10000]), content, kind)
        return file.getvalue()

    def read(self, content: bytes, directory: Path) -> object:
        path = directory / "checkpoint_7.pth"
        path.write_bytes(content)
        state = checkpoint.load(path)
        for tensor in tensors(state):
            tensor.detach().clone().sum()
        saved = restore.Checkpoint(str(path), state)
        if saved.is_own:
            _ = saved.config, saved.vocabulary
        restore.load_weights(torch.nn.Linear(3, 2), saved, "bias")
        return state


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in a checkpoint's value."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from tensors(inner)


class ImageTarget:
    """An image of each format that Pillow writes, and of some kinds of it."""

    name = "images"
    allowed = (UserError,)
    _words = (
        b"IHDR|IDAT|PLTE|acTL|fdAT|iCCP|zTXt|VP8L|VP8X|ANMF|ALPH|GIF89a|BM|ftypavif|jP  |8BPS|DDS "
        b"|P6 9 9 255\n|P4 99999 99999 |SIMPLE  =|icns|MM\0*|Exif\0\0II*\0"
        b"|!\xff\x0bNETSCAPE2.0|!\xf9\4|\0\0\1\0|\0\1\4\0\1\0\0\0|\1\0\3\0\1\0\0\0|\x80\1|\xff\xff|\x0a\5\1"
        b"|\xff\xd8\xff|\xff\xda|\xff\xc2|\xff\xe1|\xff\xd9"
    ).split(b"|")

    def __init__(self) -> None:
        y, x = np.mgrid[0:40, 0:50]
        pixels = np.stack([128 + 100 * np.sin(x / 7 + y / 5), 60 + y, 255 - 3 * x], axis=-1)
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        Image.init()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # formats that Pillow will give up
            self._seeds = [
                content
                for kind in sorted(Image.SAVE.keys() - {"EPS", "PDF", "PALM"})
                for mode in ("RGB", "RGBA", "L", "P", "1", "I;16", "CMYK")
                if (content := written(picture, mode, kind)) is not None
            ]
            options = [
                ("JPEG", {"progressive": True}),
                ("GIF", {"save_all": True, "append_images": [picture]}),
            ]
            options += [
                ("TIFF", {"compression": name}) for name in ("tiff_lzw", "jpeg", "tiff_deflate")
            ]
            for kind, chosen in options:
                file = io.BytesIO()
                picture.save(file, kind, **chosen)
                self._seeds.append(file.getvalue())

    def generate(self, rng: np.random.Generator) -> bytes:
        seed, other = (self._seeds[int(rng.integers(len(self._seeds)))] for _ in range(2))
        return mutated(seed, rng, self._words, other)

    def read(self, content: bytes, directory: Path) -> object:
        path = directory / "image"
        path.write_bytes(content)
        image = read_image(path, ImageLimits(pixels=1 << 22))
        assert image.dtype == np.uint8
        assert image.ndim == 3
        assert image.shape[2] == 3
        return int(image.sum())


def written(picture: Image.Image, mode: str, kind: str) -> bytes | None:
    """The picture's file; None where Pillow does not write that mode in that format."""
    file = io.BytesIO()
    try:
        picture.convert("L" if mode == "I;16" else mode).convert(mode).save(file, kind)
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    return file.getvalue()


class VocabularyTarget:
    """A SentencePiece model, and what is done with one."""

    name = "vocabulary"
    allowed = (UserError,)
    _words = (b"\xff" * 9 + b"\1", *b"\x0a|\x12|\x1a|\x18\3|\x18\6|[SOS]".split(b"|"))

    def __init__(self) -> None:
        captions = [f"a red dog {number} on a blue cat" for number in range(60)]
        self._seeds = [train(captions, size) for size in (30, 50)]

    def generate(self, rng: np.random.Generator) -> bytes:
        seed, other = (self._seeds[int(rng.integers(2))] for _ in range(2))
        return mutated(seed, rng, self._words, other)

    def read(self, content: bytes, directory: Path) -> object:
        path = directory / "a.model"
        path.write_bytes(content)
        tokenizer = Tokenizer.from_file(path)
        ids = tokenizer.encode("a red ﬁ dog ½ number é 7\u3000 x")
        return tokenizer.decode(ids), tokenizer.decode(range(tokenizer.vocab_size))
