"""Program that answers images with one logged model by the code that ships with it, for `steps.registry.answers`.

    python -P steps/registry/answering.py MODEL_FOLDER

It must not import this project: the model brings a package `cxr` of its own, and two of them must not mix. Standard
input has a JSON line for each request, {"paths": [...], "point": "..."}; standard output gets a JSON line for each,
{"rows": [...]} or {"error": "..."}, after a first one, {"rows": []}, once the model is loaded. It ends with its input,
so that it does not outlive the process that started it. Whatever the model prints goes to standard error.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

_LEFT_OUT = ("heatmap", "model_version")  # columns: one was not asked for, the other differs between versions
_TRIES = 3  # of a request that the model is too busy for
_BUSY = 503


def main(folder: Path) -> None:
    """Answer requests until there are no more."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests = (json.loads(line) for line in sys.stdin)
    try:
        model = _loaded(folder)
    except Exception as error:
        _send(replies, {"error": _in_short(error)})
        return
    _send(replies, {"rows": []})
    for request in requests:
        try:
            rows = _answers(model, request["paths"], request["point"])
        except Exception as error:
            _send(replies, {"error": _in_short(error)})
            return
        _send(replies, {"rows": rows})


def _loaded(folder: Path) -> Any:
    import mlflow

    model = mlflow.pyfunc.load_model(str(folder))
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if name.partition(".")[0] == "cxr" and file and not Path(file).resolve().is_relative_to(folder.resolve()):
            raise ImportError(f"{name} was taken from {file} instead of the model; remove that folder from PYTHONPATH")
    return model


def _answers(model: Any, paths: list[str], point: str) -> list[dict[str, Any]]:
    import pandas as pd

    cells = pd.DataFrame({"image": pd.Series([Path(path).read_bytes() for path in paths], dtype=object)})
    for attempt in range(_TRIES):
        try:
            table = model.predict(cells, params={"operating_point": point, "strict": False})
            break
        except Exception as error:
            if getattr(error, "status", None) != _BUSY or attempt + 1 == _TRIES:
                raise
    table = table.drop(columns=[name for name in _LEFT_OUT if name in table])
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _send(replies: Any, reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
