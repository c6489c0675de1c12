"""Makes a folder of photographs like those people train on: 500 x 375 JPEG, quality 90, 4:2:0, in class folders.

apt-get download gnome-backgrounds mate-backgrounds plasma-workspace-wallpapers    # on Debian or Ubuntu, 170 MB
python benches/photos.py photos *.deb                                                # or folders of large images

Needs Pillow (tests/golden/requirements.txt) and, for .deb files, dpkg. Each picture is a random part of a large one,
half of its width or more, made smaller; the same arguments give the same pictures. Classes are the sources' folders.
"""

import argparse
import random
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

SIZE = (500, 375)
ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
Image.MAX_IMAGE_PIXELS = None


def large_images(folder):
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and path.is_file() and not path.is_symlink():
            try:
                with Image.open(path) as image:
                    width, height = image.size
            except OSError:
                continue
            if width >= 2 * SIZE[0] and height >= 2 * SIZE[1]:
                yield path


def part(image, draw):
    """A random part of the picture, of 500 : 375, at least half as wide as it can be."""
    widest = min(image.width, image.height * SIZE[0] // SIZE[1])
    width = draw.randint(widest // 2, widest)
    height = width * SIZE[1] // SIZE[0]
    left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
    return image.resize(SIZE, Image.LANCZOS, box=(left, top, left + width, top + height), reducing_gap=2.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", type=Path, nargs="+", help=".deb files or folders")
    parser.add_argument("--count", type=int, default=3000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as unpacked:
        folders = []
        for source in options.sources:
            folder = source
            if source.suffix == ".deb":
                folder = Path(unpacked) / source.stem
                subprocess.run(["dpkg", "-x", str(source), str(folder)], check=True)
            folders.append((source.stem.split("_")[0], folder))
        images = [(name, path) for name, folder in folders for path in large_images(folder)]
        if not images:
            parser.error("no image of at least 1000 x 750 in the sources")
        each = -(-options.count // len(images))
        made = 0
        for number, (name, path) in enumerate(images):
            draw = random.Random(number)
            with Image.open(path) as image:
                image = image.convert("RGB")
                for index in range(min(each, options.count - made)):
                    target = options.out / name / f"{number:04}-{index:03}.jpg"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    part(image, draw).save(target, quality=90, subsampling="4:2:0")
                    made += 1
    print(f"{made} pictures from {len(images)} in {options.out}")


if __name__ == "__main__":
    main()
