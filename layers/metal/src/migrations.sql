CREATE TABLE servers (
    serial          TEXT    NOT NULL PRIMARY KEY,
    spec            TEXT    NOT NULL,
    sealed_password TEXT    NOT NULL,
    labels          TEXT    NOT NULL,
    generation      BIGINT  NOT NULL,
    detected_vendor TEXT,
    last_seen       BIGINT,
    power           TEXT,
    created_at      BIGINT  NOT NULL,
    updated_at      BIGINT  NOT NULL
);

-- No foreign key to servers: the history of a server outlives its record.
CREATE TABLE jobs (
    id                  TEXT   NOT NULL PRIMARY KEY,
    server_serial       TEXT   NOT NULL,
    status              TEXT   NOT NULL CHECK (status IN ('queued', 'provisioning', 'succeeded', 'failed', 'complete')),
    phase               TEXT   NOT NULL,
    reason              TEXT   NOT NULL,
    attempt             BIGINT NOT NULL,
    outcome             TEXT   CHECK (outcome IN ('succeeded', 'failed', 'cancelled')),
    failed_step         TEXT,
    failed_code         TEXT,
    failed_detail       TEXT,
    recipe              TEXT   NOT NULL,
    task_target         TEXT   NOT NULL,
    artifact            TEXT,
    task_iso            TEXT,
    cancel_requested    BIGINT NOT NULL DEFAULT 0,
    power_touched       BIGINT NOT NULL DEFAULT 0,
    media_touched       BIGINT NOT NULL DEFAULT 0,
    reported            BIGINT NOT NULL DEFAULT 0,
    ended_at            BIGINT,
    first_contact_at    BIGINT,
    first_boot          TEXT   NOT NULL,
    first_boot_at       BIGINT,
    first_boot_deadline BIGINT,
    power               TEXT,
    power_seen_at       BIGINT,
    phase_started_at    BIGINT NOT NULL,
    created_at          BIGINT NOT NULL,
    updated_at          BIGINT NOT NULL,
    picked_at           BIGINT,
    worker_id           TEXT,
    lease_expires_at    BIGINT,
    idempotency_key     TEXT
);

-- One active job per server, whoever asks.
CREATE UNIQUE INDEX jobs_active ON jobs (server_serial) WHERE status <> 'complete';
CREATE UNIQUE INDEX jobs_idempotency ON jobs (server_serial, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_status ON jobs (status);

CREATE TABLE job_events (
    job_id  TEXT   NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    seq     BIGINT NOT NULL,
    time    BIGINT NOT NULL,
    level   TEXT   NOT NULL CHECK (level IN ('info', 'warn', 'error')),
    message TEXT   NOT NULL,
    step    TEXT,
    PRIMARY KEY (job_id, seq)
);

CREATE TABLE webhook_deliveries (
    job_id      TEXT   NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    delivery_id TEXT   NOT NULL,
    received_at BIGINT NOT NULL,
    PRIMARY KEY (job_id, delivery_id)
);
