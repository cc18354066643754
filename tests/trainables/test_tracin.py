"""Pairwise TracIn in closed form: against gradients that autograd makes image by image, and against captum's."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from trainables.ssl.losses import regression_loss
from trainables.ssl.tracin import output_gradients, pairwise_tracin, squared_gradients

NUM, NUM_OUTPUTS, NUM_INPUTS = 7, 5, 11


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw(2, NUM, NUM_INPUTS), draw(2, NUM, NUM_OUTPUTS)


def layer_of(has_bias):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Linear(NUM_INPUTS, NUM_OUTPUTS, bias=has_bias).double()


def by_autograd(layer, inputs_VBH, targets_VBD):
    """The gradient of each image's whole loss, both directions, with respect to all parameters [B, P]."""
    rows = []
    for image in range(inputs_VBH.shape[1]):
        loss = sum(
            regression_loss(layer(inputs_VBH[view, image][None]), targets_VBD[1 - view, image][None]).sum()
            for view in (0, 1)
        )
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(layer.parameters()))]))
    return torch.stack(rows)


def gradients_of(layer, inputs_VBH, targets_VBD):
    return torch.stack([output_gradients(layer(inputs_VBH[v]), targets_VBD[1 - v]) for v in (0, 1)]).detach()


@pytest.mark.parametrize("has_bias", [False, True])
def test_it_is_the_product_of_the_gradients_of_each_image(drawn, has_bias):
    inputs, targets = drawn
    layer = layer_of(has_bias)
    rows = by_autograd(layer, inputs, targets)
    gradients = gradients_of(layer, inputs, targets)
    found = pairwise_tracin(gradients, inputs, gradients, inputs, has_bias=has_bias)
    torch.testing.assert_close(found, rows @ rows.T)
    torch.testing.assert_close(squared_gradients(gradients, inputs, has_bias=has_bias), (rows**2).sum(dim=1))


def test_it_is_what_vmap_over_gradients_gives(drawn):
    inputs, targets = drawn
    layer = layer_of(False)

    def loss(parameters, inputs_VH, targets_VD):
        predictions = functional_call(layer, parameters, (inputs_VH,))
        return regression_loss(predictions, targets_VD.flip(0)).sum()

    parameters = dict(layer.named_parameters())
    per_image = vmap(grad(loss), in_dims=(None, 1, 1))(parameters, inputs, targets)["weight"].flatten(1)
    gradients = gradients_of(layer, inputs, targets)
    torch.testing.assert_close(pairwise_tracin(gradients, inputs, gradients, inputs), per_image @ per_image.T)


def test_some_images_against_all_are_those_rows(drawn):
    inputs, targets = drawn
    gradients = gradients_of(layer_of(False), inputs, targets)
    whole = pairwise_tracin(gradients, inputs, gradients, inputs)
    torch.testing.assert_close(pairwise_tracin(gradients[:, 2:5], inputs[:, 2:5], gradients, inputs), whole[2:5])


def test_a_step_on_one_image_lowers_the_loss_of_another_by_its_influence(drawn):
    """What it means (Eq. 2), to first order in the learning rate."""
    inputs, targets = drawn
    layer, rate = layer_of(False), 1e-6
    gradients = gradients_of(layer, inputs, targets)
    influence = pairwise_tracin(gradients, inputs, gradients, inputs)

    def losses():
        return sum(regression_loss(layer(inputs[v]), targets[1 - v]) for v in (0, 1)).detach()

    before = losses()
    step = by_autograd(layer, inputs, targets)[3].view_as(layer.weight)
    with torch.no_grad():
        layer.weight -= rate * step
    torch.testing.assert_close((before - losses()) / rate, influence[3], rtol=1e-3, atol=1e-4)


def test_captum_gives_the_same(drawn):
    """One direction, for which its form is made: a prediction and its target, the loss a sum."""
    from captum.influence import TracInCPFast
    from torch.utils.data import TensorDataset

    inputs, targets = (values[0].float() for values in drawn)
    net = nn.Sequential(layer_of(False).float())
    data = TensorDataset(inputs, targets)

    def loss(predictions, wanted):
        return regression_loss(predictions, wanted).sum()

    loss.reduction = "sum"
    peer = TracInCPFast(net, net[0], data, ["only"], lambda *_: 1.0, loss, batch_size=NUM)
    theirs = peer.influence((inputs, targets), k=None)
    gradients = output_gradients(net(inputs), targets).detach()[None]
    ours = pairwise_tracin(gradients, inputs[None], gradients, inputs[None])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
