-- Change data capture: where each stream is, and what its tables looked like when it got there.
-- A stream's place moves in the same transaction as the rows that it has applied.

create table datops.streams (
    stream_id          bigint generated always as identity primary key,
    source             text not null unique,
    slot               text not null,
    publication        text not null,
    state              text not null check (state in ('new', 'snapshot', 'streaming', 'resync_required')),
    reason             text,                       -- why a resync is required
    system_identifier  bigint,
    timeline           integer,
    snapshot_lsn       pg_lsn,
    applied_lsn        pg_lsn,                     -- end of the last transaction that is in the warehouse
    applied_commit_at  timestamptz,                -- when the source committed it
    changes            bigint not null default 0,  -- applied since the snapshot
    updated_at         timestamptz not null default clock_timestamp()
);

create table datops.stream_tables (
    stream_id      bigint not null references datops.streams on delete cascade,
    table_id       bigint not null references datops.tables,
    schema_name    text not null,
    table_name     text not null,
    oid            oid not null,
    columns        jsonb not null,   -- [{"name", "type", "key"}] in the source's order
    snapshot_rows  bigint,
    primary key (stream_id, table_id)
);
