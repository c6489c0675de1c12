"""Makes the JPEG files that decoding a part is tested on: one picture, 61 wide and 70 high, as Pillow writes it.

pip install -r requirements.txt
python make_jpeg.py              # writes jpeg_*.jpg and their lines of MANIFEST
"""

import hashlib
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

HERE = Path(__file__).parent
COMMENT = f"# make_jpeg.py, Pillow {PIL.__version__}, numpy {np.__version__}"
TURNED = Image.Exif()
TURNED[0x0112] = 6  # orientation: turn right
FILES = {
    "420": {"subsampling": "4:2:0"},
    "420_restart": {"subsampling": "4:2:0", "restart_marker_blocks": 3},
    "422": {"subsampling": "4:2:2"},
    "444": {"subsampling": "4:4:4"},
    "grey": {},
    "rgb": {"keep_rgb": True},
    "progressive": {"progressive": True},
    "turned": {"exif": TURNED},
}


def picture():
    """Slopes, waves and noise, so that chroma differs from row to row."""
    y, x = np.mgrid[0:70, 0:61]
    waves = [127 + 120 * np.sin(x * a + y * b) for a, b in ((0.11, 0.31), (0.23, -0.17), (-0.05, 0.41))]
    noise = np.random.Generator(np.random.PCG64(0)).normal(0, 6, (70, 61, 3))
    return Image.fromarray(np.clip(np.stack(waves, 2) + noise, 0, 255).astype(np.uint8))


def main():
    manifest = (HERE / "MANIFEST").read_text().splitlines()
    kept = [line for line in manifest if "make_jpeg.py" not in line and "  jpeg_" not in line]
    lines = [COMMENT]
    for name, options in FILES.items():
        path = HERE / f"jpeg_{name}.jpg"
        image = picture().convert("L") if name == "grey" else picture()
        image.save(path, quality=85, **options)
        lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
    (HERE / "MANIFEST").write_text("\n".join(kept + lines) + "\n")


if __name__ == "__main__":
    main()
