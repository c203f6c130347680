"""An image of the largest size that a served model accepts takes less than 500 MB to decode, its file aside."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.imaging import dicom
from tests.cxr.imaging.test_dicom import file_of

HEIGHT, WIDTH = 7000, 7100
MEASURED = """
import sys
from pathlib import Path
from cxr.imaging import decode, dicom

def kilobytes(field):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if field in line)

small, large = (Path(name).read_bytes() for name in sys.argv[1:])
for data in (small, large):  # the first loads the libraries
    Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    grey = dicom.radiograph(dicom.header(data, 10**8)).grey if dicom.is_dicom(data) else decode.decode_grey(data)
    assert set(grey.shape) == {7000, 7100} or data is small
print((kilobytes("VmHWM") - before) // 1000)
"""
TURNED = Image.Exif()
TURNED[0x0112] = 6
CASES = {
    "RGB": ("JPEG", "RGB", {"exif": TURNED}),
    "16 bits": ("PNG", "I;16", {"compress_level": 1}),
    "wide levels": ("TIFF", "I", {"compression": "tiff_lzw"}),
    "alpha": ("PNG", "RGBA", {"compress_level": 1}),
    "DICOM": (None, None, {"WindowCenter": 9000, "WindowWidth": 9000}),
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from Linux")
@pytest.mark.parametrize(("kind", "mode", "options"), CASES.values(), ids=CASES)
def test_the_largest_images_fit_into_500_mb(tmp_path, kind, mode, options):
    for name, scale in (("small", 100), ("large", 1)):
        levels = np.add.outer(np.arange(HEIGHT // scale), np.arange(WIDTH // scale)).astype(np.uint16)
        if kind is None:
            (tmp_path / name).write_bytes(file_of(levels, bits=16, **options))
        else:
            image = Image.fromarray(levels if mode[0] == "I" else (levels // 64).astype(np.uint8)).convert(mode)
            image.save(tmp_path / name, kind, **options)
    assert dicom.is_dicom((tmp_path / "large").read_bytes()) == (kind is None)
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "small"), str(tmp_path / "large")]
    root = Path(dicom.__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert 50 < int(done.stdout) < 500
