"""What encoders and pretrainings compute, as numbers: they change only with a version.

In float64 on one thread, as projections on a fixed direction. Steps begin from weights of a formula, because drawn ones
are float32 and may differ in their last bit between kinds of CPU; draws are held to six digits.
"""

import pytest
import torch
from fake_context import FakeContext
from tiny_shapes import TinyShapes

from trainables import runtime
from trainables.augment.geometric import HorizontalFlip
from trainables.data.cache import open_images
from trainables.models.encoder import build_encoder
from trainables.models.sources import Untrained
from trainables.schedules import Constant
from trainables.ssl.byol import BYOL
from trainables.ssl.moco import MoCo, MoCoTraining
from trainables.ssl.positives import FalseNegatives, FeatureSimilarity, FeatureTransformation, TracIn

DATA = TinyShapes(num_train=12, num_val=4)
# Large enough that a group of batch normalisation has 16 values in the last stage: with 2, rounding decides signs.
STEP_DATA = TinyShapes(num_train=24, num_val=4, image_size_px=64)
ADVICE = "raise the version of {} if this is meant: earlier results are other results"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def projected(values):
    """One number that every value moves, of about their size."""
    values = values.detach().double().flatten()
    direction = torch.cos(torch.arange(values.numel(), dtype=torch.float64) ** 2 % 1000)
    return float(values @ direction / direction.norm())


def set_by_formula(encoder):
    """Weights of the usual size that no generator draws."""
    with torch.no_grad():
        for place, parameter in enumerate(encoder.parameters()):
            if parameter.ndim > 1:
                places = torch.arange(parameter.numel(), dtype=torch.float64)
                fan_in = parameter[0].numel()
                waves = torch.sin(places * 1.7 + place) * torch.cos(places**2 * 0.013 % 50)
                parameter.copy_(2 * (2 / fan_in) ** 0.5 * waves.view(parameter.shape))


def assert_golden(found, golden, owner, tolerance):
    """Names every number that moved, and shows all as they are now."""
    assert found.keys() == golden.keys()
    moved = [name for name in golden if found[name] != pytest.approx(golden[name], rel=tolerance, abs=tolerance)]
    assert moved == [], f"{moved} moved; {ADVICE.format(owner)}. Now: {found}"


def test_the_weights_of_a_seed():
    encoders = {
        f"{backbone} {head} {channels}": build_encoder(backbone, head, channels, 16, seed=5)
        for backbone, head, channels in [("resnet18", "v2", 1), ("resnet18", "v1", 3), ("resnet50", "v2", 3)]
    }
    found = {
        f"{name}: {place}": projected(encoder.state_dict()[place])
        for name, encoder in encoders.items()
        for place in ("trunk.conv1.weight", "trunk.layer3.1.conv2.weight", list(encoder.state_dict())[-2])
    }
    assert_golden(found, WEIGHTS, "MoCo and of Untrained", 1e-6)


def test_what_an_encoder_computes():
    encoder = build_encoder("resnet18", "v2", 3, 16, [0.2, 0.3, 0.4], [0.5, 0.6, 0.7]).double()
    set_by_formula(encoder)
    generator = runtime.generator("golden images")
    images = torch.randint(0, 256, (4, 3, 45, 45), generator=generator).double() / 255
    found = {"training": projected(encoder(images))}
    encoder.eval()
    found |= {
        "embeddings": projected(encoder(images)),
        "features": projected(encoder.features(images)),
        "maps": projected(encoder.feature_maps(images)),
    }
    assert_golden(found, OUTPUTS, "MoCo, Untrained and Released", 1e-8)


def test_the_untrained_control(tmp_path):
    encoder = Untrained(DATA, "resnet18", "v2", init_seed=7, embedding_dim=16).load(FakeContext(tmp_path))
    state = encoder.state_dict()
    found = {
        place: projected(state[place])
        for place in ("trunk.conv1.weight", "trunk.bn1.running_var", "trunk.layer2.0.bn2.running_mean", "mean", "std")
    }
    assert_golden(found, UNTRAINED, "Untrained", 1e-5)


@pytest.mark.parametrize("augmented_views", ["both", "key"])
def test_three_steps_of_moco(tmp_path, augmented_views):
    config = MoCo(
        STEP_DATA,
        HorizontalFlip(),
        augmented_views=augmented_views,
        backbone="resnet18",
        batch_size=8,
        queue_size=16,
        embedding_dim=16,
        key_momentum=0.9,
        learning_rate=0.003,
        pretrain_seed=3,
    )
    training = MoCoTraining(config, open_images(STEP_DATA, FakeContext(tmp_path)))
    for part in (training.query, training.key, training.queue):
        part.double()
    images = training.train_images.images
    training.train_images.images = lambda positions: images(positions).double()
    set_by_formula(training.query)
    training.key.load_state_dict(training.query.state_dict())
    training.begin_from()
    found = {"filled queue": projected(training.queue.keys_KD)}
    for step in range(3):
        loss = training.step(torch.arange(8) + 8 * step, 0, step).shares_by_name["loss"]
        found[f"loss {step}"] = float(loss)
    query, key = training.query.state_dict(), training.key.state_dict()
    for place in ("trunk.conv1.weight", "trunk.layer4.1.bn2.running_var", "head.2.weight"):
        found[f"query {place}"] = projected(query[place])
        found[f"key {place}"] = projected(key[place])
    found["queue"] = projected(training.queue.keys_KD)
    assert_golden(found, STEPS[augmented_views], "MoCo", 1e-8)


@pytest.mark.parametrize(
    "positives",
    [None, TracIn(), FeatureSimilarity(views="training"), FalseNegatives(threshold=-1.0), FeatureTransformation()],
)
def test_three_steps_of_byol(tmp_path, positives):
    config = BYOL(
        STEP_DATA,
        HorizontalFlip(),
        batch_size=8,
        num_epochs=3,
        embedding_dim=16,
        learning_rate=0.003,
        schedule=Constant(),
        target_momentum=0.9,
        positives=positives,
        pretrain_seed=3,
    )
    context = FakeContext(tmp_path)
    training = config.begun(open_images(STEP_DATA, context), context)
    networks = training.networks.double()
    images = training.train_images.images
    training.train_images.images = lambda positions: images(positions).double()
    set_by_formula(networks.online)
    set_by_formula(networks.predictor)
    networks.target.load_state_dict(networks.online.state_dict())
    found = {}
    for step in range(3):
        made = training.step(torch.arange(8) + 8 * step, 0, step).shares_by_name
        found |= {f"{name} {step}": float(value) for name, value in made.items()}
    found |= {
        "online": projected(networks.online.state_dict()["trunk.conv1.weight"]),
        "predictor": projected(networks.predictor.state_dict()["last.weight"]),
        "target": projected(networks.target.state_dict()["head.3.weight"]),
        "target statistics": projected(networks.target.state_dict()["trunk.layer4.1.bn2.running_var"]),
    }
    name = type(positives).__name__ if positives else "BYOL"
    assert_golden(found, BYOL_STEPS[name], f"BYOL, and of {name}", 1e-8)


BYOL_STEPS = {
    "BYOL": {
        "loss 0": 6.144893135877238,
        "loss 1": 5.930900244706631,
        "loss 2": 5.1096556488717075,
        "online": 0.12211292606692055,
        "predictor": -0.006782196935113686,
        "target": 0.0012880832706555609,
        "target statistics": 0.5231972394013957,
    },
    "TracIn": {
        "loss 0": 12.577962943466224,
        "selected 0": 1.0,
        "largest_hub 0": 0.625,
        "loss 1": 11.500026917402622,
        "selected 1": 1.0,
        "largest_hub 1": 0.5,
        "loss 2": 5.689561832780967,
        "selected 2": 1.0,
        "largest_hub 2": 0.375,
        "online": 0.11688792960043518,
        "predictor": -0.01329308395073008,
        "target": 0.0012884343689259562,
        "target statistics": 0.5250360002879311,
    },
    "FeatureSimilarity": {
        "loss 0": 12.516887252990324,
        "selected 0": 1.0,
        "largest_hub 0": 0.375,
        "loss 1": 11.516562454352444,
        "selected 1": 1.0,
        "largest_hub 1": 0.375,
        "loss 2": 5.343444327895757,
        "selected 2": 1.0,
        "largest_hub 2": 0.375,
        "online": 0.12451985870164031,
        "predictor": -0.013028750850157946,
        "target": 0.0013343986228634556,
        "target statistics": 0.5242972455452858,
    },
    "FalseNegatives": {
        "loss 0": 12.542275295975335,
        "selected 0": 1.0,
        "largest_hub 0": 0.875,
        "loss 1": 11.240094916108243,
        "selected 1": 1.0,
        "largest_hub 1": 0.875,
        "loss 2": 5.526024634082649,
        "selected 2": 1.0,
        "largest_hub 2": 0.875,
        "online": 0.11891962864058171,
        "predictor": -0.013251143551043168,
        "target": 0.0013070412430623178,
        "target statistics": 0.5248094117792909,
    },
    "FeatureTransformation": {
        "loss 0": 7.438363415121544,
        "loss 1": 7.4500897748201105,
        "loss 2": 7.476597322172455,
        "online": 0.12562758687815082,
        "predictor": -0.0031222684217009663,
        "target": 0.0013562546157813923,
        "target statistics": 0.5220193217402853,
    },
}

WEIGHTS = {
    "resnet18 v2 1: trunk.conv1.weight": 0.026047995737570894,
    "resnet18 v2 1: trunk.layer3.1.conv2.weight": 0.048886036480229,
    "resnet18 v2 1: head.2.weight": 0.02207791253163161,
    "resnet18 v1 3: trunk.conv1.weight": -0.006367986638328233,
    "resnet18 v1 3: trunk.layer3.1.conv2.weight": 0.048886036480229,
    "resnet18 v1 3: head.weight": 0.015348861353481198,
    "resnet50 v2 3: trunk.conv1.weight": 0.007592588767618882,
    "resnet50 v2 3: trunk.layer3.1.conv2.weight": 0.017425951056069477,
    "resnet50 v2 3: head.2.weight": -0.01855464367949068,
}
OUTPUTS = {
    "training": 2.4876009632217473,
    "embeddings": 8.194861655722042,
    "features": 7.26817042930946,
    "maps": 8.646546327745202,
}
UNTRAINED = {
    "trunk.conv1.weight": -0.005698046018178292,
    "trunk.bn1.running_var": 0.04593051403584278,
    "trunk.layer2.0.bn2.running_mean": -0.06047520718569419,
    "mean": 0.07753267884254456,
    "std": 0.2297283113002777,
}
STEPS = {
    "both": {
        "filled queue": 0.21416566464476183,
        "loss 0": 2.7279760628310443,
        "loss 1": 2.661090252706164,
        "loss 2": 2.8538908023312834,
        "query trunk.conv1.weight": 0.12691799268089374,
        "key trunk.conv1.weight": 0.12725093938875312,
        "query trunk.layer4.1.bn2.running_var": 0.5873347334334987,
        "key trunk.layer4.1.bn2.running_var": 0.5639913839246242,
        "query head.2.weight": 0.03239706040758913,
        "key head.2.weight": 0.0322021754209491,
        "queue": 0.23357507020439594,
    },
    "key": {
        "filled queue": 0.21416566464476183,
        "loss 0": 2.789881205923608,
        "loss 1": 2.629348162868707,
        "loss 2": 2.749329640480785,
        "query trunk.conv1.weight": 0.1274462831255438,
        "key trunk.conv1.weight": 0.12728563393826287,
        "query trunk.layer4.1.bn2.running_var": 0.6224423020646828,
        "key trunk.layer4.1.bn2.running_var": 0.5641862465203217,
        "query head.2.weight": 0.03241822040714954,
        "key head.2.weight": 0.0322018586090491,
        "queue": 0.2341997517462625,
    },
}
