#!/usr/bin/env python3
"""Makes seven sets of images, each a folder of classes, from packages of Debian 12 and one of npm.

    python3 benches/image_sets.py OUT [NAME ...]

Names: photos, clipart, digits, fashion, emoji, textures, letters. All by default. `textures` and
`letters` are kept out of all tuning. Needs `apt-get`, `dpkg`, `npm`, numpy and Pillow. `textures`
downloads 1.4 GB. The same versions of the packages give the same files.
"""

import gzip
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

OUT = Path()
# A set is moved to OUT when it is whole.
UNFINISHED = Path()

PHOTOGRAPHS = {
    "lomiri-wallpapers-16.04": """Bridge_by_Sander_Klootwijk Dragonfly_by_Bolly Picture_0B_by_freespace
        Picture_1A_by_freespace Wine_by_Jakkub_Mede aitzgorri_by_Aitzol_Berasategi life_by_Aitzol_Berasategi
        picosdeeuropa_by_Aitzol_Berasategi seeding_by_Clements_Engelhardt sunset_by_Aitzol_Berasategi
        friends_by_Aitzol_Berasategi greentock_by_Peter_Nerlich""",
    "lomiri-wallpapers-20.04": "Kleiber_by_Lukas_Baubkus",
    "mate-backgrounds": "Dune Garden GreenMeadow LadyBird RainDrops TwoWings",
    "plasma-workspace-wallpapers": "BytheWater ColorfulCups EveningGlow FallenLeaf OneStandsOut Path",
}

FASHION = "t-shirt trouser pullover dress coat sandal shirt sneaker bag ankle-boot".split()

# The class of a texture: the first whose words are in its name.
MATERIALS = [
    ("cliff", "cliff"), ("forestfloor", "forr?est"), ("grass", "grass|medit_grass"),
    ("snow-ice", "snow|ice|polar|glacial"), ("sand", "sand|dune|beach|sahara"),
    ("paving-road", "paving|tile|road|pavement|path"), ("farmland", "farmland|furrows|field"),
    ("rocks", "rock|stone|pebble|gravel"), ("plants", "flora|plant|shrub|scrub"),
    ("mud", "mud|riparian"), ("seabed", "ocean|sea_|coral"), ("lava", "lava|volcanic"),
    ("dirt", "dirt|clay"),
]

FONTS = """aenigma cardo clear-sans comic-neue dkg-handwriting essays1743 adf-accanthis adf-berenis
    adf-gillius adf-mekanus adf-oldania adf-solothurn anonymous-pro averia-serif-gwf bajaderka bebas-neue
    beteckna blankenburg breip bwht cabinsketch cherrybomb comfortaa courier-prime dancingscript dustin
    ebgaramond ecolier-court f500 fantasma femkeklaver gnutypewriter havana humor-sans isabella joscelyn
    junicode kaushanscript klaudia-berenika kristi lato le-murmure league-spartan leckerli-one
    levien-typoscript linuxlibertine lobster ocr-a oldstandard open-sans rampart rufscript sjfonts
    summersby staypuft tomsontalks triod-postnaja ubuntu-title yanone-kaffeesatz glasstty dejavu-core
    sil-andika solide-mirage stick train radisnoir yusei-magic""".split()


def package(name: str) -> Path:
    """The files of a Debian package, of the version that apt offers. It is downloaded once."""
    files = OUT / ".packages" / name
    if not files.is_dir():
        loads = OUT / ".packages" / "loads"
        loads.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", name], cwd=loads, check=True)
        (deb,) = loads.glob(f"{name}_*.deb")
        subprocess.run(["dpkg", "-x", deb, files], check=True)
        deb.unlink()
    return files


def npm_package(name: str) -> tarfile.TarFile:
    loads = OUT / ".packages" / "npm"
    loads.mkdir(parents=True, exist_ok=True)
    packed = loads / f"{name.replace('@', '-')}.tgz"
    if not packed.exists():
        subprocess.run(["npm", "pack", name], cwd=loads, check=True)
    return tarfile.open(packed)


def folder(*parts: str) -> Path:
    made = UNFINISHED.joinpath(*parts)
    made.mkdir(parents=True, exist_ok=True)
    return made


def shrunk(image: Image.Image, scale: float) -> Image.Image:
    if scale >= 1:
        return image
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.LANCZOS)


def photos() -> None:
    """Crops of 25 photographs, 48 of each that do not overlap. The class is the photograph."""
    rnd = random.Random(1)
    for name, wanted in PHOTOGRAPHS.items():
        files = package(name)
        for word in wanted.split():
            path = next(path for path in sorted(files.rglob("*.jpg"))
                        if path.stem == word or f"/{word}/contents/images/2560x1600" in str(path))
            image = Image.open(path).convert("RGB")
            image = shrunk(image, (2304 * 1536 / (image.width * image.height)) ** 0.5)
            columns, rows = (8, 6) if image.width >= image.height else (6, 8)
            wide, high = image.width // columns, image.height // rows
            label = word.split("_by_")[0].lower()
            for i in range(48):
                w, h = rnd.randint(128, min(256, wide)), rnd.randint(128, min(256, high))
                x = i % columns * wide + rnd.randint(0, wide - w)
                y = i // columns * high + rnd.randint(0, high - h)
                crop = image.crop((x, y, x + w, y + h))
                crop.save(folder("photos", label) / f"{label}_{i:02}.jpg", quality=90)


def clipart() -> None:
    """Drawings with transparency, of 3 to 29,700 pixels, some of them twice."""
    whole = package("openclipart-png") / "usr/share/openclipart/png"
    shutil.copytree(whole, UNFINISHED / "clipart", symlinks=True)


def digits() -> None:
    """150 written digits of each class, 20 x 20 pixels."""
    path = "usr/share/doc/opencv-doc/examples/data/digits.png"
    sheet = np.array(Image.open(package("opencv-doc") / path).convert("L"))
    rnd = random.Random(2)
    for digit in range(10):
        for k in sorted(rnd.sample(range(500), 150)):
            y, x = (5 * digit + k // 100) * 20, k % 100 * 20
            image = Image.fromarray(sheet[y : y + 20, x : x + 20])
            image.save(folder("digits", str(digit)) / f"{k:03}.png")


def fashion() -> None:
    """The test set of Fashion-MNIST: 10,000 images of 28 x 28 pixels."""
    files = package("dataset-fashion-mnist")

    def read(name: str, skip: int) -> np.ndarray:
        path = next(files.rglob(f"{name}*.gz"))
        return np.frombuffer(gzip.open(path).read(), np.uint8, offset=skip)

    images = read("t10k-images", 16).reshape(-1, 28, 28)
    for i, (image, label) in enumerate(zip(images, read("t10k-labels", 8))):
        Image.fromarray(image).save(folder("fashion", FASHION[label]) / f"{i:05}.png")


def emoji() -> None:
    """Twitter's emoji, 64 x 64 pixels, without skin tones. The class is the category."""
    files = npm_package("emoji-datasource-twitter@16.0.0")
    known = {entry["image"]: entry for entry in json.load(files.extractfile("package/emoji.json"))
             if entry["has_img_twitter"]}
    for member in files:
        entry = known.get(os.path.basename(member.name))
        if entry and "/img/twitter/64/" in member.name:
            label = entry["category"].lower().replace(" & ", "-").replace(" ", "-")
            path = folder("emoji", label) / f"{entry['short_name'].replace('/', '_')}.png"
            path.write_bytes(files.extractfile(member).read())


def textures() -> None:
    """Quarters of the ground textures of 0 A.D., 256 x 256 pixels. The class is the material.

    Quarters of one texture are alike, so neighbours look better than they are.
    """
    files = zipfile.ZipFile(package("0ad-data") / "usr/share/games/0ad/mods/public/public.zip")
    seen = []
    for name in sorted(files.namelist()):
        if "/terrain/types/" not in name or not name.endswith(".dds"):
            continue
        stem = re.sub(r"(\.png)?(\.cached)?\.dds$", "", name.split("types/")[1].lower())
        stem = stem.replace(".dds", "").replace("/", "_").replace(" ", "_")
        left_out = "norm|spec|alpha|_wet|_aut$|wetseason|test|dirt.*_red|lavahard$"
        label = next((label for label, words in MATERIALS if re.search(words, stem)), None)
        if label is None or re.search(left_out, stem):
            continue
        try:
            image = Image.open(io.BytesIO(files.read(name))).convert("RGB")
        except (OSError, NotImplementedError) as error:
            print(f"left out: {name}: {error}")
            continue
        if min(image.size) < 256:
            continue
        image = shrunk(image, 512 / max(image.size))
        small = np.asarray(image.resize((12, 12)).convert("L")).astype(int)
        flat = np.asarray(image.convert("L")).std() < 4
        if flat or any(abs(small - other).mean() < 1.5 for other in seen):
            continue
        seen.append(small)
        for quarter, (x, y) in enumerate([(0, 0), (256, 0), (0, 256), (256, 256)]):
            if x + 256 <= image.width and y + 256 <= image.height:
                crop = image.crop((x, y, x + 256, y + 256))
                crop.save(folder("textures", label) / f"{stem}_{quarter}.jpg", quality=90)


def letters() -> None:
    """Letters in many fonts, 64 x 64 pixels, upper or lower case by chance."""
    rnd = random.Random(3)
    paths = []
    for name in sorted(f"fonts-{name}" for name in FONTS):
        found = sorted(str(path) for path in package(name).rglob("*")
                       if path.suffix in (".ttf", ".otf") and not path.is_symlink()
                       and not re.search("ital|obl|light|thin|black|mono", path.name, re.I))
        if name == "fonts-aenigma":
            found = rnd.sample(found, 60)
        elif name in ("fonts-dustin", "fonts-sjfonts", "fonts-bwht"):
            found = found[:4]
        elif found:
            found = [next((path for path in found if "regular" in path.lower()), found[0])]
        paths += found
    for path in paths:
        drawn = drawn_letters(ImageFont.truetype(path, 44), rnd)
        if len({image.tobytes() for image in drawn.values()}) < 26:
            print(f"left out: {path} lacks letters")
            continue
        stem = re.sub("[^A-Za-z0-9]+", "_", os.path.basename(path)[:-4])
        for letter, image in drawn.items():
            image.save(folder("letters", letter) / f"{stem}.png")


def drawn_letters(font: ImageFont.FreeTypeFont, rnd: random.Random) -> dict[str, Image.Image]:
    """The letters up to the first that the font lacks, or that is too large."""
    drawn, missing = {}, bytes(font.getmask("\uffff"))
    for k in range(26):
        letter = rnd.choice([chr(65 + k), chr(97 + k)])
        left, top, right, bottom = font.getbbox(letter)
        if max(right - left, bottom - top) > 64:
            break
        image = Image.new("L", (64, 64), 255)
        corner = (32 - (left + right) / 2, 32 - (top + bottom) / 2)
        ImageDraw.Draw(image).text(corner, letter, font=font, fill=0)
        if bytes(font.getmask(letter)) == missing or np.asarray(image).mean() > 254.5:
            break
        drawn[chr(65 + k)] = image
    return drawn


SETS = [photos, clipart, digits, fashion, emoji, textures, letters]


def main() -> None:
    global OUT, UNFINISHED
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    OUT = Path(sys.argv[1]).resolve()
    UNFINISHED = OUT / ".unfinished"
    wanted = sys.argv[2:] or [make.__name__ for make in SETS]
    known = {make.__name__: make for make in SETS}
    if unknown := [name for name in wanted if name not in known]:
        sys.exit(f"unknown set {unknown[0]!r}, expected one of {', '.join(known)}")
    for name in wanted:
        if (OUT / name).exists():
            print(f"{name}: {OUT / name} is there already")
            continue
        shutil.rmtree(UNFINISHED, ignore_errors=True)
        UNFINISHED.mkdir(parents=True)
        known[name]()
        (UNFINISHED / name).rename(OUT / name)
        print(f"{name}: {sum(path.is_file() for path in (OUT / name).rglob('*'))} images")


if __name__ == "__main__":
    main()
