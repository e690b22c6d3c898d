"""Pictures of every kind, upright, in RGB, at one size."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps
from PIL.PngImagePlugin import PngInfo

from tasks.data.arrays import Fit
from tasks.data.images import PIXELS_LIMIT, decode_image, decode_thumbnail
from tasks.stage.errors import InputError
from tests.fixtures.archives import encoded

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def saved(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_image_of_the_right_size_keeps_its_exact_pixels(image_format: str) -> None:
    np.testing.assert_array_equal(decode_image(encoded(PIXELS, image_format), "a", 32, "squash"), PIXELS)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_any_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("RGB", (32, 32), "white")
    image = Image.new("I;16", (32, 32), 0xFFFF) if mode == "I;16" else image.convert(mode)
    decoded = decode_image(saved(image, "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"), "a", 32, "squash")
    assert decoded.shape == (32, 32, 3)
    assert decoded.dtype == np.uint8
    assert decoded.min() >= 254


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    assert decode_image(saved(Image.new("I;16", (8, 8), 0x8000)), "a", 8, "squash").max() == 0x80


def png_of_16_bits(values: NDArray[np.uint16]) -> bytes:
    """Return a PNG of uint16 (H, W, C), which Pillow reads and does not write."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("largest", [200, 4095])
def test_sixteen_bits_that_would_be_black_are_refused(channels: int, largest: int) -> None:
    values = np.full((8, 8, channels), largest, np.uint16)
    with pytest.raises(InputError, match=r"its 16-bit values are below 4,096 of 65,535, so that it would be all but"):
        decode_image(png_of_16_bits(values), "a", 8, "squash")
    values[0, 0] = 4096
    assert decode_image(png_of_16_bits(values), "a", 8, "squash").max() == 16


def test_sixteen_bits_in_a_ppm_are_seen_too() -> None:
    header = b"P6 8 8 65535\n"
    with pytest.raises(InputError, match="all but black"):
        decode_image(header + np.full((8, 8, 3), 250, ">u2").tobytes(), "a", 8, "squash")
    assert decode_image(header + np.full((8, 8, 3), 0x8000, ">u2").tobytes(), "a", 8, "squash").max() == 0x80


def test_sound_pixels_are_read_whatever_the_metadata() -> None:
    texts = PngInfo()
    texts.add_text("workflow", "x" * 2_000_000, zip=True)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x12" * 40
    for data in (saved(Image.fromarray(PIXELS), pnginfo=texts), saved(Image.fromarray(PIXELS), exif=exif)):
        np.testing.assert_array_equal(decode_image(data, "a", 32, "squash"), PIXELS)
    assert decode_image(saved(Image.fromarray(PIXELS), "JPEG", exif=exif), "a", 32, "squash").shape == (32, 32, 3)


def test_a_phone_photo_of_108_megapixels_is_read() -> None:
    data = saved(Image.new("L", (12_000, 9_000), 90), "JPEG")
    assert np.abs(decode_image(data, "a", 32, "squash").astype(int) - 90).max() <= 1


@pytest.mark.parametrize(("brand", "kind"), [(b"heic", "HEIC"), (b"mif1", "HEIC"), (b"avif", "AVIF")])
def test_what_a_phone_makes_and_nobody_reads_is_named(brand: bytes, kind: str) -> None:
    data = bytes.fromhex("00000024") + b"ftyp" + brand + bytes(300)
    with pytest.raises(InputError, match=f"IMG_1 is {kind}, which is not read here; convert it to JPEG or PNG"):
        decode_image(data, "IMG_1", 32, "squash")


def test_transparency_is_laid_over_white() -> None:
    clear_red = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode_image(saved(clear_red), "a", 8, "squash").min() == 255


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its left side
    decoded = decode_image(saved(Image.fromarray(PIXELS), exif=exif), "a", 32, "squash")
    np.testing.assert_array_equal(decoded, np.rot90(PIXELS, -1))


def test_larger_image_is_averaged_and_not_sampled() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    decoded = decode_image(encoded(stripes), "a", 32, "squash")
    assert decoded.shape == (32, 32, 3)
    assert np.abs(decoded.astype(int) - 128).max() < 10


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 300, 3), (999, 1, 3)])
def test_any_size_is_brought_to_one(shape: tuple[int, int, int]) -> None:
    fit: Fit
    for fit in ("crop", "squash"):
        assert (decode_image(encoded(np.full(shape, 9, np.uint8)), "a", 16, fit) == np.full((16, 16, 3), 9)).all()
    assert decode_image(encoded(np.full(shape, 9, np.uint8)), "a", 16, "pad").max() == 9  # a line of it at least


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"just text",
        encoded(PIXELS)[:500],
        encoded(PIXELS, "JPEG")[:500],
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
        saved(Image.new("F", (8, 8)), "TIFF"),
    ],
    ids=["empty", "text", "cut png", "cut jpeg", "postscript", "float"],
)
def test_what_cannot_be_read_is_named(data: bytes) -> None:
    with pytest.raises(InputError, match=r"cat/1\.png is not an image that can be read: [^<]+$"):
        decode_image(data, "cat/1.png", 32, "squash")


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    data = saved(Image.new("1", (10_000, 10_000)))
    assert PIXELS_LIMIT < 10_000 * 10_000
    with pytest.raises(InputError, match=r"big\.png has 10000×10000 pixels"):
        decode_image(data, "big.png", 32, "squash")


# Decodes one image in many threads at once, as the stage split does, with as much memory as a few copies of it take.
CROWD = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tasks.data.arrays import Fit
from tasks.data.images import decode_image

data = Path(sys.argv[1]).read_bytes()
decode_image(data, "a", 8, "squash")
used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (used + (400 << 20),) * 2)
with ThreadPoolExecutor(8) as pool:
    print(sum(image.size for image in pool.map(lambda _: decode_image(data, "a", 8, "squash"), range(8))))
"""


def test_memory_does_not_grow_with_the_threads(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(saved(Image.new("L", (6000, 6000))))  # 36 MB in grey, 108 MB in RGB
    done = subprocess.run(
        [sys.executable, "-c", CROWD, str(tmp_path / "large.png")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{8 * 8 * 8 * 3}\n"), done.stderr


def test_what_costs_minutes_and_has_few_bytes_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("1", (8192, 8192)).save(buffer, "PNG")
    with pytest.raises(InputError, match=r"page.png has 8192×8192 pixels in [\d,]+ bytes, which no camera makes"):
        decode_image(buffer.getvalue(), "page.png", 32, "squash")
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    decode_image(data, "photo.jpg", 32, "squash")
    last = data.rindex(b"\xff\xda")
    with pytest.raises(InputError, match=r"photo.jpg has more than 200 scans, which no camera makes"):
        decode_image(data[:last] + data[last:-2] * 300 + data[-2:], "photo.jpg", 32, "squash")


def test_a_telephone_s_200_million_pixels_are_read() -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (1250, 1000, 3), np.uint8)
    Image.fromarray(noise).resize((12_500, 16_000)).save(buffer, "JPEG", quality=50)
    assert decode_image(buffer.getvalue(), "photo.jpg", 32, "crop").shape == (32, 32, 3)


def circle(width: int, height: int) -> Image.Image:
    """Return a white disc of 40 pixels in the middle of grey."""
    image = Image.new("RGB", (width, height), (100, 100, 100))
    middle = (width / 2, height / 2)
    ImageDraw.Draw(image).ellipse([each - 20 for each in middle] + [each + 20 for each in middle], fill="white")
    return image


def extent(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Return width and height of what is white."""
    bright = pixels[..., 0] > 178
    return int(bright.any(axis=0).sum()), int(bright.any(axis=1).sum())


@pytest.mark.parametrize("shape", [(96, 48), (48, 96)])
@pytest.mark.parametrize(("fit", "across"), [("crop", 27), ("pad", 13)])
def test_a_circle_stays_a_circle(shape: tuple[int, int], fit: Fit, across: int) -> None:
    """Of 40 pixels in 48 (crop) or in 96 (pad), brought to 32."""
    width, height = extent(decode_image(saved(circle(*shape)), "a", 32, fit))
    assert abs(width - height) <= 1
    assert abs(width - across) <= 1


def test_squashed_it_becomes_an_ellipse_as_before_there_was_a_choice() -> None:
    image = circle(96, 48)
    decoded = decode_image(saved(image), "a", 32, "squash")
    np.testing.assert_array_equal(decoded, np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC)))
    width, height = extent(decoded)
    assert height > 1.7 * width


NOISE = np.random.default_rng(1).integers(0, 256, (96, 60, 3), dtype=np.uint8)


def test_crop_scales_the_shorter_side_and_cuts_out_the_middle() -> None:
    scaled = np.asarray(Image.fromarray(NOISE).resize((20, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(decode_image(encoded(NOISE), "a", 20, "crop"), scaled[6:26])
    np.testing.assert_array_equal(decode_image(encoded(NOISE), "a", 60, "crop"), NOISE[18:78])  # exact, as of its size
    np.testing.assert_array_equal(decode_image(encoded(NOISE[:61]), "a", 60, "crop"), NOISE[:60])


@pytest.mark.parametrize("shape", [(96, 60), (60, 61), (31, 90), (7, 60), (20, 33)])
def test_pad_is_pillow_s_with_black_around(shape: tuple[int, int]) -> None:
    pixels = NOISE.transpose(1, 0, 2)[: shape[0], : shape[1]] if shape[1] > 60 else NOISE[: shape[0], : shape[1]]
    for size in (16, 33, 96):
        padded = ImageOps.pad(Image.fromarray(pixels), (size, size), Image.Resampling.BICUBIC)
        decoded = decode_image(encoded(np.ascontiguousarray(pixels)), "a", size, "pad")
        np.testing.assert_array_equal(decoded, np.asarray(padded))


def test_pad_keeps_all_of_the_image_in_the_middle() -> None:
    decoded = decode_image(encoded(np.full((10, 40, 3), 200, np.uint8)), "a", 16, "pad")
    assert (decoded[6:10] == 200).all()
    assert not decoded[:6].any()
    assert not decoded[10:].any()


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_photo_is_turned_upright_before_it_is_fitted(fit: Fit) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its left side
    turned = encoded(np.ascontiguousarray(np.rot90(NOISE, -1)))
    lying = decode_image(saved(Image.fromarray(NOISE), exif=exif), "a", 32, fit)
    np.testing.assert_array_equal(lying, decode_image(turned, "a", 32, fit))


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_a_thumbnail_keeps_its_proportions_and_is_upright(image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = np.repeat(np.array([[[250, 0, 0]] * 300 + [[0, 0, 250]] * 300], np.uint8), 200, axis=0)
    decoded = decode_thumbnail(saved(Image.fromarray(wide), image_format, exif=exif), "a", 60)
    assert decoded.shape == (60, 20, 3)
    assert decoded[5, 10, 0] > 200, "what was left is above"
    assert decoded[55, 10, 0] < 50
    assert decode_thumbnail(encoded(PIXELS), "a", 60).shape == (32, 32, 3)
    np.testing.assert_array_equal(decode_thumbnail(encoded(PIXELS), "a", 60), PIXELS)


def test_a_thumbnail_is_refused_what_an_image_is() -> None:
    with pytest.raises(InputError, match="b is not an image that can be read"):
        decode_thumbnail(encoded(PIXELS)[:60], "b", 60)
    with pytest.raises(InputError, match=r"page has 8192×8192 pixels in [\d,]+ bytes, which no camera makes"):
        decode_thumbnail(saved(Image.new("1", (8192, 8192))), "page", 60)
