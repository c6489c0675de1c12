"""Makes attentive.safetensors: logits, loss and gradients of V-JEPA's and V-JEPA 2's attentive classifiers,
written here with torch's own layers from the papers' descriptions: pre-norm blocks (torch's
TransformerEncoderLayer), then a learned query that attends to the tokens, with no projection of what it
reads. In float64, rounded to float32.

pip install torch==2.15.0 safetensors==0.8.0
python make_attentive.py
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

WIDTH, HEADS, CLASSES, TOKENS = 12, 3, 5, (6, 11, 1)


class Head(nn.Module):
    """Parameters under saltworks' names, but for those of blocks."""

    def __init__(self, blocks):
        super().__init__()
        layer = lambda: nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, dropout=0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.ModuleList([layer() for _ in range(blocks)])
        self.query_token = nn.Parameter(torch.zeros(1, WIDTH))
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.kv = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.linear = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens):  # [N, D] -> [K]
        x = tokens[None]
        for block in self.blocks:
            x = block(x)
        heads = lambda y: y.reshape(-1, HEADS, WIDTH // HEADS).transpose(0, 1)  # [N, D] -> [A, N, E]
        k, v = self.kv(self.norm1(x[0])).chunk(2, dim=-1)
        read = F.scaled_dot_product_attention(heads(self.q(self.query_token)), heads(k), heads(v))
        q = self.query_token + read.transpose(0, 1).reshape(1, WIDTH)
        q = q + self.fc2(F.gelu(self.fc1(self.norm2(q))))
        return self.linear(q)[0]


NAMES = {
    "self_attn.in_proj_": "attn.qkv.",
    "self_attn.out_proj.": "attn.proj.",
    "linear1.": "mlp.fc1.",
    "linear2.": "mlp.fc2.",
}


def ours(name):
    if name.startswith("blocks."):
        for theirs, wanted in NAMES.items():
            name = name.replace(theirs, wanted)
    return name


def main():
    torch.manual_seed(5)
    tokens = [torch.randn(n, WIDTH, dtype=torch.float64) for n in TOKENS]
    labels = torch.tensor([3, 0, 4])
    saved = {"tokens": torch.cat(tokens), "labels": labels.to(torch.int32)}
    for form, blocks in (("v_jepa1", 0), ("v_jepa2", 3)):
        head = Head(blocks).double()
        for parameter in head.parameters():
            # Nothing is 0 or 1, so that nothing is left out unseen; as float32 holds it.
            value = 0.3 * torch.randn_like(parameter) + (parameter.dim() == 1) * 0.5
            parameter.data = value.float().double()
        logits = torch.stack([head(x.float().double()) for x in tokens])
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        saved |= {f"{form}/logits": logits.detach(), f"{form}/loss": loss.detach()[None]}
        for name, parameter in head.named_parameters():
            saved[f"{form}/weights/{ours(name)}"] = parameter.detach()
            saved[f"{form}/grads/{ours(name)}"] = parameter.grad
    single = lambda value: value.float() if value.is_floating_point() else value
    saved = {name: single(value).contiguous() for name, value in saved.items()}
    save_file(saved, Path(__file__).with_name("attentive.safetensors"))


if __name__ == "__main__":
    main()
