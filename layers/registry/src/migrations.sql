-- Who did what. Ids are given by the one writer, in the order of the events.
CREATE TABLE registry_audit (
    id         BIGINT PRIMARY KEY,
    time       BIGINT NOT NULL,
    user_name  TEXT   NOT NULL,
    client     TEXT   NOT NULL,
    action     TEXT   NOT NULL,
    repository TEXT,
    reference  TEXT,
    digest     TEXT,
    size       BIGINT
);
CREATE INDEX registry_audit_time ON registry_audit (time);
CREATE INDEX registry_audit_action ON registry_audit (action, id);

-- Collections, retention and checks that changed something or tried to.
CREATE TABLE registry_runs (
    id      BIGINT PRIMARY KEY,
    kind    TEXT   NOT NULL,
    begun   BIGINT NOT NULL,
    ended   BIGINT NOT NULL,
    outcome TEXT   NOT NULL CHECK (outcome IN ('done', 'failed')),
    detail  TEXT   NOT NULL
);

-- What an operator has switched at run time.
CREATE TABLE registry_switches (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
