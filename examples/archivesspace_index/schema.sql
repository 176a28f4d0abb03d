-- What a finding aid shows of an archival object. The URI is what the delete feed has of one that is gone.
CREATE SCHEMA discovery;

CREATE TABLE discovery.archival_object (
    uri text PRIMARY KEY,
    title text NOT NULL,
    level text NOT NULL,
    modified timestamptz NOT NULL,
    subjects text[] NOT NULL
);
