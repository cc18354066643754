"""Weights that come from a file: MoCo's to go on from, anybody's as an encoder of its own, and our export."""

import copy
import importlib
import json
import zipfile

import numpy as np
import pytest
import torch
import torchvision
from fabricated_weights import released_checkpoint, save
from fake_context import FakeContext
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_shapes import TinyShapes
from torch import Tensor, nn

from trainables import runtime
from trainables.api.identity import FileDigests, key_of
from trainables.models.encoder import build_encoder, save_encoder
from trainables.models.export import export_encoder
from trainables.models.frozen import FrozenEncoder
from trainables.models.released import ReleasedWeights, load_released
from trainables.models.sources import IMAGENET_GREY, PixelStatistics, Released
from trainables.models.weight_files import read_weight_file
from trainables.ssl.moco import MoCo

RGB = PixelStatistics((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


def images(batch=4, channels=1, size=32):
    return torch.rand(batch, channels, size, size, generator=runtime.generator("encoder images", batch))


@pytest.mark.parametrize("head", ["v1", "v2"])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_released_weights_give_the_released_network_with_its_head(tmp_path, head, prefix):
    checkpoint, network = released_checkpoint(head, prefix=prefix)
    encoder = build_encoder("resnet18", head, 1, 16)
    report = load_released(save(checkpoint, tmp_path), encoder)
    grey = images()
    torch.testing.assert_close(encoder.eval()(grey), network.eval()(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-4)
    assert (report.arch, report.epoch, report.file) == ("resnet18", 800, "moco.pth.tar")
    assert set(report.loaded) == set(network.state_dict())
    assert report.adapted == ("conv1.weight: three input channels summed to one",)
    names = network.state_dict()
    assert set(report.unused) == {f"{prefix}{n}" for n in ("queue", "queue_ptr", *(f"encoder_k.{m}" for m in names))}
    assert "800" in report.summary()


def test_three_channels_are_taken_as_they_are(tmp_path):
    checkpoint, network = released_checkpoint()
    encoder = build_encoder("resnet18", "v2", 3, 16)
    assert load_released(save(checkpoint, tmp_path), encoder).adapted == ()
    assert torch.equal(encoder.trunk.conv1.weight, network.conv1.weight)


def test_every_wrong_key_is_named_and_nothing_is_loaded(tmp_path):
    checkpoint, _ = released_checkpoint()
    state = checkpoint["state_dict"]
    del state["module.encoder_q.layer1.0.conv1.weight"]
    del state["module.encoder_q.bn1.running_mean"]
    state["module.encoder_q.extra.weight"] = torch.zeros(1)
    state["module.encoder_q.layer2.0.conv1.weight"] = torch.zeros(7, 64, 3, 3)
    encoder = build_encoder("resnet18", "v2", 1, 16)
    before = copy.deepcopy(encoder.state_dict())
    with pytest.raises(ValueError, match="does not fit") as raised:
        load_released(save(checkpoint, tmp_path), encoder)
    problems = str(raised.value).splitlines()[1:]
    assert problems == [
        "  missing: bn1.running_mean",
        "  missing: layer1.0.conv1.weight",
        "  unexpected: extra.weight",
        "  shape of layer2.0.conv1.weight: (7, 64, 3, 3) in the file, (128, 64, 3, 3) in the encoder",
    ]
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def wrong_arch():
    return released_checkpoint(arch="resnet50")[0]


def other_head():
    return released_checkpoint("v1")[0]


def no_prefix():
    return {"state_dict": released_checkpoint()[1].state_dict()}


def no_state():
    return {"model": {}, "epoch": 3}


def numpy_scalar():
    return {**released_checkpoint()[0], "best": np.float64(0.5)}


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (wrong_arch, "holds a resnet50, but the encoder is a resnet18"),
        (other_head, r"its head is v1: give --head v1"),
        (no_prefix, r"encoder_q.*begins with.*Released\(path"),
        (no_state, "needs a 'state_dict'"),
        (numpy_scalar, "save it again with only"),
    ],
)
def test_files_that_cannot_be_used_say_why(tmp_path, make, named):
    with pytest.raises(ValueError, match=named):
        load_released(save(make(), tmp_path), build_encoder("resnet18", "v2", 1, 16))


def test_a_damaged_or_absent_file_says_so(tmp_path):
    path = tmp_path / "broken.pth.tar"
    with pytest.raises(FileNotFoundError, match="broken"):
        load_released(ReleasedWeights(str(path)), build_encoder("resnet18", "v2", 1, 16))
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(ValueError, match="cannot be read"):
        load_released(ReleasedWeights(str(path)), build_encoder("resnet18", "v2", 1, 16))


def test_released_weights_are_known_by_content_not_by_place(tmp_path):
    digests = FileDigests()
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (key_of(ReleasedWeights(str(tmp_path / name)), digests) for name in "abc")
    assert a == b != c


def plain_resnet(backbone="resnet18", seed=2, **kwargs):
    """A ResNet of torchvision whose running statistics are not the initial ones, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = getattr(torchvision.models, backbone)(**kwargs)
        network(torch.rand(4, 3, 32, 32))
    return network.eval()


def features_of(network, standardised):
    headless = copy.deepcopy(network)
    headless.fc = nn.Identity()
    return headless(standardised)


def bare(state):
    return state


def under_state_dict(state):
    return {"epoch": 90, "arch": "resnet18", "state_dict": state}


def under_model(state):
    return {"model": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3}


def before_counters(state):
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize("layout", [bare, under_state_dict, under_model, before_counters])
def test_a_plain_resnet_is_an_encoder_whose_features_are_the_embeddings(tmp_path, layout):
    """State dicts of torchvision and timm; their classifier is named as not used."""
    network = plain_resnet(num_classes=7)
    torch.save(layout(network.state_dict()), tmp_path / "resnet.pth")
    encoder, report = Released(str(tmp_path / "resnet.pth"), RGB, "resnet18").read(FakeContext(tmp_path))
    batch = images(channels=3)
    standardised = torchvision.transforms.functional.normalize(batch, RGB.mean, RGB.std)
    torch.testing.assert_close(encoder(batch), features_of(network, standardised), atol=1e-5, rtol=1e-4)
    assert torch.equal(encoder(batch), encoder.features(batch))
    assert (encoder.config.head, encoder.config.embedding_dim, encoder.training) == (None, 512, False)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert {name.removeprefix("module.") for name in report.unused} == {"fc.weight", "fc.bias"}
    kept = {name for name in layout(network.state_dict()) if not name.startswith("fc.")}
    if layout in (bare, before_counters):
        assert set(report.loaded) == kept
    assert report.adapted == (("num_batches_tracked: the file has none, all 20 are 0",) * (layout is before_counters))
    assert "without a head" in report.summary()


def test_safetensors_are_read_and_grey_images_see_the_summed_stem(tmp_path):
    network = plain_resnet("resnet50")
    save_file(network.state_dict(), tmp_path / "resnet.safetensors")
    encoder = Released(str(tmp_path / "resnet.safetensors"), IMAGENET_GREY).load(FakeContext(tmp_path))
    batch = images()
    standardised = ((batch - 0.449) / 0.226).expand(-1, 3, -1, -1)
    torch.testing.assert_close(encoder(batch), features_of(network, standardised), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("head", ["v1", "v2"])
def test_a_checkpoint_of_moco_is_an_encoder_with_its_head_standardised_with_data(tmp_path, head):
    checkpoint, network = released_checkpoint(head)
    data = TinyShapes(num_train=12, num_val=3)
    source = Released(save(checkpoint, tmp_path).path, data, "resnet18")
    encoder = source.load(FakeContext(tmp_path))
    pixels = np.stack([data.decode(r)[0] for r in data.records() if r.split == "train"]) / 255
    batch = images()
    standardised = ((batch - pixels.mean()) / pixels.std()).expand(-1, 3, -1, -1)
    torch.testing.assert_close(encoder(batch), network.eval()(standardised), atol=1e-4, rtol=1e-3)
    assert (encoder.config.head, encoder.config.embedding_dim) == (head, 16)


def test_an_encoder_without_a_head_can_be_saved_and_frozen_for_gradients(tmp_path):
    torch.save(plain_resnet().state_dict(), tmp_path / "resnet.pth")
    encoder = Released(str(tmp_path / "resnet.pth"), IMAGENET_GREY, "resnet18").load(FakeContext(tmp_path))
    fast = FrozenEncoder(encoder, torch.device("cpu"))
    torch.testing.assert_close(fast.embeddings(images()), encoder(images()), atol=1e-4, rtol=1e-3)
    tape = fast.forward(images())
    (gradient,) = torch.autograd.grad(tape.embeddings_BD.sum(), tape.features_BF)
    assert torch.equal(gradient, torch.ones(4, 512))


def test_a_source_is_known_by_the_files_content_and_its_standardisation(tmp_path):
    for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y")):
        (tmp_path / name).write_bytes(content)
    digests = FileDigests()
    a, b, c = (Released(str(tmp_path / name), IMAGENET_GREY) for name in "abc")
    assert key_of(a, digests) == key_of(b, digests) != key_of(c, digests)
    assert key_of(a, digests) != key_of(Released(a.path, PixelStatistics((0.4,), (0.2,))), digests)


def broken(make):
    def write(path):
        torch.save(plain_resnet().state_dict(), path)
        path.write_bytes(make(path.read_bytes()))

    return write


def legacy(path):
    torch.save(plain_resnet().state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-1000])


def half_of_safetensors(path):
    save_file(plain_resnet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:1_000_000])


def header_of_safetensors(path):
    save_file(plain_resnet().state_dict(), path)
    path.write_bytes(path.read_bytes()[:9000])


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (broken(lambda _: b""), r"is empty \(0 bytes\): download it again"),
        (broken(lambda content: content[:100_000]), r"is truncated: its end is missing after 100,000 bytes"),
        (broken(lambda content: content[:100]), "is truncated"),
        (legacy, "is truncated"),
        (half_of_safetensors, "is truncated"),
        (header_of_safetensors, "is truncated: its end is missing after 9,000 bytes"),
        (broken(lambda _: b"\n<!DOCTYPE html><html><title>404</title>"), "is a web page, not weights"),
        (broken(lambda _: b"<HTML>sign in</HTML>"), "is a web page, not weights"),
        (broken(lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), "git lfs pull"),
        (broken(lambda _: b"no checkpoint at all"), "cannot be read: it is no file of torch or safetensors"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_and_nobody_is_told_to_trust_it(tmp_path, write, named):
    write(tmp_path / "weights")
    for use in (
        lambda: Released(str(tmp_path / "weights"), IMAGENET_GREY, "resnet18").load(FakeContext(tmp_path)),
        lambda: load_released(ReleasedWeights(str(tmp_path / "weights")), build_encoder("resnet18", "v2", 1, 16)),
    ):
        with pytest.raises(ValueError, match=named) as raised:
            use()
        assert "trust" not in str(raised.value)
        assert str(tmp_path / "weights") in str(raised.value)


def test_a_flipped_byte_in_the_archive_is_no_weight(tmp_path):
    """Damage that the format shows; torch does not look at the checksums of tensors themselves."""
    path = tmp_path / "weights"
    torch.save(plain_resnet().state_dict(), path)
    with zipfile.ZipFile(path) as archive:
        place = archive.infolist()[0].header_offset + 60
    content = bytearray(path.read_bytes())
    content[place : place + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        read_weight_file(path)


@pytest.mark.parametrize(
    "pickled",
    [b"\x80\x02J\x01", b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(tR.", b"\x80\x02(U\x07storageU\x01at."],
    ids=["ends in a number", "calls wrongly", "holds no tensor"],
)
def test_an_archive_with_another_pickle_is_no_weight(tmp_path, pickled):
    with zipfile.ZipFile(tmp_path / "weights", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    with pytest.raises(ValueError, match=r"weights (cannot be read|is no checkpoint)"):
        read_weight_file(tmp_path / "weights")


def test_an_archive_that_unpacks_to_more_than_it_is_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "weights", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(ValueError, match="weights cannot be read") as raised:
        read_weight_file(tmp_path / "weights")
    assert "its members claim 1,000,000 bytes" in str(raised.value.__cause__)


def test_tensors_without_names_are_no_state_dict(tmp_path):
    torch.save({("conv1", "weight"): torch.ones(2)}, tmp_path / "weights")
    with pytest.raises(ValueError, match="weights is no checkpoint"):
        read_weight_file(tmp_path / "weights")


def test_an_archive_on_several_disks_is_no_weight(tmp_path):
    path = tmp_path / "weights"
    torch.save({"a": torch.ones(2)}, path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x06\x07") + 16] = 9
    path.write_bytes(content)
    with pytest.raises(ValueError, match="weights cannot be read"):
        read_weight_file(path)


def test_safetensors_by_name_only_are_named(tmp_path):
    """Torch itself goes by the ending."""
    (tmp_path / "a.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"a\.safetensors cannot be read"):
        read_weight_file(tmp_path / "a.safetensors")


@pytest.mark.parametrize("make", [Tensor.to_sparse, lambda t: t.to("meta"), lambda t: torch.nested.nested_tensor([t])])
def test_tensors_that_are_not_dense_are_refused_by_name(tmp_path, make):
    torch.save({"conv1.weight": make(torch.ones(2, 2)), "fc.weight": torch.ones(2)}, tmp_path / "weights")
    with pytest.raises(ValueError, match=r"weights has tensors that are sparse, quantised, nested or without values"):
        read_weight_file(tmp_path / "weights")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64])
def test_numbers_that_are_no_weights_are_refused_by_name(tmp_path, dtype):
    state = plain_resnet().state_dict()
    state["layer1.0.conv1.weight"] = state["layer1.0.conv1.weight"].to(dtype)
    torch.save(state, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=rf"save them as float32:\n  layer1\.0\.conv1\.weight: {dtype}"):
        Released(str(tmp_path / "resnet.pth"), IMAGENET_GREY, "resnet18").load(FakeContext(tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value):
    network = plain_resnet()
    with torch.no_grad():
        network.layer2[0].conv1.weight[0, 0, 0, :2] = value
        network.layer4[1].bn2.running_var[5] = value
    torch.save(network.state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match="NaN or infinite") as raised:
        Released(str(tmp_path / "resnet.pth"), IMAGENET_GREY, "resnet18").load(FakeContext(tmp_path))
    assert str(raised.value).splitlines()[1:] == [
        "  layer2.0.conv1.weight: 2 of 73728 values",
        "  layer4.1.bn2.running_var: 1 of 512 values",
    ]
    checkpoint, _ = released_checkpoint()
    checkpoint["state_dict"]["module.encoder_q.fc.2.bias"][3] = value
    encoder = build_encoder("resnet18", "v2", 1, 16)
    with pytest.raises(ValueError, match=r"fc\.2\.bias: 1 of 16"):
        load_released(save(checkpoint, tmp_path), encoder)
    assert all(bool(tensor.isfinite().all()) for tensor in encoder.state_dict().values())


@pytest.mark.parametrize(
    ("backbone", "named"),
    [
        ("resnet34", "holds a resnet34.*set backbone='resnet34'"),
        ("wide_resnet50_2", r"shape of layer1\.0\.conv1\.weight"),
    ],
)
def test_another_architecture_is_named(tmp_path, backbone, named):
    torch.save(plain_resnet(backbone).state_dict(), tmp_path / "resnet.pth")
    wanted = "resnet50" if backbone.startswith("wide") else "resnet18"
    with pytest.raises(ValueError, match=f"(?s){named}"):
        Released(str(tmp_path / "resnet.pth"), IMAGENET_GREY, wanted).load(FakeContext(tmp_path))


def test_a_file_without_a_resnet_says_what_it_begins_with(tmp_path):
    torch.save({"blocks.0.weight": torch.zeros(2)}, tmp_path / "vit.pth")
    with pytest.raises(
        ValueError, match=r"no ResNet: there is no conv1\.weight; it begins with \['blocks\.0\.weight'\]"
    ):
        Released(str(tmp_path / "vit.pth"), IMAGENET_GREY).load(FakeContext(tmp_path))


def lively(backbone, channels):
    """An encoder whose running statistics are not the initial ones."""
    encoder = build_encoder(backbone, "v2", channels, 16, [0.2, 0.3, 0.4][:channels], [0.5] * channels, seed=3)
    encoder(images(channels=channels))
    return encoder.to(memory_format=torch.channels_last).eval()


@pytest.mark.parametrize("out", ["encoder.safetensors", "encoder.pt"])
@pytest.mark.parametrize(("backbone", "channels"), [("resnet18", 1), ("resnet50", 3)])
def test_an_export_loads_strictly_into_torchvision_and_gives_the_features(tmp_path, backbone, channels, out):
    encoder = lively(backbone, channels)
    save_encoder(encoder, tmp_path / "trained.pt")
    advice = export_encoder(tmp_path / "trained.pt", tmp_path / out)
    network = getattr(torchvision.models, backbone)()
    network.fc = nn.Identity()
    read = load_file if out.endswith("safetensors") else (lambda path: torch.load(path, weights_only=True))
    network.load_state_dict(read(tmp_path / out), strict=True)
    batch = images(channels=channels)
    mean, std = ([*values] * (3 // channels) for values in (encoder.mean.flatten(), encoder.std.flatten()))
    standardised = torchvision.transforms.functional.normalize(batch.expand(-1, 3, -1, -1), mean, std)
    torch.testing.assert_close(network.eval()(standardised), encoder.features(batch), atol=1e-5, rtol=1e-4)
    assert f"torchvision.models.{backbone}()" in advice
    assert f"{float(mean[0])}" in advice
    if out.endswith("safetensors"):
        with safe_open(tmp_path / out, "pt") as file:
            assert json.loads(file.metadata()["std"]) == [0.5, 0.5, 0.5]
            assert file.metadata()["arch"] == backbone
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["trained.pt", out])


def test_an_export_comes_back_as_a_released_encoder(tmp_path):
    encoder = lively("resnet18", 1)
    save_encoder(encoder, tmp_path / "trained.pt")
    export_encoder(tmp_path / "trained.pt", tmp_path / "out.safetensors")
    source = Released(str(tmp_path / "out.safetensors"), PixelStatistics((0.2,), (0.5,)), "resnet18")
    back = source.load(FakeContext(tmp_path))
    torch.testing.assert_close(back(images()), encoder.features(images()), atol=1e-5, rtol=1e-4)


def test_what_a_pretraining_exports_is_its_published_encoder(tmp_path):
    """As the command calls it: by the name that the class gives, on the folder of the result."""
    encoder = lively("resnet18", 1)
    save_encoder(encoder, tmp_path / "encoder.pt")
    module, _, function = MoCo.exporter.partition(":")
    advice = getattr(importlib.import_module(module), function)(tmp_path, tmp_path / "out.pt")
    assert "load_state_dict" in advice
    assert torch.equal(torch.load(tmp_path / "out.pt")["layer1.0.conv1.weight"], encoder.trunk.layer1[0].conv1.weight)


@pytest.mark.parametrize(
    ("source", "out", "error", "named"),
    [
        ("trained.pt", "out.onnx", ValueError, r"\.safetensors, \.pt, \.pth"),
        ("absent.pt", "out.pt", FileNotFoundError, r"absent\.pt"),
        ("trained.pt", "no/such/out.pt", FileNotFoundError, "no/such does not exist: make it first"),
    ],
)
def test_what_cannot_be_exported_is_named(tmp_path, source, out, error, named):
    save_encoder(lively("resnet18", 1), tmp_path / "trained.pt")
    with pytest.raises(error, match=named):
        export_encoder(tmp_path / source, tmp_path / out)
