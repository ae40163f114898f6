-- The log between backups: every file of it that destinations keep. Their names at a destination say the same.

create table datops.backup_wal (
    name          text not null,                  -- of the backups
    file          text not null,                  -- at the destinations
    segment       text not null,
    partial       boolean not null,
    timeline      integer not null,
    covered       pg_lsn not null,                -- the log is in it up to here
    until_at      timestamptz,                    -- what was committed by then is in it, or before it; not known for all
    stored_bytes  bigint not null,
    destinations  text[] not null,
    received_at   timestamptz not null default clock_timestamp(),
    primary key (name, file)
);
create index on datops.backup_wal (name, covered);
