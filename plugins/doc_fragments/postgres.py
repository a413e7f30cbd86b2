"""The connection options all modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """Read by ansible-doc."""

    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - Address of the server, or the folder of its Unix socket.
      - When omitted, libpq decides (C(/var/run/postgresql) with Debian's packages).
    type: str
  login_port:
    description: Port of the server; it names the socket too.
    type: int
    default: 5432
  login_user:
    description: Role to log in as.
    type: str
    default: postgres
  login_password:
    description: Password of O(login_user). Not needed on a socket with peer authentication.
    type: str
  ssl_mode:
    description: How far to insist on TLS, in libpq's words. It has no meaning on a socket.
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
    default: prefer
  ca_cert:
    description: File on the managed host with the certificate authority that signed the server's certificate.
    type: path
requirements:
  - psycopg 3.1 or newer on the managed host (Debian 13 has it as C(python3-psycopg))
"""
