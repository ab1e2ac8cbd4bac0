"""Asks the history over PostgreSQL's protocol as psycopg and Grafana's data source do: `postgres_client.py PORT PASSWORD`. Says `ok`, or what was
answered instead of what was expected."""

import datetime
import decimal
import socket
import sys
import threading
import time

import psycopg

UTC = datetime.timezone.utc
PORT, PASSWORD = sys.argv[1:]
# What Grafana sends when a data source is saved, what its editors ask, and what its macros become.
VERSION = "SELECT current_setting('server_version_num')::int/100 as version"
TIMESCALE = "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'"
SCHEMAS = "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT LIKE 'pg_%%' AND schema_name != 'information_schema' ORDER BY schema_name"
TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = %s AND table_type IN ('BASE TABLE', 'VIEW') ORDER BY table_name"
TIME_GROUP = """SELECT floor(extract(epoch from ts)/300)*300 AS "time", host AS metric, avg(power_watts) FROM gpu
WHERE ts BETWEEN '2020-05-28T20:00:00Z' AND '2120-05-29T02:00:00.123Z' GROUP BY 1,2 ORDER BY 1,2"""
TIME_EPOCH = 'SELECT extract(epoch from ts) as "time", power_watts FROM gpu LIMIT 3'


def same(what, found, expected):
    if found != expected:
        sys.exit(f"{what}: {found!r}, not {expected!r}")


def refused(connection, sql, state, *values):
    try:
        connection.execute(sql, *values)
    except psycopg.Error as error:
        same(sql, error.sqlstate, state)
        return
    sys.exit(f"{sql}: not refused")


def connect(password=PASSWORD, **more):
    return psycopg.connect(host="127.0.0.1", port=PORT, user="grafana", password=password, dbname="tidewatch", **more)


try:
    connect("wrong")
    sys.exit("let in with a wrong password")
except psycopg.OperationalError:
    pass

db = connect(autocommit=True)
same("version", db.info.server_version, 160006)
same("grafana's version", db.execute(VERSION).fetchall(), [(1600,)])
same("in words", db.execute("SELECT version()").fetchone()[0].startswith("PostgreSQL 16.6 "), True)
same("no extensions", db.execute("SELECT typname FROM pg_type t WHERE t.oid = to_regtype('hstore')").fetchall(), [])
same("timescale", db.execute(TIMESCALE).fetchall(), [])
same("schemas", db.execute(SCHEMAS, ()).fetchall(), [("public",)])
tables = [name for (name,) in db.execute(TABLES, ("public",)).fetchall()]
same("tables", {"gpu", "alert_event", "train_step"} - set(tables), set())
grouped = db.execute(TIME_GROUP).fetchall()
same("groups", bool(grouped) and all(time % 300 == 0 for time, _, _ in grouped), True)
same("epochs", [len(row) for row in db.execute(TIME_EPOCH).fetchall()], [2, 2, 2])
same("pings", [db.execute(ping).description for ping in (";", "-- ping")], [None, None])

# Text and binary, every type that tables have.
COLUMNS = "SELECT ts, host, gpu_index, power_watts, remap_failed, recovery_action FROM gpu ORDER BY ts, gpu_uuid LIMIT 50"
text, binary = db.execute(COLUMNS).fetchall(), db.cursor(binary=True).execute(COLUMNS).fetchall()
same("text and binary", text, binary)
same("a time has a zone", text[0][0].utcoffset(), datetime.timedelta(0))
same("types", [type(value) for value in text[0][:4]], [datetime.datetime, str, int, float])
same("a map", db.execute("SELECT map(['a'], ['b\"c'])").fetchall(), [({"a": 'b"c'},)])

# Values.
early = datetime.datetime(2020, 1, 1, tzinfo=UTC)
bound = "SELECT count(*) > 0 FROM gpu WHERE ts > %s AND gpu_index < %s AND power_watts > %s AND host <> %s"
same("bound", db.execute(bound, (early, 99, 0.5, "nobody")).fetchall(), [(True,)])
same("bound, binary", db.execute(bound.replace("%s", "%b"), (early, 99, 0.5, "nobody")).fetchall(), [(True,)])
same("a date", db.execute("SELECT %s::timestamp", (datetime.date(2026, 1, 2),)).fetchall(), [(datetime.datetime(2026, 1, 2),)])
exact = "SELECT DATE '2026-05-28', CAST('-12345.670' AS decimal(10, 3)), CAST('0' AS decimal(3, 2))"
values = [(datetime.date(2026, 5, 28), decimal.Decimal("-12345.670"), decimal.Decimal("0.00"))]
same("dates and decimals", db.execute(exact).fetchall(), values)
same("dates and decimals, binary", db.cursor(binary=True).execute(exact).fetchall(), values)
same("NULL", db.execute("SELECT count(*) FROM gpu WHERE host = %s", (None,)).fetchall(), [(0,)])
for _ in range(7):
    same("prepared", db.execute("SELECT %s::bigint + 1", (41,)).fetchall(), [(42,)])
refused(db, "SELECT count(*) FROM gpu WHERE gpu_index = %s::bigint", "22P02", ("x",))

# Only reading; a transaction that failed waits for its end.
for sql in ("CREATE TABLE x (a int)", "INSERT INTO gpu SELECT * FROM gpu", "COPY gpu TO '/tmp/x'", "DROP TABLE gpu"):
    refused(db, sql, "25006")
refused(db, "SELECT nosuch FROM gpu", "42703")
refused(db, "SELECT * FROM nosuch", "42P01")
refused(db, "SELECT nosuch(1) FROM gpu", "42883")
refused(db, "SELECT count(* FROM gpu", "42601")
refused(db, "SELECT 1 / (gpu_index - gpu_index) FROM gpu", "22012")
refused(db, "SELECT host, count(*) FROM gpu", "42803")
refused(db, "SELEC 1", "42601")
refused(db, "SELECT repeat('x', 1500000000)", "0A000")
within = connect()
same("a transaction", within.execute("SELECT 1").fetchall(), [(1,)])
refused(within, "SELECT nosuch FROM gpu", "42703")
refused(within, "SELECT 1", "25P02")
within.rollback()
same("after it", within.execute("SELECT 2").fetchall(), [(2,)])

# A question that is cancelled ends at once, and the next one is answered.
begun = time.monotonic()
threading.Timer(1, db.cancel).start()
refused(db, "SELECT count(*) FROM gpu a, gpu b, gpu c WHERE a.power_watts + b.power_watts > c.power_watts", "57014")
same("cancelled soon", time.monotonic() - begun < 5, True)
same("after it", db.execute("SELECT 3").fetchall(), [(3,)])

# Several questions in one message, one after the other.
many = db.execute("SELECT ts FROM gpu; SELECT ts FROM gpu; SELECT 4")
same("of several", [many.rowcount, many.nextset(), many.rowcount, many.nextset(), many.fetchall()], [960, True, 960, True, [(4,)]])
with connect() as within, within.transaction():
    try:
        with within.transaction():
            within.execute("SELECT nosuch")
    except psycopg.Error:
        pass
    same("after a savepoint", within.execute("SELECT 5").fetchall(), [(5,)])

# What strangers send harms nobody: messages that are none, and a text that takes its parser minutes.
for _ in range(400):
    with socket.create_connection(("127.0.0.1", int(PORT))) as stranger:
        startup = b"\0\3\0\0user\0x\0\0"
        stranger.sendall((len(startup) + 4).to_bytes(4, "big") + startup + b"p\0\0\0\0")
# They have taken places for connections, which are free again once they are turned away.
for attempt in range(60):
    try:
        patient = connect(autocommit=True)
        break
    except psycopg.OperationalError:
        time.sleep(0.5)
slow = threading.Thread(target=refused, args=(patient, "SELECT " + "position(" * 16, "57014"))
slow.start()
begun = time.monotonic()
same("beside it", connect().execute("SELECT 6").fetchall(), [(6,)])
same("beside it, soon", time.monotonic() - begun < 5, True)
slow.join()
print("ok")
