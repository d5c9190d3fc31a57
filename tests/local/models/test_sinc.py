"""Band-pass filters with learned edges, against a statement in float64."""

import numpy as np
import pytest
import torch

from local.models.sinc_filters import SincFilters, SincParams, filter_response, start_edges

BAT = 250_000


def band_pass(low, high, taps):
    """A windowed ideal band-pass in float64, by numpy's own sinc; edges are shares of the rate."""
    n = np.arange(taps) - taps // 2
    ideal = 2 * high * np.sinc(2 * high * n) - 2 * low * np.sinc(2 * low * n)
    return ideal / (2 * (high - low)) * np.hamming(taps)


@pytest.mark.parametrize(
    "params",
    [
        {"sample_rate": 16_000, "spacing": "published"},
        {"sample_rate": BAT, "spacing": "mel"},
        {"sample_rate": BAT, "spacing": "linear", "f_min_hz": 2e4, "f_max_hz": 12e4, "kernel": 65},
        {"sample_rate": BAT, "kernel_ms": 0.5, "n_filters": 7},
    ],
)
def test_filters_against_a_float64_statement(params):
    filters = SincFilters(SincParams(**params))
    with torch.no_grad():
        filters.low += 0.01 * torch.randn_like(filters.low)  # also where signs turn
    low, high = (edge.detach().double().numpy() for edge in filters.edges())
    kernels = filters.kernels().detach()
    expected = [band_pass(f1, f2, filters.taps) for f1, f2 in zip(low, high, strict=True)]
    np.testing.assert_allclose(kernels.numpy(), expected, atol=5e-5)
    assert torch.equal(kernels, kernels.flip(1))
    # Twice the band is the largest value of the plain filter: the published division.
    np.testing.assert_allclose(kernels.abs().amax(dim=1).numpy(), 1.0)


def test_filters_are_a_convolution_and_keep_the_place_of_samples():
    filters = SincFilters(SincParams(sample_rate=8_000, n_filters=5, kernel=21))
    x = torch.randn(3, 200)
    kernels = filters.kernels().detach().double().numpy()
    found = filters(x).detach().numpy()
    expected = [[np.convolve(row, k, mode="same") for k in kernels] for row in x.double().numpy()]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(
        filters(x, same=False).detach().numpy(), np.array(expected)[..., 10:-10], atol=1e-4
    )
    strided = SincFilters(SincParams(sample_rate=8_000, n_filters=5, kernel=21, stride=3))
    np.testing.assert_allclose(strided(x).detach().numpy(), np.array(expected)[..., ::3], atol=1e-4)


def test_published_edges():
    """80 mel-spaced filters at 16 kHz, a filter spanning its neighbours."""
    edges = start_edges(SincParams(sample_rate=16_000, spacing="published"))
    assert edges.shape == (80, 2)
    assert edges[0, 0] == 30.0
    assert edges[-1, 1] == pytest.approx(7_900.0)
    mel = 2595 * np.log10(1 + edges / 700)
    spacing = (2595 * np.log10(1 + 8000 / 700) - 80) / 79
    np.testing.assert_allclose(mel[1:, 0], 80 + spacing * np.arange(79))
    np.testing.assert_allclose(mel[:-1, 1], 80 + spacing * np.arange(1, 80))


@pytest.mark.parametrize("spacing", ["linear", "mel"])
def test_edges_fill_the_band_that_is_asked_for(spacing):
    params = SincParams(
        sample_rate=BAT, n_filters=20, spacing=spacing, f_min_hz=15e3, f_max_hz=12e4
    )
    edges = start_edges(params)
    np.testing.assert_allclose([edges[0, 0], edges[-1, 1]], [15e3, 12e4])
    np.testing.assert_allclose(edges[2:, 0], edges[:-2, 1])
    if spacing == "linear":
        np.testing.assert_allclose(np.diff(edges, axis=1), 10e3)
    found = torch.stack(SincFilters(params).edges(), dim=1).detach().numpy() * BAT
    np.testing.assert_allclose(found, edges, rtol=1e-5)


def test_given_bands_and_floors_of_their_own():
    bands = [[2e4, 3e4], [5e4, 5.2e4]]
    params = {"sample_rate": BAT, "n_filters": 2, "spacing": "given", "bands_hz": bands}
    filters = SincFilters(SincParams(**params, min_low_hz=1e3, min_band_hz=500.0))
    found = torch.stack(filters.edges(), dim=1).detach().numpy() * BAT
    np.testing.assert_allclose(found, bands, rtol=1e-5)
    with torch.no_grad():
        filters.low.zero_()
        filters.band.zero_()
    found = torch.stack(filters.edges(), dim=1).detach().numpy() * BAT
    np.testing.assert_allclose(found, [[1e3, 1.5e3]] * 2, rtol=1e-5)


@pytest.mark.parametrize("rate", [16_000, BAT])
def test_floors_follow_the_rate(rate):
    """50 Hz at 16 kHz; at 250 kHz 50 Hz would mean nothing to a filter of a millisecond."""
    params = SincParams(sample_rate=rate)
    assert params.min_low == params.min_band == pytest.approx(rate / 320)


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_edges_learn_at_their_share_of_the_rate(share):
    """Adam's first step is its rate: 0.002 of 250 kHz, or a tenth of it."""
    params = {"sample_rate": BAT, "spacing": "linear", "f_min_hz": 1e4, "n_filters": 8}
    filters = SincFilters(SincParams(**params, edge_rate=share))
    before = torch.stack(filters.edges()).detach() * BAT
    np.testing.assert_allclose(before.T, start_edges(SincParams(**params)), rtol=1e-5)
    optimizer = torch.optim.Adam(filters.parameters(), lr=0.002)
    filters.edges()[0].sum().backward()
    filters.band.grad = torch.zeros_like(filters.band)
    optimizer.step()
    after = torch.stack(filters.edges()).detach() * BAT
    np.testing.assert_allclose(before[0] - after[0], 500 * share, rtol=1e-2)


def test_length_in_milliseconds():
    assert SincParams(sample_rate=BAT, kernel_ms=1.0).taps == 251
    assert SincParams(sample_rate=BAT, kernel_ms=0.1).taps == 25
    assert SincParams(sample_rate=16_000).taps == 251


@pytest.mark.parametrize("spacing", ["published", "mel", "linear"])
def test_edges_stay_in_order_and_learn_wherever_they_go(spacing):
    filters = SincFilters(SincParams(sample_rate=BAT, spacing=spacing))
    weights = torch.randn(1, 80, 500, generator=torch.Generator().manual_seed(1))
    (filters(torch.randn(1, 500)) * weights).sum().backward()
    assert (filters.low.grad.abs() > 0).all()
    assert (filters.band.grad.abs() > 0).all()
    with torch.no_grad():
        filters.low += 2 * torch.randn(80)
        filters.band -= 2 * torch.randn(80)
    low, high = filters.edges()
    assert (high - low >= filters.min_band - 1e-6).all()
    assert (low >= filters.min_low - 1e-6).all()
    assert (high <= 0.5).all()
    assert torch.isfinite(filters.kernels()).all()


def test_a_tone_goes_through_its_own_filter():
    params = {"n_filters": 16, "spacing": "linear", "f_min_hz": 0.0, "f_max_hz": BAT / 2}
    filters = SincFilters(SincParams(sample_rate=BAT, **params))
    time = torch.arange(2000) / BAT
    for index in (3, 8, 13):
        tone = torch.sin(
            2 * torch.pi * start_edges(SincParams(sample_rate=BAT, **params))[index].mean() * time
        )
        power = filters(tone[None])[0].square().mean(dim=1)
        assert int(power.argmax()) == index


def test_response_shows_the_pass_bands():
    filters = SincFilters(SincParams(sample_rate=BAT, n_filters=12, spacing="linear"))
    with torch.no_grad():
        filters.low.copy_(filters.low.flip(0))
    response = filter_response(filters, 512)
    assert response.gain_db.shape == (12, len(response.hertz)) == (12, 513)
    assert response.hertz[-1] == BAT / 2
    assert (np.diff(response.edges_hz.mean(axis=1)) >= 0).all()
    for gain, (low, high) in zip(response.gain_db[1:-1], response.edges_hz[1:-1], strict=True):
        inside = (response.hertz > low + 1500) & (response.hertz < high - 1500)
        outside = (response.hertz < low - 3000) | (response.hertz > high + 3000)
        assert gain[inside].min() > -3
        assert gain[outside].max() < -40
