"""Pictures in files: found inside their folder, opened when needed, and always given as upright RGB.

`PictureFolder` turns the names that data files give into paths that cannot leave the folder. `open_picture` reads any of the usual
formats as transformers' `load_image` does: turned as EXIF says, then RGB.
"""

import os
import re
import warnings
from collections import defaultdict
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from hkd_core.common.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # formats that no other program has to be started for
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
LARGEST = 100_000_000  # pixels; more is taken for a decompression bomb
COCO_NAME = re.compile(r"(?:COCO_)?(?:(?:train|val|test)\d{4}_)?(\d{12})")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # two letters at least: "C:" is a drive


def open_picture(path: str | Path) -> Image.Image:
    """The picture as upright RGB. Raises UserError naming the file: missing, no picture, truncated, or above LARGEST pixels."""
    return _read(path, None)


def thumbnail(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """[height, width] uint8: the whole picture in grey at `size` (width, height). All of the file is decoded, so damage shows.

    A JPEG is decoded at a small scale, which takes a fraction of the time. Raises UserError as `open_picture` does.
    """
    return grey(_read(path, (8 * size[0], 8 * size[1])), size)


def grey(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """[height, width] uint8 of an RGB picture; size: (width, height)."""
    return np.asarray(picture.convert("L").resize(size, Image.Resampling.BOX))


def _read(path: str | Path, enough: tuple[int, int] | None) -> Image.Image:
    """enough: the smallest size that will do, which lets the JPEG decoder skip detail."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of bombs below our limit, and of odd EXIF
            with Image.open(path, formats=FORMATS) as file:
                width, height = file.size
                if width * height > LARGEST:
                    raise Image.DecompressionBombError
                if enough:
                    file.draft("RGB", enough)
                file.load()
                return as_rgb(file)
    except Image.DecompressionBombError:
        raise UserError(f"{path}: too large a picture: expected at most {LARGEST // 10**6} million pixels") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such picture") from None
    except Image.UnidentifiedImageError:
        empty = os.path.getsize(path) == 0
        what = "an empty file" if empty else "not a picture that can be read"
        raise UserError(f"{path}: {what}; expected JPEG, PNG, WebP, BMP, GIF, TIFF or PPM") from None
    except UserError:
        raise
    except Exception as error:  # damaged files make the decoders raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: truncated or damaged picture: {reason}") from error


def as_rgb(picture: Image.Image) -> Image.Image:
    """Upright RGB from any mode: grey, palette, CMYK, alpha (dropped), 16 bits (their upper eight). Raises ValueError for float pixels."""
    try:
        picture = ImageOps.exif_transpose(picture)
    except Exception:  # EXIF that cannot be read turns nothing
        picture = picture.copy()
    if picture.mode == "F":
        raise ValueError("its pixels are floats; expected 8 or 16 bits")
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        values = np.clip(np.asarray(picture).astype(np.int64), 0, 65535) >> 8
        picture = Image.fromarray(values.astype(np.uint8))
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def coco_number(name: str) -> int | None:
    """COCO's number of a picture named in COCO's ways ("COCO_val2014_000000310196.jpg", "train2017/000000310196"), else None."""
    found = COCO_NAME.fullmatch(_stem(name))
    return int(found.group(1)) if found else None


def _stem(name: str) -> str:
    base = re.split(r"[/\\]", name.strip())[-1]
    stem, dot, ending = base.rpartition(".")
    return stem if dot and f".{ending.lower()}" in ENDINGS else base


class PictureFolder:
    """A folder of pictures, and the names by which data files call them."""

    def __init__(self, root: str | Path):
        """Raises UserError if `root` is no folder."""
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f"{root}: no such folder of pictures")
        self._real = self.root.resolve()

    def find(self, name: str) -> str | None:
        """The path of the picture inside the folder, or None if it is not there.

        `name` as it is, with an ending, then by the file's name alone, then by COCO's number. Where several files have
        the name, they must be copies of one size, as Visual Genome's pictures are in GQA.
        Raises UserError for a name that leaves the folder (absolute, "..", a link that leads out) or is a URL.
        """
        check_name(name)
        for candidate in (name, *(f"{name}{ending}" for ending in (".jpg", ".png") if not name.lower().endswith(ENDINGS))):
            if self._is_file(candidate):
                return Path(os.path.normpath(candidate)).as_posix()
        base = os.path.basename(name)
        for key in (base, f"{base}.jpg", coco_number(name)):
            found = [path for path in self._index.get(key, ()) if self._is_file(path)]
            if len({os.path.getsize(self.root / path) for path in found}) == 1:
                return found[0]
        return None

    def path(self, name: str) -> Path:
        """The path of exactly this name, which need not be there. Raises UserError for a name that leaves the folder, or is a URL."""
        check_name(name)
        path = self.root / name
        try:
            inside = path.resolve().is_relative_to(self._real)
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links
            raise UserError(f"picture {_shown(name)}: {error}") from error
        if not inside:
            raise UserError(f"picture {_shown(name)} is a link that leads out of {self.root}; expected a file inside it")
        return path

    def _is_file(self, name: str) -> bool:
        try:
            return self.path(name).is_file()
        except OSError:  # a name too long
            return False

    @cached_property
    def _index(self) -> dict[str | int, list[str]]:
        """File name, and COCO's number -> paths inside the folder; links to folders are not followed."""
        found: dict[str | int, list[str]] = defaultdict(list)
        for folder, _, names in os.walk(self.root):
            for name in names:
                if name.lower().endswith(ENDINGS):
                    path = Path(folder, name).relative_to(self.root).as_posix()
                    found[name].append(path)
                    number = coco_number(name)
                    if number is not None:
                        found[number].append(path)
        return found


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 80 else f"{name[:77]}...")


def check_name(name: str) -> None:
    """Raises UserError for a picture's name that could lead out of its folder, or is a URL, or is none at all."""
    shown = _shown(name)
    parts = re.split(r"[/\\]", name)
    if not name.strip() or "\0" in name or len(name) > 1000:
        raise UserError(f"expected a picture's name, got {shown}")
    if URL.match(name):
        raise UserError(f"picture {shown} is a URL; download the picture and name the file")
    if name.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:", name) or ".." in parts:
        raise UserError(f"picture {shown} leaves its folder; expected a path inside it")
