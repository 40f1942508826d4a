CREATE TABLE machine_deployments (
    id            TEXT PRIMARY KEY,
    machine       TEXT NOT NULL,
    configuration TEXT NOT NULL,
    reference     TEXT NOT NULL,
    progress      TEXT NOT NULL,
    phase         TEXT NOT NULL,
    started_at    TEXT NOT NULL,
    ended_at      TEXT,
    outcome       TEXT,
    reason        TEXT NOT NULL DEFAULT '',
    log           TEXT NOT NULL DEFAULT ''
);
-- Ids sort by the time they were made.
CREATE INDEX machine_deployments_by_machine ON machine_deployments (machine, id);
-- A machine has one deployment at a time that has not ended.
CREATE UNIQUE INDEX machine_deployments_running ON machine_deployments (machine) WHERE ended_at IS NULL;

CREATE TABLE machine_quarantine (
    machine    TEXT NOT NULL,
    system     TEXT NOT NULL,
    reason     TEXT NOT NULL,
    deployment TEXT NOT NULL,
    since      TEXT NOT NULL,
    PRIMARY KEY (machine, system)
);

CREATE TABLE machine_host_keys (
    machine    TEXT PRIMARY KEY,
    host_key   TEXT NOT NULL,
    first_seen TEXT NOT NULL
);
