#!/usr/bin/python
"""Ansible module: the gaps of the datalake, as the installed ``cryptopip continuity`` tells them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: continuity_check
short_description: List the gaps of the datalake
version_added: 0.1.0
description:
  - Tells for each instrument and channel from when to when some ingestor was provably listening, and lists the gaps,
    which are the times when recording was meant and nobody was listening.
  - Runs the installed command C(cryptopip continuity --json) and changes nothing.
options:
  command:
    description: The installed command on the managed host.
    type: path
    default: /opt/cryptopip/bin/cryptopip
  config:
    description: Configuration of the host; it names the datalake.
    type: path
    default: /etc/cryptopip/cryptopip.yml
  dsn:
    description:
      - Conninfo of the datalake, instead of the one in O(config). Leave the password to a passfile.
    type: str
  since:
    description:
      - From when, in ISO 8601, UTC unless it says otherwise. Without it, from when recording was meant to begin.
    type: str
  until:
    description:
      - Up to when, in ISO 8601. Without it, up to now, but see O(settle).
    type: str
  exchange:
    description: Only this exchange, by its id such as V(binance).
    type: str
  symbol:
    description: Only instruments whose symbol is like this; V(*) and V(?) stand for any text, as in V(*/USDT).
    type: str
  channel:
    description: Only this channel.
    type: str
    choices: [trades, quotes, book_events, derivatives, liquidations]
  min_gap:
    description: Smallest gap to list, with its unit (ms, s, m, h, d). What is covered is told exactly all the same.
    type: str
    default: 0s
  settle:
    description:
      - Without O(until), how long ingestors and sync may take to deliver before what is missing is called a gap.
    type: str
    default: 2m
  fail_on_gaps:
    description: Whether the task fails when it lists a gap. The results are the same.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    support: none
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
  idempotent:
    support: full
    description: A second run with the same arguments indicates no change.
author:
  - The CRYPTOPIP developers (@cryptopip)
"""

EXAMPLES = r"""
# Ad hoc: ansible datalake -m cryptopip.marketdata.continuity_check -a since=2026-11-01

- name: List gaps of a second and longer in the trades of BTC
  cryptopip.marketdata.continuity_check:
    since: "2026-11-01"
    symbol: BTC/*
    channel: trades
    min_gap: 1s
  register: continuity

- name: Stop a play where yesterday has a gap
  cryptopip.marketdata.continuity_check:
    since: "{{ '%Y-%m-%d' | strftime(ansible_facts.date_time.epoch | int - 86400, utc=true) }}"
    until: "{{ '%Y-%m-%d' | strftime(ansible_facts.date_time.epoch | int, utc=true) }}"
    fail_on_gaps: true
"""

RETURN = r"""
gap_count:
  description: Number of gaps listed.
  returned: success
  type: int
  sample: 1
gap_seconds:
  description: Their length together.
  returned: success
  type: float
  sample: 12.25
recorded_seconds:
  description: How long recording was meant, all instruments and channels together.
  returned: success
  type: float
  sample: 86400.0
covered_seconds:
  description: How long somebody was listening, all instruments and channels together.
  returned: success
  type: float
  sample: 86387.75
rows:
  description: Rows of the history in the time asked for.
  returned: success
  type: int
  sample: 1250431
channels:
  description: One entry for each instrument and channel.
  returned: success
  type: list
  elements: dict
  contains:
    instrument_id:
      description: Number of the instrument.
      type: int
      sample: 1
    exchange:
      description: Its exchange.
      type: str
      sample: binance
    symbol:
      description: Its symbol.
      type: str
      sample: BTC/USDT
    channel:
      description: The channel.
      type: str
      sample: trades
    until:
      description: Up to when this channel was checked.
      type: str
      sample: "2026-11-02T00:00:00Z"
    recorded_seconds:
      description: How long recording was meant.
      type: float
      sample: 86400.0
    covered_seconds:
      description: How long somebody was listening.
      type: float
      sample: 86387.75
    ratio:
      description: Share of the time meant that is covered; null where recording was not meant.
      type: float
      sample: 0.99985822
    rows:
      description: Rows of the history in the time checked.
      type: int
      sample: 1250431
    covered:
      description: The intervals during which somebody was listening, with C(start) and C(end).
      type: list
      elements: dict
      sample: [{start: "2026-11-01T00:00:00Z", end: "2026-11-01T12:00:00Z"}]
    gaps:
      description:
        - The gaps, with C(start), C(end), C(seconds), the last id before (C(last_id_before)), the first one after
          (C(first_id_after)), and for each ingestor why its listening ended (C(ended_by)).
      type: list
      elements: dict
      sample:
        - start: "2026-11-01T12:00:00Z"
          end: "2026-11-01T12:00:12.250000Z"
          seconds: 12.25
          last_id_before: "1000412"
          first_id_after: "1000530"
          ended_by: {ing1: crash, ing2: disconnect}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cryptopip.marketdata.plugins.module_utils._cryptopip_command import CommandError, argv_of, ask

ASKED = ("config", "dsn", "since", "until", "exchange", "symbol", "channel", "min_gap", "settle")


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "command": {"type": "path", "default": "/opt/cryptopip/bin/cryptopip"},
            "config": {"type": "path", "default": "/etc/cryptopip/cryptopip.yml"},
            "dsn": {"type": "str"},
            "since": {"type": "str"},
            "until": {"type": "str"},
            "exchange": {"type": "str"},
            "symbol": {"type": "str"},
            "channel": {"type": "str", "choices": ["trades", "quotes", "book_events", "derivatives", "liquidations"]},
            "min_gap": {"type": "str", "default": "0s"},
            "settle": {"type": "str", "default": "2m"},
            "fail_on_gaps": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    argv = argv_of(params["command"], "continuity", {name: params[name] for name in ASKED})
    try:
        answer = ask(module.run_command, argv)
    except CommandError as error:
        module.fail_json(msg=str(error), rc=error.rc, stderr=error.stderr)
    if params["fail_on_gaps"] and answer["gap_count"]:
        gap_count, seconds = answer["gap_count"], answer["gap_seconds"]
        module.fail_json(msg=f"{gap_count} gaps of {seconds:.3f} s in all were found: see channels", **answer)
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
