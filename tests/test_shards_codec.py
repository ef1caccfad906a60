"""The frozen codecs: shapes, exactness, crops, modes, and every way in which weights can be wrong."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import encodec.model
import pytest
import safetensors.torch
import torch
from make_weights import SeededWeights, write_converted
from torch import Tensor, nn

from shards.codec import Codec, load_codec
from shards.codec import weights as weights_module
from shards.codec.encodec import EncodecCodec
from shards.codec.mdct import MdctCodec
from shards.errors import CodecError, MisuseError

SAMPLE_RATE = 24_000
HOP = 320
FRAMES = 40
CROPS = [(0, FRAMES), (0, 1), (0, 3), (1, 5), (2, 4), (5, 12), (20, 33), (33, FRAMES), (FRAMES - 1, FRAMES)]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that goes away with the module: the weights are too large to leave behind."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


@pytest.fixture(scope="module")
def encodec_codec(seeded: SeededWeights) -> EncodecCodec:
    return EncodecCodec.load(seeded.path, allow_unknown_weights=True)


@pytest.fixture(params=["mdct", "encodec"])
def codec(request: pytest.FixtureRequest) -> Codec:
    return MdctCodec() if request.param == "mdct" else request.getfixturevalue("encodec_codec")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch hub cache; returns where the weights would lie."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return Path(torch.hub.get_dir()) / "checkpoints" / weights_module.WEIGHTS_FILE


@pytest.fixture
def trusted(seeded: SeededWeights, monkeypatch: pytest.MonkeyPatch) -> SeededWeights:
    """The seeded weights as if they were the published ones."""
    monkeypatch.setattr(weights_module, "WEIGHTS_SHA256", seeded.sha256)
    return seeded


def chord(samples: int, *, highest: float = 3_000.0) -> Tensor:
    """A sum of harmonics [1, 1, samples] of RMS 0.1 up to `highest` Hz."""
    time = torch.arange(samples, dtype=torch.float64) / SAMPLE_RATE
    wave = torch.zeros_like(time)
    for root in (110.0, 138.6, 164.8):
        for harmonic in range(1, int(highest / root) + 1):
            wave += torch.sin(2 * math.pi * root * harmonic * time + harmonic**2) / harmonic
    return (0.1 * wave / wave.square().mean().sqrt()).float()[None, None]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def error_of_load(path: Path | None, *, allow_unknown_weights: bool = True) -> str:
    with pytest.raises(CodecError) as caught:
        EncodecCodec.load(path, allow_unknown_weights=allow_unknown_weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Both codecs


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 5_000, 8_000])
def test_every_started_frame_counts(codec: Codec, samples: int) -> None:
    latents = codec.encode(noise(2, 1, samples) * 0.1)
    assert latents.shape == (2, 128, codec.spec.frames(samples))
    assert latents.dtype == torch.float32
    assert not latents.requires_grad
    assert codec.decode(latents).shape == (2, 1, HOP * latents.shape[2])


def test_encoding_is_deterministic(codec: Codec) -> None:
    audio = chord(8_000)
    assert torch.equal(codec.encode(audio), codec.encode(audio))


@pytest.mark.parametrize(("start", "stop"), CROPS)
def test_a_crop_is_the_full_decode_in_value_and_gradient(codec: Codec, start: int, stop: int) -> None:
    latents = noise(2, 128, FRAMES) * 5.7
    direction = noise(2, 1, (stop - start) * HOP, seed=1)
    whole, part = latents.clone().requires_grad_(), latents.clone().requires_grad_()

    expected = codec.decode(whole)[:, :, start * HOP : stop * HOP]
    expected.backward(direction)
    found = codec.decode_crop(part, start, stop)
    found.backward(direction)

    assert whole.grad is not None
    assert part.grad is not None
    # EnCodec's kernels may add in another order for another length, by processor: 1e-6 of the audio's RMS and
    # 2e-5 of the gradient's. A frame of context too few is a hundred times the tolerance.
    exact = codec.spec.name == "mdct"
    for one, other in ((found, expected), (part.grad, whole.grad)):
        tolerance = 0.0 if exact else 1e-4 * float(other.detach().square().mean().sqrt())
        torch.testing.assert_close(one, other, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 3), (4, 3), (0, FRAMES + 1)])
def test_a_crop_outside_the_latents_is_refused(codec: Codec, start: int, stop: int) -> None:
    with pytest.raises(CodecError, match=f"{start}:{stop}"):
        codec.decode_crop(noise(1, 128, FRAMES), start, stop)


@pytest.mark.parametrize("shape", [(320,), (1, 320), (1, 2, 320), (1, 1, 0)])
def test_audio_of_another_shape_is_refused(codec: Codec, shape: tuple[int, ...]) -> None:
    with pytest.raises(CodecError, match="shape"):
        codec.encode(torch.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_audio_that_is_not_finite_is_refused(codec: Codec, value: float) -> None:
    audio = torch.zeros(1, 1, 640)
    audio[0, 0, 17] = value
    with pytest.raises(CodecError, match="finite"):
        codec.encode(audio)


@pytest.mark.parametrize("shape", [(128, 4), (1, 64, 4), (1, 128, 0)])
def test_latents_of_another_shape_are_refused(codec: Codec, shape: tuple[int, ...]) -> None:
    with pytest.raises(CodecError):
        codec.decode(torch.zeros(shape))


def test_half_precision_latents_are_decoded_in_full_precision(codec: Codec) -> None:
    latents = (noise(1, 128, 8) * 5.7).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        audio = codec.decode(latents)
        crop = codec.decode_crop(latents, 0, 8)
    assert audio.dtype == crop.dtype == torch.float32
    torch.testing.assert_close(audio, codec.decode(latents.float()))


def test_the_codecs_share_one_door() -> None:
    assert load_codec("mdct").spec.name == "mdct"
    with pytest.raises(MisuseError, match="choose one of: encodec, mdct"):
        load_codec("mp3")


# mdct


def test_mdct_rebuilds_a_band_limited_sound() -> None:
    codec, audio = MdctCodec(), chord(SAMPLE_RATE * 2)
    error = codec.decode(codec.encode(audio)) - audio
    # The last half window has only one frame.
    snr = 10 * torch.log10(audio[..., :-HOP].square().mean() / error[..., :-HOP].square().mean())
    assert snr > 60


def test_mdct_fades_out_at_the_end() -> None:
    codec = MdctCodec()
    end = codec.decode(codec.encode(chord(SAMPLE_RATE)))[0, 0, -16:]
    assert end.abs().max() < 0.05


def test_mdct_latents_have_the_scale_of_encodec() -> None:
    latents = MdctCodec().encode(chord(SAMPLE_RATE * 2))
    assert latents.square().mean().sqrt() == pytest.approx(5.7, rel=0.02)


def test_mdct_is_linear_and_keeps_silence_silent() -> None:
    codec, audio = MdctCodec(), chord(6_400)
    torch.testing.assert_close(codec.encode(audio * 2), codec.encode(audio) * 2)
    assert not codec.encode(torch.zeros(1, 1, 6_400)).any()


# EnCodec: the frozen network


def test_encodec_is_the_package_s_encoder_and_decoder(encodec_codec: EncodecCodec, seeded: SeededWeights) -> None:
    model = encodec.model.EncodecModel.encodec_model_24khz(pretrained=False)
    model.load_state_dict(seeded.state)
    audio = chord(8_000)
    with torch.no_grad():
        latents = model.encoder(audio)
        assert torch.equal(encodec_codec.encode(audio), latents)
        assert torch.equal(encodec_codec.decode(latents), model.decoder(latents))


def test_encodec_is_causal(encodec_codec: EncodecCodec) -> None:
    audio = noise(1, 1, FRAMES * HOP) * 0.1
    longer, shorter = encodec_codec.encode(audio), encodec_codec.encode(audio[..., : 20 * HOP])
    # Kernels may add in another order for another length: 1e-6 of the latents' RMS. A frame ahead would change all.
    torch.testing.assert_close(longer[..., :20], shorter, rtol=0.0, atol=1e-4 * float(shorter.square().mean().sqrt()))


def test_encodec_names_its_weights(encodec_codec: EncodecCodec, seeded: SeededWeights) -> None:
    spec = encodec_codec.spec
    assert (spec.name, spec.stage, spec.bandwidth) == ("encodec", "pre_quantizer", 6.0)
    assert spec.weights_sha256 == seeded.sha256


def test_encodec_stays_frozen_inside_a_model(encodec_codec: EncodecCodec) -> None:
    outer = nn.Linear(2, 2)
    outer.codec = encodec_codec  # type: ignore[assignment]
    for switch in (outer.train, outer.eval):
        switch()
        training = {type(module) for module in encodec_codec.modules() if module.training}
        assert training == {nn.LSTM}
        assert all(module.training for module in encodec_codec.modules() if isinstance(module, nn.LSTM))
    assert not any(p.requires_grad for module in encodec_codec.modules() for p in module.parameters())
    assert {name for name, _ in outer.named_parameters()} == set(outer.state_dict()) == {"weight", "bias"}


def test_loading_encodec_is_silent_and_leaves_the_random_state(seeded: SeededWeights) -> None:
    before = torch.get_rng_state()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        EncodecCodec.load(seeded.path, allow_unknown_weights=True)
    assert [str(warning.message) for warning in caught] == []
    assert torch.equal(torch.get_rng_state(), before)


# EnCodec: its weights


@pytest.mark.parametrize("newer_weight_norm", [False, True])
@pytest.mark.parametrize("training_buffers", [False, True])
def test_a_hugging_face_file_is_the_same_codec(
    encodec_codec: EncodecCodec, seeded: SeededWeights, folder: Path, newer_weight_norm: bool, training_buffers: bool
) -> None:
    path = write_converted(
        folder / "model.safetensors",
        seeded.state,
        newer_weight_norm=newer_weight_norm,
        training_buffers=training_buffers,
    )

    codec = EncodecCodec.load(path, allow_unknown_weights=True)

    audio, latents = chord(3_200), noise(1, 128, 4)
    assert torch.equal(codec.encode(audio), encodec_codec.encode(audio))
    assert torch.equal(codec.decode(latents), encodec_codec.decode(latents))
    assert codec.spec != encodec_codec.spec, "another file is another codec: its hash says so"


def test_unknown_weights_are_refused_by_name_hash_and_mend(seeded: SeededWeights) -> None:
    message = error_of_load(seeded.path, allow_unknown_weights=False)
    for part in (str(seeded.path), seeded.sha256, weights_module.WEIGHTS_SHA256, "--codec-allow-unknown-weights"):
        assert part in message


def test_the_published_weights_need_no_option(trusted: SeededWeights) -> None:
    assert EncodecCodec.load(trusted.path).spec.weights_sha256 == trusted.sha256


def test_weights_are_downloaded_once_into_the_hub_cache(
    trusted: SeededWeights, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodec.model, "ROOT_URL", trusted.path.parent.as_uri())
    EncodecCodec.load()
    assert [path.name for path in hub.parent.iterdir()] == [weights_module.WEIGHTS_FILE]
    assert hub.stat().st_size == trusted.path.stat().st_size

    monkeypatch.setattr(encodec.model, "ROOT_URL", (hub.parent / "nowhere").as_uri())
    assert EncodecCodec.load().spec.weights_sha256 == trusted.sha256


def test_a_wrong_download_is_not_kept(seeded: SeededWeights, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encodec.model, "ROOT_URL", seeded.path.parent.as_uri())
    message = error_of_load(None)
    assert seeded.sha256 in message
    assert "--codec-weights" in message
    assert list(hub.parent.iterdir()) == []


def test_without_a_file_and_a_network_the_mend_is_named(no_published_weights: Path) -> None:
    message = error_of_load(None)
    folder = no_published_weights.parent
    for part in (weights_module.WEIGHTS_FILE, weights_module.WEIGHTS_SHA256, str(folder), "--codec-weights"):
        assert part in message
    assert list(folder.iterdir()) == []


def test_a_spoiled_cache_is_refused_even_where_unknown_weights_are_allowed(hub: Path) -> None:
    hub.parent.mkdir(parents=True)
    hub.write_bytes(b"half a download")
    message = error_of_load(None)
    assert str(hub) in message
    assert "delete it" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    message = error_of_load(tmp_path / "absent.th")
    assert "absent.th" in message
    assert "--codec-weights" in message


class _Arbitrary:
    """What `weights_only` must not unpickle."""


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "safetensors", "object", "list"])
def test_a_file_that_is_no_checkpoint_is_one_clear_line(seeded: SeededWeights, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "broken.th"
    match kind:
        case "truncated":
            path.write_bytes(seeded.path.read_bytes()[: 1 << 20])
        case "empty":
            path.touch()
        case "text":
            path.write_text("<html>the page that a proxy sent instead</html>", encoding="utf-8")
        case "safetensors":
            path.write_bytes(safetensors.torch.save({"a": torch.ones(9)})[:-4])
        case "object":
            torch.save({"model": _Arbitrary()}, path)
        case "list":
            torch.save([torch.ones(3)], path)
    message = error_of_load(path)
    assert str(path) in message
    assert weights_module.WEIGHTS_FILE in message


def test_the_48_khz_model_s_weights_are_recognized(folder: Path) -> None:
    path = folder / "48khz.th"
    torch.save(encodec.model.EncodecModel.encodec_model_48khz(pretrained=False).state_dict(), path)
    message = error_of_load(path)
    assert str(path) in message
    assert "48 kHz" in message


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_weights_of_another_shape_are_one_clear_line(seeded: SeededWeights, folder: Path, fault: str) -> None:
    state, name = dict(seeded.state), "decoder.model.15.conv.conv.bias"
    match fault:
        case "missing":
            del state[name]
        case "unknown":
            name = "decoder.model.99.bias"
            state[name] = torch.zeros(1)
        case "shape":
            state[name] = torch.zeros(2)
    path = folder / "other.th"
    torch.save(state, path)
    assert name in error_of_load(path)


# The quantizer


def test_codes_are_the_package_s_at_6_kbps(encodec_codec: EncodecCodec, seeded: SeededWeights) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = encodec.model.EncodecModel.encodec_model_24khz(pretrained=False)
    model.load_state_dict(seeded.state)
    model.set_target_bandwidth(6.0)
    audio = torch.cat([chord(HOP * FRAMES), noise(1, 1, HOP * FRAMES) * 0.1])
    with torch.no_grad():
        ((expected, _),) = model.eval().encode(audio)
    latents = encodec_codec.encode(audio)
    codes = encodec_codec.quantize(latents)
    assert (codes.dtype, tuple(codes.shape)) == (torch.int16, (2, 8, FRAMES))
    assert torch.equal(codes.long(), expected)
    back = encodec_codec.dequantize(codes)
    assert (back.dtype, tuple(back.shape)) == (torch.float32, (2, 128, FRAMES))
    assert torch.equal(back, model.quantizer.decode(expected.transpose(0, 1)))
    assert torch.equal(encodec_codec.latents(codes), back)
    assert torch.equal(encodec_codec.decode(back), encodec_codec.decode(encodec_codec.dequantize(codes.long())))


def test_each_codebook_codes_what_those_before_it_left(encodec_codec: EncodecCodec, seeded: SeededWeights) -> None:
    names = [f"quantizer.vq.layers.{book}._codebook.embed" for book in range(8)]
    wanted = torch.stack([seeded.state[name][17 * book] for book, name in enumerate(names)]).sum(0)
    codes = torch.arange(8, dtype=torch.int16).mul(17)[None, :, None]
    torch.testing.assert_close(encodec_codec.dequantize(codes)[0, :, 0], wanted)


def test_a_dataset_of_codes_has_a_spec_of_its_own(encodec_codec: EncodecCodec) -> None:
    spec = encodec_codec.quantized_spec
    assert (spec.stage, spec.codebooks, spec.rows) == ("quantized", 8, 8)
    assert (encodec_codec.spec.stage, encodec_codec.spec.rows) == ("pre_quantizer", 128)
    assert MdctCodec().spec.codebooks == 0


def test_latents_of_any_precision_are_taken_as_they_are(codec: Codec) -> None:
    latents = noise(2, 128, 5).half()
    assert codec.latents(latents).dtype == torch.float32
    assert torch.equal(codec.latents(latents), latents.float())


def test_a_codec_without_a_quantizer_says_so_in_one_line() -> None:
    codec = MdctCodec()
    for ask in (
        lambda: codec.quantize(noise(1, 128, 5)),
        lambda: codec.dequantize(torch.zeros(1, 8, 5, dtype=torch.int16)),
        lambda: codec.quantized_spec,
        lambda: codec.latents(torch.zeros(1, 8, 5, dtype=torch.int16)),
    ):
        with pytest.raises(CodecError, match=r"^mdct: this codec has no quantizer.*--latents float16") as caught:
            ask()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(8, 5), (1, 7, 5), (1, 128, 5)])
def test_codes_of_another_shape_are_refused(encodec_codec: EncodecCodec, shape: tuple[int, ...]) -> None:
    with pytest.raises(CodecError, match=r"codes are torch.int16 \[.*must be integers \[B, 8, T\]"):
        encodec_codec.dequantize(torch.zeros(shape, dtype=torch.int16))


@pytest.mark.parametrize("value", [-1, 1024])
def test_codes_outside_their_range_are_refused(encodec_codec: EncodecCodec, value: int) -> None:
    codes = torch.zeros(1, 8, 5, dtype=torch.int16)
    codes[0, 3, 2] = value
    with pytest.raises(CodecError, match=r"outside \[0, 1024\); verify the shards"):
        encodec_codec.dequantize(codes)
    with pytest.raises(CodecError, match="integers"):
        encodec_codec.dequantize(codes.float())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_latents_that_are_not_finite_have_no_codes(encodec_codec: EncodecCodec, value: float) -> None:
    latents = noise(1, 128, 5)
    latents[0, 3, 2] = value
    with pytest.raises(CodecError, match="not finite"):
        encodec_codec.quantize(latents)
    with pytest.raises(CodecError, match="latents have shape"):
        encodec_codec.quantize(noise(1, 64, 5))
