CREATE TABLE vm_tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- None: an operator's.
    customer TEXT,
    -- SHA-256 of the secret, hexadecimal. The secret has 256 random bits, so nothing slower is needed.
    hash TEXT NOT NULL,
    -- Microseconds since 1970.
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    revoked_at BIGINT
);
