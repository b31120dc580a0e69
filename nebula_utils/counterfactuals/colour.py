"""Change a picture's colours, find how much change flips an answer, name its palette.

Brightness here is luma, Y' = 0.2126 R' + 0.7152 G' + 0.0722 B' (Rec. ITU-R BT.709),
of the sRGB-*encoded* values. It is not luminance in linear light, for three reasons:
astronomical pictures are stretched by hand, so that nothing tells how to get back to
linear light; the networks see encoded values; and luma is linear in them, so that
most interventions below keep it *exactly*: the colour changes, the greyscale
picture doesn't. Where a colour of that brightness doesn't exist on a screen it is
made paler, never darker or lighter.

Every intervention is a function images -> images: float32 in [0, 1], sRGB-encoded, of
shape (..., h, w, 3); it copies, so the input is left as it was. Arrays that are not
floating point or have no three channels at their end raise an ImageError.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nebula_utils.errors import ImageError

Images = NDArray[np.float32]
Intervention = Callable[[Images], Images]
Colour = Sequence[float] | NDArray[np.floating]
Predict = Callable[[Sequence[Intervention]], np.ndarray]

LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # Rec. ITU-R BT.709

# Tints, after hydrogen emission, reflection nebulae, and dust or the Hubble palette.
RED = (1.0, 0.20, 0.18)
BLUE = (0.25, 0.50, 1.0)
GOLD = (1.0, 0.72, 0.20)

PALETTES = ("mono", "red", "blue", "mixed")
# Checked by eye on contact sheets of the default textures; see compute_palette.
MONO_CHROMA = 0.18
LEANING = 0.10
_WARM_SECTOR = (60.0, 165.0)  # degrees in the (Cb, Cr) plane; pure red lies at 103
_COLD_SECTOR = (-90.0, 15.0)  # pure blue lies at -5, cyan at -77

# What `find_flips` tries, and a page offers.
SHIFT_PALETTES = ("natural", "HOO", "SHO")
HUES = (20.0, 40.0, 60.0, 90.0, 120.0, 150.0, 180.0)  # degrees, to both sides
PALER = (0.75, 0.5, 0.25, 0.0)  # factors of the saturation
STRONGER = (1.5, 2.0, 3.0)
HALVINGS = 3  # of the last step


def to_grey(images: Images) -> Images:
    """Take the colour away: every channel becomes the luma."""
    luma = _luma(check_pictures(images))
    return np.repeat(luma[..., np.newaxis], 3, axis=-1)


def tint(images: Images, rgb: Colour, amount: float = 1.0) -> Images:
    """Paint pictures in shades of one colour, not black; keep the luma of every pixel.

    Dark pixels go towards black, pixels brighter than the tint itself towards white.
    An `amount` of 1 replaces the colours, 0 leaves them.
    """
    images = check_pictures(images)
    colour = np.asarray(rgb, np.float32)
    if colour.shape != (3,) or not float(colour @ LUMA) > 0:
        raise ValueError(f"a tint is three numbers and not black, got {rgb!r}")
    luma = _luma(images)
    offset = colour / (colour @ LUMA) - 1
    # Every pixel has the same hue, so one limit a pixel keeps all channels below 1.
    strength = np.minimum(luma, (1 - luma) / max(float(offset.max()), 1e-6))
    painted = luma[..., np.newaxis] + strength[..., np.newaxis] * offset
    if amount != 1:
        painted = images + np.float32(amount) * (painted - images)
    return np.clip(painted, 0, 1, out=painted)


def white_balance(images: Images, gains: Colour) -> Images:
    """Multiply the channels by gains, as a wrong white balance or an airglow does.

    The 3 gains of R, G, B are scaled so that the luma of a grey pixel stays; what comes
    out above 1 is clipped, as an overexposed channel is.
    """
    factors = np.asarray(gains, np.float32)
    return np.minimum(
        check_pictures(images) * (factors / (factors @ LUMA)), np.float32(1)
    )


def saturate(images: Images, factor: float) -> Images:
    """Multiply the chroma (the distance from grey) by a factor and keep the luma.

    Colours that a screen can't show are paler than asked, of the same luma.
    """
    images = check_pictures(images)
    luma = _luma(images)
    return _compose(luma, (images - luma[..., np.newaxis]) * np.float32(factor))


def swap_channels(images: Images, order: Sequence[int] = (2, 1, 0)) -> Images:
    """Put the channels in another order; this changes the luma of coloured pixels.

    Channel i of the result is channel ``order[i]`` of the input; by default red and
    blue are exchanged.
    """
    # Contiguous, unlike images[..., order]; np.take is slower.
    return np.stack([check_pictures(images)[..., i] for i in order], axis=-1)


def apply_palette(images: Images, palette: str) -> Images:
    """Recolour broad-band pictures roughly as narrow-band ones are presented.

    H-alpha (656 nm) is taken from the red channel and [O III] (496, 501 nm) from the
    mean of green and blue. [S II] (672, 673 nm) can't be told from H-alpha in a red
    channel; it is *assumed* to follow H-alpha and to fade where oxygen is ionised
    ([S II]/H-alpha falls as the ionisation rises, e.g. Osterbrock & Ferland 2006,
    ch. 5): S = 2 Ha² / (Ha + O). So grey pixels, stars and dust, stay grey, hydrogen
    turns gold and oxygen teal, as on well-known pictures. A palette for training and
    tests of a classifier: no measure of any line.

    `palette` is "SHO" or "HOO": which line (S sulphur, H hydrogen, O oxygen) feeds red,
    green and blue.
    """
    images = check_pictures(images)
    hydrogen = images[..., 0]
    oxygen = (images[..., 1] + images[..., 2]) / 2
    if palette == "HOO":
        return np.stack([hydrogen, oxygen, oxygen], axis=-1)
    if palette == "SHO":
        sulphur = 2 * hydrogen**2 / np.maximum(hydrogen + oxygen, np.float32(1e-6))
        return np.stack([np.minimum(sulphur, 1), hydrogen, oxygen], axis=-1)
    raise ValueError(f'palette is "SHO" or "HOO", got {palette!r}')


def shift(
    images: Images, hue: float = 0.0, saturation: float = 1.0, palette: str = "natural"
) -> Images:
    """Change palette, hue and saturation, in one pass; the latter two keep the luma.

    Colours that a screen can't show are paler than asked, of the same luma.

    Parameters
    ----------
    hue : float, default 0
        Angle in degrees by which every hue is turned in the (Cb, Cr) plane of BT.709;
        180 makes red cyan and blue yellow.
    saturation : float, default 1
        Factor of the chroma.
    palette : {"natural", "HOO", "SHO"}
        Applied first; see `apply_palette`.
    """
    images = check_pictures(images)
    if palette != "natural":
        images = apply_palette(images, palette)
    if hue == 0 and saturation == 1:
        return images.copy()
    planes = np.ascontiguousarray(images.reshape(-1, 3).T)
    chroma = (np.float32(saturation) * _rotation(hue)) @ planes
    composed = _compose(_luma(planes.T), chroma.T.astype(np.float32, copy=False))
    return composed.reshape(images.shape)


def stretch(images: Images, softening: float) -> Images:
    """Lift faint parts by an inverse hyperbolic sine, all channels alike.

    After Lupton et al. 2004 (PASP 116, 133), but on encoded values: a further
    stretch on top of the one a published picture already has. The larger `softening`,
    above 0, the stronger; black stays black and white stays white.
    """
    factor = np.float32(softening)
    scaled = np.arcsinh(check_pictures(images) * factor) / np.arcsinh(factor)
    return np.minimum(scaled, np.float32(1))


def adjust_gamma(images: Images, gamma: float) -> Images:
    """Raise every channel to a power: above 1 darker, below 1 lighter."""
    return np.power(check_pictures(images), np.float32(gamma))


# The fixed set of the reports and of the strip "what would change the answer".
COUNTERFACTUALS: dict[str, Intervention] = {
    "grey": to_grey,
    "saturated": partial(saturate, factor=2.0),
    "red": partial(tint, rgb=RED),
    "blue": partial(tint, rgb=BLUE),
    "gold": partial(tint, rgb=GOLD),
    "swapped": swap_channels,
}
REPORTED = tuple(COUNTERFACTUALS)
# These change no pixel's luma, so what is grey afterwards was the same grey before.
LUMA_KEEPING = ("grey", "saturated", "red", "blue", "gold")


def randomise_colour(image: Images, rng: np.random.Generator) -> Images:
    """Make a copy of a picture (h, w, 3) with colours drawn at random, for training.

    A quarter of the copies is grey, a quarter has a tint of random hue, whole or
    partial; the rest has turned hues, another saturation, and sometimes exchanged
    channels. Half of the coloured copies gets another white balance, and all get
    another gamma, a third a further stretch.
    """
    image, kind = check_pictures(image), rng.random()
    if kind < 0.25:
        image = to_grey(image)
    else:
        image = (_tint_at_random if kind < 0.5 else _shift_at_random)(image, rng)
        if rng.random() < 0.5:
            image = white_balance(image, np.exp(rng.normal(0, 0.2, 3)))
    image = adjust_gamma(image, float(np.exp(rng.normal(0, 0.25))))
    if rng.random() < 0.33:
        image = stretch(image, float(rng.uniform(0.5, 4.0)))
    return image


@dataclass(frozen=True)
class Shift:
    """A change of colour, to be called on pictures; see `shift` for its parts."""

    hue: float = 0.0
    saturation: float = 1.0
    palette: str = "natural"

    def __call__(self, images: Images) -> Images:
        """Change pictures; the neutral shift returns them as they are."""
        return shift(images, self.hue, self.saturation, self.palette)


class Flip(NamedTuple):
    """A shift with one part that is not neutral, and the class the answer turns to."""

    shift: Shift
    label: int


def find_flips(predict: Predict) -> list[Flip]:
    """Search hue, saturation and palette, one at a time, for the least that flips.

    `predict` takes n changes and returns (n, n_classes) probabilities of one picture
    under each. At most one turn of hue (to either side), one paler, one stronger
    picture and each palette are found, exact to a few degrees and hundredths of the
    saturation; where an answer flips and flips back between two guesses, that is not
    seen.
    """
    ways = [
        [[Shift(hue=sign * hue) for hue in HUES] for sign in (1, -1)],
        [[Shift(saturation=factor) for factor in PALER]],
        [[Shift(saturation=factor) for factor in STRONGER]],
        *([[Shift(palette=name)]] for name in SHIFT_PALETTES[1:]),
    ]
    tried = [change for way in ways for path in way for change in path]
    base, *found = (int(label) for label in predict([Shift(), *tried]).argmax(1))
    labels = dict(zip(tried, found, strict=True))
    flips = []
    for way in ways:
        ends = (_walk(predict, path, labels, base) for path in way)
        flips += sorted(filter(None, ends), key=lambda flip: abs(flip.shift.hue))[:1]
    return flips


def measure_chroma(image: Images) -> float:
    """Return how colourful a picture is, whatever its brightness: 0 grey, 1 pure hue.

    Sum of max(R, G, B) − min(R, G, B) over the sum of max(R, G, B): the saturation of
    HSV, weighted by brightness.
    """
    red, green, blue = np.moveaxis(check_pictures(image), -1, 0)
    largest = np.maximum(np.maximum(red, green), blue)
    smallest = np.minimum(np.minimum(red, green), blue)
    total = float(largest.sum(dtype=np.float64))
    return float((largest - smallest).sum(dtype=np.float64)) / total if total else 0.0


def compute_palette(image: Images) -> str:
    """Put a picture into one of `PALETTES`, the groups of the colour analysis.

    "mono" if `measure_chroma` is below `MONO_CHROMA`; "red" (with orange and magenta)
    or "blue" (with teal) if the mean colour lies there and is at least `LEANING` (mean
    chroma vector in the (Cb, Cr) plane over mean luma) away from grey; else "mixed"
    (with green and yellow).
    """
    image = check_pictures(image)
    if measure_chroma(image) < MONO_CHROMA:
        return "mono"
    red, green, blue = image.reshape(-1, 3).mean(axis=0, dtype=np.float64)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    cb, cr = (blue - luma) / 1.8556, (red - luma) / 1.5748
    if np.hypot(cb, cr) < LEANING * luma:
        return "mixed"
    angle = float(np.degrees(np.arctan2(cr, cb)))
    if _WARM_SECTOR[0] <= angle <= _WARM_SECTOR[1]:
        return "red"
    return "blue" if _COLD_SECTOR[0] <= angle <= _COLD_SECTOR[1] else "mixed"


def check_pictures(images: Images) -> Images:
    """Return pictures as float32, or raise an ImageError that says what they are."""
    array = np.asarray(images)
    if array.ndim < 3 or array.shape[-1] != 3 or array.dtype.kind != "f":
        raise ImageError(
            "pictures are floating point in [0, 1] of shape (..., h, w, 3), got "
            f"{array.dtype} {array.shape}: divide 8-bit pictures by 255 first"
        )
    return array.astype(np.float32, copy=False)


def _luma(images: Images) -> Images:
    # Written so that r = g = b gives that very number, without rounding.
    blue = images[..., 2]
    return (
        LUMA[0] * (images[..., 0] - blue) + LUMA[1] * (images[..., 1] - blue) + blue
    ).clip(0, 1)


def _compose(luma: Images, chroma: Images) -> Images:
    """Add luma and chroma, the latter shortened until all channels are in [0, 1]."""
    # Plane by plane: three times as fast as with the channels side by side.
    planes = np.ascontiguousarray(np.moveaxis(chroma, -1, 0))
    tiny = np.float32(1e-9)
    limit = (1 - luma) / np.maximum(planes.max(0), tiny)
    np.minimum(limit, luma / np.maximum(-planes.min(0), tiny), out=limit)
    planes *= np.minimum(limit, np.float32(1), out=limit)
    planes += luma
    return np.ascontiguousarray(np.moveaxis(np.clip(planes, 0, 1, out=planes), 0, -1))


def _rotation(degrees: float) -> NDArray[np.float32]:
    """Return the matrix from RGB to turned chroma (RGB − luma), shape (3, 3)."""
    to_chroma = np.array(
        [
            (np.array([0.0, 0.0, 1.0]) - LUMA) / 1.8556,
            (np.array([1.0, 0.0, 0.0]) - LUMA) / 1.5748,
        ]
    )
    from_chroma = np.array([[0.0, 1.5748], [0.0, 0.0], [1.8556, 0.0]])
    from_chroma[1] = -(LUMA[0] * from_chroma[0] + LUMA[2] * from_chroma[2]) / LUMA[1]
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (from_chroma @ turn @ to_chroma).astype(np.float32)


def _tint_at_random(image: Images, rng: np.random.Generator) -> Images:
    hue = rng.uniform(0, 2 * np.pi)
    wheel = 0.5 + 0.5 * np.cos(hue - np.array([0.0, 2.0, 4.0]) * np.pi / 3)
    return tint(image, 0.15 + 0.85 * wheel, amount=float(rng.uniform(0.4, 1.0)))


def _shift_at_random(image: Images, rng: np.random.Generator) -> Images:
    image = shift(image, hue=float(rng.uniform(-180, 180)))
    image = saturate(image, float(np.exp(rng.normal(0, 0.5))))
    if rng.random() < 0.3:
        image = swap_channels(image, rng.permutation(3).tolist())
    return image


def _walk(
    predict: Predict, path: list[Shift], labels: dict[Shift, int], base: int
) -> Flip | None:
    """Find where along a path the answer first flips; refine that step."""
    before = Shift()
    for change in path:
        if labels[change] != base:
            break
        before = change
    else:
        return None
    flip = Flip(change, labels[change])
    for _ in range(HALVINGS if change.palette == "natural" else 0):
        between = Shift(
            (before.hue + flip.shift.hue) / 2,
            (before.saturation + flip.shift.saturation) / 2,
        )
        label = int(predict([between]).argmax())
        if label == base:
            before = between
        else:
            flip = Flip(between, label)
    return flip
