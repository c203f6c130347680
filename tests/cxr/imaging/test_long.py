"""A crop scales only what it keeps: extremely long images cost neither seconds nor gigabytes, however they lie."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cxr.errors import ImageError
from cxr.imaging import preprocess
from cxr.imaging.reader import ImageReader

LONG = 3_000_000  # pixels
SECONDS, MEGABYTES = 5, 400
MEASURED = """
import resource, sys, time
import numpy as np
from cxr.imaging.preprocess import InputSpec
grey = np.zeros([int(side) for side in sys.argv[1:3]], np.uint8)
grey[::7, ::5] = 200
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
for interpolation in ("nearest", "bilinear", "lanczos"):
    for size in (224, 384):
        spec = InputSpec(size=size, resize=size + 32, resize_mode=sys.argv[3], interpolation=interpolation)
        assert spec.to_raster(grey).shape == (size, size)
spent, more = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(spent / 6, more / (1e6 if sys.platform == "darwin" else 1e3))
"""


@pytest.mark.parametrize("mode", ["crop", "squash", "pad"])
@pytest.mark.parametrize("shape", [(LONG, 16), (16, LONG)], ids=["tall", "wide"])
def test_a_long_image_is_cheap_in_every_mode(shape, mode):
    command = [sys.executable, "-c", MEASURED, *map(str, shape), mode]
    root = Path(preprocess.__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, done.stdout.split())
    assert seconds < SECONDS and megabytes < MEGABYTES


@pytest.mark.parametrize("size", [(LONG, 16), (16, LONG)], ids=["wide", "tall"])
def test_its_file_is_refused_by_the_header(size):
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 100_000
    with pytest.raises(ImageError, match="one side may be at most 50 times the other"):
        ImageReader(preprocess.InputSpec(size=224, resize=256)).read(buffer.getvalue())
