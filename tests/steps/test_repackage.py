"""`repackage` makes a version of the same weights that today's code serves, and says whether it answers the same.

The tests repackage copies of the workflow's version, registered under names of their own.
"""

import csv
import json
import shutil

import mlflow
import pandas as pd
import pytest

from cxr.datasets.manifest import Manifest
from steps.registry import identity
from steps.work import repackage as work

OLDER = {identity.CODE: "older"}
QUICK = {"compare": "false"}


@pytest.fixture
def registered(workflow, in_process, tmp_path):
    """Function that registers the workflow's version under another name, as champion, with files that `edit` changes.

    `tags` are those of a version that older code serves, and more; None removes one.
    """
    client, uri = workflow.client, "models:/cxr-pneumonia/1"

    def register(name: str, edit=None, champion: bool = True, **tags: str | None):
        folder = tmp_path / name
        folder.mkdir()
        files = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))
        if edit is not None:
            edit(folder)
        source = client.get_model_version("cxr-pneumonia", "1")
        kept = source.tags | OLDER | {key.replace("__", "."): value for key, value in tags.items()}
        kept = {key: value for key, value in kept.items() if value is not None and "repackage" not in key}
        client.create_registered_model(name)
        made = client.create_model_version(name, files, tags=kept, description=source.description)
        if champion:
            client.set_registered_model_alias(name, "champion", made.version)
        return made

    known = {model.name for model in client.search_registered_models()}
    yield register
    for model in client.search_registered_models():
        if model.name not in known:
            client.delete_registered_model(model.name)


def aliases(workflow, name: str) -> dict[str, int]:
    return {alias: int(number) for alias, number in workflow.client.get_registered_model(name).aliases.items()}


def numbers(workflow, name: str) -> list[int]:
    return sorted(int(v.version) for v in workflow.client.search_model_versions(f"name='{name}'"))


def of_format_2(folder) -> None:
    file = folder / "artifacts/service/service.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 2}))


def test_the_same_answers_make_the_new_version_champion_and_it_leads_back(
    workflow, registered, in_process, capfd, tmp_path
):
    def note(folder):
        file = folder / "code/cxr/serving/decision.py"
        file.write_text(file.read_text() + "\n# as it was\n")

    source = registered("same", note)
    assert in_process("repackage", registry__name="same", serving__max_images=16) == 0
    logged = capfd.readouterr().err
    new = workflow.client.get_model_version("same", "2")
    split = Manifest.load(workflow.artifact(workflow.first("prepare_split"), "split"))
    counts = f"{len(split.split('val'))} validation and {len(split.split('test'))} test images"
    assert new.tags["cxr.compared"].startswith(f"same answers to {counts}; the largest difference of a probability is ")
    assert new.tags["cxr.gate"].startswith("champion: same answers to") and aliases(workflow, "same") == {"champion": 2}
    assert f"against version 1: {new.tags['cxr.compared']}" in logged and new.tags["cxr.repackaged_from"] == "1"
    run_ids = {key: value for key, value in new.tags.items() if key.endswith("_run_id")}
    assert run_ids.pop("cxr.repackage_run_id") == workflow.runs("repackage")[0].info.run_id
    assert run_ids == {key: value for key, value in source.tags.items() if key.endswith("_run_id")}
    assert json.loads(new.tags["cxr.serving"]) == json.loads(source.tags["cxr.serving"]) | {"max_images": 16}
    for name in ("cxr.bundle_digest", "cxr.manifest_digest", "cxr.val_metric", "cxr.synthetic"):
        assert new.tags[name] == source.tags[name]
    assert "**Repackaged** from version 1" in new.description and source.tags["cxr.evaluate_run_id"] in new.description
    run = workflow.runs("repackage")[0]
    assert run.data.tags["cxr.model_version"] == "2" and run.data.tags["cxr.repackaged_from"] == "1"
    facts = json.loads(workflow.artifact(run, "repackage/comparison.json").read_text())
    assert facts["same"] and facts["operating_points"] == ["youden", "sensitive"] and not facts["first"]
    assert run.data.metrics["compared_answers"] == facts["answers"] and run.data.metrics["compared_differing"] == 0

    assert in_process("repackage", registry__name="same") == 0
    assert "nothing has changed: version 2 has today's serving code" in capfd.readouterr().err
    assert in_process("repackage", registry__name="same", version=1, serving__max_images=16) == 0
    assert "version 2 has the weights of version 1 and all of today's that serve it" in capfd.readouterr().err
    assert numbers(workflow, "same") == [1, 2]

    files = [str(file) for file in split.split("test").files()[:2]]
    (tmp_path / "list.txt").write_text("\n".join(files))
    given = {"input": tmp_path / "list.txt", "output": tmp_path / "p.parquet", "model_uri": "models:/same/2"}
    assert in_process("predict", **given) == 0
    assert list(pd.read_parquet(tmp_path / "p.parquet")["model_version"]) == ["2", "2"]


def test_the_old_version_answers_by_its_own_code_and_what_differs_is_told(workflow, registered, in_process, capfd):
    def turned(folder):
        """The code of this version calls the surest images negative."""
        file = folder / "code/cxr/serving/decision.py"
        text = file.read_text()
        assert "probability >= threshold" in text
        file.write_text(text.replace("probability >= threshold", "probability < threshold"))
        needs = folder / "requirements.txt"
        needs.write_text(needs.read_text().replace("numpy==", "numpy==0."))

    registered("turned", turned)
    assert in_process("repackage", registry__name="turned") == 0
    logged = capfd.readouterr().err
    new = workflow.client.get_model_version("turned", "2")
    assert aliases(workflow, "turned") == {"champion": 1, "challenger": 2}
    assert "answers to" in new.tags["cxr.gate"] and "`mlflow run . -e promote` decides" in new.tags["cxr.gate"]
    assert "decision " in new.tags["cxr.compared"] and "numpy ==0." in new.tags["cxr.compared"]
    first = new.tags["cxr.compared_first"].splitlines()
    assert 0 < len(first) <= 5 and all(line in logged for line in first) and " -> " in first[0]
    run = workflow.runs("repackage")[0]
    rows = list(csv.DictReader(workflow.artifact(run, "repackage/differences.csv").read_text().splitlines()))
    assert len(rows) == run.data.metrics["compared_differing"] > 0
    decided = [row for row in rows if "decision" in row["differ"].split()]
    assert all({row["old_decision"], row["new_decision"]} == {"normal", "pneumonia"} for row in decided) and decided


def test_of_two_at_once_the_second_finds_the_version_of_the_first(workflow, registered, in_process, capfd, monkeypatch):
    registered("both")
    register = work._register

    def second(context, source, logged, tags, compared):
        first = mlflow.register_model(logged.model_uri, "both", tags=tags | {"cxr.gate": "of the other process"})
        assert first.version == 2
        register(context, source, logged, tags, compared)

    monkeypatch.setattr(work, "_register", second)
    assert in_process("repackage", registry__name="both", **QUICK) == 0
    assert "version 2 has the weights of version 1 and all of today's that serve it" in capfd.readouterr().err
    assert numbers(workflow, "both") == [1, 2] and aliases(workflow, "both") == {"champion": 1}


def test_a_version_that_is_not_champion_moves_no_alias(workflow, registered, in_process, capfd):
    registered("aside", champion=False)
    assert in_process("repackage", registry__name="aside", version=1, **QUICK) == 0
    new = workflow.client.get_model_version("aside", "2")
    assert aliases(workflow, "aside") == {}
    assert in_process("repackage", registry__name="aside", version=1, **QUICK) == 0
    assert "no version is made; its gate said no alias: version 1" in capfd.readouterr().err
    assert new.tags["cxr.gate"].startswith("no alias: version 1, which it was made from, is not champion; not compared")


@pytest.fixture
def split_is_gone(workflow):
    """ID of a run that had a split and was deleted."""
    run = workflow.client.create_run(workflow.experiment_id)
    workflow.client.delete_run(run.info.run_id)
    return run.info.run_id


def test_without_its_images_a_version_is_repackaged_if_nothing_is_to_be_compared(
    workflow, registered, in_process, refused, split_is_gone
):
    registered("gone", cxr__split_run_id=split_is_gone, cxr__packaging_code="older")
    line = refused("repackage", registry__name="gone")
    assert (
        f"`mlflow runs restore --run-id {split_is_gone}` restores it" in line and "-P compare=false takes over" in line
    )
    assert "serving.ood_share takes the images" in refused(
        "repackage", registry__name="gone", serving__ood_share=0.02, **QUICK
    )
    assert in_process("repackage", registry__name="gone", serving__max_images=7, **QUICK) == 0
    new = workflow.client.get_model_version("gone", "2")
    assert new.tags["cxr.compared"] == "not compared" and aliases(workflow, "gone") == {"champion": 1, "challenger": 2}
    assert new.tags[identity.MADE_BY] == "older"  # the detector and the bands are still those that older code made
    assert in_process("repackage", registry__name="gone", serving__max_images=7, **QUICK) == 0
    assert numbers(workflow, "gone") == [1, 2]


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_version_made_without_comparing_is_compared_later(workflow, registered, in_process, capfd, by_hand):
    name = f"later-{by_hand}"
    registered(name)
    assert in_process("repackage", registry__name=name, **QUICK) == 0
    assert aliases(workflow, name) == {"champion": 1, "challenger": 2}
    if by_hand:
        assert in_process("promote", registry__name=name, version=2, reason="tried") == 0
    gate = workflow.client.get_model_version(name, "2").tags["cxr.gate"]
    assert in_process("repackage", registry__name=name, version=1) == 0
    made, run = workflow.client.get_model_version(name, "2"), workflow.runs("repackage")[0]
    assert numbers(workflow, name) == [1, 2] and aliases(workflow, name) == {"champion": 2}
    assert made.tags["cxr.compared"].startswith("same answers to") and made.tags["cxr.compared"] in made.description
    assert (made.tags["cxr.gate"] == gate) == by_hand and run.data.tags["cxr.gate"] == made.tags["cxr.gate"]
    assert json.loads(workflow.artifact(run, "repackage/comparison.json").read_text())["same"]
    capfd.readouterr()
    assert in_process("repackage", registry__name=name, version=1) == 0
    logged = capfd.readouterr().err
    assert "no version is made" in logged and "comparing the answers" not in logged


def test_without_images_an_uncompared_version_stays_so(workflow, registered, in_process, capfd, split_is_gone):
    registered("stays", cxr__split_run_id=split_is_gone)
    assert in_process("repackage", registry__name="stays", **QUICK) == 0
    assert in_process("repackage", registry__name="stays") == 0
    assert "version 2 stays without a comparison" in capfd.readouterr().err
    assert workflow.client.get_model_version("stays", "2").tags["cxr.compared"] == "not compared"


def test_nothing_is_advised_that_is_refused(registered, refused, split_is_gone):
    """What an older format lacks was chosen on images: without them, there is nothing to take over."""
    registered("older-format", of_format_2, cxr__split_run_id=split_is_gone)
    line = refused("repackage", registry__name="older-format")
    assert "no version can be made of these weights (its format is 2, and what format 3 has" in line
    assert "compare=false" not in line
    assert "its format is 2" in refused("repackage", registry__name="older-format", **QUICK)


def test_a_version_that_cannot_answer_here_is_named_and_leaves_no_model(workflow, registered, refused):
    def broken(folder):
        (folder / "code/cxr/serving/decision.py").write_text("import a_package_of_another_time\n")

    def logged():
        return len(workflow.client.search_logged_models([workflow.experiment_id]))

    registered("broken", broken)
    before = logged()
    line = refused("repackage", registry__name="broken")
    assert "version 1 cannot answer in this environment (" in line and "'a_package_of_another_time'" in line
    assert "-P compare=false makes a version without comparing" in line
    assert logged() == before and numbers(workflow, "broken") == [1]


def test_images_that_are_gone_are_named(workflow, registered, refused, tmp_path):
    split = shutil.copytree(workflow.artifact(workflow.first("prepare_split"), "split"), tmp_path / "split")
    facts = json.loads((split / "split.json").read_text())
    (split / "split.json").write_text(json.dumps(facts | {"root": str(tmp_path / "nowhere")}))
    run = workflow.client.create_run(workflow.experiment_id)
    workflow.client.log_artifacts(run.info.run_id, str(split), "split")
    registered("moved", cxr__split_run_id=run.info.run_id)
    line = refused("repackage", registry__name="moved")
    assert "60 of the 60 images of version 1 are gone, the first: " in line and "-P compare=false" in line


@pytest.mark.parametrize("damage", ["cut", "other", "deleted"])
def test_a_bundle_that_is_not_as_it_was_is_refused(workflow, registered, refused, tmp_path, damage):
    source = workflow.client.get_model_version("cxr-pneumonia", "1")
    made_by = workflow.client.get_run(source.tags["cxr.finetune_run_id"])
    bundle = shutil.copytree(workflow.artifact(made_by, "bundle"), tmp_path / "bundle")
    if damage == "cut":
        (bundle / "model.pt").write_bytes((bundle / "model.pt").read_bytes()[:-1])
    if damage == "other":
        config = json.loads((bundle / "config.json").read_text())
        (bundle / "config.json").write_text(json.dumps(config | {"temperature": 9.0}))
    run_id = workflow.client.create_run(workflow.experiment_id).info.run_id
    workflow.client.log_artifacts(run_id, str(bundle), "bundle")
    if damage == "deleted":
        workflow.client.delete_run(run_id)
    registered(f"bundle-{damage}", cxr__finetune_run_id=run_id)
    words = {
        "cut": "model.pt is not the one that config.json names (truncated or replaced)",
        "other": f"is no longer in the store; its runs have others, or it was changed: finetune {run_id}",
        "deleted": f"run {run_id} with its bundle was deleted; `mlflow runs restore",
    }
    assert words[damage] in refused("repackage", registry__name=f"bundle-{damage}")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"version": 9999}, "version=9999: cxr-pneumonia has the versions 1"),
        ({"registry__name": "none"}, "there is no registered model 'none'; run `mlflow run . -e main` first"),
        ({"train__epochs": 3}, "setting train.epochs cannot be given: repackage takes the weights and the split"),
        ({"compare": "perhaps"}, "compare: expected true or false, got 'perhaps'"),
    ],
)
def test_invalid_parameters_are_refused(refused, given, words):
    assert words in refused("repackage", **given)


def test_a_version_of_another_project_is_refused(registered, refused):
    registered("foreign", cxr__bundle_digest=None)
    assert "version 1 of foreign was not registered by `evaluate` of this project" in refused(
        "repackage", registry__name="foreign"
    )
    registered("no-bundle", cxr__bundle_digest="0" * 64)
    assert "the bundle of version 1 (digest 000000000000) is no longer in the store" in refused(
        "repackage", registry__name="no-bundle"
    )


def test_a_version_of_other_code_says_how_it_can_be_used(registered, refused, tmp_path):
    registered("format", of_format_2)
    (tmp_path / "x.png").write_bytes(b"")
    given = {"input": tmp_path / "x.png", "output": tmp_path / "p.parquet", "model_uri": "models:/format/1"}
    assert "mlflow run . -e repackage -P version=1" in refused("predict", **given)
