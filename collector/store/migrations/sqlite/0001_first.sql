-- Times are microseconds since the Unix epoch. Kinds, verdicts and the like are the numbers of src/encoding.rs.
-- Item keys may be 64 KiB long: items are found by fingerprint, and keys are never indexed.

-- Counters of the logs, and how far each reader of them has come.
CREATE TABLE cursors (
    name TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO cursors (name, position) VALUES
    ('changes', 0), ('judged', 0), ('drift', 0), ('drift_log', 0), ('gaps', 0), ('assignments', 0), ('probe', 0);

CREATE TABLE kept (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    kind INTEGER NOT NULL,
    role INTEGER NOT NULL,
    name TEXT NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    uses_left INTEGER,
    revoked_at INTEGER
) STRICT;

CREATE TABLE baselines (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    origin INTEGER NOT NULL,
    closed TEXT NOT NULL,
    items INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    UNIQUE (tenant, name, version)
) STRICT;

CREATE TABLE baseline_items (
    baseline INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    kind INTEGER NOT NULL,
    key TEXT NOT NULL,
    absent INTEGER NOT NULL,
    fields BLOB,
    PRIMARY KEY (baseline, fingerprint)
) STRICT, WITHOUT ROWID;

CREATE TABLE hosts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    facts TEXT NOT NULL,
    status TEXT NOT NULL,
    agent_version TEXT,
    join_token INTEGER NOT NULL,
    enrolled_at INTEGER NOT NULL,
    last_seen_at INTEGER,
    revoked_at INTEGER,
    epoch INTEGER NOT NULL,
    acknowledged INTEGER NOT NULL,
    link BLOB NOT NULL,
    inventory_at INTEGER,
    -- The epoch of that inventory: of an older one, the present epoch's is still under way.
    inventory_epoch INTEGER,
    -- Items present: counted at each end of an inventory, kept by difference in between.
    items INTEGER NOT NULL,
    baseline INTEGER REFERENCES baselines (id),
    -- A comparison with the baseline is due while the first is greater.
    generation INTEGER NOT NULL,
    compared_generation INTEGER NOT NULL
) STRICT;
CREATE INDEX hosts_by_name ON hosts (tenant, name);
CREATE INDEX hosts_by_baseline ON hosts (baseline) WHERE baseline IS NOT NULL;
CREATE INDEX hosts_to_compare ON hosts (uuid) WHERE generation > compared_generation;
CREATE INDEX hosts_revoked ON hosts (revoked_at) WHERE revoked_at IS NOT NULL;

CREATE TABLE certificates (
    serial TEXT PRIMARY KEY,
    host INTEGER NOT NULL REFERENCES hosts (id),
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX certificates_by_host ON certificates (host);

-- The present state of every item. Present 1; 0: it is gone, and stays for its history; 2: it is in view no longer, and
-- the fields are the last that were known.
CREATE TABLE items (
    id INTEGER PRIMARY KEY,
    host INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    kind INTEGER NOT NULL,
    key TEXT NOT NULL,
    present INTEGER NOT NULL,
    fields BLOB,
    observed_at INTEGER NOT NULL,
    -- The epoch that last spoke of it: at the end of an inventory older ones are gone.
    epoch INTEGER NOT NULL,
    UNIQUE (host, fingerprint)
) STRICT;

-- The log. No foreign keys and few indexes: this is what ingest writes most.
CREATE TABLE changes (
    position INTEGER PRIMARY KEY,
    host INTEGER NOT NULL,
    item INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    observed_at INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX changes_by_host ON changes (host, position);
CREATE INDEX changes_by_item ON changes (item, position);

-- Judgements of a run of consecutive changes, as one row: see src/judgements.rs.
CREATE TABLE judgements (
    first INTEGER PRIMARY KEY,
    last INTEGER NOT NULL,
    -- Bit (1 << verdict) for each verdict in the run.
    verdicts INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;

-- Changes judged, by the minute in which they were received.
CREATE TABLE tallies (
    tenant TEXT NOT NULL,
    minute INTEGER NOT NULL,
    verdict INTEGER NOT NULL,
    changes INTEGER NOT NULL,
    PRIMARY KEY (tenant, minute, verdict)
) STRICT, WITHOUT ROWID;

CREATE TABLE drift (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    host INTEGER NOT NULL,
    item INTEGER NOT NULL,
    field TEXT NOT NULL,
    expected BLOB,
    actual BLOB,
    verdict INTEGER NOT NULL,
    severity INTEGER NOT NULL,
    drift_type INTEGER NOT NULL,
    reasons TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    resolved_at INTEGER,
    change INTEGER,
    resolved_by INTEGER,
    acknowledged_at INTEGER,
    acknowledged_by TEXT,
    acknowledged_note TEXT
) STRICT;
CREATE UNIQUE INDEX drift_open_by_item ON drift (item, field) WHERE resolved_at IS NULL;
CREATE INDEX drift_open_by_host ON drift (host, id) WHERE resolved_at IS NULL;
CREATE INDEX drift_open_by_tenant ON drift (tenant, id) WHERE resolved_at IS NULL;

CREATE TABLE drift_log (
    place INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    drift INTEGER NOT NULL,
    event INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;

CREATE TABLE gaps (
    id INTEGER PRIMARY KEY,
    host INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX gaps_by_host ON gaps (host, id);

CREATE TABLE actions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT
) STRICT;
CREATE INDEX actions_by_tenant ON actions (tenant, id);
