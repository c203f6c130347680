"""Hostile requests to a served model, as bytes to send: drawn by a random generator, one function for each kind.

Every request carries a token that no answer may repeat.
"""

import gzip
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from bench.faults import hostile_pictures as pictures
from bench.faults import hostile_raw
from bench.faults.attack import ANSWERED, CSV, JSON, NOTHING, REFUSED, Attack, Kind, body, post, text


def _broken_json(rng: Generator, token: str) -> Attack:
    whole = bytearray(body([token, text(pictures.xray())[:200]]).encode())
    alphabet = b'{}[]",:\\ 0e-.nutf\xff\x00\n'
    for _ in range(rng.integers(1, 6)):
        place = int(rng.integers(len(whole)))
        whole[place : place + int(rng.integers(3))] = bytes([alphabet[rng.integers(len(alphabet))]])
    return Attack(post(bytes(whole[: rng.integers(len(whole))] if rng.random() < 0.3 else whole)))


def _wrong_types(rng: Generator, token: str) -> Attack:
    values = [None, True, 1, -2.5, token, [token], {"image": token}, [[token]], [], {}, [{}], [None], [1, [token]]]
    value = values[rng.integers(len(values))]
    key = str(rng.choice(["dataframe_records", "dataframe_split", "inputs", "instances", "ignored"]))
    shapes = [
        {key: value}, {key: [value]}, {key: {"columns": ["image"], "data": value}}, {key: {"image": value}}, value,
        {key: {"columns": value, "index": value, "data": [[token]]}}, {key: [{"image": value}]},
        {key: value, "inputs": value},
    ]  # fmt: skip
    return Attack(post(json.dumps(shapes[rng.integers(len(shapes))])))


def _huge_numbers(rng: Generator, token: str) -> Attack:
    digits = "9" * int(rng.integers(1, 20_000))
    number = str(rng.choice([digits, f"-{digits}", "1e400", "-1e999999999", f"0.{digits}", f"{digits}e{digits[:9]}"]))
    where = [f'{{"dataframe_records": [{{"image": {number}}}]}}', f'{{"inputs": [{number}], "x": "{token}"}}', number,
             f'{{"dataframe_split": {{"columns": ["image"], "index": [{number}], "data": [["{token}"]]}}}}',
             f'{{"dataframe_records": [{{"image": "{token}"}}], "params": {{"strict": {number}}}}}']  # fmt: skip
    return Attack(post(where[rng.integers(len(where))]))


def _deep_nesting(rng: Generator, token: str) -> Attack:
    depth, (opened, closed) = int(10 ** rng.uniform(2, 5.4)), [("[", "]"), ('{"a":', "}")][rng.integers(2)]
    inner = opened * depth + f'"{token}"' + closed * (depth if rng.random() < 0.7 else 0)
    wraps = [
        '{{"dataframe_records": [{{"image": {}}}]}}',
        '{{"inputs": {}}}',
        '{{"params": {}, "instances": ["x"]}}',
        "{}",
    ]
    return Attack(post(wraps[rng.integers(len(wraps))].format(inner)))


def _not_a_number(rng: Generator, token: str) -> Attack:
    number = str(rng.choice(["NaN", "Infinity", "-Infinity"]))
    key = str(rng.choice(["inputs", "instances"]))
    return Attack(post(str(rng.choice([f'{{"dataframe_records": [{{"image": {number}}}]}}', f'{{"{key}": [{number}]}}',
                                       f'{{"{key}": [[{number}, "{token}"]]}}', number]))))  # fmt: skip


def _wrong_base64(rng: Generator, token: str) -> Attack:
    good = text(pictures.xray())
    cells = [
        "data:image/jpeg;base64," + good, good.replace("/", "_").replace("+", "-"), good[: -int(rng.integers(1, 4))],
        f"{good}!{token}", token, "\ud800" + token, "=" * 100, good[:50] + "\u0661" + good[50:], "%" + good,
    ]  # fmt: skip
    return Attack(post(body([cells[rng.integers(len(cells))]])))


def _in_a_body(make: Callable[[Generator], bytes]) -> Callable[[Generator, str], Attack]:
    """Pictures in requests that are otherwise in order."""

    def draw(rng: Generator, _: str) -> Attack:
        return Attack(post(body([text(make(rng))], params={"strict": bool(rng.integers(2))})))

    return draw


def _compressed_body(rng: Generator, token: str) -> Attack:
    packed = gzip.compress(body([token + "A" * int(rng.integers(1_000_000))]).encode())
    return Attack(post(packed, JSON, "/invocations", f"Content-Encoding: {rng.choice(['gzip', 'deflate', 'br'])}"))


def _many_numbers(rng: Generator, token: str) -> Attack:
    inner = str(rng.choice(["0", "[]", "{}", '""', "1.5"]))
    many = ",".join([inner] * int(rng.integers(1000, 200_000)))
    wraps = ['{{"inputs": [{}]}}', '{{"instances": [{}]}}', '{{"dataframe_records": [{}]}}', '{{"x": [{}]}}',
             '{{"dataframe_split": {{"columns": ["image"], "data": [{}]}}}}']  # fmt: skip
    return Attack(post(wraps[rng.integers(len(wraps))].format(many)))


def _too_many_images(rng: Generator, token: str) -> Attack:
    return Attack(post(body([token] * int(rng.integers(65, 5000)))))


def _too_long(rng: Generator, token: str) -> Attack:
    """Bodies over the limit: announced, or sent in chunks without an announcement."""
    if rng.random() < 0.5:
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {JSON}\r\nContent-Length: "
        return Attack(f"{head}{rng.integers(10**8, 10**15)}\r\n\r\n{token}".encode())
    piece = body([token]).encode().ljust(1_000_000)
    chunk = b"%x\r\n%b\r\n" % (len(piece), piece)
    head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {JSON}\r\n"
    return Attack(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 4 + b"0\r\n\r\n")


def _wrong_content_type(rng: Generator, token: str) -> Attack:
    kinds = [None, "", token, "text/html", "multipart/form-data", f"{JSON}; {token}=1", f"{JSON}; charset={token}",
             "application/vnd.apache.parquet", f"{JSON},{JSON}", "application/x-www-form-urlencoded"]  # fmt: skip
    return Attack(post(body([token]), kinds[rng.integers(len(kinds))]))


def _wrong_path(rng: Generator, token: str) -> Attack:
    method = str(rng.choice(["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "POST"]))
    paths = [
        f"/{token}",
        "/../../etc/passwd",
        "/%00",
        "/invocations/x",
        f"/nothing?{token}",
        "/" + "a" * 5000,
        "/%ff%fe",
        "//",
    ]
    path = "/invocations" if method != "POST" and rng.random() < 0.5 else paths[rng.integers(len(paths))]
    return Attack(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())


def _garbage_header(rng: Generator, token: str) -> Attack:
    whole = body([token])
    post_, close = "POST /invocations HTTP/1.1\r\n", "Connection: close\r\n"
    heads = [
        f"{post_}{token}\r\n\r\n", f"POST /invocations HTTP/9.9\r\nHost: {token}\r\n\r\n",
        f"{post_}Content-Length: -1\r\n\r\n", f"{token} / HTTP/1.1\r\n\r\n", f"GET {token}\r\n\r\n",
        f"{post_}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{whole}",
        f"{post_}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{whole}",
        f"{post_}{close}X-{token}: {'a' * 100_000}\r\n\r\n", f"{post_}{close}" + f"{token}: 1\r\n" * 5000 + "\r\n",
        f"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {token}\r\n\r\n",
        f"{post_}{close}Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ]  # fmt: skip
    binary = rng.integers(0, 256, int(rng.integers(1, 2000)), dtype=np.uint8).tobytes()
    choice = int(rng.integers(len(heads) + 2))
    return Attack(binary if choice >= len(heads) else heads[choice].encode(), "half")


def _operating_point(rng: Generator, token: str) -> Attack:
    points = [
        token, f"' OR 1=1 -- {token}", "youden\0", "YOUDEN", " youden", token * 3000, "../youden", "{{7*7}}", "\u202e",
        None, 0.5, True, [token], {"$gt": ""}, "%s%n", "argmax\nERROR: " + token,
    ]  # fmt: skip
    good = body([text(pictures.xray())], params={"operating_point": points[rng.integers(len(points))]})
    return Attack(post(good))


def _parameters(rng: Generator, token: str) -> Attack:
    given = [
        token,
        [token],
        7,
        True,
        {token: 1},
        {"strict": token},
        {"heatmap": 1},
        {"strict": None},
        {"__class__": token},
    ]
    return Attack(post(body([text(pictures.xray())], params=given[rng.integers(len(given))])))


def _chat(rng: Generator, token: str) -> Attack:
    """Keys that MLflow takes for a request to a language model, which it does not parse."""
    key = str(rng.choice(["messages", "input", "prompt"]))
    value: Any = [token, [{"role": "user", "content": token}], {"image": token}, None, 5][rng.integers(5)]
    return Attack(post(json.dumps({key: value, "params": {"strict": False}} if rng.random() < 0.5 else {key: value})))


def _csv(rng: Generator, token: str) -> Attack:
    tables = [
        f'image\n"{token}', f"image,image\n{token},{token}\n", "image\n" + "x," * 5000, f"{token}\n", "", "\0\0\0",
        f"image\n{token}\n" * 500, "image\n\n\n", "image;x\n1;2\n", '"' * 999, "image\n" + "1e999\n" * 3,
    ]  # fmt: skip
    data = tables[rng.integers(len(tables))].encode()
    return Attack(post(data if rng.random() < 0.7 else data.decode().encode("utf-16"), CSV))


def _odd_columns(rng: Generator, token: str) -> Attack:
    columns = [
        ["image", "image"],
        [token],
        [None],
        [["image"]],
        [],
        ["IMAGE"],
        ["image", token],
        [1],
        "image",
        {"image": 0},
    ]
    chosen = columns[rng.integers(len(columns))]
    row = [text(pictures.xray())] * (len(chosen) if rng.random() < 0.8 else 3)
    return Attack(post(json.dumps({"dataframe_split": {"columns": chosen, "data": [row]}})))


def _cut_off(ends: str) -> Callable[[Generator, str], Attack]:
    """The beginning of a request, or rarely all of it."""

    def draw(rng: Generator, token: str) -> Attack:
        whole = post(body([text(pictures.xray())]), JSON, "/invocations", f"X-Token: {token}")
        least = len(whole) if rng.random() < 0.2 else int(rng.integers(20, 500))
        return Attack(whole[: rng.integers(least, len(whole) + 1)], ends)

    return draw


def prepare(rng: Generator) -> None:
    """Make what is made only once, so that it takes no time of the machine later."""
    for kind in KINDS.values():
        for _ in range(20):
            kind.draw(rng, "")


KINDS: dict[str, Kind] = {
    "broken JSON": Kind(_broken_json),
    "wrong types": Kind(_wrong_types, (REFUSED, ANSWERED)),  # an empty table has an empty answer
    "huge numbers": Kind(_huge_numbers),
    "deep nesting": Kind(_deep_nesting),
    "NaN and infinities": Kind(_not_a_number),
    "wrong base64": Kind(_wrong_base64),
    "truncated pictures": Kind(_in_a_body(pictures.truncated), (REFUSED, ANSWERED)),
    "damaged pictures": Kind(_in_a_body(pictures.damaged), (REFUSED, ANSWERED)),
    "dimension bombs": Kind(_in_a_body(pictures.dimension_bomb), (REFUSED, ANSWERED)),
    "zlib bombs": Kind(_in_a_body(pictures.zlib_bomb), (REFUSED, ANSWERED)),
    "raw pictures": Kind(hostile_raw.as_it_is(pictures.damaged), (REFUSED, ANSWERED)),
    "raw bombs": Kind(hostile_raw.as_it_is(pictures.dimension_bomb), (REFUSED, ANSWERED)),
    "hostile queries and headers": Kind(hostile_raw.parameters),
    "compressed bodies": Kind(_compressed_body),
    "tables of numbers": Kind(_many_numbers),
    "too many images": Kind(_too_many_images),
    "too long bodies": Kind(_too_long, ("413",)),
    "wrong content types": Kind(_wrong_content_type, ("415",)),
    "wrong methods and paths": Kind(_wrong_path, ("404", "405", "307", "400")),
    "garbage in the head": Kind(_garbage_header, (REFUSED, "415", "404", "405", NOTHING)),
    "hostile operating points": Kind(_operating_point),
    "wrong parameters": Kind(_parameters),
    "chat requests": Kind(_chat),
    "broken CSV": Kind(_csv, (REFUSED, ANSWERED)),
    "odd columns": Kind(_odd_columns, (REFUSED, ANSWERED)),
    "half-closed": Kind(_cut_off("half"), (NOTHING, ANSWERED)),
    "abandoned": Kind(_cut_off("leave"), (NOTHING,)),
    "slow": Kind(_cut_off("slowly"), (NOTHING,)),
}
