"""What growing image sizes save of a whole training: `python -m bench.stages --images 512 --rounds 2`.

The recipe of a profile with its epochs in stages (EfficientNetV2's progressive learning), and the same epochs at full
size, in turn, from a warm disk cache; validation after every epoch included.
"""

import time
from statistics import median

from bench.common import empty_cache, parser, quiet, real_images, report, settings
from bench.recipe_variants import TRIED
from cxr.models import device as devices
from cxr.models.build import build
from cxr.training.loop import train
from cxr.training.setup import set_up

STAGES = TRIED["growing size"]["finetune.stages"]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--images", type=int, default=512)
    made.add_argument("--epochs", type=int, default=10)
    made.add_argument("--rounds", type=int, default=2)
    made.add_argument("--profile", default="cpu", help="whose recipe")
    made.add_argument("--stages", default=STAGES)
    given = made.parse_args()
    quiet()
    where = devices.pick(given.device)
    devices.prepare(0, deterministic=False)
    manifest = real_images(given.images, given.images // 4)
    with empty_cache() as folder:

        def seconds(stages: str, epochs: int) -> float:
            keys = {"cache.dir": folder, "device": given.device, "finetune.stages": stages, "finetune.epochs": epochs}
            chosen = settings(keys, given.profile)
            network = build(chosen.model, manifest.classes, seed=0)
            unfreeze = chosen.finetune.unfreeze
            training = set_up(
                network, manifest, chosen.finetune, unfreeze=unfreeze, device=where, seed=0, cache=chosen.cache
            )
            started = time.perf_counter()
            train(training)
            return time.perf_counter() - started

        for stages in (given.stages, "[]"):  # fills the cache
            seconds(stages, 3)
        pairs = [(seconds(given.stages, given.epochs), seconds("[]", given.epochs)) for _ in range(given.rounds)]
    ratio = median(grown / full for grown, full in pairs)
    rows = [
        ("images", f"{given.images} in training, {given.images // 4} in validation, profile {given.profile}"),
        ("computation", str(where)),
        ("stages", given.stages),
        (f"{given.epochs} epochs in stages", f"{median(grown for grown, _ in pairs):.1f} s"),
        (f"{given.epochs} epochs at full size", f"{median(full for _, full in pairs):.1f} s"),
        ("ratio", f"{ratio:.3f} (median of {given.rounds} pairs)"),
    ]
    report(given, "Growing image sizes against full size", rows, {"ratio": ratio, "pairs": pairs})


if __name__ == "__main__":
    main()
