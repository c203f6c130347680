"""Work of `search`: trials on one split, each a nested run, and the best of them as a settings file."""

import io
import json
from importlib import import_module

import pandas as pd
import yaml
from mlflow.entities import ViewType

from cxr.common import spark
from cxr.common.files import sha256_of_text
from cxr.errors import CxrError
from cxr.search import plots, space
from cxr.search.study import Study, Trial, counted, library
from cxr.settings import instantiate, load
from steps.runtime import runs, step_key
from steps.runtime.context import Context
from steps.runtime.settings import DEFAULT_PROFILE, OWNED
from steps.work import launching, trials
from steps.work.searching import Search, all_failed, changes, listed
from steps.work.summary import store_prefix

BEST, TABLE, PICTURE = "search/best.yaml", "search/trials.csv", "search/search.png"
_SHOWN = 5  # trials in the summary
OPTIMISTIC = (
    "the validation score of the best of many trials is optimistic, since it was chosen for being high; judge the "
    "settings by the test split, once"
)


def run(context: Context) -> None:
    """Go on with the study, or begin it, and log what it has found."""
    settings = context.settings
    library()
    if settings.search.engine == "spark":
        spark.session("cxr-search")  # before any step runs
    launching.begin(context, space.check(settings))
    metric = settings.finetune.metric
    maximise = bool(instantiate.metric(metric, len(settings.data.class_names)).higher_is_better)
    first = changes(list(settings.search.space))
    done = {"prepare_split": launching.step(context, "prepare_split", {}, True)}
    context.tag("cxr.prepare_split_run_id", done["prepare_split"])
    shared = _shared(context, done["prepare_split"])
    _check_study(context, shared)
    for name in list(OWNED)[1 : list(OWNED).index(first)]:
        done[name] = launching.step(context, name, done, True)
    context.tag("cxr.study", settings.search.study)
    seed = settings.seed + _place(context)
    study = Study(settings.search, maximise=maximise, seed=seed)
    if settings.search.engine == "spark":
        import_module("steps.work.search_spark").run(context, done, shared, maximise=maximise, seed=seed)
    else:
        Search(context, study, done, shared).run()
    known = trials.known(context, settings.search.study)
    for trial in known:  # of other searches, which have ended since
        study.learn(trial)
    _log(context, study, known)


def _shared(context: Context, split_run_id: str) -> dict[str, str]:
    """Digests of what the trials of a study have in common, by what it is called in a message."""
    settings = context.settings
    searched = settings.to_dict()["search"]["space"]
    used = step_key.used_settings("train", settings) | step_key.used_settings("finetune", settings)
    split = context.client.get_run(split_run_id).data.tags["cxr.output_digest"]
    values = {"space": searched, "settings": {k: v for k, v in used.items() if k not in searched}, "split": split}
    digests = {name: sha256_of_text(json.dumps(value, sort_keys=True))[:16] for name, value in values.items()}
    return digests | {"code": step_key.components("finetune", settings, [])["code"]}


def _check_study(context: Context, shared: dict[str, str]) -> None:
    """Refuse to go on with a study of something else; give up trials whose search is gone."""
    study = context.settings.search.study
    number, changed = trials.different(context, study, shared)
    if "code" in changed:
        context.log.warning("the code has changed since some trials of the study %r; scores may not compare", study)
        changed.remove("code")
    if changed:
        raise CxrError(
            f"the study {study!r} has {counted(number)} with another {' and '.join(changed)}, so that scores do not "
            "compare; give this search a name of its own, -P study=NAME, or go on with what that study had"
        )
    if others := trials.engines(context, study) - {context.settings.search.engine}:
        raise CxrError(
            f"the study {study!r} has trials of engine={others.pop()}, which keeps them in another form; go on with "
            "that engine, or give this search a name of its own, -P study=NAME"
        )
    lost = trials.end_lost(context, study)
    if lost:
        context.log.warning("left unfinished: %s; counted as failed, and replaced by others", counted(lost))
    if number:
        context.log.info("going on with the study %r, which has %s", study, counted(number))


def _place(context: Context) -> int:
    """Place of this search among those of its study: what is drawn must not be the same in two of them."""
    query = f"tags.`cxr.step` = 'search' and tags.`cxr.study` = '{context.settings.search.study}'"
    found = context.client.search_runs([context.experiment_id], query, ViewType.ACTIVE_ONLY, 10_000)
    begun = sorted((run.info.start_time, run.info.run_id) for run in found)
    return [run_id for _, run_id in begun].index(context.run_id)


def _log(context: Context, study: Study, known: list[Trial]) -> None:
    """Log the best settings, all trials as a table and as a picture; print the summary."""
    name, ranked = context.settings.search.study, study.ranked(known)
    if not ranked:
        failed = [trial for trial in known if trial.state == "failed"]
        if failed:
            raise CxrError(all_failed(context, failed))
        raise CxrError(f"no trial of the study {name!r} has finished yet; start the search again when others have some")
    best, importance, metric = ranked[0], study.importance(), context.settings.finetune.metric_name
    context.put_text(_settings_file(context, best, len(known), metric), BEST)
    table = io.StringIO()
    pd.DataFrame(
        [{"trial": t.number, "state": t.state, "score": t.score, "epochs": len(t.epochs), **t.values} for t in known]
    ).to_csv(table, index=False)
    context.put_text(table.getvalue(), TABLE)
    context.put_figure(plots.search(known, importance, metric, maximise=study.maximise), PICTURE)
    states = [trial.state for trial in known]
    counts = {f"trials_{state}": states.count(state) for state in dict.fromkeys(states)}
    context.metrics({"best_score": best.score or 0.0} | counts | {f"importance_{k}": v for k, v in importance.items()})
    context.tag("cxr.trial_run_id", best.key)
    text = _summary(context, ranked, counts, importance, metric)
    context.put_text(text, "summary.txt")
    print(text, flush=True)
    context.log.warning("%s", OPTIMISTIC)


def _settings_file(context: Context, best: Trial, number: int, metric: str) -> str:
    """The settings of the best trial as a file for `-P params=`, whole and with nothing on top of it."""
    values = load.resolve(context.settings.to_dict(), space.overrides(best.values)).to_dict()
    values["data"]["recipe"] = None  # its values are among these
    profile = context.flags.get("profile", DEFAULT_PROFILE)
    values["profiles"] = {name: {} for name in dict.fromkeys((DEFAULT_PROFILE, profile))}
    head = (
        f"# Trial {best.number}, the best of {counted(number)} of the study {context.settings.search.study!r}: "
        f"{metric} {best.score:.4f} on validation.\n"
        f"# The values of the profile {profile!r}, and of all parameters that were given, are among these.\n"
        f"# Note: {OPTIMISTIC}.\n"
    )
    return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def _summary(
    context: Context, ranked: list[Trial], counts: dict[str, int], importance: dict[str, float], metric: str
) -> str:
    """What the search has found, and how to go on with it."""
    told = ", ".join(f"{number} {name.removeprefix('trials_')}" for name, number in counts.items())
    lines = ["", "=" * 78, f"Study {context.settings.search.study!r}: {told}", f"Best trials by validation {metric}"]
    for trial in ranked[:_SHOWN]:
        lines.append(f"  {trial.score:8.4f}  trial {trial.number}: {listed(trial.values)}")
    if importance:
        lines.append("Importance  " + ", ".join(f"{name} {share:.0%}" for name, share in importance.items()))
    lines += [f"Note  {OPTIMISTIC}", "Next"]
    store, root = store_prefix(), runs.artifact_folder(context.client, context.run_id)
    if root is None:
        lines.append(f"  {store}mlflow artifacts download -r {context.run_id} -a {BEST} -d .")
    profile = f" -P profile={context.flags['profile']}" if "profile" in context.flags else ""
    lines.append(f"  {store}mlflow run . -e main -P params={root / BEST if root else BEST}{profile}")
    return "\n".join([*lines, "=" * 78])
