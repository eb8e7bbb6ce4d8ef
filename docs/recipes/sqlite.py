#!/usr/bin/env python3
"""sqlite.py DATABASE BALANCE: writes an account's balance, unless a newer holder has written."""
import os
import sqlite3
import sys

token = int(os.environ["QUORATE_FENCING_TOKEN"])
with sqlite3.connect(sys.argv[1]) as database:
    database.execute("CREATE TABLE IF NOT EXISTS account (id INTEGER PRIMARY KEY, balance, fence INTEGER)")
    database.execute("INSERT OR IGNORE INTO account VALUES (1, 0, 0)")
    # The check and the write are one statement.
    written = database.execute(
        "UPDATE account SET balance = ?, fence = ? WHERE id = 1"
        " AND fence <= ?3", (sys.argv[2], token, token))
if written.rowcount == 0:
    sys.exit(f"token {token} is stale: nothing was written")
