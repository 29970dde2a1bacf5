"""Prints the schema of the hub's database in folder 1, and below it the schema and name of each copy made since time 2."""

import datetime
import os
import sqlite3
import sys


def schema(file):
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    return database.execute("select version_num from alembic_version").fetchone()[0]


os.chdir(sys.argv[1])
time = sys.argv[2]
zone = "+00:00" if time.endswith("Z") else time[-6:]
since = datetime.datetime.fromisoformat(time[:19] + zone).timestamp()
print(schema("jupyterhub.sqlite"))
for file in sorted(os.listdir(), reverse=True):
    if file.startswith("jupyterhub.sqlite.") and os.stat(file).st_mtime >= since:
        try:
            print(schema(file), file)
        except sqlite3.Error:
            pass
