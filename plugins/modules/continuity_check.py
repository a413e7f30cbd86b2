#!/usr/bin/python
"""Ansible module: the gaps of the datalake, as the installed ``cryptopip continuity`` tells them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: continuity_check
short_description: List the gaps of the datalake
version_added: 0.1.0
description:
  - Tells for each instrument and channel from when to when some ingestor was provably listening, and lists the gaps,
    which are the times when recording was meant and nobody was listening, with the kind of trouble behind each.
  - Runs the installed command C(cryptopip continuity --json). It changes nothing but the file O(report).
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
  rates:
    description: Look also for hours that are silent against the usual rate of their instrument in the week before.
    type: bool
    default: false
  read_rows:
    description:
      - Read every row too, for crossed and locked quotes, clocks that cannot be right, and percentiles of the lag.
        Takes as long as it takes to read them.
    type: bool
    default: false
  empty_hours:
    description: List the hours without a row too.
    type: bool
    default: false
  fail_on:
    description:
      - Kinds of trouble that make the task fail, with the same results. Gaps that ids prove to be mended are none.
    type: list
    elements: str
    choices: [not_listening, sequence_broken, ids_missing, stale, silent, crossed, clock_skew]
    default: []
  report:
    description: Write the answer to this file on the managed host too, as one HTML page.
    type: path
attributes:
  check_mode:
    support: full
    description: Can run in check_mode and return changed status prediction without modifying target.
  diff_mode:
    support: none
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    details: A report of another time is another page.
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
    rates: true
    fail_on: [not_listening, sequence_broken, ids_missing, silent]

- name: Write yesterday's page
  cryptopip.marketdata.continuity_check:
    since: "2026-11-01"
    until: "2026-11-02"
    read_rows: true
    report: /var/lib/cryptopip/continuity.html
"""

RETURN = r"""
gap_count:
  description: Number of gaps listed.
  returned: success
  type: int
  sample: 1
mended_count:
  description: How many of them ids prove to be mended.
  returned: success
  type: int
  sample: 0
found:
  description: The kinds of trouble found, mended gaps left out.
  returned: success
  type: list
  elements: str
  sample: [not_listening]
empty_hour_count:
  description: Number of hours without a row, where O(empty_hours) asks for them.
  returned: success
  type: int
  sample: 0
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
          (C(first_id_after)), for each ingestor why its listening ended (C(ended_by)), the C(kind) of trouble, and
          where ids tell, how many the exchange gave out in it (C(ids_between)) and how many of those the history does
          not have (C(missing_ids)); of trades, what C(cryptopip backfill) made of it (C(backfill), one of V(open),
          V(empty), V(mended) and V(out_of_reach), or null) and why (C(backfill_detail)).
      type: list
      elements: dict
      sample:
        - start: "2026-11-01T12:00:00Z"
          end: "2026-11-01T12:00:12.250000Z"
          seconds: 12.25
          last_id_before: "1000412"
          first_id_after: "1000530"
          ended_by: {ing1: crash, ing2: disconnect}
          kind: not_listening
          ids_between: 117
          missing_ids: 117
          backfill: out_of_reach
          backfill_detail: the exchange tells no trade before id 1000530
    missing:
      description: All stretches, however short, in which recording was meant and nobody was listening.
      type: list
      elements: dict
      sample: [{start: "2026-11-01T12:00:00Z", end: "2026-11-01T12:00:12.250000Z"}]
    troubles:
      description:
        - What was wrong while somebody was listening, with C(kind), C(start), C(end), C(detail), and of trade ids that
          are missing the first and the last (C(ids), else null).
      type: list
      elements: dict
      sample:
        - kind: silent
          start: "2026-11-01T14:00:00Z"
          end: "2026-11-01T15:00:00Z"
          detail: 30 rows in an hour, where 976 are usual
          ids: null
    empty_hours:
      description: The hours without a row, and how many seconds of each are covered.
      type: list
      elements: dict
      sample: [{hour: "2026-11-01T14:00:00Z", covered_seconds: 3600.0}]
    lag:
      description: Seconds from the exchange's time to receipt, with O(read_rows); null without rows.
      type: dict
      sample: {p50: 0.012, p90: 0.034, p99: 0.21, max: 1.4}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.cryptopip.marketdata.plugins.module_utils._cryptopip_command import CommandError, argv_of, ask

ASKED = ("config", "dsn", "since", "until", "exchange", "symbol", "channel", "min_gap", "settle")
SWITCHES = ("rates", "read_rows", "empty_hours")
KINDS = ["not_listening", "sequence_broken", "ids_missing", "stale", "silent", "crossed", "clock_skew"]


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
            "rates": {"type": "bool", "default": False},
            "read_rows": {"type": "bool", "default": False},
            "empty_hours": {"type": "bool", "default": False},
            "fail_on": {"type": "list", "elements": "str", "choices": KINDS, "default": []},
            "report": {"type": "path"},
        },
        supports_check_mode=True,
    )
    params = module.params
    argv = argv_of(params["command"], "continuity", {name: params[name] for name in ASKED})
    argv += [f"--{name.replace('_', '-')}" for name in SWITCHES if params[name]]
    page = None
    if params["report"]:
        if not Path(params["report"]).parent.is_dir():
            module.fail_json(msg=f"report {params['report']} is in no folder there is: make it, or name another")
        # Also in check mode, so that it tells whether the page would be another.
        page = str(Path(module.tmpdir) / "continuity.html")
        argv.append(f"--report={page}")
    try:
        answer = ask(module.run_command, argv)
    except CommandError as error:
        module.fail_json(msg=str(error), rc=error.rc, stderr=error.stderr)
    changed = False
    if page is not None:
        changed = not Path(params["report"]).exists() or module.sha256(page) != module.sha256(params["report"])
        if changed and not module.check_mode:
            module.atomic_move(page, params["report"])
    if failing := sorted(set(params["fail_on"]) & set(answer["found"])):
        module.fail_json(msg=f"found {', '.join(failing)}: see channels", changed=changed, **answer)
    module.exit_json(changed=changed, **answer)


if __name__ == "__main__":
    main()
