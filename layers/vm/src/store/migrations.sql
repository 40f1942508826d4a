-- VMs of this host. Times are microseconds since 1970; spec, failure, mappings and operation are JSON.
CREATE TABLE vms (
    id          TEXT    PRIMARY KEY,
    customer    TEXT    NOT NULL,
    spec        TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    failure     TEXT,
    backend     TEXT,
    slot        BIGINT  NOT NULL UNIQUE,
    mappings    TEXT    NOT NULL,
    boot_id     TEXT,
    unattended  BIGINT  NOT NULL,
    restarts    BIGINT  NOT NULL,
    started_at  BIGINT,
    generation  BIGINT  NOT NULL,
    created_at  BIGINT  NOT NULL,
    updated_at  BIGINT  NOT NULL,
    operation   TEXT
);
CREATE INDEX vms_customer ON vms (customer);

-- When a slot was let go: the one that rested longest is taken first, so that nothing old meets a new VM under its
-- address or its user.
CREATE TABLE vm_slots (
    slot     BIGINT PRIMARY KEY,
    freed_at BIGINT NOT NULL
);

-- Ports of the host that lead to a VM.
CREATE TABLE vm_ports (
    protocol  TEXT   NOT NULL,
    host_port BIGINT NOT NULL,
    vm_id     TEXT   NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    PRIMARY KEY (protocol, host_port)
);

CREATE TABLE vm_events (
    id       BIGINT PRIMARY KEY,
    vm_id    TEXT   NOT NULL,
    customer TEXT   NOT NULL,
    time     BIGINT NOT NULL,
    kind     TEXT   NOT NULL,
    state    TEXT   NOT NULL,
    message  TEXT   NOT NULL
);
CREATE INDEX vm_events_vm ON vm_events (vm_id, id);

-- What was asked under which key, so that a repeated request makes no second VM.
CREATE TABLE vm_keys (
    customer    TEXT   NOT NULL,
    key         TEXT   NOT NULL,
    fingerprint TEXT   NOT NULL,
    vm_id       TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    PRIMARY KEY (customer, key)
);

CREATE TABLE vm_assets (
    name       TEXT   PRIMARY KEY,
    kind       TEXT   NOT NULL,
    sha256     TEXT   NOT NULL,
    size       BIGINT NOT NULL,
    created_at BIGINT NOT NULL
);
