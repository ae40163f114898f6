-- Backups: what was begun, what is good, where its copies are, what drills said of it.
-- `manifest` is the very text that stands beside the artefacts: either gives the other back.

create table datops.backups (
    backup_id          text primary key,
    name               text not null,
    kind               text not null check (kind in ('logical', 'full', 'incremental')),
    state              text not null check (state in ('running', 'complete', 'failed', 'pruned')),
    database           text not null,              -- host:port/database; no user, no password
    parent             text references datops.backups,
    started_at         timestamptz not null,
    snapshot_at        timestamptz,                -- what was committed by then is in it
    finished_at        timestamptz,
    system_identifier  numeric(20),
    timeline           integer,
    start_lsn          pg_lsn,
    end_lsn            pg_lsn,
    server_version     integer,
    stored_bytes       bigint,
    plain_bytes        bigint,
    whole              text,                       -- SHA-256 of the manifest, which has those of all artefacts
    manifest           text,
    reason             text,
    who                text not null,
    why                text not null,
    check (state not in ('complete') or (whole is not null and manifest is not null and finished_at is not null))
);
create index on datops.backups (name, started_at);

create table datops.backup_copies (
    backup_id    text not null references datops.backups,
    destination  text not null,
    state        text not null check (state in ('there', 'failed')),
    reason       text,
    verified     boolean,                          -- what the last look found
    verified_at  timestamptz,
    primary key (backup_id, destination)
);

create table datops.backup_drills (
    drill_id     bigint generated always as identity primary key,
    backup_id    text not null references datops.backups,
    started_at   timestamptz not null,
    finished_at  timestamptz not null default clock_timestamp(),
    passed       boolean not null,
    rto_s        double precision,                 -- from the first byte fetched to the database answering
    rpo_s        double precision,                 -- what would have been lost at the worst moment
    findings     jsonb not null,
    measured     jsonb not null
);
create index on datops.backup_drills (backup_id, finished_at);
