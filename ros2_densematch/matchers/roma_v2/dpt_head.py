"""The dense prediction head of RoMa v2: four levels of one image's tokens to a warp at a quarter of the resolution.

Ranftl et al., "Vision transformers for dense prediction", ICCV 2021 (reassemble and fusion blocks), as RoMa v2 uses it.
The two finest levels depend on one image alone, up to and including the residual unit that they enter through: they
are computed apart, once for a keyframe.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # the released ReLU works in place: the skip carries the rectified input
        rectified = x.relu()
        result: Tensor = self.conv2(self.conv1(rectified).relu_()).add_(rectified)
        return result


class _Fusion(nn.Module):
    def __init__(self, width: int, *, first: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        if not first:
            self.resConfUnit1 = _Residual(width)
        self.resConfUnit2 = _Residual(width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        # published: resized, then convolved; the order makes no difference but for rounding, and this one is cheaper
        return _resized(self.out_conv(self.resConfUnit2(x)), size)


class _Scratch(nn.Module):
    def __init__(self, levels: tuple[int, ...], width: int) -> None:
        super().__init__()
        for i, channels in enumerate(levels, 1):
            self.add_module(f"layer{i}_rn", nn.Conv2d(channels, width, 3, padding=1, bias=False))
            self.add_module(f"refinenet{i}", _Fusion(width, first=i == len(levels)))
        self.output_conv1 = nn.Conv2d(width, width // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(nn.Conv2d(width // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 3, 1))


class DptHead(nn.Module):
    """Warp and overlap logit from the tokens of the image whose cells are matched."""

    def __init__(self, inputs: int, *, levels: tuple[int, ...], width: int) -> None:
        """
        Args:
            inputs: channels of a token.
            levels: channels of the four levels, fine to coarse.
            width: channels of the fusion.
        """
        super().__init__()
        self.norm = nn.LayerNorm(inputs, eps=1e-5)
        self.projects = nn.ModuleList(nn.Conv2d(inputs, channels, 1) for channels in levels)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(levels[0], levels[0], 4, 4),
                nn.ConvTranspose2d(levels[1], levels[1], 2, 2),
                nn.Identity(),
                nn.Conv2d(levels[3], levels[3], 3, 2, 1),
            ]
        )
        self.scratch = _Scratch(levels, width)

    def fine_levels(self, tokens: Tensor, grid: tuple[int, int]) -> list[Tensor]:
        """What the two finest levels add to the fusion: they depend on one image alone.

        Args:
            tokens: (B, N, C) of the backbone's first layer.
            grid: rows and columns, N together.

        Returns:
            (B, width, 4 * rows, 4 * columns) and (B, width, 2 * rows, 2 * columns).
        """
        normed = self._as_map(tokens, grid)
        return [self._entering(i, normed) for i in (0, 1)]

    def forward(self, fine: list[Tensor], tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """
        Args:
            fine: of `fine_levels`.
            tokens: (B, N, C), the backbone's second layer with what the match adds to it.
            grid: rows and columns, N together.

        Returns:
            float32 (B, 3, 4 * rows, 4 * columns): normalised position (x, y) in the other image, overlap logit.
        """
        rows, columns = grid
        normed = self._as_map(tokens, grid)
        coarse = self._level(3, normed)
        x = self.scratch.get_submodule("refinenet4")(coarse, (rows, columns))
        x = x + self._entering(2, normed)
        x = self.scratch.get_submodule("refinenet3")(x, (2 * rows, 2 * columns))
        x = self.scratch.get_submodule("refinenet2")(x + fine[1], (4 * rows, 4 * columns))
        x = self.scratch.get_submodule("refinenet1")(x + fine[0], (8 * rows, 8 * columns))
        x = _resized(self.scratch.output_conv1(x), (4 * rows, 4 * columns))
        # as released: in float32 under mixed precision too
        result: Tensor = self.scratch.output_conv2(x.to(next(self.scratch.output_conv2.parameters()).dtype))
        return result

    def _as_map(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        normed: Tensor = self.norm(tokens)
        return normed.transpose(1, 2).reshape(len(tokens), -1, *grid)

    def _level(self, i: int, normed: Tensor) -> Tensor:
        """Level i, reassembled, in the fusion's width."""
        level: Tensor = self.scratch.get_submodule(f"layer{i + 1}_rn")(self.resize_layers[i](self.projects[i](normed)))
        return level

    def _entering(self, i: int, normed: Tensor) -> Tensor:
        entering: Tensor = self.scratch.get_submodule(f"refinenet{i + 1}.resConfUnit1")(self._level(i, normed))
        return entering


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=True)
