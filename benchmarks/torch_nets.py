"""The PyTorch side of `benchmarks/networks.py`: the networks and steps that a user would pick.

DDPM's U-Net is diffusers' own; the DiT is written here under the names of the published
weights, with PyTorch's fused attention.
"""

import math

import torch
from diffusers import DDIMScheduler, UNet2DModel
from torch import nn
from torch.nn import functional as fn


class UNet(UNet2DModel):
    """diffusers' `UNet2DModel`, called as (x, t, label)."""

    def forward(self, x, t, label):
        return super().forward(x, t, return_dict=False)[0]


class Block(nn.Module):
    """Attention and MLP under adaLN-zero: Peebles & Xie 2023, figure 3."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width)})
        self.attn["proj"] = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width)})
        self.mlp["fc2"] = nn.Linear(4 * width, width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            m[:, None] for m in self.adaLN_modulation(c).chunk(6, dim=1)
        )
        batch, tokens, width = x.shape
        h = self.norm1(x) * (1 + scale1) + shift1
        qkv = self.attn["qkv"](h).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h = fn.scaled_dot_product_attention(*qkv).transpose(1, 2).reshape(batch, tokens, width)
        x = x + gate1 * self.attn["proj"](h)
        h = fn.gelu(self.mlp["fc1"](self.norm2(x) * (1 + scale2) + shift2), approximate="tanh")
        return x + gate2 * self.mlp["fc2"](h)


class DiT(nn.Module):
    """DiT with the published weights' names, called as (x, t, label)."""

    def __init__(self, config, positions):
        super().__init__()
        width, patch = config["hidden_size"], config["patch_size"]
        channels = config["in_channels"]
        self.patch, self.out = patch, channels * (2 if config["learn_sigma"] else 1)
        self.register_buffer("pos_embed", torch.tensor(positions))
        self.x_embedder = nn.ModuleDict({"proj": nn.Conv2d(channels, width, patch, patch)})
        mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.t_embedder = nn.ModuleDict({"mlp": mlp})
        table = nn.Embedding(config["num_classes"] + 1, width)
        self.y_embedder = nn.ModuleDict({"embedding_table": table})
        blocks = [Block(width, config["num_heads"]) for _ in range(config["depth"])]
        self.blocks = nn.ModuleList(blocks)
        final = nn.Linear(width, patch * patch * self.out)
        modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.final_layer = nn.ModuleDict({"linear": final, "adaLN_modulation": modulation})

    def forward(self, x, t, label):
        frequencies = torch.exp(-math.log(10000) * torch.arange(128, device=x.device) / 128)
        angles = t[:, None].float() * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype)
        c = self.t_embedder["mlp"](waves) + self.y_embedder["embedding_table"](label)
        batch, side = len(x), x.shape[-1] // self.patch
        h = self.x_embedder["proj"](x).flatten(2).transpose(1, 2) + self.pos_embed.to(x.dtype)
        for block in self.blocks:
            h = block(h, c)
        shift, scale = (m[:, None] for m in self.final_layer["adaLN_modulation"](c).chunk(2, dim=1))
        h = fn.layer_norm(h, h.shape[-1:], eps=1e-6) * (1 + scale) + shift
        h = self.final_layer["linear"](h).reshape(batch, side, side, self.patch, self.patch, -1)
        return h.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, side * self.patch, side * self.patch)


def train_step(net, alpha_bar, dtype, compiled):
    """A step as users write it: q-sample, mean squared error, clipping, Adam, EMA.

    Parameters are float32, and what PyTorch's autocast casts is computed in `dtype`.
    """
    net = net.train()
    model = torch.compile(net, dynamic=False) if compiled else net
    device = alpha_bar.device.type
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=device == "cuda")
    ema = [p.detach().clone() for p in net.parameters()]

    def step(x, label):
        k = torch.randint(len(alpha_bar), (len(x),), device=x.device)
        noise = torch.randn_like(x)
        a = alpha_bar[k][:, None, None, None]
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            out = model(a.sqrt() * x + (1 - a).sqrt() * noise, k, label)
        loss = fn.mse_loss(out[:, : x.shape[1]].float(), noise.float())
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(ema, list(net.parameters()), 1e-4)
        return loss

    return step


def forward(net, compiled):
    """The network under no_grad."""
    model = torch.compile(net.eval(), dynamic=False) if compiled else net.eval()

    def call(x, t, label):
        with torch.no_grad():
            return model(x, t, label)

    return call


def ddim(net, steps, compiled):
    """A Python loop over diffusers' scheduler."""
    call = forward(net, compiled)
    scheduler = DDIMScheduler(1000, beta_schedule="linear", clip_sample=False)
    scheduler.set_timesteps(steps)

    def draw(x, label):
        for t in scheduler.timesteps:
            out = call(x, t.expand(len(x)), label)
            x = scheduler.step(out[:, : x.shape[1]], t, x).prev_sample
        return x

    return draw
