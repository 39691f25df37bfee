"""A cloud on one machine: what AWS says and does, its faults, and a real host for each instance.

``with Cloud() as cloud:`` in tests, ``python -m tests.cloud up`` by hand. Hosts need root.
"""

from typing import TYPE_CHECKING

from flambe._lazy import lazy_exports

if TYPE_CHECKING:
    from tests.cloud.cloud import Cloud, CloudError
    from tests.cloud.faults import Faults
    from tests.cloud.machine import Machine
    from tests.cloud.prepared import Prepared

__all__ = ["Cloud", "CloudError", "Faults", "Machine", "Prepared"]

# Loaded when they are used: moto takes a second to import.
__getattr__ = lazy_exports(
    __name__,
    {
        "Cloud": "cloud",
        "CloudError": "cloud",
        "Faults": "faults",
        "Machine": "machine",
        "Prepared": "prepared",
    },
)
