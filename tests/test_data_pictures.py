"""Pictures in files: any usual kind becomes upright RGB, damage names the file, and no name leads out of its folder."""

import io
import os
import random
import struct
import zlib

import numpy as np
import pytest
from layouts import coco_name, draw, drawn
from PIL import Image

from hkd_core.common.errors import UserError
from hkd_core.data.leaks import HASH_SIZE, NEAR, by_looks, by_number, difference_hash, number_of
from hkd_core.data.pictures import LARGEST, PictureFolder, grey, open_picture, thumbnail
from hkd_core.data.schema import load_pictures, save_picture_paths


def refusal(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


KINDS = {
    "grey": (lambda p: p.convert("L"), "png", {}),
    "black and white": (lambda p: p.convert("1"), "png", {}),
    "grey and alpha": (lambda p: p.convert("LA"), "png", {}),
    "palette": (lambda p: p.convert("P", palette=Image.Palette.ADAPTIVE), "png", {}),
    "palette, one colour clear": (lambda p: p.convert("P", palette=Image.Palette.ADAPTIVE), "png", {"transparency": b"\x00\x80"}),
    "alpha": (lambda p: p.convert("RGBA"), "png", {}),
    "CMYK": (lambda p: p.convert("CMYK"), "jpg", {"quality": 100}),
    "GIF": (lambda p: p, "gif", {}),
    "WebP": (lambda p: p, "webp", {"lossless": True}),
    "LZW TIFF": (lambda p: p, "tif", {"compression": "tiff_lzw"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_becomes_rgb_that_looks_the_same(kind, tmp_path):
    change, ending, options = KINDS[kind]
    path = tmp_path / f"a.{ending}"
    change(drawn(1)).save(path, **options)
    found = open_picture(path)
    expected = np.asarray(change(drawn(1)).convert("RGB"), float)
    assert (found.mode, found.size) == ("RGB", (96, 72))
    assert np.abs(np.asarray(found, float) - expected).mean() < 6


def test_sixteen_bits_keep_their_upper_eight(tmp_path):
    values = np.linspace(0, 65535, 60 * 40).reshape(40, 60).astype(np.uint16)
    for ending in ("png", "tif"):
        Image.fromarray(values).save(tmp_path / f"a.{ending}")
        found = np.asarray(open_picture(tmp_path / f"a.{ending}"))
        assert (found == (values // 256)[:, :, None]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_stands_upright(orientation, tmp_path):
    """EXIF 2.3, tag 0x0112, written out: how the upright picture lies in the file."""
    upright = np.asarray(drawn(2, (64, 48)).convert("RGB"))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert (np.asarray(open_picture(tmp_path / "a.png")) == upright).all()


def png_of(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def jpeg(seed=0, **options):
    file = io.BytesIO()
    drawn(seed, (320, 240)).save(file, "JPEG", **options)
    return file.getvalue()


DAMAGED = {
    "truncated": (jpeg()[:-400], "truncated or damaged picture"),
    "truncated, progressive": (jpeg(progressive=True)[:3000], "truncated or damaged picture"),
    "empty": (b"", "an empty file"),
    "text": (b"<html>404</html>", "not a picture that can be read"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture that can be read"),
    "a bomb": (png_of(60_000, 60_000), "too large a picture: expected at most 100 million pixels"),
    "just above the limit": (png_of(LARGEST // 1000 + 1, 1000), "too large a picture"),
}


@pytest.mark.parametrize("read", [open_picture, lambda path: thumbnail(path, HASH_SIZE)])
@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_or_huge_picture_is_one_line_that_names_it(what, read, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(DAMAGED[what][0])
    said = refusal(read, path)
    assert said.startswith(f"{path}: ") and DAMAGED[what][1] in said


def test_bytes_damaged_at_random_give_a_picture_or_a_user_error(tmp_path):
    rng, whole = random.Random(0), [jpeg(1), jpeg(2, progressive=True)]
    for form in ("PNG", "GIF", "WEBP", "TIFF", "BMP"):
        file = io.BytesIO()
        drawn(3, (40, 30)).save(file, form)
        whole.append(file.getvalue())
    read = refused = 0
    path = tmp_path / "a.jpg"
    for _ in range(1000):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(60)] = rng.randrange(256)
        path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data)
        try:
            read += rng.choice([open_picture, lambda p: thumbnail(p, (8, 8))])(path) is not None
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert read > 50 and refused > 50


def test_a_thumbnail_of_a_large_jpeg_is_that_of_its_pixels(tmp_path):
    drawn(4, (1600, 1200)).save(tmp_path / "a.jpg", quality=95)
    whole = grey(open_picture(tmp_path / "a.jpg"), HASH_SIZE)
    assert np.abs(thumbnail(tmp_path / "a.jpg", HASH_SIZE).astype(int) - whole).max() <= 12
    assert thumbnail(tmp_path / "a.jpg", HASH_SIZE).shape == (16, 17)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("../a.jpg", "leaves its folder"),
        ("in/../../a.jpg", "leaves its folder"),
        ("..\\a.jpg", "leaves its folder"),
        ("/etc/a.jpg", "leaves its folder"),
        ("C:\\a.jpg", "leaves its folder"),
        ("~/a.jpg", "leaves its folder"),
        ("https://example.org/a.jpg", "is a URL; download the picture"),
        ("file:///a.jpg", "is a URL"),
        ("data:image/png;base64,AAAA", "is a URL"),
        ("a\0.jpg", "expected a picture's name"),
        (" ", "expected a picture's name"),
        ("x" * 2000, "expected a picture's name"),
    ],
)
def test_no_name_leads_out_of_the_folder(name, reason, tmp_path):
    draw(tmp_path / "a.jpg")
    (tmp_path / "in").mkdir()
    inside = PictureFolder(tmp_path / "in")
    assert reason in refusal(inside.find, name) and reason in refusal(inside.path, name)


def test_links_are_followed_inside_the_folder_and_refused_out_of_it(tmp_path):
    draw(tmp_path / "out/a.jpg")
    draw(tmp_path / "in/b.jpg")
    for link, target in (("c.jpg", "b.jpg"), ("d.jpg", "../out/a.jpg"), ("more", "../out"), ("loop", "loop")):
        (tmp_path / "in" / link).symlink_to(target)
    os.symlink(tmp_path / "in", tmp_path / "linked")
    for root in ("in", "linked"):
        inside = PictureFolder(tmp_path / root)
        assert inside.find("c.jpg") == "c.jpg"
        for name in ("d.jpg", "more/a.jpg"):
            assert "is a link that leads out of" in refusal(inside.find, name)
        try:
            assert inside.find("loop") is None
        except UserError as error:
            assert "loop" in str(error)


def test_a_picture_is_found_by_path_by_name_and_by_cocos_number(tmp_path):
    for path in ("val2014/" + coco_name(42), "deep/er/b.png", "x/twice.jpg", "y/twice.jpg", "gqa/7.jpg", "vg/7.jpg"):
        draw(tmp_path / path, seed="7" if path.endswith("/7.jpg") else path)
    inside = PictureFolder(tmp_path)
    found = {name: inside.find(name) for name in ("deep/er/b.png", "./deep/er/b", "b.png", "elsewhere/b.png", "000000000042.jpg")}
    assert found == dict.fromkeys(list(found)[:4], "deep/er/b.png") | {"000000000042.jpg": "val2014/" + coco_name(42)}
    assert inside.find("COCO_train2014_000000000042") and inside.find("7.jpg") == "gqa/7.jpg"
    assert inside.find("twice.jpg") is None and inside.find("none.jpg") is None and inside.find("42") is None
    assert "no such folder of pictures" in refusal(PictureFolder, tmp_path / "none")


def test_paths_are_stored_and_pictures_opened_only_when_asked_for(tmp_path):
    draw(tmp_path / "data/coco/a.jpg")
    (tmp_path / "data/coco/b.jpg").write_bytes(b"broken")
    paths = {"a": "a.jpg", "b": "b.jpg", "c": "c.jpg"}
    save_picture_paths(tmp_path / "data/study/pictures", tmp_path / "data/coco", paths, {"a": ["dog"]})
    os.rename(tmp_path / "data", tmp_path / "moved")  # what is stored is relative
    stored = load_pictures(tmp_path / "moved/study/pictures")
    assert stored.ids == ["a", "b", "c"] and stored.table["objects"][0] == ["dog"]
    assert (np.asarray(stored[0]) == np.asarray(Image.open(tmp_path / "moved/coco/a.jpg"))).all()
    assert "b.jpg: not a picture" in refusal(lambda: stored[1]) and "c.jpg: no such picture" in refusal(lambda: stored[2])
    assert sum(file.stat().st_size for file in (tmp_path / "moved/study").rglob("*") if file.is_file()) < 10_000
    draw(tmp_path / "other/a.jpg", seed=9)
    elsewhere = load_pictures(tmp_path / "moved/study/pictures", tmp_path / "other")
    assert (np.asarray(elsewhere[0]) == np.asarray(Image.open(tmp_path / "other/a.jpg"))).all()
    os.rename(tmp_path / "moved/coco", tmp_path / "gone")
    assert "no such folder of pictures" in refusal(load_pictures, tmp_path / "moved/study/pictures")


def test_stored_paths_that_lead_out_are_refused_when_written_and_when_read(tmp_path):
    draw(tmp_path / "in/a.jpg")
    assert "leaves its folder" in refusal(save_picture_paths, tmp_path / "p", tmp_path / "in", {"a": "../a.jpg"})
    save_picture_paths(tmp_path / "p", tmp_path / "in", {"a": "a.jpg"})
    (tmp_path / "in/a.jpg").unlink()
    draw(tmp_path / "out.jpg")
    (tmp_path / "in/a.jpg").symlink_to("../out.jpg")
    assert "picture a: picture 'a.jpg' is a link that leads out" in refusal(lambda: load_pictures(tmp_path / "p")[0])


def test_copies_are_found_by_their_looks_and_nothing_else_is():
    def hashed(picture):
        return difference_hash(grey(picture, HASH_SIZE))

    def copied(picture, quality, scale):
        file = io.BytesIO()
        size = (round(picture.width * scale), round(picture.height * scale))
        picture.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    originals = {f"o{n}": drawn(n, (400, 300)) for n in range(60)}
    changes = [(95, 1.0), (40, 1.0), (75, 0.5), (75, 1.4)]
    train = {f"t{n}": hashed(copied(originals[f"o{n}"], *changes[n % 4])) for n in range(60)}
    train |= {f"n{n}": hashed(drawn(1000 + n, (400, 300))) for n in range(60)}
    found = by_looks(train, {name: hashed(one) for name, one in originals.items()})
    assert [(leak.train, leak.benchmark) for leak in found] == [(f"t{n}", f"o{n}") for n in range(60)]
    assert all(leak.bits <= NEAR and leak.how == "looks" for leak in found)


def test_a_difference_hash_counts_as_a_loop_over_pixels_does():
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, other = rng.integers(0, 256, (2, 16, 17)).astype(np.uint8)
        bits = sum(
            (int(one[y, x + 1]) > int(one[y, x])) != (int(other[y, x + 1]) > int(other[y, x])) for y in range(16) for x in range(16)
        )
        assert int(np.bitwise_count(difference_hash(one) ^ difference_hash(other)).sum()) == bits


def test_plain_pictures_are_no_copies_of_each_other():
    white, grey_one = (difference_hash(np.full(HASH_SIZE[::-1], value, np.uint8)) for value in (255, 128))
    assert white is None and by_looks({"a": white}, {"b": grey_one}) == []


@pytest.mark.parametrize(
    "name, genome, number",
    [
        ("COCO_val2014_000000310196.jpg", False, ("coco", "310196")),
        ("coco/train2017/000000310196.jpg", False, ("coco", "310196")),
        ("val2014_000000310196", False, ("coco", "310196")),
        ("310196", False, ("coco", "310196")),
        ("310196", True, ("genome", "310196")),
        ("gqa/images/310196.jpg", False, ("genome", "310196")),
        ("vg/VG_100K_2/2405722.jpg", False, ("genome", "2405722")),
        ("2405722.jpg", False, ("genome", "2405722")),
        ("00385794700c832e.jpg", False, ("openimages", "00385794700c832e")),
        ("AMBER_1.jpg", False, None),
        ("0006.png", False, None),
        ("dog.jpg", False, None),
    ],
)
def test_numbers_tell_pictures_across_file_names(name, genome, number):
    assert number_of(name, genome=genome) == number


def test_leaks_by_number_are_those_of_a_loop_over_all_pairs():
    rng = random.Random(0)
    forms = ("COCO_val2014_{:012d}.jpg", "train2017/{:012d}.jpg", "{}", "gqa/images/{}.jpg", "dog{}.jpg")
    train, test = ([rng.choice(forms).format(rng.randrange(1, 60)) for _ in range(80)] for _ in range(2))
    pairs = {(a, b) for a in train for b in test if number_of(a) is not None and number_of(a) == number_of(b)}
    found = by_number(train, test)
    assert {leak.train for leak in found} == {a for a, _ in pairs} and all((leak.train, leak.benchmark) in pairs for leak in found)
