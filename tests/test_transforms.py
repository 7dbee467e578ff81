"""The transformation family: what is drawn, and that torchvision makes the same pixels of it."""

from dataclasses import fields, replace

import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as reference

from convirt import transforms
from convirt.config import TransformConfig
from convirt.transforms import TransformParameters

PAPER = TransformConfig()


def draw(config: TransformConfig, batch: int, side: int, seed: int = 0) -> TransformParameters:
    return transforms.draw_parameters(config, batch, side, torch.Generator().manual_seed(seed))


def smooth_images(batch: int, side: int, seed: int = 0) -> Tensor:
    """uint8 B1SS: blobs over the whole range of grey with some pixel noise, as in a radiograph."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 1, 12, 12, generator=generator)
    blobs = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
    noise = 0.03 * torch.randn(blobs.shape, generator=generator)
    return ((blobs + noise).clamp(0, 1) * 255).round().to(torch.uint8)


def replay(
    image_1SS: Tensor, parameters: TransformParameters, index: int, config: TransformConfig, fill: int | None = None
) -> Tensor:
    """The same transformation of one image through torchvision's functions, one after another."""
    bilinear = InterpolationMode.BILINEAR
    corner = int(parameters.top_B[index]), int(parameters.left_B[index])
    extent = int(parameters.height_B[index]), int(parameters.width_B[index])
    image = reference.resized_crop(
        image_1SS, *corner, *extent, [config.size, config.size], interpolation=bilinear, antialias=True
    )
    if parameters.flip_B[index]:
        image = reference.horizontal_flip(image)
    image = reference.affine(
        image,
        angle=float(parameters.angle_B[index]),
        translate=[config.size * float(part) for part in parameters.translate_B2[index]],  # type: ignore[arg-type]
        scale=float(parameters.scale_B[index]),
        shear=[0.0, 0.0],
        interpolation=bilinear,
        fill=fill,
    )
    image = reference.adjust_brightness(image, float(parameters.brightness_B[index]))
    image = reference.adjust_contrast(image, float(parameters.contrast_B[index]))
    if parameters.sigma_B[index] == 0:  # torchvision divides by it
        return image
    return reference.gaussian_blur(image, [config.blur_kernel] * 2, [float(parameters.sigma_B[index])] * 2)


# Distributions (section 2.3, appendix A)


LARGE = 10**6
"""Side of an image whose pixels are so small that whole-pixel crops are continuous."""


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("area", 0.6, 1.0),
        ("angle_B", -20, 20),
        ("translate_x", -0.1, 0.1),
        ("translate_y", -0.1, 0.1),
        ("scale_B", 0.95, 1.05),
        ("brightness_B", 0.6, 1.4),
        ("contrast_B", 0.6, 1.4),
        ("sigma_B", 0.1, 3.0),
        ("top", 0, 1),
        ("left", 0, 1),
    ],
)
def test_parameters_are_uniform_in_the_papers_ranges(name: str, low: float, high: float) -> None:
    drawn = draw(PAPER, 20_000, LARGE)
    room = (LARGE - drawn.height_B).clamp_min(1)
    values = {
        "area": (drawn.height_B / LARGE) ** 2,
        "translate_x": drawn.translate_B2[:, 0],
        "translate_y": drawn.translate_B2[:, 1],
        "top": drawn.top_B / room,
        "left": drawn.left_B / room,
    }
    sample = values[name] if name in values else getattr(drawn, name)
    assert sample.min() >= low - 1e-6
    assert sample.max() <= high + 1e-6
    assert stats.kstest(sample.double().numpy(), stats.uniform(low, high - low).cdf).pvalue > 0.001


def test_the_test_of_distributions_can_fail() -> None:
    """The side, unlike the area, is not uniform: 20,000 draws are enough to tell."""
    ratio = (draw(PAPER, 20_000, LARGE).height_B / LARGE).double().numpy()
    assert stats.kstest(ratio, stats.uniform(ratio.min(), ratio.max() - ratio.min()).cdf).pvalue < 1e-6


def test_flips_are_bernoulli() -> None:
    assert stats.binomtest(int(draw(PAPER, 20_000, 256).flip_B.sum()), 20_000, 0.5).pvalue > 0.001
    assert not draw(TransformConfig(flip=0.0), 1000, 256).flip_B.any()
    assert draw(TransformConfig(flip=1.0), 1000, 256).flip_B.all()


def test_parameters_are_independent_of_one_another() -> None:
    drawn = draw(PAPER, 20_000, LARGE)
    # Here the crop is square: its width is its height.
    names = [field.name for field in fields(drawn) if field.name != "width_B"]
    columns = [getattr(drawn, name).double().reshape(20_000, -1) for name in names]
    # Room for a large crop is small, so positions depend on the side; all else is independent.
    correlation = torch.corrcoef(torch.cat(columns[2:], dim=1).T) - torch.eye(9, dtype=torch.float64)
    assert correlation.abs().max() < 5 / 20_000**0.5


def test_crops_at_the_papers_size_stay_inside_the_image_and_the_range() -> None:
    drawn = draw(PAPER, 20_000, 256)
    assert ((drawn.height_B / 256) ** 2).min() >= 0.6
    assert drawn.height_B.max() == 256
    for start in (drawn.top_B, drawn.left_B):
        assert start.min() == 0
        assert (start + drawn.height_B).max() == 256
    # Given the side, each position is as likely as any other.
    at_226 = drawn.top_B[drawn.height_B == 226]
    assert stats.chisquare(torch.bincount(at_226, minlength=31).numpy()).pvalue > 0.001


def test_a_draw_is_a_function_of_the_generator_and_the_place_in_the_batch() -> None:
    first, again, longer = draw(PAPER, 8, 256), draw(PAPER, 8, 256), draw(PAPER, 12, 256)
    other = draw(PAPER, 8, 256, seed=1)
    for field in fields(first):
        assert torch.equal(getattr(first, field.name), getattr(again, field.name))
        assert torch.equal(getattr(first, field.name), getattr(longer, field.name)[:8])
    assert not torch.equal(first.angle_B, other.angle_B)


# The families of SimCLR and MoCo v2 (appendix E)


SIMCLR = TransformConfig(
    crop=(0.08, 1.0), aspect=(3 / 4, 4 / 3), degrees=0, translate=0, scale=(1, 1), brightness=(0.2, 1.8),
    contrast=(0.2, 1.8), jitter_probability=0.8, blur_sigma=(0.1, 2.0), blur_probability=0.5,
)  # fmt: skip


def test_the_default_family_draws_the_same_numbers_as_ever() -> None:
    """Figures on record depend on them."""
    unit = torch.rand(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = draw(PAPER, 5, 256)
    side = ((0.6 + 0.4 * unit[:, 0]).sqrt() * 256).round().long().clamp(199, 256)
    assert torch.equal(drawn.height_B, side)
    assert torch.equal(drawn.width_B, side)
    assert torch.equal(drawn.top_B, (unit[:, 1] * (257 - side)).long())
    assert torch.equal(drawn.brightness_B, 0.6 + (1.4 - 0.6) * unit[:, 8])
    assert torch.equal(drawn.sigma_B, 0.1 + (3.0 - 0.1) * unit[:, 10])


@pytest.mark.parametrize(("crop", "aspect"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.2, 1.0), (0.5, 0.9))])
def test_crops_are_distributed_as_torchvisions(crop: tuple[float, float], aspect: tuple[float, float]) -> None:
    config = TransformConfig(crop=crop, aspect=aspect)
    drawn = draw(config, 20_000, LARGE)
    image = torch.empty(1, LARGE, LARGE, device="meta")
    torch.manual_seed(0)
    expected = torch.tensor([RandomResizedCrop.get_params(image, list(crop), list(aspect)) for _ in range(20_000)])
    ours = torch.stack([drawn.top_B, drawn.left_B, drawn.height_B, drawn.width_B], dim=1)
    for values in (lambda x: x[:, 2] * x[:, 3], lambda x: x[:, 3] / x[:, 2], lambda x: x[:, 0], lambda x: x[:, 1]):
        assert stats.ks_2samp(values(ours.double()), values(expected.double())).pvalue > 0.001
    assert (drawn.top_B + drawn.height_B).max() <= LARGE
    assert (drawn.left_B + drawn.width_B).max() <= LARGE


@pytest.mark.parametrize("aspect", [(2.0, 2.0), (0.5, 0.5)])
def test_a_crop_that_never_fits_is_torchvisions_fallback(aspect: tuple[float, float]) -> None:
    drawn = draw(TransformConfig(crop=(0.9, 1.0), aspect=aspect), 100, 256)
    image = torch.empty(1, 256, 256, device="meta")
    _, _, height, width = RandomResizedCrop.get_params(image, [0.9, 1.0], list(aspect))
    assert set(drawn.height_B.tolist()) == {height}
    assert set(drawn.width_B.tolist()) == {width}


def test_a_transformation_is_left_out_as_often_as_is_said() -> None:
    drawn = draw(SIMCLR, 20_000, LARGE)
    still = drawn.brightness_B == 1
    assert torch.equal(still, drawn.contrast_B == 1)
    assert stats.binomtest(int(still.sum()), 20_000, 0.2).pvalue > 0.001
    sharp = drawn.sigma_B == 0
    assert stats.binomtest(int(sharp.sum()), 20_000, 0.5).pvalue > 0.001
    assert stats.binomtest(int((still & sharp).sum()), 20_000, 0.1).pvalue > 0.001
    assert stats.kstest(drawn.sigma_B[~sharp].numpy(), stats.uniform(0.1, 1.9).cdf).pvalue > 0.001
    assert stats.kstest(drawn.brightness_B[~still].numpy(), stats.uniform(0.2, 1.6).cdf).pvalue > 0.001


def test_extra_draws_are_a_function_of_the_place_in_the_batch_too() -> None:
    first, longer = draw(SIMCLR, 8, 256), draw(SIMCLR, 12, 256)
    for field in fields(first):
        assert torch.equal(getattr(first, field.name), getattr(longer, field.name)[:8])


# Pixels


@pytest.mark.parametrize("family", [PAPER, SIMCLR], ids=["paper", "simclr"])
@pytest.mark.parametrize(("side", "size", "kernel"), [(256, 224, 23), (128, 128, 13), (300, 64, 7), (96, 160, 17)])
def test_torchvision_makes_the_same_pixels(side: int, size: int, kernel: int, family: TransformConfig) -> None:
    config = replace(family, size=size, blur_kernel=kernel)
    images, drawn = smooth_images(24, side), draw(config, 24, side)
    views = transforms.apply(images, drawn, config)
    assert views.shape == (24, 1, size, size)
    assert views.dtype == torch.float32
    for index in range(24):
        image = images[index].float() / 255
        # Black comes from outside by torchvision's default; given as a colour to fill in, the same black also fades
        # the edge of the turned image a second time. On bytes, torchvision truncates after brightness and contrast.
        exact = replay(image, drawn, index, config)
        assert (views[index] - exact).abs().max() < 1e-4
        filled = replay(image, drawn, index, config, fill=0)
        assert (views[index] - filled).abs().mean() < 2 / 255
        bytes_ = replay(images[index], drawn, index, config).float() / 255
        assert (views[index] - bytes_).abs().mean() < 2 / 255


def test_torchvision_on_bytes_with_a_filled_border_makes_the_same_pixels_at_the_papers_size() -> None:
    images, drawn = smooth_images(48, 256, seed=3), draw(PAPER, 48, 256, seed=3)
    views = transforms.apply(images, drawn, PAPER)
    for index in range(48):
        expected = replay(images[index], drawn, index, PAPER, fill=0).float() / 255
        assert (views[index] - expected).abs().mean() < 2 / 255


def test_the_test_of_pixels_can_fail() -> None:
    """The bound of 2/255 notices a wrong sense of rotation and an exchange of brightness and contrast."""
    images, drawn = smooth_images(8, 256), draw(PAPER, 8, 256)
    views = transforms.apply(images, drawn, PAPER)
    wrong = TransformParameters(**{**vars(drawn), "angle_B": -drawn.angle_B})
    other = TransformParameters(**{**vars(drawn), "brightness_B": drawn.contrast_B, "contrast_B": drawn.brightness_B})
    for parameters in (wrong, other):
        difference = (transforms.apply(images, parameters, PAPER) - views).abs().mean(dim=(1, 2, 3))
        assert difference.max() > 2 / 255


def test_images_of_a_batch_do_not_touch_each_other() -> None:
    images, drawn = smooth_images(6, 96), draw(TransformConfig(size=64), 6, 96)
    config = TransformConfig(size=64)
    together = transforms.apply(images, drawn, config)
    for index in range(6):
        one = TransformParameters(**{name: value[index : index + 1] for name, value in vars(drawn).items()})
        alone = transforms.apply(images[index : index + 1], one, config)
        torch.testing.assert_close(together[index : index + 1], alone, rtol=0, atol=1e-5)


def test_without_randomness_only_resizing_is_left() -> None:
    config = TransformConfig(
        size=64, crop=(1, 1), flip=0, degrees=0, translate=0, scale=(1, 1), brightness=(1, 1), contrast=(1, 1),
        blur_sigma=(0, 0),
    )  # fmt: skip
    images = smooth_images(3, 100)
    views = transforms.apply(images, draw(config, 3, 100), config)
    torch.testing.assert_close(views, transforms.plain_view(images, 64), rtol=0, atol=1e-5)


def test_depths_agree_and_autocast_changes_nothing() -> None:
    images, drawn = smooth_images(4, 96), draw(PAPER, 4, 96)
    views = transforms.apply(images, drawn, PAPER)
    deep = images.to(torch.int32).mul(257).to(torch.uint16)
    torch.testing.assert_close(transforms.apply(deep, drawn, PAPER), views, rtol=0, atol=1e-6)
    torch.testing.assert_close(transforms.apply(images.double() / 255, drawn, PAPER), views, rtol=0, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(transforms.apply(images, drawn, PAPER), views)
    assert views.min() >= 0
    assert views.max() <= 1


def test_the_plain_view_is_torchvisions_resize() -> None:
    images = smooth_images(2, 256)
    expected = reference.resize(images.float() / 255, [224, 224], antialias=True)
    torch.testing.assert_close(transforms.plain_view(images, 224), expected, rtol=0, atol=1e-6)
    assert torch.equal(transforms.plain_view(images, 256), images.float() / 255)


@pytest.mark.parametrize(("height", "width"), [(3, 6), (6, 3), (4, 7), (5, 5)])
def test_square_pads_with_zeros_around_the_centre(height: int, width: int) -> None:
    image = torch.arange(1, height * width + 1, dtype=torch.uint8).reshape(1, height, width)
    padded = transforms.square(image)
    side = max(height, width)
    assert padded.shape == (1, side, side)
    assert padded.dtype == torch.uint8
    top, left = (side - height) // 2, (side - width) // 2
    assert torch.equal(padded[:, top : top + height, left : left + width], image)
    assert padded.sum(dtype=torch.int64) == image.sum(dtype=torch.int64)


def test_a_configuration_that_only_translates_does() -> None:
    """Each of rotation, translation and scaling alone must move the image."""
    still = {"size": 64, "crop": (1, 1), "flip": 0, "brightness": (1, 1), "contrast": (1, 1), "blur_sigma": (0, 0)}
    images = smooth_images(3, 100)
    for moved in ({"degrees": 20}, {"translate": 0.3}, {"scale": (0.5, 0.6)}):
        config = TransformConfig(**{**still, "degrees": 0, "translate": 0, "scale": (1, 1), **moved})  # type: ignore[arg-type]
        drawn = draw(config, 3, 100)
        views = transforms.apply(images, drawn, config)
        assert (views - transforms.plain_view(images, 64)).abs().mean() > 0.01, moved
