"""What files are that are no images, or of formats that are not read."""

import pytest

from imgclf.data import images
from imgclf.errors import ImageError


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\x0a" + bytes(50), "^a JPEG XL image, a format that is not read"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "^a JPEG XL image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), "^a JPEG 2000 image"),
        (b"8BPS\0\1" + bytes(50), "^a Photoshop image"),
        (bytes(128) + b"DICM" + bytes(50), "^a DICOM image"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(50), "AVIF image"),
        (b"\0\0\0\x1cftypisom\0\0\0\0isomiso2avc1" + bytes(50), "^not an image, but a video"),
        (b"%PDF-1.7\n" + bytes(50), "^not an image, but a PDF document"),
        (b"PK\x03\x04" + bytes(50), "^not an image, but a zip archive"),
        (b"<!DOCTYPE html><html>403</html>", "^not an image, but a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "^not an image, but a sound or a video"),
        (bytes(1000), "^not an image, but zeros only"),
        (b"\xff\xd8\xff\xe0 no more", "^damaged or truncated"),
        (b"II*\0\x08\0\0\0", "^damaged or truncated"),
    ],
)
def test_the_reason_says_what_a_file_is(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        images.decode(data)
