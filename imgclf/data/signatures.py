"""What a file is that cannot be read as an image, told from its first bytes."""

from imgclf.data import tiffs

NO_IMAGE = "not an image"
"""The begin of the reasons for a file that is an image by its name only."""

_FOREIGN = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x57\x4d\x50\x48\x4f\x54\x4f\0", "JPEG XR"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"8BPS", "Photoshop"),
    (b"gimp xcf", "GIMP"),
    (b"DDS ", "DirectDraw"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"SIMPLE  =", "FITS"),
    (b"\0\0\x01\0", "icon"),
    (b"IIRO", "raw camera"),
    (b"IIU\0", "raw camera"),
    (b"FUJIFILMCCD-RAW", "raw camera"),
    (b"BPG\xfb", "BPG"),
    (b"FLIF", "FLIF"),
    (b"qoif", "QOI"),
    (b"Pf\n", "PFM"),
    (b"PF\n", "PFM"),
    (b"\x93NUMPY", "NumPy"),
)
"""The first bytes of formats of images that are not opened."""

_OTHERS = (
    (b"%PDF-", "a PDF document"),
    (b"%!PS", "a PostScript program"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript program"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"\x1a\x45\xdf\xa3", "a video"),
    (b"\0\0\x01\xba", "a video"),
    (b"OggS", "a sound or a video"),
    (b"version https://git-lfs", "a pointer of Git LFS: run git lfs pull"),
)

_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")


def is_heif(data: bytes) -> bool:
    """Whether the brands of the file name HEIF. Pillow itself reads AVIF, which shares the container."""
    box = data[: min(int.from_bytes(data[:4], "big"), 256)]
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF and b"avif" not in box


def describe(data: bytes) -> str:
    """Say why a file that no decoder knows cannot be read."""
    for magic, name in _FOREIGN:
        if data.startswith(magic):
            return f"{_article(name)} {name} image, a format that is not read: convert it to PNG or TIFF"
    if data[:4] in tiffs.MAGIC:
        return tiffs.describe(data)
    if data[128:132] == b"DICM":
        return "a DICOM image, a format that is not read: convert it to PNG or TIFF"
    if data[4:8] == b"ftyp":
        if b"avif" in data[8:64] or b"avis" in data[8:64]:
            return "an AVIF image that is damaged or that this Pillow cannot read"
        return f"{NO_IMAGE}, but a video"
    if data[:4] == b"RIFF" and data[8:12] != b"WEBP":
        return f"{NO_IMAGE}, but a sound or a video"
    for magic, name in _OTHERS:
        if data.startswith(magic):
            return f"{NO_IMAGE}, but {name}"
    begin = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in begin:
        return f"{NO_IMAGE} of pixels, but an SVG drawing: convert it to PNG"
    if begin.startswith((b"<!doctype html", b"<html")):
        return f"{NO_IMAGE}, but a web page"
    for magic, name in ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n", "PNG"), (b"GIF8", "GIF"), (b"BM", "BMP")):
        if data.startswith(magic):
            return f"damaged or truncated (the begin of a {name} image)"
    if not data.strip(b"\0"):
        return f"{NO_IMAGE}, but zeros only"
    return f"{NO_IMAGE}, or a format that cannot be read"


def _article(name: str) -> str:
    return "an" if name[0] in "AEIOU" else "a"
