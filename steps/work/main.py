"""Work of `main`: launch every step as a child run, or reuse the run that already has its result."""

from statistics import mean, stdev

from cxr.errors import CxrError
from steps.runtime import runs, supervisor
from steps.runtime.context import Context
from steps.runtime.settings import OWNED
from steps.work import launching, repeats
from steps.work.repeats import Repeats
from steps.work.summary import summary


def run(context: Context) -> None:
    """Run or reuse every step, repeat the training from further seeds or on further folds, and print the summary."""
    may_reuse, ensemble = context.boolean("reuse", True), context.boolean("ensemble", False)
    plan = repeats.plan(context.settings, context.flags.get("seeds", "1"), context.overrides)
    if ensemble and len(plan) < 2:
        raise CxrError("ensemble=true needs several trainings; add -P seeds=5, or -P folds=5")
    views = context.settings.evaluate.views
    if ensemble and context.settings.data.folds is not None and views > 1:
        raise CxrError(
            f"evaluate.views={views}: the out-of-fold answers that calibrate an ensemble of folds are of one view; set "
            "evaluate.views=1, or give seeds=5 instead of folds"
        )
    supervisor.asked(context.flags)
    launching.begin(context, context.settings)
    if context.settings.data.folds is not None:
        context.tag(runs.FOLDS, context.settings.data.folds)
    done: dict[str, str] = {}
    for name in OWNED if not ensemble else list(OWNED)[:-1]:
        done[name] = launching.step(context, name, done, may_reuse, plan.overrides[0].get(name))
        context.tag(f"cxr.{name}_run_id", done[name])
    more_lines: list[str] = []
    if len(plan) > 1:
        more_lines = _repeat(context, done, plan, may_reuse, ensemble)
    text = summary(context.client, context.experiment_id, context.run_id, done, context.settings, more_lines)
    context.put_text(text, "summary.txt")
    print(text, flush=True)


def _repeat(context: Context, done: dict[str, str], plan: Repeats, may_reuse: bool, ensemble: bool) -> list[str]:
    """Repeat the first training, whose runs are in `done`, as planned; returns lines for the summary.

    The further bundles are scored but not registered. With `ensemble`, the ensemble of all bundles is registered, and
    its runs are added to `done`.
    """
    scores_only = {"registry.register": "false", "evaluate.robustness": "false"}
    finetuned, evaluated = [], []
    for number, overrides in enumerate(plan.overrides):
        repeated = dict(done)
        if number:
            first_changed = min(list(OWNED).index(name) for name in overrides)
            repeated = {name: done[name] for name in list(OWNED)[:first_changed]}
            for name in ("prepare_split", "train", "finetune")[first_changed:]:
                extra = {"survey_run_id": done[name]} if name == "prepare_split" else {}
                repeated[name] = launching.step(context, name, repeated, may_reuse, overrides.get(name), extra)
        finetuned.append(repeated["finetune"])
        if number or ensemble:
            repeated["evaluate"] = launching.step(context, "evaluate", repeated, may_reuse, scores_only)
        evaluated.append(repeated["evaluate"])
    scores = repeats.scores(context.client, evaluated, plan.metrics)
    context.metrics({f"{name}_mean": mean(values) for name, values in scores.items()})
    context.metrics({f"{name}_sd": stdev(values) for name, values in scores.items()})
    if ensemble:
        parameters = {key: value for key, value in context.overrides.items() if launching.is_common(key)}
        done["ensemble"] = launching.launch(context, "ensemble", {**parameters, "run_ids": ",".join(finetuned)})
        done["evaluate"] = launching.step(context, "evaluate", {**done, "finetune": done["ensemble"]}, may_reuse)
        for name in ("ensemble", "evaluate"):
            context.tag(f"cxr.{name}_run_id", done[name])
    return repeats.lines(scores, plan)
