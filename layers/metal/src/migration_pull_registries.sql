-- Registries elsewhere: who pulls there, and who signs their certificates.
CREATE TABLE pull_registries (
    host            TEXT   NOT NULL PRIMARY KEY,
    username        TEXT,
    sealed_password TEXT,
    ca_pem          TEXT,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    CHECK ((username IS NULL) = (sealed_password IS NULL))
);
