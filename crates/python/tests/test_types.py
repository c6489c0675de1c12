"""The stubs of saltworks.torch: mypy knows its classes by them, and they have the arguments of the classes."""

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "python" / "saltworks" / "torch"

SCRIPT = """
import torch
from saltworks.torch import MAE, SALT, MaskedEncoder, MultiBlockMasking

model = SALT.from_checkpoint("stage1.safetensors", num_heads=3)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
reveal_type(model(torch.zeros(2, 3, 224, 224)).predictions)
reveal_type(model.student.encode(torch.zeros(1)))
reveal_type(MAE(mask_ratio=0.5)(torch.zeros(1)).mask)
reveal_type(MaskedEncoder(masking=MultiBlockMasking(), img_size=32)(torch.zeros(1)).grid_size)
SALT(predictor_depth="two")
"""


def test_mypy_knows_the_classes(tmp_path):
    api = pytest.importorskip("mypy.api")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    told, _, _ = api.run(["--strict", "--cache-dir", str(tmp_path / "cache"), str(script)])
    lines = [line.split(": ", 2)[2] for line in told.splitlines() if line.startswith(str(script))]
    tensor = "torch._tensor.Tensor"
    assert lines == [
        f'Revealed type is "{tensor} | None"',
        f'Revealed type is "{tensor}"',
        f'Revealed type is "{tensor}"',
        'Revealed type is "tuple[int, int]"',
        'Argument "predictor_depth" to "SALT" has incompatible type "str"; expected "int"  [arg-type]',
    ], told


def arguments(function):
    """Names and defaults, without types. ``normalize`` is one of the encoder's options."""
    given = function.args
    names = [argument.arg for argument in given.args + given.kwonlyargs]
    missing = [None] * (len(given.args) - len(given.defaults))
    defaults = missing + given.defaults + given.kw_defaults
    pairs = [(name, value and ast.unparse(value)) for name, value in zip(names, defaults, strict=True)]
    return [pair for pair in pairs if pair[0] != "normalize"], given.kwarg and given.kwarg.arg


def functions(tree):
    """Functions and methods by name, public ones and constructors."""
    found = {}
    for owner in [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]:
        for node in owner.body:
            if isinstance(node, ast.FunctionDef) and (node.name == "__init__" or not node.name.startswith("_")):
                found[getattr(owner, "name", ""), node.name] = node
    return found


def test_the_stubs_have_the_arguments_of_the_classes():
    home = {}
    for file in FOLDER.glob("*.py"):
        home |= functions(ast.parse(file.read_text()))
    stubs = functions(ast.parse((FOLDER / "__init__.pyi").read_text()))
    compared = [name for name in stubs if name in home]
    assert len(compared) > 15
    for name in compared:
        assert arguments(stubs[name]) == arguments(home[name]), name
    named = next(
        node.value for node in ast.parse((FOLDER / "__init__.py").read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )  # fmt: skip
    text = (FOLDER / "__init__.pyi").read_text()
    for name in ast.literal_eval(named):
        assert f"class {name}(" in text or f"def {name}(" in text, name
