"""Instances are real hosts: they boot with their user data, let their key in, and lose power."""

from __future__ import annotations

import base64
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.cloud import Cloud, Machine
from tests.cloud.conftest import launch, lent, reach, request, running, wait
from tests.metal.client import OPTIONS
from tests.metal.host import make_key, public
from tests.metal.machine import claims, links

pytestmark = [pytest.mark.integration, pytest.mark.root]

SCRIPT = """#!/bin/bash
echo "by $(id -un) on $(hostname)" | tee -a /srv/ran
echo "and to all" > /dev/console
mkdir -p /var/lib/cloud/scripts/per-boot
printf '#!/bin/sh\\necho booted >> /srv/boots\\n' > /var/lib/cloud/scripts/per-boot/count
chmod +x /var/lib/cloud/scripts/per-boot/count
"""


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with lent() as one:
        yield one


def ssh(
    cloud: Cloud, machine: Machine, command: str, *, address: str = "", user: str = "ubuntu"
) -> subprocess.CompletedProcess[str]:
    """Log in as a client does that has read the host key on the console."""
    known = cloud.prepared.key.with_name(f"known-{machine.id}")
    key = console_key(cloud, machine)
    assert key.startswith("ssh-ed25519 "), console(cloud, machine)
    known.write_text(f"{machine.id} {key}\n", encoding="utf-8")
    address = address or machine.public_address
    settings = [*OPTIONS, f"HostName={address}", f"HostKeyAlias={machine.id}"]
    settings += [f"UserKnownHostsFile={known}", "GlobalKnownHostsFile=none", "LogLevel=ERROR"]
    who = ["-i", str(cloud.prepared.key), "-l", user]
    return subprocess.run(
        ["ssh", "-F", "none", *who, *(f"-o{word}" for word in settings), machine.id, command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def out(cloud: Cloud, machine: Machine, command: str, **more: str) -> str:
    done = ssh(cloud, machine, command, **more)
    assert done.returncode == 0, f"{done.stderr}\n{console(cloud, machine)}"
    return done.stdout.strip()


def console(cloud: Cloud, machine: Machine) -> str:
    reply = cloud.client("ec2").get_console_output(InstanceId=machine.id)
    return str(reply.get("Output", ""))


def console_key(cloud: Cloud, machine: Machine) -> str:
    """Return the host key on the console; before it is there, nothing."""
    _, mark, text = console(cloud, machine).rpartition("-----BEGIN SSH HOST KEY KEYS-----\n")
    return text.split("\n")[0] if mark else ""


FETCH = """
import sys, urllib.error, urllib.request
path, method, *header = sys.argv[1:]
ask = urllib.request.Request("http://169.254.169.254/latest/" + path, method=method)
for name, _, value in (line.partition(": ") for line in header):
    ask.add_header(name, value)
try:
    print(urllib.request.urlopen(ask, timeout=5).read().decode())
except urllib.error.HTTPError as error:
    print(error.code)
"""


def fetch(cloud: Cloud, machine: Machine, path: str, header: str = "", method: str = "GET") -> str:
    """Ask the metadata service, on a host; what is refused gives the number of the status."""
    words = [path, method, *filter(None, [header])]
    return out(cloud, machine, shlex.join(["python3", "-c", FETCH, *words]))


# -- booting --------------------------------------------------------------------------------------


def test_it_boots_with_its_key_and_its_user_data(cloud: Cloud) -> None:
    one, two = running(cloud, 2, UserData=SCRIPT)
    name = f"ip-{one.private_address.replace('.', '-')}"
    for address in (one.public_address, one.private_address):
        look = "id -un; sudo id -un; hostname; sudo cat /srv/ran"
        assert out(cloud, one, look, address=address) == (
            f"ubuntu\nroot\n{name}\nby root on {name}"
        )
    assert ssh(cloud, one, "true", user="root").returncode == 255
    assert f"by root on {name}" in console(cloud, one)
    wait(lambda: "and to all\n" in console(cloud, one))
    out(cloud, one, "echo 'and again' | sudo tee /dev/console")
    wait(lambda: "and again\n" in console(cloud, one))
    for address in (two.public_address, two.private_address):
        greet = f"bash -c 'exec 3<> /dev/tcp/{address}/22; head -c 4 <&3'"
        assert out(cloud, one, greet) == "SSH-"
    assert console_key(cloud, one) != console_key(cloud, two)


def test_cloud_config(cloud: Cloud) -> None:
    folder = cloud.prepared.key.parent
    host, other = folder / "planted", folder / "other"
    make_key(host, "planted")
    make_key(other, "other")
    config = f"""#cloud-config
ssh_keys:
  ed25519_private: |
{_indented(host.read_text("utf-8"))}
  ed25519_public: {public(host)}
ssh_authorized_keys: ["{public(other)}"]
write_files:
  - {{path: /etc/lab/plain, content: "one\\n"}}
  - {{path: /etc/lab/secret, content: "three\\n", permissions: "0600", owner: "daemon:mail"}}
  - {{path: /etc/lab/coded, content: "{base64.b64encode(b"two").decode()}", encoding: b64}}
  - {{path: /etc/lab/plain, content: "more\\n", append: true}}
bootcmd: ["echo boot >> /srv/bootcmd"]
runcmd:
  - cd /srv
  - [sh, -c, 'echo "$0 $PWD" > ran', "a b"]
  - exit 3
packages: [emacs]
"""
    [machine] = running(cloud, UserData=config)
    assert console_key(cloud, machine) == " ".join(public(host).split()[:3])
    look = "stat -c '%U:%G %a' /etc/lab/secret; sudo cat /etc/lab/* /srv/bootcmd /srv/ran"
    assert out(cloud, machine, look) == "daemon:mail 600\ntwoone\nmore\nthree\nboot\na b /srv"
    text = console(cloud, machine)
    assert "runcmd ended with 3" in text
    assert "NOT DONE by the test cloud: packages" in text
    assert public(other) in out(cloud, machine, "cat .ssh/authorized_keys")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def test_parts_and_a_default_user_of_another_image(cloud: Cloud) -> None:
    parts = (
        'Content-Type: multipart/mixed; boundary="=="\nMIME-Version: 1.0\n\n'
        '--==\nContent-Type: text/cloud-config; charset="us-ascii"\n\n'
        "#cloud-config\nwrite_files: [{path: /etc/one, content: first}]\n\n"
        '--==\nContent-Type: text/x-shellscript; charset="us-ascii"\n\n'
        "#!/bin/sh\ncp /etc/one /etc/two\n\n--==--\n"
    )
    image = cloud.prepared.images["al2023"]
    [machine] = running(cloud, UserData=parts, ImageId=image)
    assert out(cloud, machine, "id -un; cat /etc/two", user="ec2-user") == "ec2-user\nfirst"
    assert ssh(cloud, machine, "true").returncode == 255


def test_without_a_key_pair_nobody_is_let_in(cloud: Cloud) -> None:
    asked = request(cloud)
    del asked["KeyName"], asked["SubnetId"]  # and the default network is one
    reply = cloud.client("ec2").run_instances(**asked)
    machine = cloud.machine(reply["Instances"][0]["InstanceId"])
    reach(machine, "running")
    cloud.host(machine.id).await_boot()
    for address in (machine.public_address, machine.private_address):
        assert "Permission denied" in ssh(cloud, machine, "true", address=address).stderr


def test_security_groups_are_enforced(cloud: Cloud) -> None:
    one, two = running(cloud, 2)
    serve = "setsid python3 -m http.server 8000 > /dev/null 2>&1 &"
    cloud.host(one.id).run("sh", "-c", serve)
    connect = f"timeout 1 bash -c '< /dev/tcp/{one.private_address}/8000'"
    wait(lambda: ssh(cloud, two, connect).returncode == 0)  # they let each other in
    assert closed(one.private_address, 8000)
    ec2 = cloud.client("ec2")
    group = ec2.create_security_group(GroupName="web", Description="-", VpcId=cloud.prepared.vpc)[
        "GroupId"
    ]
    both = [cloud.prepared.security_group, group]
    ec2.modify_instance_attribute(InstanceId=one.id, Groups=both)
    web = {"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8000}
    web["IpRanges"] = [{"CidrIp": "0.0.0.0/0"}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[web])
    assert not closed(one.private_address, 8000)
    assert not closed(one.public_address, 8000)
    assert closed(two.private_address, 8000)
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[web])
    assert closed(one.private_address, 8000)
    [machine] = [cloud.machine(name) for name in launch(cloud, SecurityGroupIds=[])]
    reach(machine, "running")
    wait(lambda: cloud.host(machine.id).booted())
    assert closed(machine.public_address, 22)  # its group is the default one


def closed(address: str, port: int) -> bool:
    """Tell whether what is sent to a port is not answered."""
    try:
        socket.create_connection((address, port), 0.5).close()
    except TimeoutError:
        return True
    return False


def test_metadata(cloud: Cloud) -> None:
    options = {"HttpTokens": "required", "InstanceMetadataTags": "enabled"}
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "role", "Value": "factory"}]}]
    [machine] = running(cloud, MetadataOptions=options, TagSpecifications=tags, UserData=SCRIPT)
    assert fetch(cloud, machine, "meta-data/instance-id") == "401"
    ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60"
    token = f"X-aws-ec2-metadata-token: {fetch(cloud, machine, 'api/token', ttl, 'PUT')}"

    def ask(path: str) -> str:
        return fetch(cloud, machine, path, token)

    assert ask("meta-data/instance-id") == machine.id
    assert ask("meta-data/local-ipv4") == machine.private_address
    assert ask("meta-data/public-ipv4") == machine.public_address
    assert ask("meta-data/placement/region") == "us-east-1"
    assert ask("meta-data/placement/") == "availability-zone\nregion"
    assert ask("meta-data/tags/instance/role") == "factory"
    assert ask("user-data") == SCRIPT.strip()
    assert cloud.prepared.key_name in ask("meta-data/public-keys/")
    [other] = running(cloud)
    assert fetch(cloud, other, "meta-data/instance-id", token) == "401"


def test_hosts_are_in_one_network(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    block = {"CidrBlock": "10.9.1.0/24", "AvailabilityZone": "us-east-1a"}
    subnet = ec2.create_subnet(VpcId=vpc, **block)["Subnet"]["SubnetId"]
    asked = request(cloud, SubnetId=subnet, SecurityGroupIds=[])
    with pytest.raises(ClientError, match=r"This test cloud has hosts in us-east-1 vpc-\w+ only"):
        ec2.run_instances(**asked)


# -- power ----------------------------------------------------------------------------------------


def test_stop_start_and_reboot(cloud: Cloud) -> None:
    [machine] = running(cloud, UserData=SCRIPT)
    ec2, names = cloud.client("ec2"), [machine.id]
    private, public_before = machine.private_address, machine.public_address
    out(cloud, machine, "echo kept > kept; sync; touch /tmp/gone")
    ec2.stop_instances(InstanceIds=names)
    reach(machine, "stopped")
    assert not cloud.host(machine.id).alive
    ec2.start_instances(InstanceIds=names)
    reach(machine, "running")
    assert machine.private_address == private != machine.public_address != public_before
    look = "cat kept; ls /tmp; sudo cat /srv/ran /srv/boots"
    wait(lambda: ssh(cloud, machine, look).stdout.endswith("booted\n"))
    first = f"kept\nby root on ip-{private.replace('.', '-')}\n"
    assert out(cloud, machine, look) == f"{first}booted"
    address = machine.public_address
    ec2.reboot_instances(InstanceIds=names)
    wait(lambda: ssh(cloud, machine, look).stdout == f"{first}booted\nbooted\n")
    ssh(cloud, machine, "sudo reboot")
    wait(lambda: ssh(cloud, machine, look).stdout == f"{first}booted\nbooted\nbooted\n")
    assert (machine.state, machine.public_address) == ("running", address)


@pytest.mark.parametrize(
    ("command", "behaviour", "becomes"),
    [
        ("sudo shutdown -h now", "terminate", "terminated"),
        ("sudo poweroff", "stop", "stopped"),
        ("sudo systemctl poweroff", "", "stopped"),
        ("sudo shutdown -P +0.01", "terminate", "terminated"),
    ],
)
def test_it_powers_itself_off(cloud: Cloud, command: str, behaviour: str, becomes: str) -> None:
    more: dict[str, Any] = {"InstanceInitiatedShutdownBehavior": behaviour} if behaviour else {}
    [machine] = running(cloud, **more)
    guest = cloud.host(machine.id)
    ssh(cloud, machine, command)
    reach(machine, becomes)
    reason = machine.model.state_reason
    assert reason.code == "Client.InstanceInitiatedShutdown"
    assert not guest.alive
    assert guest.folder.exists() == (becomes == "stopped")


def test_the_behaviour_is_changed_and_halting_is_no_shutdown(cloud: Cloud) -> None:
    [machine] = running(cloud)
    cloud.client("ec2").modify_instance_attribute(
        InstanceId=machine.id, InstanceInitiatedShutdownBehavior={"Value": "terminate"}
    )
    out(cloud, machine, "sudo halt; sudo shutdown +1; sudo shutdown -c")
    time.sleep(0.3)
    assert machine.state == "running"
    for command in (
        "/usr/sbin/poweroff",
        "sudo systemctl status ssh",
    ):  # not by one who is not root
        done = ssh(cloud, machine, command)
        assert done.returncode == 1, f"{done.stderr}\n{console(cloud, machine)}"
    ssh(cloud, machine, "sudo poweroff")
    reach(machine, "terminated")
    assert "Cloud-init finished" in console(cloud, machine)  # it can still be read


# -- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.faults
@pytest.mark.long
def test_login_and_console_come_late(cloud: Cloud) -> None:
    cloud.faults.login_delay(8.0)
    cloud.faults.console_delay(600)
    try:
        [name] = [
            one["InstanceId"]
            for one in cloud.client("ec2").run_instances(**request(cloud))["Instances"]
        ]
        machine = cloud.machine(name)
        reach(machine, "running")
        assert console(cloud, machine) == ""
        cloud.faults.console_delay(0.5)
        wait(lambda: console_key(cloud, machine))
        wait(lambda: "Permission denied" in ssh(cloud, machine, "true").stderr)
        wait(lambda: ssh(cloud, machine, "true").returncode == 0)
    finally:
        cloud.faults.clear()


@pytest.mark.faults
def test_a_host_that_breaks_is_an_instance_that_runs(cloud: Cloud) -> None:
    [machine] = running(cloud)
    guest = cloud.host(machine.id)
    guest.power_off()
    time.sleep(0.2)
    assert (guest.ended(), machine.state) == ("lost", "running")
    cloud.client("ec2").terminate_instances(InstanceIds=[machine.id])
    reach(machine, "terminated")


@pytest.mark.faults
def test_the_notice_of_an_interruption(cloud: Cloud) -> None:
    [machine] = running(cloud, InstanceMarketOptions={"MarketType": "spot"})
    path = "meta-data/spot/instance-action"
    assert fetch(cloud, machine, path) == "404"
    cloud.interrupt(machine.id)
    assert '"action": "terminate"' in fetch(cloud, machine, path)


def test_nothing_is_left(cloud: Cloud) -> None:
    number = cloud._rack.claim.number if cloud._rack else 0
    running(cloud)
    folder, bridge = cloud.prepared.key.parent, f"metal{number}"
    assert bridge in links()
    cloud.down()
    assert not folder.exists()
    assert bridge not in links() or any(one.number == number for one in claims())
    assert not cloud.machines
