"""The state that a training resumes from: everything that decides how it goes on."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cxr.errors import CxrError
from cxr.models.device import random_states, restore_random_states
from cxr.settings.differences import flat, told
from cxr.settings.schema import TrainingSettings
from cxr.training.early_stopping import EarlyStopping
from cxr.training.results import Epoch, Validation

if TYPE_CHECKING:
    from cxr.training.loop import Training

State = dict[str, Any]
_IDLE = {"workers", "checkpoint_interval", "compile"}  # settings that change no result, or its rounding alone


def decisive(settings: TrainingSettings) -> State:
    """The settings that must be the same for a training to resume from a checkpoint, by name."""
    return {name: value for name, value in settings.model_dump(by_alias=True).items() if name not in _IDLE}


def state(
    t: "Training", stopping: EarlyStopping, start: Validation, history: list[Epoch], best_weights: State
) -> State:
    """State of a training after an epoch, to resume from."""
    return {
        "epoch": history[-1].epoch,
        "suffix": t.suffix.state_dict(),
        "best": best_weights,
        "optimizer": t.optimizer.state_dict(),
        "schedule": t.schedule.state_dict(),
        "averaged": t.averaged.state_dict() if t.averaged is not None else None,
        "stopping": asdict(stopping),
        "start": asdict(start),
        "history": [asdict(record) for record in history],
        "random": random_states(),
        "fingerprint": t.fingerprint,
        "settings": decisive(t.settings),  # the fingerprint has a digest of them
    }


def restore(t: "Training", stopping: EarlyStopping, saved: State) -> tuple[Validation, list[Epoch], State]:
    """Put a training back to where `saved` was taken; a state of another training raises `CxrError`."""
    then = saved.get("fingerprint", {})
    differing = [f"{k} was {then.get(k)}, now {v}" for k, v in t.fingerprint.items() if then.get(k) != v]
    if then.get("settings") != t.fingerprint["settings"] and "settings" in saved:
        section = t.settings.section
        changed = told(flat({section: saved["settings"]}), flat({section: decisive(t.settings)}))
        differing = [changed, *(text for text in differing if not text.startswith("settings "))]
    if differing:
        raise CxrError(
            f"the checkpoint is of another training: {'; '.join(differing)}; train from scratch, without resume"
        )
    try:
        t.suffix.load_state_dict(saved["suffix"])
        t.optimizer.load_state_dict(saved["optimizer"])
        t.schedule.load_state_dict(saved["schedule"])
        if t.averaged is not None:
            t.averaged.load_state_dict(saved["averaged"])
        for name in ("best", "best_epoch", "waited"):
            setattr(stopping, name, saved["stopping"][name])
        restore_random_states(saved["random"])
        history = [Epoch(**record) for record in saved["history"]]
        return Validation(**saved["start"]), history, saved["best"]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise CxrError(
            f"the checkpoint does not fit this training ({line}); train from scratch, without resume"
        ) from None
