import pytest

from finetune.console.errors import Error
from finetune.models import classifier, zoo

# Parameters in millions with ImageNet's 1000-class head, as https://keras.io/api/applications publishes them.
PUBLISHED = {
    'xception': 22.9, 'vgg16': 138.4, 'vgg19': 143.7, 'resnet50': 25.6, 'resnet50_v2': 25.6, 'resnet101': 44.7,
    'resnet101_v2': 44.7, 'resnet152': 60.4, 'resnet152_v2': 60.4, 'inception_v3': 23.9, 'inception_resnet_v2': 55.9,
    'mobilenet': 4.3, 'mobilenet_v2': 3.5, 'densenet121': 8.1, 'densenet169': 14.3, 'densenet201': 20.2,
    'nasnet_mobile': 5.3, 'nasnet_large': 88.9, 'efficientnet_b0': 5.3, 'efficientnet_b1': 7.9, 'efficientnet_b2': 9.2,
    'efficientnet_b3': 12.3, 'efficientnet_b4': 19.5, 'efficientnet_b5': 30.6, 'efficientnet_b6': 43.3,
    'efficientnet_b7': 66.7, 'efficientnet_v2_b0': 7.2, 'efficientnet_v2_b1': 8.2, 'efficientnet_v2_b2': 10.2,
    'efficientnet_v2_b3': 14.5, 'efficientnet_v2_s': 21.6, 'efficientnet_v2_m': 54.4, 'efficientnet_v2_l': 119.0,
    'convnext_tiny': 28.6, 'convnext_small': 50.2, 'convnext_base': 88.5, 'convnext_large': 197.7,
    'convnext_xlarge': 350.1, 'mobilenet_v3_small': 2.5, 'mobilenet_v3_large': 5.5,
}
QUICK = ('mobilenet', 'mobilenet_v2')


def test_the_table_of_published_networks_is_the_zoo():
    assert set(PUBLISHED) == {name for name, net in zoo.NETS.items() if isinstance(net.application, str)}


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in PUBLISHED])
def test_a_network_has_the_parameters_that_are_published(name):
    if PUBLISHED[name] > 100:
        pytest.skip('its weights alone would fill much of a small machine')
    net = zoo.backbone(name, zoo.NETS[name].size, include_top=True)
    assert net.count_params() / 1e6 == pytest.approx(PUBLISHED[name], abs=0.1)


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[] if name == 'mobilenet_v2' else pytest.mark.slow)
    for name, net in zoo.NETS.items() if net.blocks])
def test_the_blocks_that_a_head_reads_are_the_ends_of_three_stages(name):
    backbone = zoo.backbone(name, zoo.NETS[name].size)
    read = classifier.build(name, 2, image_size=zoo.NETS[name].size, feature_layers=zoo.NETS[name].blocks)
    outputs = read.get_layer('backbone').outputs
    assert len(outputs) == 3 and outputs[-1].shape == backbone.output.shape


def test_an_unknown_network_is_answered_with_the_nearest_name():
    with pytest.raises(Error, match='Did you mean inception_v3'):
        zoo.find('InceptionV3')
