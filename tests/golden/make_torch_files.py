"""Makes torch_*.pt and torch_*.ckpt: files of torch.save in the shapes that training scripts leave them,
with the same values as torch_values.safetensors.

pip install torch==2.15.0 safetensors==0.8.0
python make_torch_files.py
"""

import argparse
import collections
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent


class AttributeDict(dict):
    """As Lightning's, which keeps hyper-parameters in one; its name is not known to any reader."""

    def __getattr__(self, key):
        return self[key]


class Callback:
    """Holds what a pickle can hold: a reference to itself, a slot, a set, bytes, numbers."""

    def __init__(self):
        self.itself = self
        self.best = {"score": np.float64(0.5), "path": pathlib.PurePosixPath("a/b")}
        self.bytes = [b"bytes", bytearray(b"more"), 1 << 100, -(1 << 40), {1, 2}, frozenset([3]), 1j]
        self.array = np.arange(3)


def model():
    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 8, 2), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 4)]
    return torch.nn.Sequential(collections.OrderedDict(zip(["embed", "norm", "head"], layers)))


def save(value, name, **options):
    # To a file object: the folder in the archive is then "archive" and no path of this machine.
    with open(HERE / name, "wb") as file:
        torch.save(value, file, **options)


def lightning(net):
    optimizer = torch.optim.AdamW(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    with torch.no_grad():
        copies = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optimizer.step()
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": collections.OrderedDict(("model." + name, t) for name, t in copies.items()),
        "loops": {"fit_loop": {"state_dict": {}, "progress": {"total": {"ready": 4}}}},
        "callbacks": {"Checkpoint{'monitor': None}": Callback()},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [],
        "hparams_name": "hparams",
        "hyper_parameters": AttributeDict(
            lr=1e-3, args=argparse.Namespace(name="x"), dtype=torch.bfloat16, size=torch.Size([1, 2]),
            device=torch.device("cpu"), cls=Callback, tensor=torch.ones(2),
        ),
    }  # fmt: skip


def types():
    values = torch.tensor([0.0, -1.5, 3.140625, 1e-7, 65504.0, float("inf")])
    return {
        "f32": values,
        "f16": values.half(),
        "bf16": values.bfloat16(),
        "f64": values.double() / 3,
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "i64": torch.arange(3),
        "u8": torch.arange(3, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "u16": torch.arange(3).to(torch.uint16),
        "c64": torch.ones(2, dtype=torch.complex64),
    }


def views():
    base = torch.arange(24.0).reshape(4, 6)
    tied = torch.arange(6.0)
    return {
        "base": base,
        "transposed": base.t(),
        "rows": base[1:3],
        "columns": base[:, 1::2],
        "permuted": base.reshape(2, 2, 6).permute(2, 0, 1),
        "element": base[2, 3],
        "tied.a": tied,
        "tied.b": tied,
        "parameter": torch.nn.Parameter(base[3]),
        "buffer": torch.nn.Buffer(tied[2:]),
    }


def floats(tensors):
    return {
        name: tensor.detach().float().contiguous().clone()
        for name, tensor in tensors.items()
        if tensor.is_floating_point()
    }


def main():
    net = model()
    plain = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    save(net.state_dict(), "torch_plain.pt")
    save(lightning(net), "torch_lightning.ckpt")
    save(types(), "torch_types.pt")
    save(views(), "torch_views.pt")
    # Keys of no container: the names of both are joined by dots. Protocols of newer Pythons.
    nested = {"student": {"a": torch.ones(2)}, "teacher": {"b": {"c": torch.zeros(3)}}, "step": 7}
    save(nested, "torch_nested.pt", pickle_protocol=4)
    save(plain, "torch_protocol_5.pt", pickle_protocol=5)
    save({"model": plain, "model_ema": None}, "torch_model.pth", pickle_protocol=3)
    save(model(), "torch_module.pt")
    values = {f"plain.{name}": tensor for name, tensor in floats(plain).items()}
    values |= {f"types.{name}": tensor for name, tensor in floats(types()).items()}
    values |= {f"views.{name}": tensor for name, tensor in floats(views()).items()}
    save_file(values, HERE / "torch_values.safetensors")


if __name__ == "__main__":
    main()
