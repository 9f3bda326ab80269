-- Of the key that a host enrolled with, until it has connected: so long it may ask for its certificate again.
ALTER TABLE hosts ADD COLUMN enrolment_key BYTEA;
CREATE UNIQUE INDEX hosts_awaited ON hosts (join_token, enrolment_key) WHERE enrolment_key IS NOT NULL;
