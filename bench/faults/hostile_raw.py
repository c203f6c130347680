"""Hostile requests whose body is a picture as it is, with parameters in the query and in headers."""

from collections.abc import Callable

from numpy.random import Generator

from bench.faults import hostile_pictures as pictures
from bench.faults.attack import RAW, Attack, post


def as_it_is(make: Callable[[Generator], bytes]) -> Callable[[Generator, str], Attack]:
    """Pictures that are the whole body."""

    def draw(rng: Generator, token: str) -> Attack:
        kind = str(rng.choice([*RAW, f"image/{token}", f"image/png; {token}"]))
        path = f"/invocations?strict={rng.choice(['true', 'false'])}"
        return Attack(post(make(rng), kind, path, f"X-Request-ID: {token} 1"))

    return draw


def parameters(rng: Generator, token: str) -> Attack:
    """Parameters beside the body: unknown ones, given twice, of wrong values, in query and headers."""
    queries = [token, f"{token}=1", f"strict={token}", "strict=1&strict=0", f"operating_point={token}", "%00=%ff",
               f"heatmap=1&{token}", "strict=" + "1" * 5000, "&".join(["heatmap=1"] * 1000)]  # fmt: skip
    headers = [f"X-Strict: {token}", f"X-Heatmap: {token}", f"X-Operating-Point: {token}", "X-Strict: \xff"]
    if rng.random() < 0.5:
        return Attack(post(pictures.xray(), RAW[0], f"/invocations?{queries[rng.integers(len(queries))]}"))
    return Attack(post(pictures.xray(), RAW[0], "/invocations", headers[rng.integers(len(headers))]))
