import yaml

from cluster.derived_keys import KeyPair, derive_key_pair
from cluster.user_data import render_user_data

WHOLE = """\
#cloud-config
# The key that the program logs in with, and the host key by which this machine is known before it exists. Nothing else is secret
# here. install-scripts.sh authorizes the key of the operator.

users:
  - name: pulumi
    gecos: Remote steps of the cluster's program
    shell: /bin/bash
    lock_passwd: true
    sudo: "ALL=(ALL) NOPASSWD:ALL"
    ssh_authorized_keys:
      - ssh-ed25519 AAAAclient

# No key from the instance's metadata, no root. Passwords are refused below, before sshd starts: cloud-init's own
# setting restarts sshd, and the command provider never recovers from a login through the jump host that this cuts off.
allow_public_ssh_keys: false
disable_root: true
ssh_pwauth: unchanged

ssh_deletekeys: true
ssh_keys:
  ed25519_private: |
    -----BEGIN OPENSSH PRIVATE KEY-----
    line one
    line two
    -----END OPENSSH PRIVATE KEY-----
  ed25519_public: ssh-ed25519 AAAAhost

write_files:
  # sshd would also offer keys of other kinds, which Debian makes at the first boot and nobody knows.
  - path: /etc/ssh/sshd_config.d/10-ant-media-cluster.conf
    content: |
      HostKey /etc/ssh/ssh_host_ed25519_key
      PermitRootLogin no
      PasswordAuthentication no

# Ant Media's Marketplace image would make an administrator of its own; other machines have no such folder.
bootcmd:
  - [sh, -c, "[ ! -d /usr/local/antmedia/conf ] || touch /usr/local/antmedia/conf/initialized"]

# The remote steps install what they need, when they run.
package_update: false
package_upgrade: false
"""


HOLD_SERVER = """\
  # Its server knows no stream of the cluster. HAProxy must not send viewers to it before it is set up.
  - [sh, -c, "[ ! -d /usr/local/antmedia/conf ] || cloud-init-per instance hold-server systemctl stop --no-block antmedia"]
"""


def test_the_whole_user_data_document():
    private = "-----BEGIN OPENSSH PRIVATE KEY-----\nline one\nline two\n-----END OPENSSH PRIVATE KEY-----\n"
    host_key, client_key = KeyPair(private, "ssh-ed25519 AAAAhost"), "ssh-ed25519 AAAAclient"
    assert render_user_data(host_key, client_key, runs_server=False) == WHOLE
    of_node = render_user_data(host_key, client_key, runs_server=True)
    assert of_node == WHOLE.replace("\n# The remote steps", HOLD_SERVER + "\n# The remote steps")


def test_cloud_init_gets_the_exact_host_key():
    key = derive_key_pair("ab" * 32, "edge1")
    document = yaml.safe_load(render_user_data(key, "ssh-ed25519 AAAAclient", runs_server=True))
    assert document["ssh_keys"] == {
        "ed25519_private": key.private_openssh,
        "ed25519_public": key.public_openssh,
    }
