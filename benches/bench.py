"""Credkeeper against a plain loop and against what the database can do at all. `./bench` builds and calls this.

Each run starts from a byte copy of the same database, right after a checkpoint. The runs alternate (A B C A B C), and a ratio
is the median of the ratios within each round, so that other work on the machine, which comes and goes over minutes, cancels out.
What each run leaves in the database is checked: fast and wrong is an error.
"""

import argparse
import hashlib
import io
import os
import re
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

import psycopg2

ROOT = Path(__file__).resolve().parent.parent
DIGITS, DAYS = 8, 365
USERNAME, EMAIL = r"[^@\s]+@[^@\s]+\.[^@\s]+", r".*@example\.com"
INSERT = "INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date)"
REAL = "u.flag & 1 = 1 AND u.flag & 49152 = 0"

# The tests' tables, with an index on the owner of a card. One user in a hundred is marked as deleted, three in ten have a card.
FILL = """
CREATE INDEX users_cards_user ON tenant_1.users_cards (user_id);
SET search_path = tenant_1;
INSERT INTO users (login, email, name, surname, flag, ou_id, ou_number)
  SELECT 'person' || g || '@example.com', 'person' || g || '@example.com', 'Given' || g, 'Family' || g % 5000,
         CASE WHEN g % 100 = 0 THEN 16385 ELSE 1 END, {center[0]}, {center[1]}
    FROM generate_series(1, {users}) g;
INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag)
  SELECT g, upper(substr(md5('card' || g), 1, 14)), 0, 0 FROM generate_series(1, {users}) g WHERE g % 10 < 3;
"""
SETTLE = """
INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date)
  SELECT g, 'PIN' || md5(lpad((g::bigint * 7654321 % 100000000)::text, 8, '0')), 0, 0, localtimestamp + interval '300 days'
    FROM generate_series(1, {users}) g WHERE g % 100 <> 0;
"""

CONFIG = """
databases:
  - name: main
    url: {url}
    tls: {{mode: disable}}
    schema: tenant_1
    schema_map: {{cost_centers: {{verified: true}}}}
limits: {{users_per_pass: unlimited, replace_percent: unlimited, mails_per_minute: unlimited}}
policies:
  - name: everybody
    match: {{username: '{username}', email: '{email}'}}
    pin: {{length: 8, rewrite: expired, valid_for: 365d}}
    cost_center: {{move_to: Has PIN}}
    notify: {notify}
{mail}
journal: {{path: {folder}/journal.db, key: {{file: {folder}/journal.key}}}}
"""
SILENT = ("{to: none, unannounced: true}", "mail: {transport: none}")
MAILED = (
    "{to: email, template: pin}",
    "mail: {transport: smtp, host: 127.0.0.1, port: %d, tls: none, from: Print <print@example.com>, connections: 1}\n"
    "templates:\n  pin:\n    subject: Your PIN\n    parts: ['Hello {{ name }} {{ surname }}, your PIN is {{ pin }} until {{ expires }}.']",
)


class Cluster:
    """A PostgreSQL of its own with default durability. A server refuses to run as root, so root runs it as `postgres`."""

    def __init__(self):
        self.port, self.folder = free_port(), Path(tempfile.mkdtemp(prefix="credkeeper-bench-"))
        bins = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name))
        self.bin = str(bins[-1]) + "/" if bins else ""
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o700)
        if self.user:
            self.folder.chmod(0o755)
            shutil.chown(self.data, "postgres", "postgres")
        self.run("initdb", "-D", self.data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        # Only so that no checkpoint falls into the middle of a short run.
        more = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories= -c max_wal_size=8GB"
        self.run("pg_ctl", "-D", self.data, "-w", "-l", self.data / "log", "-o", more, "start")
        self.pid = (self.data / "postmaster.pid").read_text().split()[0]
        self.sql("postgres", "CREATE ROLE credkeeper", "CREATE ROLE reader", "CREATE ROLE locked")  # whom the tables' grants name

    def run(self, program, *arguments):
        subprocess.run([self.bin + program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, cwd="/", **self.user)

    def stop(self):
        self.run("pg_ctl", "-D", self.data, "-m", "fast", "-w", "stop")
        shutil.rmtree(self.folder)

    def connect(self, database="bench"):
        return psycopg2.connect(host="127.0.0.1", port=self.port, user="bench", dbname=database)

    def sql(self, database, *statements):
        connection = self.connect(database)
        connection.autocommit = True
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        rows = cursor.fetchall() if cursor.description else None
        connection.close()
        return rows

    def template(self, name, users, settled):
        print(f"filling {name} with {users:,} users", file=sys.stderr)
        tables = (ROOT / "tests/it/data/tables.postgres.sql").read_text()
        fill = FILL + (SETTLE if settled else "")
        fill = fill.format(users=users, center=(12, 200) if settled else (11, 100))
        self.sql("postgres", f"CREATE DATABASE {name}")
        self.sql(name, tables, fill, "VACUUM (ANALYZE)")

    def fresh(self, template):
        copy = f"CREATE DATABASE bench TEMPLATE {template} STRATEGY file_copy"
        self.sql("postgres", "DROP DATABASE IF EXISTS bench", copy, "CHECKPOINT")

    def cpu(self):
        """Seconds of CPU that ended sessions have used, as the server's first process was told by the kernel."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            return float("nan")


def due(cursor):
    """Ids of the users without a PIN whom the two patterns accept."""
    cursor.execute(
        f"SELECT u.id, u.login, u.email FROM users u WHERE {REAL} AND NOT EXISTS"
        " (SELECT 1 FROM users_cards c WHERE c.user_id = u.id AND c.card LIKE 'PIN%')")
    return [user for user, login, email in cursor if re.fullmatch(USERNAME, login) and re.fullmatch(EMAIL, email)]


def plain_loop(cluster, sample):
    """One user after the other, each in a transaction of his own: draw, look whether it is taken, insert, move."""
    connection = cluster.connect()
    cursor = connection.cursor()
    cursor.execute("SET search_path = tenant_1")
    done = 0
    for user in due(cursor)[:sample]:
        while True:
            card = stored(secrets.randbelow(10**DIGITS))
            cursor.execute("SELECT 1 FROM users_cards WHERE card = %s", (card,))
            if not cursor.fetchone():
                break
        cursor.execute(f"{INSERT} VALUES (%s, %s, 0, 0, %s)", (user, card, datetime.now() + timedelta(days=DAYS)))
        cursor.execute("SELECT id, number FROM ou WHERE name = 'Has PIN'")
        cursor.execute("UPDATE users SET ou_id = %s, ou_number = %s WHERE id = %s", (*cursor.fetchone(), user))
        connection.commit()
        done += 1
    connection.close()
    return {"users": done}


def one_copy(cluster):
    """Everybody by one COPY and two statements in one transaction: no checks, no lock, no journal. The limit."""
    connection = cluster.connect()
    cursor = connection.cursor()
    cursor.execute("SET search_path = tenant_1")
    users, pins = due(cursor), set()
    while len(pins) < len(users):
        pins.add(secrets.randbelow(10**DIGITS))
    text = io.StringIO("".join(f"{user}\t{stored(pin)}\n" for user, pin in zip(users, pins)))
    cursor.execute("CREATE TEMP TABLE made (id bigint, card text) ON COMMIT DROP")
    cursor.copy_expert("COPY made FROM STDIN", text)
    cursor.execute("ANALYZE made")
    cursor.execute(
        f"{INSERT} SELECT m.id, m.card, 0, 0, localtimestamp + interval '{DAYS} days' FROM made m"
        " WHERE NOT EXISTS (SELECT 1 FROM users_cards c WHERE c.card = m.card)")
    assert cursor.rowcount == len(users), "a drawn PIN was taken; run again"
    cursor.execute("UPDATE users u SET ou_id = 12, ou_number = 200 FROM made m WHERE u.id = m.id")
    connection.commit()
    connection.close()
    return {}


def bare_anti_join(cluster):
    """Who has no valid PIN? One statement, nobody found, nothing sent back."""
    found = cluster.sql(
        "bench", "SET search_path = tenant_1",
        f"SELECT u.id, u.login, u.email FROM users u WHERE {REAL} AND NOT EXISTS (SELECT 1 FROM users_cards c"
        " WHERE c.user_id = u.id AND c.card LIKE 'PIN%' AND (c.pin_expiration_date IS NULL OR c.pin_expiration_date > localtimestamp))")
    assert found == []
    return {}


def credkeeper(cluster, program, mail=SILENT):
    """One pass, as a process of its own, with an empty journal; its peak memory and CPU come from the kernel."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        url = f"postgres://bench@127.0.0.1:{cluster.port}/bench"
        config.write_text(CONFIG.format(url=url, username=USERNAME, email=EMAIL, folder=folder, notify=mail[0], mail=mail[1]))
        with open(Path(folder) / "log", "wb") as log:
            process = subprocess.Popen([program, "--config", config, "--once"], stdout=log, stderr=log)
            peak = 0
            while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
                peak = max(peak, resident(process.pid))
                time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        if process.returncode:
            tail = (Path(folder) / "log").read_text(errors="replace")[-2000:]
            sys.exit(f"credkeeper ended with {process.returncode}:\n{tail}")
    return {"client_cpu": ended[2].ru_utime + ended[2].ru_stime, "peak": peak}


def resident(pid):
    """The most memory that a process has had so far, in MiB. What wait4 tells would count the Python that it was forked from."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) / 1024 if found else 0
    except OSError:
        return 0


def stored(pin):
    return "PIN" + hashlib.md5(f"{pin:0{DIGITS}}".encode()).hexdigest()


def check(cluster, name, users):
    """Each of the first `users` real users has one valid PIN that nobody else has, and is in “Has PIN”."""
    cards = "SELECT user_id FROM tenant_1.users_cards WHERE card ~ '^PIN[0-9a-f]{32}$' AND pin_expiration_date > localtimestamp"
    [(owners, pins, values, moved)] = cluster.sql(
        "bench",
        f"SELECT (SELECT count(DISTINCT user_id) FROM ({cards}) x), (SELECT count(*) FROM ({cards}) x),"
        " (SELECT count(DISTINCT card) FROM tenant_1.users_cards WHERE card LIKE 'PIN%'),"
        f" (SELECT count(*) FROM tenant_1.users u WHERE {REAL} AND ou_id = 12 AND ou_number = 200)")
    if (owners, pins, values, moved) != (users,) * 4:
        sys.exit(f"{name} left the database wrong: {users} users, but {owners} with a PIN, {pins} PINs, {values} values, {moved} moved")


def measured(cluster, name, run, expected):
    cpu, begun = cluster.cpu(), time.perf_counter()
    own = time.process_time()
    outcome = run()
    row = {"wall": time.perf_counter() - begun, "client_cpu": time.process_time() - own, "users": expected, "peak": 0} | outcome
    time.sleep(0.3)  # until the server has taken leave of the session
    row["server_cpu"] = cluster.cpu() - cpu
    check(cluster, name, row["users"])
    return row


def alternate(cluster, rounds, template, runs, expected):
    rows = {name: [] for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            cluster.fresh(template)
            rows[name].append(measured(cluster, name, run, expected))
            print(f"round {number + 1}: {name}: {rows[name][-1]['wall']:.2f} s", file=sys.stderr)
    return rows


class Sink(threading.Thread):
    """A mail server that takes everything and notes when the first and the last mail came."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.mails, self.first, self.last = self.listener.getsockname()[1], 0, 0.0, 0.0
        self.start()

    def run(self):
        while True:
            threading.Thread(target=self.talk, args=self.listener.accept()[:1], daemon=True).start()

    def talk(self, client):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines, body = client.makefile("rb"), False
        say = lambda text: client.sendall(text + b"\r\n")
        say(b"220 sink ESMTP")
        for line in lines:
            if body:
                if line == b".\r\n":
                    body, self.mails, self.last = False, self.mails + 1, time.perf_counter()
                    self.first = self.first or self.last
                    say(b"250 taken")
            elif line[:4].upper() == b"EHLO":
                say(b"250-sink\r\n250 8BITMIME")
            elif line[:4].upper() == b"DATA":
                body = True
                say(b"354 go on")
            elif line[:4].upper() == b"QUIT":
                return say(b"221 bye")
            else:
                say(b"250 ok")


def mailing(cluster, program, rounds):
    """Mails a second over one connection, from the first to the last, while the pass itself goes on."""
    cluster.template("mailed", 5_000, settled=False)
    rates = []
    for _ in range(rounds):
        cluster.fresh("mailed")
        sink = Sink()
        credkeeper(cluster, program, (MAILED[0], MAILED[1] % sink.port))
        check(cluster, "credkeeper with mail", 4_950)
        assert sink.mails == 4_950, f"{sink.mails} mails for 4,950 PINs"
        rates.append((sink.mails - 1) / (sink.last - sink.first))
    return rates


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def told(rows, digits):
    """One line for each kind of run."""
    for name, of in rows.items():
        cpu = ", ".join(f"{statistics.median(row[side + '_cpu'] / row['users'] for row in of) * 1e6:.1f} us {side}" for side in ("client", "server"))
        rate = statistics.median(row["users"] / row["wall"] for row in of)
        wall, peak = statistics.median(row["wall"] for row in of), max(row["peak"] for row in of)
        yield f"{name:<12} {wall:>8.{digits}f} s {rate:>11,.0f} users/s   CPU a user: {cpu}" + (f"   peak {peak:.0f} MiB" if peak else "")


def ratio(rows, one, other, of):
    ratios = [of(a) / of(b) for a, b in zip(rows[one], rows[other])]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=3_000, help="users of the plain loop; its rate does not depend on how many there are")
    parser.add_argument("--only", choices=["first", "idle", "mail"], help="only this part")
    parser.add_argument("--program", default=str(ROOT / "target/release/credkeeper"))
    a = parser.parse_args()
    program, real = str(Path(a.program).resolve()), a.users - a.users // 100
    rate, wall = lambda row: row["users"] / row["wall"], lambda row: row["wall"]
    cpu = lambda row: (row["client_cpu"] + row["server_cpu"]) / row["users"]
    cluster, out = Cluster(), []
    try:
        if a.only in (None, "first"):
            cluster.template("cold", a.users, settled=False)
            rows = alternate(cluster, a.rounds, "cold", {
                "plain loop": lambda: plain_loop(cluster, a.sample),
                "one COPY": lambda: one_copy(cluster),
                "credkeeper": lambda: credkeeper(cluster, program)}, real)
            out += [f"First pass over {a.users:,} users, {real:,} without a PIN (the plain loop: {a.sample:,} of them)", *told(rows, 2),
                    f"credkeeper : plain loop, users/s   {ratio(rows, 'credkeeper', 'plain loop', rate)}",
                    f"plain loop : credkeeper, CPU       {ratio(rows, 'plain loop', 'credkeeper', cpu)}",
                    f"credkeeper : one COPY, users/s     {ratio(rows, 'credkeeper', 'one COPY', rate)}", ""]
        if a.only in (None, "idle"):
            cluster.template("warm", a.users, settled=True)
            rows = alternate(cluster, a.rounds, "warm", {
                "anti-join": lambda: bare_anti_join(cluster),
                "credkeeper": lambda: credkeeper(cluster, program)}, real)
            out += [f"Nothing to do, {a.users:,} users", *told(rows, 3),
                    f"credkeeper : anti-join, time       {ratio(rows, 'credkeeper', 'anti-join', wall)}", ""]
        if a.only in (None, "mail"):
            rates = mailing(cluster, program, a.rounds)
            out += [f"Mail over one connection, while the PINs are issued: {statistics.median(rates):,.0f} mails/s", ""]
    finally:
        cluster.stop()
    load = " ".join(f"{n:.1f}" for n in os.getloadavg())
    print("\n".join(out) + f"\nMedians of {a.rounds} rounds (ratios: of each round, with their range); {os.cpu_count()} cores, load at the end {load}.")


main()
