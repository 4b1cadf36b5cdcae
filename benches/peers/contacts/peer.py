"""Notification lists with the routes of `examples/downtime`, as a Flask service usually has them: SQLite, a connection a thread, and as
durable: each change is on disk when it is answered. Run by gunicorn; see `run`."""

import os
import sqlite3
import threading

from email_validator import EmailNotValidError, validate_email
from flask import Flask, jsonify, request

app = Flask(__name__)
local = threading.local()
SCHEMA = """
CREATE TABLE IF NOT EXISTS lists (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contacts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, list TEXT NOT NULL, key TEXT NOT NULL, address TEXT NOT NULL, UNIQUE (list, key));
"""


def database():
    if not hasattr(local, "database"):
        local.database = sqlite3.connect(os.environ["CONTACTS_FILE"], isolation_level=None, timeout=30)
        local.database.execute("PRAGMA journal_mode = WAL")
        local.database.execute("PRAGMA synchronous = FULL")
        local.database.executescript(SCHEMA)
    return local.database


def failed(status, code, message):
    return jsonify(error={"code": code, "message": message}), status


def has_list(name):
    return database().execute("SELECT 1 FROM lists WHERE name = ?", (name,)).fetchone() is not None


@app.post("/api/v1/lists")
def post_list():
    name = (request.get_json(silent=True) or {}).get("name")
    if not isinstance(name, str) or not name:
        return failed(422, "invalid", "name: it is empty")
    done = database().execute("INSERT INTO lists VALUES (?) ON CONFLICT DO NOTHING", (name,))
    if done.rowcount != 1:
        return failed(403, "exists", f"there is a list `{name}` already")
    return jsonify(name=name, contacts=[]), 201


@app.post("/api/v1/lists/<name>/contacts")
def post_contact(name):
    try:
        address = (request.get_json(silent=True) or {}).get("address", "")
        validate_email(address, check_deliverability=False)
    except EmailNotValidError as error:
        return failed(422, "invalid", f"address: {error}")
    if not has_list(name):
        return failed(404, "not_found", f"there is no list `{name}`")
    # Who is late need not wait for the disk.
    sql = "SELECT 1 FROM contacts WHERE list = ? AND key = ?"
    if database().execute(sql, (name, address.lower())).fetchone() is None:
        sql = "INSERT INTO contacts (list, key, address) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        if database().execute(sql, (name, address.lower(), address)).rowcount == 1:
            return jsonify(address=address), 201
    return failed(403, "exists", f"there is a contact `{address}` already")


@app.get("/api/v1/lists/<name>/contacts/<address>")
def get_contact(name, address):
    if not has_list(name):
        return failed(404, "not_found", f"there is no list `{name}`")
    sql = "SELECT address FROM contacts WHERE list = ? AND key = ?"
    found = database().execute(sql, (name, address.lower())).fetchone()
    if found is None:
        return failed(404, "not_found", f"there is no contact `{address}`")
    return jsonify(address=found[0])


@app.get("/healthz")
def healthz():
    return jsonify(ok=True)
