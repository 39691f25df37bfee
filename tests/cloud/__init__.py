"""A cloud on one machine: what AWS says and does, its faults, and a real host for each instance.

``with Cloud() as cloud:`` in tests, ``python -m tests.cloud up`` by hand. Hosts need root.
"""

from tests.cloud.cloud import Cloud, CloudError
from tests.cloud.faults import Faults
from tests.cloud.machine import Machine
from tests.cloud.prepared import Prepared

__all__ = ["Cloud", "CloudError", "Faults", "Machine", "Prepared"]
