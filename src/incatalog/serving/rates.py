"""Requests a minute, counted for all services that share a state."""

from __future__ import annotations

from pathlib import Path

from incatalog.serving.address import opened

_TABLES = """
CREATE TABLE IF NOT EXISTS rates (who TEXT PRIMARY KEY, until DOUBLE PRECISION NOT NULL);
"""
# A bucket that fills up evenly, as the time at which it is full again: one statement takes from it
# or, by changing no row, says that it is empty.
_TAKE = """
INSERT INTO rates (who, until) VALUES (?, {clock} + ?) ON CONFLICT (who) DO UPDATE
SET until = CASE WHEN rates.until > {clock} THEN rates.until ELSE {clock} END + ?
WHERE rates.until + ? <= {clock} + ?
"""
_LEFT = "SELECT until - {clock} FROM rates WHERE who = ?"
_FULL = "DELETE FROM rates WHERE until < {clock}"
_SECONDS = 60.0
_TIDIED = 1000  # requests after which full buckets are forgotten


class SharedRates:
    """One bucket for each client, whichever service it asks; a power cut fills them all."""

    def __init__(self, address: str | Path, timeout: float) -> None:
        self._database = opened(address, _TABLES, timeout, durable=False)
        self._taken = 0

    def take(self, who: str, limit: int) -> float:
        """Counts a request; the seconds to wait if there were too many, and 0 if not."""
        one, clock = _SECONDS / limit, self._database.clock
        with self._database.change() as made:
            self._taken += 1
            if self._taken % _TIDIED == 0:
                made.run(_FULL.format(clock=clock))
            if made.run(_TAKE.format(clock=clock), (who, one, one, one, _SECONDS)):
                return 0.0
            [(left,)] = made.rows(_LEFT.format(clock=clock), (who,))
        return max(float(left) + one - _SECONDS, one / 1000)

    def close(self) -> None:
        """Closes the database."""
        self._database.close()
