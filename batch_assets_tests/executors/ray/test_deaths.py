"""What Ray raises of a worker that is gone, as what it means for the shard."""

import pytest

from batch_assets.executors.base import Cancelled, WorkerDied
from batch_assets.executors.ray.deaths import deaths_explained
from batch_assets.executors.ray.pulse import Gone, Pulse
from batch_assets_tests.executors.ray.helpers import alive, raising


@pytest.mark.parametrize("error", [ConnectionResetError("reset by peer"), OSError("Broken pipe")])
def test_a_connection_that_breaks_says_nothing_about_the_shard(
    error: OSError,
) -> None:
    """What `ray.wait` raises where the raylet dies while it is asked, before anybody has seen that it is gone."""
    for pulse in (Pulse(alive), Pulse(raising(Gone("its raylet on this machine has ended")))):
        with pytest.raises(WorkerDied) as died, deaths_explained(pulse, None):
            raise error
        assert died.value.machine_lost


def test_what_an_old_reference_meets_on_the_next_ray_says_nothing_about_the_shard() -> None:
    pulse = Pulse(alive)
    with pytest.raises(ValueError, match="owner is unknown"), deaths_explained(pulse, None):
        raise ValueError("owner is unknown")
    pulse.gone = Gone("its raylet on this machine has ended")
    with pytest.raises(WorkerDied) as died, deaths_explained(pulse, None):
        raise ValueError("owner is unknown")
    assert died.value.machine_lost
    with pytest.raises(Cancelled), deaths_explained(pulse, None):
        raise Cancelled
