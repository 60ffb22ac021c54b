"""Networks as users write them, one for each way of writing that has failed somewhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


def block(i: int, o: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)
    )


def head(width: int, classes: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class Residual(nn.Module):
    def __init__(self, i: int, o: int, stride: int = 1) -> None:
        super().__init__()
        self.a, self.b = block(i, o, stride), nn.Sequential(*block(o, o)[:2])
        self.short = nn.Sequential(nn.Conv2d(i, o, 1, stride), nn.BatchNorm2d(o))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.b(self.a(x)) + self.short(x))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.mid = block(3, 16), block(16, 32), block(32, 64)
        self.up2, self.dec2 = nn.ConvTranspose2d(64, 32, 2, 2), block(64, 32)
        self.up1, self.dec1 = nn.ConvTranspose2d(32, 16, 2, 2), block(32, 16)
        self.out = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.mid(F.max_pool2d(b, 2))
        b = self.dec2(torch.cat([self.up2(c), b], 1))
        return self.out(self.dec1(torch.cat([self.up1(b), a], 1)))


class TemporalBlock(nn.Module):
    """A causal convolution with weight norm, whose padding is cut off again."""

    def __init__(self, i: int, o: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        make = parametrizations.weight_norm
        self.a = make(nn.Conv1d(i, o, 3, padding=self.pad, dilation=dilation))
        self.b = make(nn.Conv1d(o, o, 3, padding=self.pad, dilation=dilation))
        self.short = nn.Conv1d(i, o, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)[..., : -self.pad].relu()
        return (self.b(y)[..., : -self.pad] + self.short(x)).relu()


class TCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(TemporalBlock(4 if i == 0 else 16, 16, 2**i) for i in range(3))
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x)[..., -1])


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = 32
        self.start = nn.Linear(16, 32 * 4 * 4)
        self.net = nn.Sequential(
            nn.BatchNorm2d(32), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        return self.net(self.start(z).view(-1, self.width, 4, 4))


class Discriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        make = parametrizations.spectral_norm
        self.net = nn.Sequential(
            make(nn.Conv2d(3, 16, 4, 2, 1)), nn.LeakyReLU(0.2),
            make(nn.Conv2d(16, 32, 4, 2, 1)), nn.LeakyReLU(0.2), nn.Flatten(),
            make(nn.Linear(32 * 8 * 8, 1)),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(block(3, 16, 2), block(16, 32, 2), nn.Flatten())
        self.mean, self.spread = nn.Linear(32 * 64, 8), nn.Linear(32 * 64, 8)
        self.start = nn.Linear(8, 32 * 64)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (32, 8, 8)), nn.ConvTranspose2d(32, 16, 2, 2), nn.ReLU(),
            nn.ConvTranspose2d(16, 3, 2, 2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(x)
        mean, spread = self.mean(h), self.spread(h)
        z = mean + torch.randn_like(mean) * (0.5 * spread).exp() if self.training else mean
        return self.decoder(self.start(z)), mean, spread


class Yolo(nn.Module):
    """A backbone whose maps of three sizes go to heads with anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = block(3, 16, 2), block(16, 32, 2), block(32, 64, 2)
        self.lat = nn.Conv2d(64, 32, 1)
        self.heads = nn.ModuleList(nn.Conv2d(64, 3 * 9, 1) for _ in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        b = self.b(self.a(x))
        c = self.c(b)
        up = F.interpolate(self.lat(c), scale_factor=2.0)
        maps = [torch.cat([b, up], 1), c]
        return [self._split(conv(m)) for conv, m in zip(self.heads, maps, strict=True)]

    def _split(self, y: Tensor) -> Tensor:
        n, _, h, w = y.shape
        return y.view(n, 3, 9, h, w).permute(0, 1, 3, 4, 2)


class GPT(nn.Module):
    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(50, width), nn.Embedding(16, width)
        self.blocks = nn.ModuleList(GPTBlock(width, heads) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 50, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.places(torch.arange(x.shape[1], device=x.device))
        for layer in self.blocks:
            h = layer(h)
        return self.out(self.norm(h))


class GPTBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.n_head, self.head_dim = heads, width // heads
        self.a, self.b = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        parts = self.qkv(self.a(x)).chunk(3, dim=-1)
        q, k, v = (p.view(n, t, self.n_head, self.head_dim).transpose(1, 2) for p in parts)
        scores = (q @ k.transpose(-2, -1)) * self.head_dim**-0.5
        mask = torch.ones(t, t, device=x.device).tril() == 0
        y = scores.masked_fill(mask, float("-inf")).softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(n, t, -1))
        return x + self.down(F.gelu(self.up(self.b(x))))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.start, self.rnn = nn.Linear(6, 24), kind(24, 32, batch_first=True)
        self.mid, self.out = nn.Linear(32, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(self.start(x).relu())
        return self.out(self.mid(y[:, -1]).relu())


class Shuffle(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        half = width // 2
        self.start, self.right = (
            block(3, width),
            nn.Sequential(
                block(half, half), nn.Conv2d(half, half, 3, 1, 1, groups=half), block(half, half)
            ),
        )
        self.head = head(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        a, b = x.chunk(2, 1)
        x = torch.cat([a, self.right(b)], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x)


class Squeeze(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = block(3, 32), block(32, 32)
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(32, 8, 1),
            nn.ReLU(),
            nn.Conv2d(8, 32, 1),
            nn.Sigmoid(),
        )
        self.head = head(32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.head(x + self.se(self.b(x)) * self.b(x))


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(block(3 + 12 * i, 12) for i in range(4))
        self.head = head(3 + 48)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x)


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(block(3, 16, 2), block(16, 32, 2), head(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.body(x), self.body(x.flip(3))
        return torch.cat([(a - b).abs(), a * b], 1)


class ConvNeXtLike(nn.Module):
    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem, self.dw = (
            nn.Conv2d(3, width, 4, 4),
            nn.Conv2d(width, width, 7, 1, 3, groups=width),
        )
        self.norm, self.up, self.down = (
            nn.LayerNorm(width),
            nn.Linear(width, 96),
            nn.Linear(96, width),
        )
        self.scale = nn.Parameter(torch.full((width,), 1e-6))
        self.head = head(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.dw(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return self.head(x + y.permute(0, 3, 1, 2))


class Mixer(nn.Module):
    def __init__(self, width: int = 32, tokens: int = 64) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.a, self.b = nn.LayerNorm(width), nn.LayerNorm(width)
        self.token = nn.Sequential(nn.Linear(tokens, 48), nn.GELU(), nn.Linear(48, tokens))
        self.channel = nn.Sequential(nn.Linear(width, 96), nn.GELU(), nn.Linear(96, width))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.token(self.a(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channel(self.b(x))).mean(1))


class Graph(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("adjacency", torch.rand(6, 6).softmax(1))
        self.a, self.b, self.c = nn.Linear(5, 24), nn.Linear(24, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = (self.adjacency @ self.a(x)).relu()
        return self.c((self.adjacency @ self.b(x)).relu().mean(1))


class Learned(nn.Module):
    """A transformer encoder of torch with a class token and places."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 17, width))
        layer = nn.TransformerEncoderLayer(width, 4, 64, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.encoder(x)[:, 0])


class Spectrogram(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv1d(1, 24, 16, 4), nn.Conv1d(24, 32, 5, groups=4)
        self.norm, self.head = nn.GroupNorm(4, 24), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(F.silu(self.norm(self.a(x)))).amax(2))


class Video(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv3d(3, 16, 3, padding=1), nn.Conv3d(16, 32, 3, (1, 2, 2), 1)
        self.norm, self.head = nn.BatchNorm3d(16), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.norm(self.a(x)).relu()).relu().mean((2, 3, 4)))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 64), nn.Linear(32, 64), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.glu(self.a(x))
        one, two = self.b(x).chunk(2, -1)
        return self.c(F.silu(one) * two)


class Experts(nn.Module):
    """A soft mixture of experts, and a low-rank addition to a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.gate = nn.Linear(8, 24), nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Linear(24, 16) for _ in range(3))
        self.down, self.up = nn.Parameter(torch.randn(4, 16)), nn.Parameter(torch.randn(16, 4))
        self.base, self.out = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        h, weights = self.start(x).relu(), self.gate(x).softmax(-1)
        y = sum(weights[:, i : i + 1] * expert(h) for i, expert in enumerate(self.experts))
        low = F.linear(y, self.base.weight + self.up @ self.down, self.base.bias)
        return self.out(low.relu())


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 8))
        self.decode = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 40))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        code = self.encode(x)
        return {"code": code, "back": self.decode(code)}


def plain() -> nn.Module:
    return nn.Sequential(block(3, 16), block(16, 32, 2), block(32, 32, 2), head(32))


def residual() -> nn.Module:
    return nn.Sequential(block(3, 16), Residual(16, 32, 2), Residual(32, 32), head(32))


def depthwise() -> nn.Module:
    parts: list[nn.Module] = [block(3, 16)]
    for i, o in ((16, 32), (32, 64)):
        parts += [nn.Conv2d(i, i, 3, 2, 1, groups=i), nn.BatchNorm2d(i), nn.ReLU6(), block(i, o)]
    return nn.Sequential(*parts, head(64))


def grouped() -> nn.Module:
    wide = nn.Sequential(nn.Conv2d(32, 64, 3, 1, 1, groups=4), nn.BatchNorm2d(64), nn.ReLU())
    return nn.Sequential(block(3, 32), wide, nn.Conv2d(64, 32, 1), nn.PReLU(32), head(32))


def flattened() -> nn.Module:
    return nn.Sequential(
        block(3, 16, 2), block(16, 32, 2), nn.Flatten(), nn.Linear(32 * 64, 64), nn.ReLU(),
        nn.Dropout(0.2), nn.Linear(64, 10),
    )  # fmt: skip


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 32), nn.Tanh(),
        nn.Linear(32, 3),
    )  # fmt: skip


IMAGE = (3, 32, 32)
#: By name: what builds the network, the shape of an input, the number of tokens if it takes words.
HANDWRITTEN: dict[str, tuple[Any, tuple[int, ...], int]] = {
    "plain": (plain, IMAGE, 0),
    "residual": (residual, IMAGE, 0),
    "depthwise": (depthwise, IMAGE, 0),
    "grouped": (grouped, IMAGE, 0),
    "flattened": (flattened, IMAGE, 0),
    "mlp": (mlp, (20,), 0),
    "unet": (UNet, IMAGE, 0),
    "tcn_weight_norm": (TCN, (4, 24), 0),
    "gan_generator": (Generator, (16,), 0),
    "gan_discriminator_spectral_norm": (Discriminator, IMAGE, 0),
    "vae": (VAE, IMAGE, 0),
    "yolo_like": (Yolo, IMAGE, 0),
    "gpt_like": (GPT, (16,), 50),
    "lstm": (lambda: Recurrent(nn.LSTM), (12, 6), 0),
    "gru": (lambda: Recurrent(nn.GRU), (12, 6), 0),
    "shuffle": (Shuffle, IMAGE, 0),
    "squeeze_excite": (Squeeze, IMAGE, 0),
    "dense_connections": (Dense, IMAGE, 0),
    "siamese": (Siamese, IMAGE, 0),
    "convnext_like": (ConvNeXtLike, IMAGE, 0),
    "mixer_like": (Mixer, IMAGE, 0),
    "graph": (Graph, (6, 5), 0),
    "encoder_of_torch": (Learned, IMAGE, 0),
    "spectrogram": (Spectrogram, (1, 256), 0),
    "video": (Video, (3, 4, 16, 16), 0),
    "gated": (Gated, (8,), 0),
    "experts_low_rank": (Experts, (8,), 0),
    "autoencoder": (Autoencoder, (40,), 0),
}
