"""Makes augment.safetensors: a picture, and what torchvision makes of it with given parameters.

pip install torchvision==0.29.2 pillow==13.0.0 numpy==2.4.6 safetensors==0.8.0
python make_augment.py
"""

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

HEIGHT, WIDTH = 24, 30


def picture():
    """Smooth colours of all hues, noise, and a black, a white and a grey corner."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [np.sin(x / 5 + phase) + np.cos(y / 7 - phase) for phase in (0.0, 2.1, 4.2)]
    image = np.stack(waves, axis=-1) * 60 + 128 + rng.normal(size=(HEIGHT, WIDTH, 3)) * 25
    image = image.clip(0, 255).astype(np.uint8)
    image[:4, :4], image[:4, -4:], image[-4:, :4] = 0, 255, 77
    return Image.fromarray(image)


def main():
    image = picture()
    outputs = {"picture": image}
    for factor in (0.0, 0.35, 1.0, 1.4):
        outputs[f"brightness {factor}"] = F.adjust_brightness(image, factor)
        outputs[f"contrast {factor}"] = F.adjust_contrast(image, factor)
        outputs[f"saturation {factor}"] = F.adjust_saturation(image, factor)
    for factor in (-0.5, -0.13, 0.0, 0.21, 0.5):
        outputs[f"hue {factor}"] = F.adjust_hue(image, factor)
    outputs["greyscale"] = F.rgb_to_grayscale(image, 3)
    for threshold in (0, 128, 255):
        outputs[f"solarize {threshold}"] = F.solarize(image, threshold)
    for kernel, sigma in ((3, 0.1), (9, 1.3), (23, 2.0)):
        outputs[f"blur {kernel} {sigma}"] = F.gaussian_blur(image, [kernel, kernel], [sigma, sigma])
    for name, mode in (("bilinear", InterpolationMode.BILINEAR), ("bicubic", InterpolationMode.BICUBIC)):
        # top, left, height, width
        outputs[f"crop {name}"] = F.resized_crop(image, 3, 5, 17, 21, [12, 12], mode)
        outputs[f"center {name}"] = F.center_crop(F.resize(image, 16, mode), [12, 12])
    tensors = {name: np.asarray(output, dtype=np.float32) for name, output in outputs.items()}
    save_file(tensors, Path(__file__).with_name("augment.safetensors"))


if __name__ == "__main__":
    main()
