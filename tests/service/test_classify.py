import base64
import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.conftest import BLUE, GREEN, RED
from tests.service.conftest import is_problem

Picture = Callable[..., bytes]
JSON = dict[str, Any]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def huge_png(side: int = 30_000) -> bytes:
    """A PNG of a few bytes that claims side × side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def upload(client: httpx.Client, *pictures: bytes, **fields: str) -> httpx.Response:
    parts = [("images", (f"{index}.jpg", data, "image/jpeg")) for index, data in enumerate(pictures)]
    return client.post("/classify", files=parts, data={"model": "colours", **fields})


def one(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/classify?model=colours", content=data, headers={"content-type": "image/jpeg"})


def test_multipart_answers_per_image_in_order(client: httpx.Client, picture: Picture) -> None:
    response = upload(client, picture(RED), picture(GREEN), picture(BLUE), top_k="2")
    assert response.status_code == 200
    body = response.json()
    assert body["model"]["name"] == "colours"
    assert body["model"]["version"] == "1"
    assert body["model"]["digest"].startswith("sha256:")
    assert body["runtime"] == {"name": "onnx", "device": "cpu", "execution_provider": "CPUExecutionProvider"}
    assert [one["label"] for one in body["predictions"]] == ["red", "green", "blue"]
    assert [one["index"] for one in body["predictions"]] == [0, 1, 2]
    assert [one["filename"] for one in body["predictions"]] == ["0.jpg", "1.jpg", "2.jpg"]
    first = body["predictions"][0]
    assert [candidate["class_index"] for candidate in first["top_k"]] == [0, 2]
    assert first["probability"] == first["top_k"][0]["probability"] > 0.9
    assert first["abstained"] is False


def test_the_three_forms_agree(client: httpx.Client, picture: Picture) -> None:
    data = picture(GREEN, seed=3)
    multipart = upload(client, data).json()["predictions"][0]
    raw = one(client, data).json()["predictions"][0]
    octets = client.post(
        "/classify?model=colours", content=data, headers={"content-type": "application/octet-stream"}
    ).json()["predictions"][0]
    wrapped = base64.encodebytes(data).decode()
    in_json = client.post("/classify", json={"images": [wrapped], "model": "colours"}).json()["predictions"][0]
    assert multipart.pop("filename") == "0.jpg"
    assert multipart == raw == octets == in_json


def test_parameters_may_stand_in_the_query_of_any_form(client: httpx.Client, picture: Picture) -> None:
    files = {"images": ("a.jpg", picture(BLUE))}
    body = client.post("/classify?model=tones&top_k=1", files=files).json()
    assert body["model"]["name"] == "tones"
    assert [candidate["label"] for candidate in body["predictions"][0]["top_k"]] == ["cold"]


def test_grey_is_not_sure(client: httpx.Client) -> None:
    answer = one(client, encoded(Image.new("RGB", (64, 64), (128, 128, 128)), "PNG")).json()["predictions"][0]
    assert answer["abstained"] is True
    assert answer["probability"] == pytest.approx(1 / 3, abs=0.01)


def odd_pictures() -> dict[str, bytes]:
    """Unusual, and red, all of them."""
    red = Image.new("RGB", (60, 40), RED)
    frames = [red, Image.new("RGB", (60, 40), BLUE)]
    upside = Image.Exif()
    upside[0x0112] = 6
    deep = b"P6\n8 8\n65535\n" + struct.pack(">3H", 56000, 8000, 8000) * 64
    return {
        "png_called_jpg": encoded(red, "PNG"),
        "cmyk": encoded(red.convert("CMYK"), "JPEG"),
        "palette": encoded(red.quantize(4), "PNG"),
        "alpha": encoded(red.convert("RGBA"), "PNG"),
        "exif": encoded(red, "JPEG", exif=upside),
        "one_pixel": encoded(Image.new("RGB", (1, 1), RED), "PNG"),
        "animated_gif": encoded(red, "GIF", save_all=True, append_images=frames[1:]),
        "animated_webp": encoded(red, "WEBP", save_all=True, append_images=frames[1:], lossless=True),
        "tiff": encoded(red, "TIFF"),
        "bmp": encoded(red, "BMP"),
        "avif": encoded(red, "AVIF"),
        "deep": encoded(Image.open(io.BytesIO(deep)), "PNG"),
    }


@pytest.mark.parametrize("name", odd_pictures())
def test_odd_pictures_are_classified(client: httpx.Client, name: str) -> None:
    response = one(client, odd_pictures()[name])
    assert response.status_code == 200, response.text
    assert response.json()["predictions"][0]["label"] == "red"


def test_sixteen_bit_grey_is_read(client: httpx.Client) -> None:
    response = one(client, encoded(Image.new("I;16", (64, 64), 40_000), "PNG"))
    assert response.json()["predictions"][0]["abstained"] is True


def bad_pictures(good: bytes) -> dict[str, tuple[bytes, int, str]]:
    return {
        "empty": (b"", 422, "image_empty"),
        "text": (b"this is no picture" * 20, 415, "image_unsupported"),
        "truncated": (good[: len(good) // 2], 422, "image_truncated"),
        "header_only": (good[:12], 422, "image_truncated"),
        "huge": (huge_png(), 413, "image_too_many_pixels"),
        "script": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "image_unsupported"),
    }


KINDS = tuple(bad_pictures(b"x" * 20))


@pytest.mark.parametrize("kind", KINDS)
def test_one_bad_picture_is_a_problem_in_every_form(client: httpx.Client, picture: Picture, kind: str) -> None:
    data, status, code = bad_pictures(picture())[kind]
    is_problem(one(client, data), status, code)
    is_problem(upload(client, data), status, code)
    is_problem(
        client.post("/classify", json={"images": [base64.b64encode(data).decode()], "model": "colours"}), status, code
    )


def test_bad_pictures_leave_their_neighbours_alone(client: httpx.Client, picture: Picture) -> None:
    good = picture(GREEN)
    bad = bad_pictures(good)
    pictures = [part for data, _, _ in bad.values() for part in (data, good)]
    response = upload(client, *pictures)
    assert response.status_code == 200
    alone = upload(client, good).json()["predictions"][0]
    outcomes = response.json()["predictions"]
    for index, (_, status, code) in enumerate(bad.values()):
        error = outcomes[2 * index]["error"]
        assert (error["status"], error["code"]) == (status, code)
        assert "label" not in outcomes[2 * index]
        answer = outcomes[2 * index + 1]
        assert (answer["label"], answer["probability"]) == ("green", alone["probability"])


def test_when_every_picture_failed_the_answer_says_why_for_each(client: httpx.Client) -> None:
    body = is_problem(upload(client, b"", b"text"), 422, "images_failed")
    assert [outcome["error"]["code"] for outcome in body["predictions"]] == ["image_empty", "image_unsupported"]
    assert body["model"]["name"] == "colours"


def test_broken_base64_is_the_outcome_of_its_picture(client: httpx.Client, picture: Picture) -> None:
    good = base64.b64encode(picture(RED)).decode()
    body = client.post("/classify", json={"images": ["!!!", good, 7, good[:-3], "é"], "model": "colours"}).json()
    codes = [outcome.get("error", {}).get("code", outcome.get("label")) for outcome in body["predictions"]]
    assert codes == ["parameter_invalid", "red", "parameter_invalid", "parameter_invalid", "parameter_invalid"]
    assert "images[2]" in body["predictions"][2]["error"]["detail"]
    is_problem(client.post("/classify", json={"images": ["!!!"], "model": "colours"}), 422, "parameter_invalid")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("../../etc/passwd", "../../etc/passwd"), ("Blümchen 🌼.jpg", "Blümchen 🌼.jpg"), ("a\nb.jpg", "a\nb.jpg")],
)
def test_file_names_are_echoed_and_nothing_else(client: httpx.Client, picture: Picture, sent: str, kept: str) -> None:
    response = client.post("/classify?model=colours", files=[("images", (sent, picture(RED)))])
    assert response.json()["predictions"][0] == {**response.json()["predictions"][0], "label": "red", "filename": kept}


def test_a_file_name_in_latin_1_is_read(client: httpx.Client, picture: Picture) -> None:
    head = 'Content-Disposition: form-data; name="images"; filename="Blümchen.jpg"'.encode("latin-1")
    body = b"--x\r\n" + head + b"\r\n\r\n" + picture(RED) + b"\r\n--x--\r\n"
    kind = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/classify?model=colours", content=body, headers=kind).json()
    assert answer["predictions"][0]["filename"] == "Blümchen.jpg"


def test_file_names_in_strange_charsets_do_no_harm(client: httpx.Client, picture: Picture) -> None:
    for charset in ("unicode_escape", "undefined", "idna", "base64", "utf-16"):
        body = (
            b'--x\r\nContent-Disposition: form-data; name="images"; filename="\\ud800.jpg"\r\n\r\n'
            + picture(RED)
            + b"\r\n--x--\r\n"
        )
        headers = {"content-type": f"multipart/form-data; charset={charset}; boundary=x"}
        response = client.post("/classify?model=colours", content=body, headers=headers)
        assert response.status_code in {200, 422}, (charset, response.text)


def test_sixteen_clients_at_once_get_their_own_answers(client: httpx.Client, picture: Picture) -> None:
    colours = [("red", RED), ("green", GREEN), ("blue", BLUE)]

    def ask(number: int) -> bool:
        label, colour = colours[number % 3]
        response = upload(client, picture(colour, seed=number), b"no picture", picture(colour, seed=number + 1))
        outcomes = response.json()["predictions"]
        return [outcome.get("label") for outcome in outcomes] == [label, None, label]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(64)))


def test_models_are_described(client: httpx.Client) -> None:
    listed = client.get("/models").json()["models"]
    assert [(one["name"], one["version"], one["classes"], one["default"]) for one in listed] == [
        ("colours", "1", 3, False),
        ("tones", "1", 3, False),
    ]
    detail = client.get("/models/tones").json()
    assert detail["labels"] == ["warm", "leafy", "cold"]
    assert detail["digest"] == listed[1]["digest"]
    assert detail["preprocessing"]["crop"] == 32
    assert detail["calibration"]["threshold"] == 0.5
    assert detail["runtime"]["execution_provider"] == "CPUExecutionProvider"
    is_problem(client.get("/models/roses"), 404, "model_unknown")
