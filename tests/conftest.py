import os
import signal

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')

import pytest

from finetune.console.lazy import tf
from finetune.models import zoo
from tests import toy_net
from tests.browsing import browser, grave_faults_of

__all__ = ['browser', 'grave_faults_of']  # For every test that names them.


@pytest.fixture(scope='session', autouse=True)
def four_logical_cpus():
    """Set before TensorFlow starts, so that any test can split its work over towers."""
    cpu = tf.config.list_physical_devices('CPU')[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    tf.config.list_logical_devices()  # Starts it, or a test with two towers would leave two.


@pytest.fixture(scope='session', autouse=True)
def ctrl_c_works():
    """A shell starts background jobs with Ctrl-C ignored, and the commands that a test starts would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def toy_networks(monkeypatch):
    """`--model=toy` and `--model=toy_normalizing`: networks that build in milliseconds."""
    monkeypatch.setitem(zoo.NETS, 'toy', zoo.Net(toy_net.backbone, 16, zoo.MINUS_ONE_TO_ONE, auxiliary='first_bn'))
    monkeypatch.setitem(
        zoo.NETS, 'toy_normalizing', zoo.Net(toy_net.normalizing, 16, zoo.ZERO_TO_255, dropout=('backbone',)))
