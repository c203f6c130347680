"""Settings can name classes of allowed packages, and nothing else."""

import pytest
import torch
import torchmetrics

from cxr.errors import CxrError
from cxr.settings import instantiate
from cxr.settings.schema import Target

WEIGHT = torch.tensor([1.0, 2.0, 3.0])


def target(name: str, **arguments) -> Target:
    return Target.model_validate({"_target_": name, **arguments})


def test_an_optimizer_is_built_with_its_arguments():
    optimizer = instantiate.build(
        target("torch.optim.AdamW", lr=0.5), [torch.nn.Parameter(WEIGHT)], kind=torch.optim.Optimizer
    )
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torch.optim.AdamX", "module torch.optim has no 'AdamX'; did you mean torch.optim.Adam"),
        ("torch.nosuch.Thing", "no module named 'torch.nosuch'"),
        ("torch.optim.lr_scheduler.warnings.catch_warnings", "is not a class of|no module named"),
        ("torch.load", "is not a class of torch, torchvision, torchmetrics"),
        ("torch.serialization.pickle", "is not a class of torch, torchvision, torchmetrics"),
        ("torch.hub.Path", "is not a class of torch, torchvision, torchmetrics"),
    ],
)
def test_only_classes_of_allowed_packages_are_resolved(name, words):
    with pytest.raises(CxrError, match=words):
        instantiate.resolve(target(name))


def test_wrong_arguments_are_refused_with_the_closest_name():
    with pytest.raises(CxrError, match="takes no argument 'weigth_decay'; did you mean 'weight_decay'"):
        instantiate.check(target("torch.optim.Adam", weigth_decay=1))
    with pytest.raises(CxrError, match=r"cannot be built with .*lr"):
        instantiate.build(target("torch.optim.Adam", lr=-1.0), [torch.nn.Parameter(WEIGHT)])
    with pytest.raises(CxrError, match="expected a subclass of Optimizer, got torch.nn.ReLU"):
        instantiate.build(target("torch.nn.ReLU"), kind=torch.optim.Optimizer)


def test_class_weights_are_passed_to_a_loss_that_takes_them():
    assert instantiate.loss(target("torch.nn.CrossEntropyLoss"), WEIGHT).weight is WEIGHT
    assert instantiate.loss(target("torch.nn.CrossEntropyLoss"), None).weight is None
    with pytest.raises(CxrError, match="takes no class weights; set class_weights=none"):
        instantiate.loss(target("torch.nn.GaussianNLLLoss"), WEIGHT)


@pytest.mark.parametrize("name", ["MulticlassF1Score", "MulticlassAUROC", "MulticlassCalibrationError", "F1Score"])
def test_metrics_are_built_for_the_number_of_classes(name):
    metric = instantiate.metric(target(f"torchmetrics.classification.{name}"), 3)
    assert isinstance(metric, torchmetrics.Metric)
    metric.update(torch.eye(3)[[0, 1, 2, 2]], torch.tensor([0, 1, 2, 2]))
    assert float(metric.compute()) == (0.0 if name == "MulticlassCalibrationError" else 1.0)


def test_a_metric_without_a_direction_is_refused():
    with pytest.raises(CxrError, match="does not define whether higher is better"):
        instantiate.metric(target("torchmetrics.classification.MulticlassConfusionMatrix"), 3)


def test_any_error_of_a_constructor_is_one_line():
    """Here an assertion: 5 cannot be divided by 2 heads."""
    with pytest.raises(CxrError, match="MultiheadAttention cannot be built with .*divisible") as caught:
        instantiate.build(target("torch.nn.MultiheadAttention", embed_dim=5, num_heads=2))
    assert "\n" not in str(caught.value)
