"""Every format and mode against NumPy or TensorFlow's own decoders; damaged files raise OSError or ValueError only."""

import ast
import contextlib
import inspect
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_opt.data import decode
from keras_opt.data.decode import decode_image

HEIGHT, WIDTH = 12, 8
SIZE = (HEIGHT, WIDTH)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def grey(rng):
    return rng.integers(0, 256, SIZE, np.uint8)


@pytest.fixture
def save(tmp_path):
    def save(image, name, **options):
        path = tmp_path / name
        image.save(path, **options)
        return path

    return save


def luma(rgb):
    """ITU-R 601, as Pillow documents it."""
    return rgb.astype(float) @ (0.299, 0.587, 0.114)


def smooth_image(height, width):
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / 9 + phase) + np.cos(columns / 7 - phase) for phase in range(3)]
    return (np.stack(waves, axis=-1) * 60 + 127).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_lossless_rgb(save, rgb, suffix):
    path = save(Image.fromarray(rgb), f"a.{suffix}")
    result = decode_image(path, SIZE, 3)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, rgb)
    one_channel = decode_image(str(path), SIZE, 1)
    assert one_channel.shape == (HEIGHT, WIDTH, 1)
    np.testing.assert_allclose(one_channel[..., 0], luma(rgb), atol=1)


def test_jpeg_is_what_tensorflow_decodes(save):
    path = save(Image.fromarray(smooth_image(48, 40)), "a.jpeg", quality=90)
    expected = tf.io.decode_jpeg(path.read_bytes(), channels=3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_allclose(decode_image(path, (48, 40), 3).astype(int), expected.astype(int), atol=2)


def test_greyscale_jpeg(save):
    path = save(Image.fromarray(smooth_image(48, 40)[..., 0]), "a.jpg")
    expected = tf.io.decode_jpeg(path.read_bytes(), channels=3, dct_method="INTEGER_ACCURATE").numpy()
    np.testing.assert_allclose(decode_image(path, (48, 40), 3).astype(int), expected.astype(int), atol=1)


def test_grey_is_repeated_in_rgb(save, grey):
    path = save(Image.fromarray(grey), "a.png")
    np.testing.assert_array_equal(decode_image(path, SIZE, 1)[..., 0], grey)
    np.testing.assert_array_equal(decode_image(path, SIZE, 3), np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.gif"])
def test_palette(save, rng, name):
    colours = rng.integers(0, 256, (256, 3), np.uint8)
    indices = np.concatenate([np.arange(256), np.arange(256)]).reshape(32, 16).astype(np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    np.testing.assert_array_equal(decode_image(save(image, name), (32, 16), 3), colours[indices])


def test_palette_with_transparency_keeps_its_colours_and_warns_about_nothing(save, rng):
    colours = rng.integers(0, 256, (256, 3), np.uint8)
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    path = save(image, "a.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(decode_image(path, (16, 16), 3), colours[indices])


def test_alpha_is_dropped_not_blended(save, rgb, grey):
    path = save(Image.fromarray(np.dstack([rgb, grey])), "rgba.png")
    np.testing.assert_array_equal(decode_image(path, SIZE, 3), rgb)
    path = save(Image.merge("LA", [Image.fromarray(grey), Image.fromarray(rgb[..., 0])]), "la.png")
    np.testing.assert_array_equal(decode_image(path, SIZE, 3), np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(decode_image(path, SIZE, 1)[..., 0], grey)


def test_one_bit(save, grey):
    bits = grey > 127
    path = save(Image.fromarray(bits), "a.png")
    np.testing.assert_array_equal(decode_image(path, SIZE, 1)[..., 0], bits * 255)


def test_cmyk_jpeg(save):
    path = save(Image.new("CMYK", (16, 16), (51, 102, 153, 51)), "a.jpg", quality=100)
    expected = [(255 - ink) * (255 - 51) / 255 for ink in (51, 102, 153)]
    np.testing.assert_allclose(decode_image(path, (16, 16), 3)[8, 8], expected, atol=3)


def as_mode_i(values):
    return Image.fromarray(values.astype(np.int32))


def as_big_endian(values):
    return Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes())


@pytest.mark.parametrize(
    ("make", "name", "mode"),
    [(Image.fromarray, "a.png", "I;16"), (as_big_endian, "a.tif", "I;16B"), (as_mode_i, "a.tif", "I")],
)
def test_16_bit_grey_is_scaled_not_clipped(save, rng, make, name, mode):
    values = rng.integers(0, 65536, SIZE, np.uint16)
    values[0, :4] = (0, 128, 129, 65535)
    path = save(make(values), name)
    with Image.open(path) as image:
        assert image.mode in (mode, "I")  # Pillow 10 opens 16-bit PNG as I
    expected = np.rint(values / 257)
    np.testing.assert_array_equal(decode_image(path, SIZE, 1)[..., 0], expected)
    np.testing.assert_array_equal(decode_image(path, SIZE, 3)[..., 2], expected)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full(SIZE, 65536, np.int32), "32-bit pixels have no known range"),
        (np.full(SIZE, -1, np.int32), "32-bit pixels have no known range"),
        (np.zeros(SIZE, np.float32), "floating-point pixels have no known range"),
    ],
)
def test_pixels_without_a_range_are_refused(save, values, reason):
    with pytest.raises(ValueError, match=reason):
        decode_image(save(Image.fromarray(values), "a.tif"), SIZE, 1)


def test_first_frame_of_a_gif(save):
    frames = [Image.fromarray(np.full((*SIZE, 3), value, np.uint8)) for value in (10, 200)]
    path = save(frames[0], "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_image(path, SIZE, 3), 10)


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored: np.rot90(stored),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(save, rgb, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = UPRIGHT[orientation](rgb)
    path = save(Image.fromarray(rgb), "a.png", exif=exif)
    np.testing.assert_array_equal(decode_image(path, expected.shape[:2], 3), expected)
    blocks = rgb.repeat(16, axis=0).repeat(16, axis=1)
    expected = UPRIGHT[orientation](blocks).astype(int)
    path = save(Image.fromarray(blocks), "a.jpg", exif=exif, quality=100, subsampling=0)
    np.testing.assert_allclose(decode_image(path, expected.shape[:2], 3), expected, atol=4)


def test_exif_orientation_of_16_bit_grey(save, rng):
    values = rng.integers(0, 65536, SIZE, np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(Image.fromarray(values), "a.png", exif=exif)
    np.testing.assert_array_equal(decode_image(path, (WIDTH, HEIGHT), 1)[..., 0], np.rint(np.rot90(values, -1) / 257))


@pytest.fixture
def exif_jpeg(save):
    """A JPEG that lies on its side, with the tags that cameras write."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "camera", 72.0
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    return save(Image.fromarray(smooth_image(20, 24)), "a.jpg", exif=exif)


@pytest.mark.parametrize(
    ("damage", "is_readable"),
    [
        ({74: 82, 41: 0}, True),  # struct.error in ImageOps.exif_transpose
        ({43: 1, 19: 230, 49: 17}, True),  # TypeError there
        ({6: 0, 7: 0, 8: 0}, False),
    ],
)
def test_damaged_exif_bytes_turn_the_image_if_they_can_and_cost_no_pixel(exif_jpeg, damage, is_readable):
    lying = np.asarray(Image.open(exif_jpeg))
    content = bytearray(exif_jpeg.read_bytes())
    for position, value in damage.items():
        content[content.index(b"Exif") + position] = value
    exif_jpeg.write_bytes(content)
    expected = np.rot90(lying, -1) if is_readable else lying
    np.testing.assert_array_equal(decode_image(exif_jpeg, expected.shape[:2], 3), expected)


@pytest.mark.filterwarnings("ignore")
def test_random_damage_in_the_exif_block_raises_nothing(exif_jpeg, rng):
    whole = exif_jpeg.read_bytes()
    start = whole.index(b"Exif") + 6
    for _ in range(1500):
        content = bytearray(whole)
        for position in rng.integers(start, start + 116, rng.integers(1, 4)):
            content[position] = rng.integers(256)
        exif_jpeg.write_bytes(content)
        assert decode_image(exif_jpeg, SIZE, 3).shape == (*SIZE, 3)


def test_whatever_a_parser_trips_over_is_a_value_error_with_its_reason(save, rgb, monkeypatch):
    def trip(image):
        raise AttributeError("'NoneType' object has no attribute 'read'")

    path = save(Image.fromarray(rgb), "a.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", trip)
    with pytest.raises(
        ValueError, match=r"damaged image \(AttributeError: 'NoneType' object has no attribute 'read'\)"
    ):
        decode_image(path, SIZE, 3)


def test_no_memory_is_not_the_fault_of_the_file(save, rgb, monkeypatch):
    def trip(image):
        raise MemoryError

    path = save(Image.fromarray(rgb), "a.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", trip)
    with pytest.raises(MemoryError):
        decode_image(path, SIZE, 3)


@pytest.mark.parametrize("size", [(17, 10), (100, 90)])
def test_resize_is_bilinear_with_antialiasing(save, rng, size):
    pixels = rng.integers(0, 256, (64, 48, 3), np.uint8)
    expected = tf.image.resize(pixels, size, method="bilinear", antialias=True).numpy()
    np.testing.assert_allclose(decode_image(save(Image.fromarray(pixels), "a.png"), size, 3), expected, atol=1.01)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.bmp"])
def test_truncated_file(save, name):
    path = save(Image.fromarray(smooth_image(64, 64)), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(OSError, match=r"(?i)truncated"):
        decode_image(path, SIZE, 3)


@pytest.mark.parametrize("content", [b"", b"not an image at all\n" * 20, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_no_image(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot identify image file \(empty, damaged, or not an image\)"):
        decode_image(path, SIZE, 3)


def test_broken_png_chunk(save):
    path = save(Image.fromarray(smooth_image(300, 300)), "a.png")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"IDAT") : content.rindex(b"IDAT") + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="broken PNG file"):
        decode_image(path, SIZE, 3)


def test_decompression_bomb(save, monkeypatch):
    path = save(Image.fromarray(smooth_image(64, 64)), "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="exceeds limit"):
        decode_image(path, SIZE, 3)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        decode_image(tmp_path / "none.jpg", SIZE, 3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.bmp"])
def test_random_damage_raises_nothing_else(save, rng, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(Image.fromarray(smooth_image(24, 20)), name, **({"exif": exif} if name in ("a.jpg", "a.png") else {}))
    whole = path.read_bytes()
    for _ in range(300):
        content = bytearray(whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else whole)
        for position in rng.integers(0, len(content), rng.integers(1, 6)):
            content[position] = rng.integers(256)
        path.write_bytes(content)
        with contextlib.suppress(OSError, ValueError):
            assert decode_image(path, SIZE, 3).shape == (*SIZE, 3)


def test_source_stands_alone(save, rgb):
    source = inspect.getsource(decode)
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert imported == {"os", "numpy", "PIL"}
    pasted = {}
    exec(source, pasted)
    np.testing.assert_array_equal(pasted["decode_image"](save(Image.fromarray(rgb), "a.png"), SIZE, 3), rgb)
